# SPDX-License-Identifier: BSD-3-Clause
"""Rings and mempools inside functions that numba compiles: calls of the C core that Python is no part of.

Handles are numbers: `ring.handle`, and the `pool.handle` of the thread that calls. Arrays are C-contiguous numpy
arrays; another kind is refused when the function is compiled. Compiled code raises nothing: every function gives the
number of elements, or a negative errno, which `check` turns into eal's exception back in Python.

The functions may be called from Python too. They need numba: pip install 'ivshmem[jit]'.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from eal import _native
from eal.errors import raise_for
from eal.mempool.mempool import Mempool
from eal.ring.ring import Ring

try:
    from numba import types
    from numba.core.errors import TypingError
    from numba.core.typing import cffi_utils
    from numba.extending import overload
except ImportError as missing:
    raise ImportError("eal.jit needs numba, which cannot be imported: pip install 'ivshmem[jit]'") from missing

__all__ = [
    "ring_enqueue_bulk", "ring_enqueue_burst", "ring_dequeue_bulk", "ring_dequeue_burst", "ring_count",
    "mempool_get_bulk", "mempool_put_bulk", "check",
]  # fmt: skip

# numba knows a C function by the global that holds it.
_enqueue_bulk, _enqueue_burst = _native.lib.ivs_jit_enqueue_bulk, _native.lib.ivs_jit_enqueue_burst
_dequeue_bulk, _dequeue_burst = _native.lib.ivs_jit_dequeue_bulk, _native.lib.ivs_jit_dequeue_burst
_get_bulk, _put_bulk = _native.lib.ivs_jit_get_bulk, _native.lib.ivs_jit_put_bulk
_count = _native.lib.ivs_jit_count


def ring_enqueue_bulk(handle: int, array: Any, n: int) -> int:
    """Puts the first `n` elements of `array` in, or none: gives `n` or 0 (DPDK: rte_ring_enqueue_bulk_elem)."""
    return _enqueue_bulk(handle, array.ctypes.data, array.nbytes, n)  # type: ignore[no-any-return]


def ring_enqueue_burst(handle: int, array: Any, n: int) -> int:
    """Puts in as many of the first `n` elements of `array` as fit (DPDK: rte_ring_enqueue_burst_elem)."""
    return _enqueue_burst(handle, array.ctypes.data, array.nbytes, n)  # type: ignore[no-any-return]


def ring_dequeue_bulk(handle: int, array: Any, n: int) -> int:
    """Takes `n` elements into `array`, or none: gives `n` or 0 (DPDK: rte_ring_dequeue_bulk_elem)."""
    return _dequeue_bulk(handle, array.ctypes.data, array.nbytes, n)  # type: ignore[no-any-return]


def ring_dequeue_burst(handle: int, array: Any, n: int) -> int:
    """Takes up to `n` elements into `array` (DPDK: rte_ring_dequeue_burst_elem)."""
    return _dequeue_burst(handle, array.ctypes.data, array.nbytes, n)  # type: ignore[no-any-return]


def ring_count(handle: int) -> int:
    """Elements in the ring now (DPDK: rte_ring_count)."""
    return _count(handle)  # type: ignore[no-any-return]


def mempool_get_bulk(handle: int, array: Any, n: int) -> int:
    """Takes `n` objects into the uint32 `array`, or none: gives `n` or 0 (DPDK: rte_mempool_get_bulk)."""
    return _get_bulk(handle, array.ctypes.data, array.nbytes, n)  # type: ignore[no-any-return]


def mempool_put_bulk(handle: int, array: Any, n: int) -> int:
    """Puts the objects in the first `n` places of the uint32 `array` back: gives `n`.

    (DPDK: rte_mempool_put_bulk)
    """
    return _put_bulk(handle, array.ctypes.data, array.nbytes, n)  # type: ignore[no-any-return]


def check(result: int, of: Ring | Mempool) -> int:
    """Gives `result` back, or raises what its negative errno means: Closed, Denied, Stalled, Invalid."""
    if result < 0:
        kind = "ring" if isinstance(of, Ring) else "mempool"
        result = of.memzone.map_errno(result)
        raise_for(result, kind, of.name, {errno.EINVAL: "the array is too short, or holds an index that is not out"})
    return result


# --- for numba ------------------------------------------------------------------------------------------------


def _check_array(name: str, array: Any, writes: bool, indices: bool) -> None:
    """Refuses, while a function is compiled, an array that C could not use."""
    if not isinstance(array, types.Array) or array.layout != "C":
        raise TypingError(f"{name}: a C-contiguous array is needed, not {array}")
    if writes and not array.mutable:
        raise TypingError(f"{name}: the array is read-only")
    if indices and array.dtype != types.uint32:
        raise TypingError(f"{name}: indices are a uint32 array, not {array}")


def _teach(function: Callable[[int, Any, int], int], *, writes: bool, indices: bool = False) -> None:
    """Tells numba that `function` may stand in compiled code, where it is compiled as it is written above."""

    # numba wants the same names and annotations here, though it passes its types for the arguments.
    def choose(handle: int, array: Any, n: int) -> Callable[[int, Any, int], int]:
        _check_array(function.__name__, array, writes, indices)
        return function

    overload(function)(choose)


cffi_utils.register_module(_native)
_teach(ring_enqueue_bulk, writes=False)
_teach(ring_enqueue_burst, writes=False)
_teach(ring_dequeue_bulk, writes=True)
_teach(ring_dequeue_burst, writes=True)
_teach(mempool_get_bulk, writes=True, indices=True)
_teach(mempool_put_bulk, writes=False, indices=True)


@overload(ring_count)  # type: ignore[untyped-decorator]
def _ring_count(handle: int) -> Callable[[int], int]:
    return ring_count
