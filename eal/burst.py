"""Bursts: an array and a ring held together, for calls that cost little more than the C function."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from eal._native import ffi, lib
from eal.errors import Invalid
from eal.handle import OVER, own

if TYPE_CHECKING:
    import numpy as np

    from eal.ring import Ring

# Looked up once: an attribute of `lib` takes a fifth of the time that a call through it takes.
_enqueue_all, _dequeue_all, _enqueue_part = (
    lib.ivs_held_enqueue_burst,
    lib.ivs_held_dequeue_burst,
    lib.ivs_held_enqueue_part,
)


def hold(ring: Any, array: Any, n: int) -> Any:
    """A ring's C handle and an array of `n` elements as the one argument of a call; keeps both."""
    held = ffi.new("struct ivs_held *", [ring, ffi.cast("unsigned char *", array), n])
    return own(held, held, ring, array)


def _shut(code: int) -> Any:
    ring = ffi.new("struct ivs_ring *")
    lib.ivs_ring_refuse(ring, -code)
    return ring


# What a ring that is over has for a handle, by errno: every operation on it is refused before it looks at anything.
SHUT = {code: _shut(code) for code in OVER}
SHUT_HELD = {code: hold(ring, ffi.NULL, 0xFFFF_FFFF) for code, ring in SHUT.items()}


class Burst:
    """An array whose pointer is held, so that a call costs hardly more than the C function.

    `array` is uint32, uint64, or uint8 of shape `(n, elem_size)`.
    """

    def __init__(self, ring: Ring, n: int) -> None:
        import numpy as np

        if n < 1:
            raise Invalid(f"a burst of {n} elements: at least 1 is needed")
        if ring.elem_size == 4:
            self.array: np.ndarray[Any, Any] = np.zeros(n, np.uint32)
        elif ring.elem_size == 8:
            self.array = np.zeros(n, np.uint64)
        else:
            self.array = np.zeros((n, ring.elem_size), np.uint8)
        self.ring = ring
        self.n = n
        pointer = ffi.from_buffer("unsigned char[]", self.array, require_writable=True)
        self._held = hold(ring._ring, pointer, n)
        ring._bursts.add(self)

    def enqueue(self, n: int, start: int = 0) -> int:
        """Puts in up to `n` elements of `array` from element `start` on; gives how many."""
        if n == self.n and start == 0:
            result: int = _enqueue_all(self._held)
        else:
            result = self._enqueue_part(n, start)
        return result if result >= 0 else self.ring._done(result)

    def _enqueue_part(self, n: int, start: int) -> int:
        try:
            result: int = _enqueue_part(self._held, n, start)
        except OverflowError:
            result = -errno.ERANGE
        if result == -errno.ERANGE:
            raise Invalid(f"elements {start} to {start + n} of a burst of {self.n}")
        return result

    def dequeue(self) -> int:
        """Fills `array` from its start with as many elements as there are; gives how many."""
        result: int = _dequeue_all(self._held)
        return result if result >= 0 else self.ring._done(result)
