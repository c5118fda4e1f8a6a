# SPDX-License-Identifier: BSD-3-Clause
"""Rings: bounded queues of fixed-size elements in shared memory."""

from __future__ import annotations

import errno
import time
import weakref
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from eal._methods import RingCalls
from eal._native import ffi, lib
from eal.errors import TERMINAL_ERRNOS, Corrupt, Invalid, InvalidType, raise_for
from eal.linux import process
from eal.native_handle import fault_text, own
from eal.ring.burst import Burst
from eal.ring.format import RingFlag
from eal.ring.headtail import RING_HEADER, EndState, end_state, undo
from eal.ring.zero_copy import CONSUMER, PRODUCER, ZeroCopy

if TYPE_CHECKING:
    from eal.memory.memzone import Memzone

_NO_HTD_MAX = 0xFFFF_FFFF  # what the C core gives for an end that has none
_DUMP_ROOM = 1024  # bytes; a dump has a fixed number of lines
_WAIT_SLICE = 0.05  # seconds that C waits at a time, so that Ctrl-C is heard

# Looked up once: an attribute of `lib` takes a fifth of the time that a call through it takes.
_enqueue_bulk, _enqueue_burst = lib.ivs_call_enqueue_bulk, lib.ivs_call_enqueue_burst
_dequeue_bulk, _dequeue_burst = lib.ivs_call_dequeue_bulk, lib.ivs_call_dequeue_burst
_from_buffer, _CHARS = ffi.from_buffer, ffi.typeof("char[]")


def _shut(code: int) -> Any:
    ring = ffi.new("struct ivs_ring *")
    lib.ivs_ring_refuse(ring, -code)
    return ring


# What a ring that is over has for a handle, by errno: every operation on it is refused before it looks at anything.
SHUT = {code: _shut(code) for code in TERMINAL_ERRNOS}


def _no_array(array: Any, error: Exception) -> str:
    if isinstance(array, list | tuple):
        return "an array is a buffer such as a numpy array, not a list"
    return f"not a C-contiguous buffer that can be used: {error}"


class Ring(RingCalls):
    """A ring (DPDK: struct rte_ring). Full and empty are return values, never exceptions.

    Elements are `elem_size` bytes. Single values are ints where that is 4 or 8, bytes-like otherwise. Arrays are
    C-contiguous buffers whose first axis counts elements of exactly `elem_size` bytes, of any dtype.

    Operations raise Stalled where a peer at an MT, RTS or HTS end began and did not finish within `stall_timeout`,
    Denied on a read-only share, Closed after the Eal was closed. They release the GIL, but for short ones at an
    ST end (SP_ENQ, SC_DEQ), which do not wait. At such an end one thread at a time may work, whatever process it is in.

    `enqueue(value)` puts one element in: False where the ring is full (DPDK: rte_ring_enqueue_elem). It raises Invalid
    for a value that is not an element. `dequeue()` takes one out: None where the ring is empty (rte_ring_dequeue_elem).
    """

    def __init__(self, zone: Memzone, name: str, stall_timeout: float) -> None:
        """Attaches to the ring in `zone`. Raises Corrupt with the reason where there is none that is sound."""
        self.memzone = zone
        self.name = name
        info = ffi.new("struct ivs_ring_info *")
        memory = ffi.new("struct ivs_ring *")
        self._ring = own(memory, memory, zone.segment.mapping.view())
        self._bursts: weakref.WeakSet[Burst] = weakref.WeakSet()
        base = zone.segment.mapping.pointer(zone.offset)
        fault = lib.ivs_ring_attach(self._ring, base, zone.length, int(stall_timeout * 1e9), info)
        if fault:
            raise Corrupt(f"ring {name!r}: {fault_text(fault)}")
        found = ffi.string(info.name).decode(errors="replace")
        if found != name:
            raise Corrupt(f"ring {name!r}: the ring in its zone is called {found!r}")
        self._ring.owner = process.process_owner_word()
        self.elem_size: int = info.elem_size
        self.size: int = info.size
        self.capacity: int = info.capacity
        self.flags = RingFlag(info.flags)
        self._numbers = self.elem_size in (4, 8)
        self._over = 0  # why it cannot be used any more
        self._work(self._ring)
        if zone.readonly:
            self.refuse(errno.EACCES)

    # --- state --------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Elements in the ring now (DPDK: rte_ring_count)."""
        ring = self._open()
        n: int = lib.ivs_call_count(ring)
        return n

    def _open(self) -> Any:
        """The C handle. Raises Closed, Detached or Stale where there is none any more."""
        if self._over:
            raise_for(-self._over, "ring", self.name)
        return self._ring

    @property
    def handle(self) -> int:
        """The address of the C handle, for eal.jit and for C code in this process.

        Once asked for, it stays good as long as this object lives, and the pages with it: after close() calls with it
        are refused. Raises Closed.
        """
        self._lent = self._open()
        return int(ffi.cast("uintptr_t", self._lent))

    @property
    def free_count(self) -> int:
        """Elements that fit now (DPDK: rte_ring_free_count)."""
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
        return True  # a ring is a thing, not a container that is false when empty

    # --- one element: enqueue and dequeue are in native/fast.c ------------------------------------------------

    def _not_enqueued(self, value: int | Any, code: int) -> NoReturn:
        """Raises what a refused enqueue(value) calls for."""
        self._open()
        if code == -errno.EINVAL:
            self._refuse_element(value)
        self._raise(code, {errno.ERANGE: f"{value} does not fit {self.elem_size} bytes"})

    def _refuse_element(self, value: Any) -> NoReturn:
        try:
            view = memoryview(value)
        except TypeError as error:
            kind = "an int" if self._numbers else "bytes-like"
            raise InvalidType(f"ring {self.name!r}: an element is {kind}, not {type(value).__name__}") from error
        if not view.c_contiguous:
            raise InvalidType(f"ring {self.name!r}: an element is memory in one piece, this one is scattered")
        raise Invalid(f"ring {self.name!r}: an element has {self.elem_size} bytes, not {view.nbytes}")

    def _not_dequeued(self, _: None, code: int) -> NoReturn:
        self._raise(code)

    # --- many elements ------------------------------------------------------------------------------------

    def _elements(self, array: Any, writable: bool = False) -> tuple[Any, int]:
        """Pointer to and number of the elements of an array. Raises Invalid."""
        try:
            pointer = _from_buffer(_CHARS, array, writable)
        except (TypeError, ValueError, BufferError) as error:
            raise InvalidType(f"ring {self.name!r}: {_no_array(array, error)}") from error
        dtype = getattr(array, "dtype", None)
        if dtype is not None and dtype.hasobject:
            raise InvalidType(f"ring {self.name!r}: Python objects mean nothing in another process")
        n = len(array)
        if len(pointer) != n * self.elem_size:
            raise Invalid(
                f"ring {self.name!r}: {n} elements of {self.elem_size} bytes are {n * self.elem_size}, the array "
                f"has {len(pointer)}"
            )
        return pointer, n

    def enqueue_bulk(self, array: Any) -> int:
        """Puts all elements in, or none: gives their number or 0 (DPDK: rte_ring_enqueue_bulk_elem)."""
        return self._done(_enqueue_bulk(self._ring, *self._elements(array)))

    def enqueue_burst(self, array: Any) -> int:
        """Puts in as many as fit, from the first on, and gives their number (DPDK: rte_ring_enqueue_burst_elem)."""
        return self._done(_enqueue_burst(self._ring, *self._elements(array)))

    def dequeue_bulk(self, out: Any) -> int:
        """Fills all of `out`, or nothing: gives the number or 0 (DPDK: rte_ring_dequeue_bulk_elem)."""
        return self._done(_dequeue_bulk(self._ring, *self._elements(out, True)))

    def dequeue_burst(self, out: Any) -> int:
        """Fills as much of `out` as there is and gives the number (DPDK: rte_ring_dequeue_burst_elem)."""
        return self._done(_dequeue_burst(self._ring, *self._elements(out, True)))

    def _done(self, result: int) -> int:
        if result < 0:
            self._raise(result)
        return result

    def _raise(self, code: int, details: dict[int, str] | None = None) -> NoReturn:
        raise_for(self.memzone.map_errno(code), "ring", self.name, details)

    def _work(self, handle: Any) -> None:
        """The object and its bursts work by this C handle from now on."""
        self._ring = handle
        callers: tuple[RingCalls | Burst, ...] = (self, *self._bursts)
        for caller in callers:
            caller._hold(int(ffi.cast("uintptr_t", handle)), handle)

    def _lend(self, burst: Burst) -> None:
        """Gives a burst the C handle, until close()."""
        self._bursts.add(burst)
        burst._hold(int(ffi.cast("uintptr_t", self._ring)), self._ring, burst.array)

    # The same, and what DPDK's functions give through their last argument.

    def enqueue_bulk_left(self, array: Any) -> tuple[int, int]:
        """As `enqueue_bulk`; gives the free space that is left too (rte_ring_enqueue_bulk_elem's free_space)."""
        return self._move(PRODUCER, lib.IVS_BULK, *self._elements(array))

    def enqueue_burst_left(self, array: Any) -> tuple[int, int]:
        """As `enqueue_burst`; gives the free space that is left too (rte_ring_enqueue_burst_elem's free_space)."""
        return self._move(PRODUCER, lib.IVS_BURST, *self._elements(array))

    def dequeue_bulk_left(self, out: Any) -> tuple[int, int]:
        """As `dequeue_bulk`; gives how many elements are left too (rte_ring_dequeue_bulk_elem's available)."""
        return self._move(CONSUMER, lib.IVS_BULK, *self._elements(out, True))

    def dequeue_burst_left(self, out: Any) -> tuple[int, int]:
        """As `dequeue_burst`; gives how many elements are left too (rte_ring_dequeue_burst_elem's available)."""
        return self._move(CONSUMER, lib.IVS_BURST, *self._elements(out, True))

    def _move(self, role: int, amount: int, pointer: Any, n: int) -> tuple[int, int]:
        left = ffi.new("uint32_t *")
        return self._done(lib.ivs_call_move(self._ring, role, pointer, n, amount, left)), left[0]

    def burst(self, n: int) -> Burst:
        """A preallocated array of `n` elements for this ring, for calls that cost as little as can be."""
        return Burst(self, n)

    def enqueue_zc(self, n: int, *, bulk: bool = False) -> ZeroCopy:
        """A context manager that reserves up to `n` slots, or with `bulk` all or none, to be written where they lie.

        At ST and HTS ends; at others it raises Invalid when it is entered. While it lasts, other operations at that end
        raise InUse (ST) or wait (HTS). (DPDK: rte_ring_enqueue_zc_{burst,bulk}_elem_start)
        """
        return ZeroCopy(self, PRODUCER, n, bulk)

    def dequeue_zc(self, n: int, *, bulk: bool = False) -> ZeroCopy:
        """A context manager that gives up to `n` elements, or with `bulk` all or none, where they lie
        (rte_ring_dequeue_zc_{burst,bulk}_elem_start); as a peek, with `commit` of fewer
        (rte_ring_dequeue_{burst,bulk}_elem_start). Raises as `enqueue_zc`.
        """
        return ZeroCopy(self, CONSUMER, n, bulk)

    # --- settings and state for people --------------------------------------------------------------------

    @property
    def prod_htd_max(self) -> int | None:
        """RTS producers: how far the head may run ahead of the tail, in elements; None at other ends.

        May be set before others attach (DPDK: rte_ring_set_prod_htd_max). Raises Invalid at other ends or out of range.
        """
        return self._htd_max(PRODUCER)

    @prod_htd_max.setter
    def prod_htd_max(self, value: int) -> None:
        self._set_htd_max(PRODUCER, value)

    @property
    def cons_htd_max(self) -> int | None:
        """The same for RTS consumers (DPDK: rte_ring_set_cons_htd_max)."""
        return self._htd_max(CONSUMER)

    @cons_htd_max.setter
    def cons_htd_max(self, value: int) -> None:
        self._set_htd_max(CONSUMER, value)

    def _htd_max(self, role: int) -> int | None:
        value: int = lib.ivs_ring_htd_max(self._open(), role)
        return None if value == _NO_HTD_MAX else value

    def _set_htd_max(self, role: int, value: int) -> None:
        if not isinstance(value, int) or not 0 <= value <= self.capacity:
            raise Invalid(f"ring {self.name!r}: htd_max {value!r}: 0 to {self.capacity}")
        result = lib.ivs_ring_set_htd_max(self._open(), role, value)
        if result < 0:
            raise_for(result, "ring", self.name, {errno.ENOTSUP: "only an RTS end has an htd_max"})

    def dump(self, file: TextIO) -> None:
        """Writes the ring's state (DPDK: rte_ring_dump)."""
        text = ffi.new("char[]", _DUMP_ROOM)
        self._done(lib.ivs_ring_dump(self._open(), text, len(text)))
        file.write(ffi.string(text).decode(errors="replace"))

    # --- waiting, resetting -------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the ring is not empty: spins, then sleeps ever longer. False after `timeout` seconds.

        None waits for good. Ctrl-C ends it. Raises Closed when the ring is closed meanwhile.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _WAIT_SLICE if deadline is None else min(_WAIT_SLICE, deadline - time.monotonic())
            if lib.ivs_ring_wait(self._open(), max(int(left * 1e9), 0)):
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False

    def reset(self) -> None:
        """Empties the ring (DPDK: rte_ring_reset). Not while others work it."""
        self._done(lib.ivs_ring_reset(self._ring))

    # --- for the Eal --------------------------------------------------------------------------------------

    def end(self, role: str) -> EndState:
        """The state of the "producer" or "consumer" end. Raises Closed."""
        return end_state(self._open(), role)

    def elements(self) -> list[int]:
        """What stands in a ring of 4-byte elements, from the first to be taken on; nothing is taken. A snapshot."""
        first = self.end("consumer").tail
        memory = self.memzone.buf[RING_HEADER:].cast("I")
        return [memory[(first + i) % self.size] for i in range(self.count)]

    def undo(self, role: str, seen: EndState) -> bool:
        """Undoes what was begun and not finished at an ST end (eal.ring.recovery). False if it is not as `seen` now."""
        return self._done(undo(self._open(), role, seen)) == 1

    def refuse(self, code: int) -> None:
        """From now on every operation fails with this errno."""
        lib.ivs_ring_refuse(self._ring, -code)

    def close(self, code: int = errno.ESHUTDOWN) -> None:
        """From now on every operation raises Closed, or with ENODEV Detached, with ESTALE Stale; the pages are let go
        of. May be called twice.
        """
        if not self._over:
            self.refuse(code)  # also for a call that is under way
        self._over = code
        self._work(SHUT[code])

    def __repr__(self) -> str:
        return f"<Ring {self.name!r} {self.capacity} elements of {self.elem_size} bytes>"
