# SPDX-License-Identifier: BSD-3-Clause
"""Bursts: an array and a ring held together, for calls that cost little more than the C function."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, NoReturn

from eal._methods import BurstCalls
from eal.errors import Invalid

if TYPE_CHECKING:
    import numpy as np

    from eal.ring.ring import Ring


class Burst(BurstCalls):
    """An array whose memory is held, so that a call costs hardly more than the C function.

    `array` is uint32, uint64, or uint8 of shape `(n, elem_size)`. `enqueue(n, start=0)` puts in up to `n` of its
    elements from `start` on, `dequeue()` fills it from its start with as many as there are; both give how many.
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
        ring._lend(self)

    def _not_done(self, part: tuple[int, int] | None, code: int) -> NoReturn:
        """Raises what a refused enqueue of `part` (n, start) or dequeue (None) calls for."""
        self.ring._open()
        if code == -errno.ERANGE and part is not None:
            n, start = part
            raise Invalid(f"elements {start} to {start + n} of a burst of {self.n}")
        self.ring._raise(code)
