# SPDX-License-Identifier: BSD-3-Clause
"""Shared mappings of files and BARs, with pages that remain mapped as long as a view or a C handle refers to them."""

from __future__ import annotations

import os
import weakref
from typing import Any

from eal._native import ffi, lib
from eal.errors import Closed, Detached, EalError, from_errno


class Pages:
    """Whether the pages of a mapping are still mapped.

    If the garbage collector finds a mapping and its users in one cycle, it may unmap the pages before it runs the
    finalizers of the users. A finalizer that writes to the pages checks `mapped` first.
    """

    mapped = True


class Mapping:
    """`length` bytes of an open file, mapped shared from `offset`.

    `hint` is the wanted address, used if that range is free (MAP_FIXED_NOREPLACE); `label` names it in messages.
    The pages are unmapped after `release` and after the end of all views. They can be replaced in one step under all
    views and threads: by zero pages (`detach`), or by the pages of another mapping of the same file (`replace`).
    """

    def __init__(
        self, fd: int, length: int, *, writable: bool = True, hint: int = 0, label: str = "", offset: int = 0
    ) -> None:
        address = lib.ivs_map(fd, offset, length, int(writable), hint)
        if address < 0:
            reason = os.strerror(-address)
            raise from_errno(address, f"cannot map {length} bytes of {label or f'descriptor {fd}'}: {reason}")
        self._label = label or "a mapping"
        self.address: int = address
        self.length = length
        self.writable = writable
        self.pages = pages = Pages()
        unmap = lib.ivs_unmap  # bound now: module globals may be gone when the interpreter unmaps the last views

        def finish(_: Any) -> None:
            pages.mapped = False
            unmap(address, length)

        # A buffer made from this pointer keeps the pointer, and with it the pages, alive.
        self._base: Any = ffi.gc(ffi.cast("unsigned char *", address), finish, length)
        self._pinned = weakref.ref(self._base)  # alive while any view or C handle keeps the pages
        self.detached = False

    def pointer(self, offset: int = 0) -> Any:
        """Return a pointer into the mapping. Raise Closed after `release`, Detached after `detach`.

        With offset 0 the pointer keeps the pages mapped, so that another thread may release the mapping during a call.
        With another offset it does not.
        """
        base = self._base
        if base is None:
            if self.detached:
                raise Detached(f"{self._label}: the device was unplugged")
            raise Closed(f"{self._label} is closed: its Eal was closed, or belongs to the parent process")
        return base if offset == 0 else ffi.cast("void *", self.address + offset)

    def view(self, offset: int = 0, length: int | None = None) -> memoryview:
        """Return the bytes from `offset`, format 'B', read-only if the mapping is. Raise as `pointer`."""
        stop = self.length if length is None else offset + length
        view = memoryview(ffi.buffer(self.pointer(), self.length))[offset:stop]
        return view if self.writable else view.toreadonly()

    def release(self) -> None:
        """Drop this object's reference to the pages."""
        self._base = None

    def detach(self) -> None:
        """Replace the pages by private zero pages under all views and threads, and release the mapping.

        Threads that access the pages continue, without effect on other processes. May be called twice, and after
        `release`.
        """
        base, already = self._pinned(), self.detached
        self.detached = True  # before the pages change, so that a thread that reads zeros also finds this flag
        if base is not None and not already:
            result = lib.ivs_map_anonymous(self.address, self.length, int(self.writable))
            if result < 0:
                self.detached = False
                raise from_errno(result, f"cannot detach {self._label}: {os.strerror(-result)}")
        self._base = None

    def replace(self, other: Mapping) -> None:
        """Move the pages of another mapping of the same length here, in one step for all views and threads.

        The other mapping is released. Existing read-only views remain read-only.
        """
        base = self._pinned()
        if base is None or self.detached:
            other.release()
            return
        if other.length != self.length:
            raise EalError(f"replacement of {self._label} must have {self.length} bytes, got {other.length}")
        moved, other._base = other._base, None
        result = lib.ivs_map_move(other.address, other.length, self.address)
        if result < 0:
            raise from_errno(result, f"cannot replace {self._label} by {other._label}: {os.strerror(-result)}")
        ffi.gc(moved, None)  # another mapping may already use the old address, so it must not be unmapped
        self._label, self.writable = other._label, other.writable
