# SPDX-License-Identifier: BSD-3-Clause
"""Zero-copy: write and read elements of a ring in place."""

from __future__ import annotations

import errno
from types import TracebackType
from typing import TYPE_CHECKING, Any

from eal._native import ffi, lib
from eal.errors import Closed, Detached, Invalid, Stale
from eal.ring.handle import RingHandle

if TYPE_CHECKING:
    import numpy as np

PRODUCER: int = lib.IVS_PRODUCER
CONSUMER: int = lib.IVS_CONSUMER

_TERMINAL = (Closed, Detached, Stale)
_TEXTS = {
    errno.ENOTSUP: "zero-copy needs a side of sync type ST (SP_ENQ, SC_DEQ) or HTS, where one thread at a time works",
}


class ZeroCopy:
    """Up to `n` reserved slots or elements, as numpy views of the ring's memory, for the duration of a `with` block
    (DPDK: struct rte_ring_zc_data).

    `n` is the number that was reserved (0: the ring is full or empty), `left` the number that remains. `first` and
    `second` are the two parts, before and after the wrap: uint32, uint64, or uint8 of shape `(k, elem_size)`.
    `commit(k)` completes the first `k`; without it the end of the block commits all, and an exception commits none. The
    views are invalid after the block.
    """

    first: np.ndarray[Any, Any]
    second: np.ndarray[Any, Any]

    def __init__(self, handle: RingHandle, role: int, n: int, bulk: bool) -> None:
        if not isinstance(n, int) or not 0 <= n < 1 << 32:
            raise Invalid(f"ring {handle.name!r}: the number of elements must be an int from 0 to 2**32 - 1, got {n!r}")
        self.n = self.left = 0
        self._ring = handle
        self._role = role
        self._wanted = n
        self._behavior = lib.IVS_BULK if bulk else lib.IVS_BURST
        self._pointer: Any = None  # the C handle inside the block

    def __enter__(self) -> ZeroCopy:
        if self._pointer is not None:
            raise Invalid(f"ring {self._ring.name!r}: this zero-copy operation is already in progress")
        pointer = self._ring.open()
        place = ffi.new("struct ivs_ring_zc *")
        left = ffi.new("uint32_t *")
        got = lib.ivs_call_zc_start(pointer, self._role, self._wanted, self._behavior, place, left)
        if got < 0:
            self._ring.fail(got, _TEXTS)
        self.n, self.left = got, left[0]
        self._pointer = pointer
        try:
            self.first, self.second = self._view(place.first, place.n1), self._view(place.second, place.n2)
        except _TERMINAL:  # closed by another thread in between
            self._finish(0)
            raise
        return self

    def _view(self, pointer: Any, n: int) -> np.ndarray[Any, Any]:
        import numpy as np

        size = self._ring.info.elem_size
        zone = self._ring.zone
        at = int(ffi.cast("uintptr_t", pointer)) - zone.address if n else 0
        raw = np.frombuffer(zone.buf[at : at + n * size], np.uint8)
        return raw.view({4: np.uint32, 8: np.uint64}[size]) if size in (4, 8) else raw.reshape(n, size)

    def commit(self, k: int) -> None:
        """End the operation: the first `k` elements are enqueued or dequeued, the others stay as they were.

        Raise Invalid if `k` is more than were reserved, or if the operation has ended.
        """
        if self._pointer is None:
            raise Invalid(f"ring {self._ring.name!r}: this zero-copy operation has ended, or was not entered")
        if not isinstance(k, int) or not 0 <= k <= self.n:
            raise Invalid(f"ring {self._ring.name!r}: commit must be from 0 to {self.n} reserved elements, got {k!r}")
        self._finish(k)

    def _finish(self, k: int) -> None:
        pointer, self._pointer = self._pointer, None
        self._ring.check(lib.ivs_call_zc_finish(pointer, self._role, k))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pointer is None:
            return
        try:
            self._finish(self.n if kind is None else 0)
        except _TERMINAL:
            if kind is None:
                raise
