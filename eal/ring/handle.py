# SPDX-License-Identifier: BSD-3-Clause
"""Ring handle: the C handle of an attached ring, its lifetime, and its errors; used by Ring, Burst and ZeroCopy."""

from __future__ import annotations

import errno
import weakref
from typing import TYPE_CHECKING, Any, NoReturn

from eal._methods import BurstCalls, RingCalls
from eal._native import ffi, lib
from eal.errors import TERMINAL_ERRNOS, Corrupt, raise_for
from eal.linux import process
from eal.native_handle import fault_text, own

if TYPE_CHECKING:
    from eal.memory.memzone import Memzone


def _refusing_handle(code: int) -> Any:
    ring = ffi.new("struct ivs_ring *")
    lib.ivs_ring_refuse(ring, -code)
    return ring


# Handles for closed, detached and stale rings, by errno: the C core refuses every operation before it reads the ring.
_REFUSING = {code: _refusing_handle(code) for code in TERMINAL_ERRNOS}


class RingHandle:
    """The C handle of one ring (struct ivs_ring): keeps the ring's pages mapped while a call uses it.

    `pointer` is the current handle: after `close` one that refuses every operation.
    """

    def __init__(self, zone: Memzone, name: str, stall_timeout: float) -> None:
        """Attach to the ring in `zone`. Raise Corrupt with the reason if validation fails."""
        self.zone = zone
        self.name = name
        self.info = ffi.new("struct ivs_ring_info *")
        memory = ffi.new("struct ivs_ring *")
        self.pointer = own(memory, memory, zone.segment.mapping.view())
        self._callers: weakref.WeakSet[RingCalls | BurstCalls] = weakref.WeakSet()
        self._terminal_errno = 0
        base = zone.segment.mapping.pointer(zone.offset)
        fault = lib.ivs_ring_attach(self.pointer, base, zone.length, int(stall_timeout * 1e9), self.info)
        if fault:
            raise Corrupt(f"ring {name!r}: {fault_text(fault)}")
        found = ffi.string(self.info.name).decode(errors="replace")
        if found != name:
            raise Corrupt(f"ring {name!r}: the ring in its zone is named {found!r}")
        self.pointer.owner = process.process_owner_word()
        if zone.readonly:
            self.refuse(errno.EACCES)

    @property
    def address(self) -> int:
        """The address of the current C handle."""
        return int(ffi.cast("uintptr_t", self.pointer))

    def open(self) -> Any:
        """Return the C handle. Raise Closed, Detached or Stale if the ring is no longer usable."""
        if self._terminal_errno:
            raise_for(-self._terminal_errno, "ring", self.name)
        return self.pointer

    def serve(self, caller: RingCalls | BurstCalls, *array: Any) -> None:
        """Give the C methods of `caller` the current handle, and later its replacement."""
        self._callers.add(caller)
        caller._hold(self.address, self.pointer, type(caller)._raise_refusal, *array)

    def fail(self, code: int, details: dict[int, str] | None = None) -> NoReturn:
        """Raise the exception of a negative errno; Detached if the device was unplugged during the operation."""
        raise_for(self.zone.map_errno(code), "ring", self.name, details)

    def check(self, result: int) -> int:
        """Return a result that is not negative; raise the exception of a negative errno."""
        if result < 0:
            self.fail(result)
        return result

    def refuse(self, code: int) -> None:
        """Make every operation fail with this errno."""
        lib.ivs_ring_refuse(self.pointer, -code)

    def close(self, code: int) -> None:
        """Make every operation raise Closed, Detached (ENODEV) or Stale (ESTALE); release the pages. Repeatable."""
        if not self._terminal_errno:
            self.refuse(code)  # for calls in progress
        self._terminal_errno = code
        self.pointer = _REFUSING[code]
        for caller in list(self._callers):
            caller._hold(self.address, self.pointer, type(caller)._raise_refusal)
