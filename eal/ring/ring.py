# SPDX-License-Identifier: BSD-3-Clause
"""Rings: bounded queues of fixed-size elements in shared memory (DPDK: struct rte_ring)."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Any, NoReturn

from eal._methods import RingCalls
from eal._native import lib
from eal.errors import Invalid, InvalidType
from eal.ring.arrays import ArrayOperations
from eal.ring.burst import Burst
from eal.ring.format import RingFlag
from eal.ring.handle import RingHandle
from eal.ring.headtail import HeadTail, read_headtail, rollback
from eal.ring.settings import RingSettings
from eal.ring.zero_copy import CONSUMER, PRODUCER, ZeroCopy

if TYPE_CHECKING:
    from eal.memory.memzone import Memzone

_WAIT_SLICE = 0.05  # seconds that C waits at a time, so that Ctrl-C is noticed
_HEADER_SIZE: int = lib.IVS_RING_HEADER_SIZE  # bytes before the first element


class Ring(ArrayOperations, RingSettings, RingCalls):
    """A ring (DPDK: struct rte_ring). Full and empty are return values, never exceptions.

    Elements have `elem_size` bytes. Single values are ints if that is 4 or 8, bytes-like otherwise. Arrays are
    C-contiguous buffers whose first axis counts elements of exactly `elem_size` bytes, of any dtype.

    Operations raise Stalled if a peer began an operation on an MT, RTS or HTS side and does not finish within
    `stall_timeout`, Denied on a read-only share, Closed after the Eal was closed. They release the GIL, except short
    ones on an ST side (SP_ENQ, SC_DEQ), which do not wait. Only one thread of all processes may use an ST side at once.

    `enqueue(value)` enqueues one element: False if the ring is full (DPDK: rte_ring_enqueue_elem). It raises Invalid
    for a value that is not an element. `dequeue()` dequeues one: None if the ring is empty (rte_ring_dequeue_elem).
    """

    def __init__(self, zone: Memzone, name: str, stall_timeout: float) -> None:
        """Attach to the ring in `zone`. Raise Corrupt with the reason if validation fails."""
        self._handle = RingHandle(zone, name, stall_timeout)
        info = self._handle.info
        self.memzone = zone
        self.name = name
        self.elem_size: int = info.elem_size
        self.size: int = info.size
        self.capacity: int = info.capacity
        self.flags = RingFlag(info.flags)
        self._handle.serve(self)

    # --- state --------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Number of elements in the ring (DPDK: rte_ring_count)."""
        n: int = lib.ivs_call_count(self._handle.open())
        return n

    @property
    def free_count(self) -> int:
        """Number of elements that fit (DPDK: rte_ring_free_count)."""
        return self.capacity - self.count

    @property
    def full(self) -> bool:
        return self.count == self.capacity

    @property
    def empty(self) -> bool:
        return self.count == 0

    def __len__(self) -> int:
        return self.count

    def __bool__(self) -> bool:
        return True  # an empty ring is still truthy

    @property
    def handle(self) -> int:
        """The address of the C handle, for eal.jit and for C code in this process.

        It stays valid, and the pages mapped, as long as this object lives: after close() the C core refuses calls with
        it. Raises Closed.
        """
        self._lent = self._handle.open()
        return self._handle.address

    # --- refused operations on one element (eal._methods has enqueue and dequeue) --------------------------

    def _raise_refusal(self, value: Any, code: int) -> NoReturn:
        """Raise the exception of a refused enqueue of `value`, or of a refused dequeue."""
        self._handle.open()
        if code == -errno.EINVAL:
            self._refuse_element(value)
        self._handle.fail(code, {errno.ERANGE: f"{value} does not fit in {self.elem_size} bytes"})

    def _refuse_element(self, value: Any) -> NoReturn:
        try:
            view = memoryview(value)
        except TypeError as error:
            kind = "an int" if self.elem_size in (4, 8) else "bytes-like"
            raise InvalidType(f"ring {self.name!r}: an element must be {kind}, got {type(value).__name__}") from error
        if not view.c_contiguous:
            raise InvalidType(f"ring {self.name!r}: an element must be a C-contiguous buffer")
        raise Invalid(f"ring {self.name!r}: an element must have {self.elem_size} bytes, got {view.nbytes}")

    # --- bursts and zero-copy -----------------------------------------------------------------------------

    def burst(self, n: int) -> Burst:
        """Return a preallocated array of `n` elements for this ring, for the cheapest calls."""
        return Burst(self._handle, n)

    def enqueue_zc(self, n: int, *, bulk: bool = False) -> ZeroCopy:
        """Return a context manager that reserves up to `n` slots (with `bulk` all or none) to be written in place.

        On ST and HTS sides; on others entering raises Invalid. Inside the block other operations on that side raise
        InUse (ST) or wait (HTS). (DPDK: rte_ring_enqueue_zc_{burst,bulk}_elem_start)
        """
        return ZeroCopy(self._handle, PRODUCER, n, bulk)

    def dequeue_zc(self, n: int, *, bulk: bool = False) -> ZeroCopy:
        """Return a context manager that provides up to `n` elements (with `bulk` all or none) in place
        (rte_ring_dequeue_zc_{burst,bulk}_elem_start); with a `commit` of fewer it is a peek
        (rte_ring_dequeue_{burst,bulk}_elem_start). Raises as `enqueue_zc`.
        """
        return ZeroCopy(self._handle, CONSUMER, n, bulk)

    # --- wait, reset --------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the ring is not empty: spin, then sleep with backoff. Return False after `timeout` seconds.

        None waits without limit. Ctrl-C interrupts. Raises Closed when the ring is closed in the meantime.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _WAIT_SLICE if deadline is None else min(_WAIT_SLICE, deadline - time.monotonic())
            if lib.ivs_ring_wait(self._handle.open(), max(int(left * 1e9), 0)):
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False

    def reset(self) -> None:
        """Empty the ring (DPDK: rte_ring_reset). Not while other participants use it."""
        self._handle.check(lib.ivs_ring_reset(self._handle.pointer))

    # --- diagnostics and recovery -------------------------------------------------------------------------

    def end(self, role: str) -> HeadTail:
        """Return the "producer" or "consumer" side. Raise Closed."""
        return read_headtail(self._handle.open(), role)

    def elements(self) -> list[int]:
        """Return a snapshot of the queued 4-byte elements, oldest first."""
        first = self.end("consumer").tail
        memory = self.memzone.buf[_HEADER_SIZE:].cast("I")
        return [memory[(first + i) % self.size] for i in range(self.count)]

    def undo(self, role: str, seen: HeadTail) -> bool:
        """Roll back an incomplete operation on an ST side (eal.ring.recovery). Return False if it is not as `seen`."""
        return self._handle.check(rollback(self._handle.open(), role, seen)) == 1

    def refuse(self, code: int) -> None:
        """Make every operation fail with this errno."""
        self._handle.refuse(code)

    def close(self, code: int = errno.ESHUTDOWN) -> None:
        """Make every operation raise Closed, Detached (ENODEV) or Stale (ESTALE); release the pages. Repeatable."""
        self._handle.close(code)

    def __repr__(self) -> str:
        return f"<Ring {self.name!r} {self.capacity} elements of {self.elem_size} bytes>"
