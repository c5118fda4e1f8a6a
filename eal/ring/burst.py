# SPDX-License-Identifier: BSD-3-Clause
"""Bursts: a preallocated array for one ring, so that a call costs little more than the C function."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, NoReturn

from eal._methods import BurstCalls
from eal.errors import Invalid
from eal.ring.handle import RingHandle

if TYPE_CHECKING:
    import numpy as np


class Burst(BurstCalls):
    """An array whose memory the C methods hold, so that a call costs little more than the C function.

    `array` is uint32, uint64, or uint8 of shape `(n, elem_size)`. `enqueue(n, start=0)` enqueues up to `n` of its
    elements from index `start`; `dequeue()` fills it from index 0. Both return the number of elements.
    (DPDK: rte_ring_enqueue_burst_elem, rte_ring_dequeue_burst_elem)
    """

    def __init__(self, handle: RingHandle, n: int) -> None:
        import numpy as np

        if n < 1:
            raise Invalid(f"ring {handle.name!r}: the size of a burst must be at least 1, got {n}")
        elem_size = handle.info.elem_size
        if elem_size == 4:
            self.array: np.ndarray[Any, Any] = np.zeros(n, np.uint32)
        elif elem_size == 8:
            self.array = np.zeros(n, np.uint64)
        else:
            self.array = np.zeros((n, elem_size), np.uint8)
        self.n = n
        self._handle = handle
        handle.serve(self, self.array)

    def _raise_refusal(self, part: tuple[int, int] | None, code: int) -> NoReturn:
        """Raise the exception of a refused enqueue of `part` (n, start), or of a refused dequeue (None)."""
        self._handle.open()
        if code == -errno.ERANGE and part is not None:
            n, start = part
            raise Invalid(
                f"ring {self._handle.name!r}: elements {start} to {start + n} are outside a burst of {self.n} elements"
            )
        self._handle.fail(code)
