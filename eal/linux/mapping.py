# SPDX-License-Identifier: BSD-3-Clause
"""A file mapped shared into this process; the mapping lives as long as anything looks at it."""

from __future__ import annotations

import os
import weakref
from typing import Any

from eal._native import ffi, lib
from eal.errors import Closed, Detached, EalError, from_errno


class Pages:
    """Whether some pages are mapped still. The garbage collector may unmap them before those finish that keep them, if
    it finds all of them in one cycle: who writes there at its end asks first.
    """

    mapped = True


class Mapping:
    """`length` bytes of an open file, mapped shared from `offset` on.

    `hint` is the address wanted; it is used where that range is free (MAP_FIXED_NOREPLACE). `release()` gives
    up this object's own hold: the pages are unmapped when the last view of them is gone. What lies under views and
    threads can be changed in one step: to nothing (`detach`), or to the same file reached another way (`replace`).
    """

    def __init__(
        self, fd: int, length: int, *, writable: bool = True, hint: int = 0, what: str = "", offset: int = 0
    ) -> None:
        address = lib.ivs_map(fd, offset, length, int(writable), hint)
        if address < 0:
            reason = os.strerror(-address)
            raise from_errno(address, f"cannot map {length} bytes of {what or f'descriptor {fd}'}: {reason}")
        self._what = what or "a mapping"
        self.address: int = address
        self.length = length
        self.writable = writable
        self.pages = pages = Pages()
        unmap = lib.ivs_unmap  # a view that lives to the end of the program is unmapped when modules are empty

        def end(_: Any) -> None:
            pages.mapped = False
            unmap(address, length)

        # Whoever holds a buffer made from this pointer keeps it, and so the mapping, alive.
        self._base: Any = ffi.gc(ffi.cast("unsigned char *", address), end, length)
        self._held = weakref.ref(self._base)  # by whomever
        self.detached = False

    def pointer(self, offset: int = 0) -> Any:
        """A pointer into the mapping. Without an offset whoever holds it keeps the pages, so that another thread may
        release the mapping during a call; with one it keeps nothing. Raises Closed after `release`, Detached after
        `detach`.
        """
        base = self._base
        if base is None:
            if self.detached:
                raise Detached(f"{self._what}: the device was unplugged")
            raise Closed(f"{self._what} was closed: its Eal is closed, or belongs to the parent process")
        return base if offset == 0 else ffi.cast("void *", self.address + offset)

    def view(self, offset: int = 0, length: int | None = None) -> memoryview:
        """The bytes from `offset` on, format 'B'; read-only where the mapping is. Raises as `pointer`."""
        stop = self.length if length is None else offset + length
        view = memoryview(ffi.buffer(self.pointer(), self.length))[offset:stop]
        return view if self.writable else view.toreadonly()

    def release(self) -> None:
        """Drops this object's hold on the pages."""
        self._base = None

    def detach(self) -> None:
        """Puts private zero pages in the place of the file's, for every view and every thread that is at work there:
        they go on, and reach nobody. Drops this object's hold. May be called twice, and after `release`.
        """
        base, before = self._held(), self.detached
        self.detached = True  # first: who sees the other pages sees this too
        if base is not None and not before:
            result = lib.ivs_map_nothing(self.address, self.length, int(self.writable))
            if result < 0:
                self.detached = False
                raise from_errno(result, f"cannot let go of {self._what}: {os.strerror(-result)}")
        self._base = None

    def replace(self, other: Mapping) -> None:
        """Takes over the pages of another mapping of as many bytes, in one step for every view and thread; the other
        one is as good as released. Views that were read-only stay so.
        """
        base = self._held()
        if base is None or self.detached:
            other.release()
            return
        if other.length != self.length:
            raise EalError(f"{other._what} has {other.length} bytes, {self._what} {self.length}")
        theirs, other._base = other._base, None
        result = lib.ivs_map_move(other.address, other.length, self.address)
        if result < 0:
            raise from_errno(result, f"cannot put {other._what} in the place of {self._what}: {os.strerror(-result)}")
        ffi.gc(theirs, None)  # nothing is left at its old address, which may be another's by now
        self._what, self.writable = other._what, other.writable
