"""A file mapped shared into this process; the mapping lives as long as anything looks at it."""

from __future__ import annotations

import os
from typing import Any

from eal._native import ffi, lib
from eal.errors import Closed, from_errno


class Mapping:
    """`length` bytes of an open file, mapped shared from `offset` on.

    `hint` is the address wanted; it is used where that range is free (MAP_FIXED_NOREPLACE). `release()` gives
    up this object's own hold: the pages are unmapped when the last view of them is gone.
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
        unmap = lib.ivs_unmap  # a view that lives to the end of the program is unmapped when modules are empty
        # Whoever holds a buffer made from this pointer keeps it, and so the mapping, alive.
        self._base: Any = ffi.gc(ffi.cast("unsigned char *", address), lambda _: unmap(address, length), length)

    def pointer(self, offset: int = 0) -> Any:
        """A pointer into the mapping. Without an offset whoever holds it keeps the pages, so that another thread may
        release the mapping during a call; with one it keeps nothing. Raises Closed after `release`.
        """
        base = self._base
        if base is None:
            raise Closed(f"{self._what} was closed: its Eal is closed, or belongs to the parent process")
        return base if offset == 0 else ffi.cast("void *", self.address + offset)

    def view(self, offset: int = 0, length: int | None = None) -> memoryview:
        """The bytes from `offset` on, format 'B'; read-only where the mapping is. Raises Closed after `release`."""
        stop = self.length if length is None else offset + length
        view = memoryview(ffi.buffer(self.pointer(), self.length))[offset:stop]
        return view if self.writable else view.toreadonly()

    def release(self) -> None:
        """Drops this object's hold on the pages."""
        self._base = None
