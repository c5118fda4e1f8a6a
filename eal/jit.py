# SPDX-License-Identifier: BSD-3-Clause
"""Rings and mempools in functions that numba compiles: calls of the C core without Python in between.

Handles are integers: `ring.handle`, and the `pool.handle` of the calling thread. Arrays are C-contiguous numpy arrays;
another kind is rejected when the function is compiled. Compiled code raises no exception: every function returns the
number of elements or a negative errno, for which `check` raises the exception in Python.

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

# numba identifies a C function by the global that holds it.
_enqueue_bulk, _enqueue_burst = _native.lib.ivs_jit_enqueue_bulk, _native.lib.ivs_jit_enqueue_burst
_dequeue_bulk, _dequeue_burst = _native.lib.ivs_jit_dequeue_bulk, _native.lib.ivs_jit_dequeue_burst
_get_bulk, _put_bulk = _native.lib.ivs_jit_get_bulk, _native.lib.ivs_jit_put_bulk
_count = _native.lib.ivs_jit_count


def ring_enqueue_bulk(handle: int, array: Any, n: int) -> int:
    """Enqueue the first `n` elements of `array` or none; return `n` or 0 (DPDK: rte_ring_enqueue_bulk_elem)."""
    return _enqueue_bulk(handle, array.ctypes.data, array.nbytes, n)  # type: ignore[no-any-return]


def ring_enqueue_burst(handle: int, array: Any, n: int) -> int:
    """Enqueue as many of the first `n` elements of `array` as fit (DPDK: rte_ring_enqueue_burst_elem)."""
    return _enqueue_burst(handle, array.ctypes.data, array.nbytes, n)  # type: ignore[no-any-return]


def ring_dequeue_bulk(handle: int, array: Any, n: int) -> int:
    """Dequeue `n` elements to `array` or none; return `n` or 0 (DPDK: rte_ring_dequeue_bulk_elem)."""
    return _dequeue_bulk(handle, array.ctypes.data, array.nbytes, n)  # type: ignore[no-any-return]


def ring_dequeue_burst(handle: int, array: Any, n: int) -> int:
    """Dequeue up to `n` elements to `array` (DPDK: rte_ring_dequeue_burst_elem)."""
    return _dequeue_burst(handle, array.ctypes.data, array.nbytes, n)  # type: ignore[no-any-return]


def ring_count(handle: int) -> int:
    """Return the number of elements in the ring (DPDK: rte_ring_count)."""
    return _count(handle)  # type: ignore[no-any-return]


def mempool_get_bulk(handle: int, array: Any, n: int) -> int:
    """Allocate `n` objects into the uint32 `array` or none; return `n` or 0 (DPDK: rte_mempool_get_bulk)."""
    return _get_bulk(handle, array.ctypes.data, array.nbytes, n)  # type: ignore[no-any-return]


def mempool_put_bulk(handle: int, array: Any, n: int) -> int:
    """Free the objects in the first `n` places of the uint32 `array`; return `n` (DPDK: rte_mempool_put_bulk)."""
    return _put_bulk(handle, array.ctypes.data, array.nbytes, n)  # type: ignore[no-any-return]


def check(result: int, of: Ring | Mempool) -> int:
    """Return `result`, or raise the exception of a negative errno: Closed, Denied, Stalled, Invalid."""
    if result < 0:
        kind = "ring" if isinstance(of, Ring) else "mempool"
        result = of.memzone.map_errno(result)
        raise_for(
            result, kind, of.name, {errno.EINVAL: "the array is too short, or contains an index that is not allocated"}
        )
    return result


# --- registration with numba --------------------------------------------------------------------------------


def _check_array(name: str, array: Any, writes: bool, indices: bool) -> None:
    """Reject, at compile time, an array that C could not use."""
    if not isinstance(array, types.Array) or array.layout != "C":
        raise TypingError(f"{name}: the array must be C-contiguous, got {array}")
    if writes and not array.mutable:
        raise TypingError(f"{name}: the array is read-only")
    if indices and array.dtype != types.uint32:
        raise TypingError(f"{name}: indices must be a uint32 array, got {array}")


def _register_overload(function: Callable[[int, Any, int], int], *, writes: bool, indices: bool = False) -> None:
    """Register `function` for use in compiled code, where numba compiles it as written above."""

    # numba requires the same names and annotations here, though it passes types for the arguments.
    def choose(handle: int, array: Any, n: int) -> Callable[[int, Any, int], int]:
        _check_array(function.__name__, array, writes, indices)
        return function

    overload(function)(choose)


cffi_utils.register_module(_native)
_register_overload(ring_enqueue_bulk, writes=False)
_register_overload(ring_enqueue_burst, writes=False)
_register_overload(ring_dequeue_bulk, writes=True)
_register_overload(ring_dequeue_burst, writes=True)
_register_overload(mempool_get_bulk, writes=True, indices=True)
_register_overload(mempool_put_bulk, writes=False, indices=True)


@overload(ring_count)  # type: ignore[untyped-decorator]
def _ring_count(handle: int) -> Callable[[int], int]:
    return ring_count
