# SPDX-License-Identifier: BSD-3-Clause
"""Operations of a ring on whole arrays: bulk and burst, with and without the remaining count."""

from __future__ import annotations

from typing import Any

from eal._native import ffi, lib
from eal.errors import Invalid, InvalidType
from eal.ring.handle import RingHandle
from eal.ring.zero_copy import CONSUMER, PRODUCER

# Looked up once: an attribute of `lib` takes a fifth of the time of a call.
_enqueue_bulk, _enqueue_burst = lib.ivs_call_enqueue_bulk, lib.ivs_call_enqueue_burst
_dequeue_bulk, _dequeue_burst = lib.ivs_call_dequeue_bulk, lib.ivs_call_dequeue_burst
_from_buffer, _CHARS = ffi.from_buffer, ffi.typeof("char[]")


class ArrayOperations:
    """Bulk and burst operations of a ring. Arrays are C-contiguous; the first axis counts elements."""

    name: str
    elem_size: int
    _handle: RingHandle

    def enqueue_bulk(self, array: Any) -> int:
        """Enqueue all elements or none; return their number or 0 (DPDK: rte_ring_enqueue_bulk_elem)."""
        return self._handle.check(_enqueue_bulk(self._handle.pointer, *self._elements(array)))

    def enqueue_burst(self, array: Any) -> int:
        """Enqueue as many elements as fit, from the first; return the number (DPDK: rte_ring_enqueue_burst_elem)."""
        return self._handle.check(_enqueue_burst(self._handle.pointer, *self._elements(array)))

    def dequeue_bulk(self, out: Any) -> int:
        """Fill `out` completely or not at all; return the number or 0 (DPDK: rte_ring_dequeue_bulk_elem)."""
        return self._handle.check(_dequeue_bulk(self._handle.pointer, *self._elements(out, True)))

    def dequeue_burst(self, out: Any) -> int:
        """Dequeue up to len(out) elements to `out`; return the number (DPDK: rte_ring_dequeue_burst_elem)."""
        return self._handle.check(_dequeue_burst(self._handle.pointer, *self._elements(out, True)))

    def enqueue_bulk_left(self, array: Any) -> tuple[int, int]:
        """As `enqueue_bulk`; return also the remaining free space (rte_ring_enqueue_bulk_elem's free_space)."""
        return self._move(PRODUCER, lib.IVS_BULK, *self._elements(array))

    def enqueue_burst_left(self, array: Any) -> tuple[int, int]:
        """As `enqueue_burst`; return also the remaining free space (rte_ring_enqueue_burst_elem's free_space)."""
        return self._move(PRODUCER, lib.IVS_BURST, *self._elements(array))

    def dequeue_bulk_left(self, out: Any) -> tuple[int, int]:
        """As `dequeue_bulk`; return also the remaining elements (rte_ring_dequeue_bulk_elem's available)."""
        return self._move(CONSUMER, lib.IVS_BULK, *self._elements(out, True))

    def dequeue_burst_left(self, out: Any) -> tuple[int, int]:
        """As `dequeue_burst`; return also the remaining elements (rte_ring_dequeue_burst_elem's available)."""
        return self._move(CONSUMER, lib.IVS_BURST, *self._elements(out, True))

    def _move(self, role: int, behavior: int, pointer: Any, n: int) -> tuple[int, int]:
        left = ffi.new("uint32_t *")
        return self._handle.check(lib.ivs_call_move(self._handle.pointer, role, pointer, n, behavior, left)), left[0]

    def _elements(self, array: Any, writable: bool = False) -> tuple[Any, int]:
        """Return a pointer to the elements of an array, and their number. Raise Invalid or InvalidType."""
        try:
            pointer = _from_buffer(_CHARS, array, writable)
        except (TypeError, ValueError, BufferError) as error:
            raise InvalidType(f"ring {self.name!r}: {_unusable(array, error)}") from error
        dtype = getattr(array, "dtype", None)
        if dtype is not None and dtype.hasobject:
            raise InvalidType(f"ring {self.name!r}: an array must not contain Python objects, got dtype {dtype}")
        n = len(array)
        if len(pointer) != n * self.elem_size:
            raise Invalid(
                f"ring {self.name!r}: {n} elements of {self.elem_size} bytes need {n * self.elem_size} bytes, the "
                f"array has {len(pointer)}"
            )
        return pointer, n


def _unusable(array: Any, error: Exception) -> str:
    if isinstance(array, list | tuple):
        return f"elements must be in a buffer such as a numpy array, got a {type(array).__name__}"
    return f"elements must be in a C-contiguous buffer: {error}"
