# SPDX-License-Identifier: BSD-3-Clause
"""Zero-copy: elements of a ring read and written where they lie."""

from __future__ import annotations

import errno
from types import TracebackType
from typing import TYPE_CHECKING, Any

from eal._native import ffi, lib
from eal.errors import Closed, Detached, Invalid, Stale, raise_for

if TYPE_CHECKING:
    import numpy as np

    from eal.ring.ring import Ring

PRODUCER: int = lib.IVS_PRODUCER
CONSUMER: int = lib.IVS_CONSUMER

_OVER = (Closed, Detached, Stale)
_TEXTS = {
    errno.ENOTSUP: "zero-copy needs an end of sync type ST (SP_ENQ, SC_DEQ) or HTS, where one thread is inside",
}


class ZeroCopy:
    """Up to `n` reserved slots or elements, as numpy views of the ring's own memory, while a `with` block lasts
    (DPDK: struct rte_ring_zc_data).

    `n` is how many were got (0: the ring is full or empty) and `left` how many there are beside them. `first` and
    `second` are where they lie: two pieces where they go over the ring's end, of uint32, uint64, or uint8 of shape
    `(k, elem_size)`. `commit(k)` says that the first `k` are done; without it the block's end commits all, and an
    exception none. The views mean nothing afterwards.
    """

    first: np.ndarray[Any, Any]
    second: np.ndarray[Any, Any]

    def __init__(self, ring: Ring, role: int, n: int, bulk: bool) -> None:
        if not isinstance(n, int) or not 0 <= n < 1 << 32:
            raise Invalid(f"ring {ring.name!r}: {n!r} elements cannot be reserved")
        self.n = self.left = 0
        self._ring = ring
        self._role = role
        self._wanted = n
        self._amount = lib.IVS_BULK if bulk else lib.IVS_BURST
        self._handle: Any = None  # while the block lasts

    def __enter__(self) -> ZeroCopy:
        if self._handle is not None:
            raise Invalid(f"ring {self._ring.name!r}: this zero-copy operation was begun already")
        handle = self._ring._open()
        place = ffi.new("struct ivs_ring_zc *")
        left = ffi.new("uint32_t *")
        got = lib.ivs_call_zc_start(handle, self._role, self._wanted, self._amount, place, left)
        if got < 0:
            raise_for(self._ring.memzone.map_errno(got), "ring", self._ring.name, _TEXTS)
        self.n, self.left = got, left[0]
        self._handle = handle
        try:
            self.first, self.second = self._piece(place.first, place.n1), self._piece(place.second, place.n2)
        except _OVER:  # by another thread, between
            self._finish(0)
            raise
        return self

    def _piece(self, pointer: Any, n: int) -> np.ndarray[Any, Any]:
        import numpy as np

        size = self._ring.elem_size
        zone = self._ring.memzone
        at = int(ffi.cast("uintptr_t", pointer)) - zone.address if n else 0
        raw = np.frombuffer(zone.buf[at : at + n * size], np.uint8)
        return raw.view({4: np.uint32, 8: np.uint64}[size]) if size in (4, 8) else raw.reshape(n, size)

    def commit(self, k: int) -> None:
        """Ends the operation: the first `k` are enqueued, or taken out; the others stay as they were.

        Raises Invalid for more than were got, or after the operation has ended.
        """
        if self._handle is None:
            raise Invalid(f"ring {self._ring.name!r}: this zero-copy operation has ended, or was not begun")
        if not isinstance(k, int) or not 0 <= k <= self.n:
            raise Invalid(f"ring {self._ring.name!r}: {k!r} of {self.n} reserved elements cannot be committed")
        self._finish(k)

    def _finish(self, k: int) -> None:
        handle, self._handle = self._handle, None
        result = lib.ivs_call_zc_finish(handle, self._role, k)
        if result < 0:
            raise_for(self._ring.memzone.map_errno(result), "ring", self._ring.name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is None:
            return
        try:
            self._finish(self.n if kind is None else 0)
        except _OVER:
            if kind is None:
                raise
