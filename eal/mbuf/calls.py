# SPDX-License-Identifier: BSD-3-Clause
"""Calls of the C core on mbufs: argument conversion, and errno to exception."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, NoReturn

from eal._native import ffi, lib
from eal.errors import Corrupt, Invalid
from eal.mbuf.format import HEADER_SIZE
from eal.mempool.mempool import Mempool

if TYPE_CHECKING:
    from eal.memory.memzone import Memzone


class MbufCalls(Mempool):
    """A mempool whose objects are mbufs, with the calls that the methods of MbufPool share."""

    def __init__(self, zone: Memzone, name: str) -> None:
        """Attach to the pool of mbufs `name` in `zone`. Raise Corrupt with the reason if validation fails."""
        super().__init__(zone, name)
        if not self._info.flags & lib.IVS_MEMPOOL_MBUF:
            raise Corrupt(f"mempool {name!r}: listed as a pool of mbufs, but its header has other flags")
        self.private_size: int = self._info.private_size
        self.data_room: int = self.elt_size - HEADER_SIZE - self.private_size

    @property
    def _reader(self) -> Any:
        """A C handle for calls that write nothing, which are also allowed on a read-only share."""
        return self._reader_handle() if self.memzone.readonly else self._pool

    def _call(self, function: Any, handle: Any, index: int, *arguments: Any) -> int:
        """Call a C function and return its result. Raise Invalid for an argument that exceeds its C type."""
        try:
            result: int = function(handle, index, *arguments)
        except OverflowError as error:
            raise Invalid(f"mempool {self.name!r}: mbuf {index}: argument out of range: {error}") from error
        return result

    def _write(self, function: Any, index: int, *arguments: Any) -> int:
        """Call a C function that modifies mbufs. Raise for every negative errno."""
        result = self._call(function, self._pool, index, *arguments)
        if result < 0:
            self._raise_mbuf_error(result, index)
        return result

    def _write_or_none(self, function: Any, index: int, *arguments: Any, none: tuple[int, ...]) -> int | None:
        """Call a C function that modifies mbufs; return None for the errnos in `none`. Raise for the others."""
        result = self._call(function, self._pool, index, *arguments)
        if result < 0:
            if -result in none:
                return None
            self._raise_mbuf_error(result, index)
        return result

    def _read(self, function: Any, index: int, *arguments: Any) -> int:
        """Call a C function that writes nothing. Raise for every negative errno."""
        result = self._call(function, self._reader, index, *arguments)
        if result < 0:
            self._raise_mbuf_error(result, index)
        return result

    def _segment(self, index: int) -> Any:
        """Return a `struct ivs_call_seg`: a snapshot of one segment."""
        segment = ffi.new("struct ivs_call_seg *")
        self._read(lib.ivs_call_mbuf_segment, index, segment)
        return segment

    def _bytes(self, place: int, length: int) -> memoryview:
        """Return a view of `length` bytes at `place`, an offset from the first object."""
        offset = self._info.objects_offset + place
        return self.memzone.buf[offset : offset + length]

    def _raise_mbuf_error(self, result: int, index: int | None, fault: int = lib.IVS_FAULT_OBJECT) -> NoReturn:
        """Raise the exception for a failed call on mbuf `index`; None: on an array.

        `fault`: the `enum ivs_fault` behind -EINVAL if `index` is less than n.
        """
        result = self.memzone.map_errno(result)
        if result == -errno.EINVAL:
            self._reject("mbuf", index, fault)
        label = f"mempool {self.name!r}: " + ("an mbuf in the array" if index is None else f"mbuf {index}")
        if result == -errno.EALREADY:
            raise Invalid(f"{label} is free: it was freed before, or allocated by get() instead of alloc()")
        if result == -errno.EBADMSG:
            raise Corrupt(f"{label}: a header in its packet is damaged: sanity_check() reports the field")
        if result == -errno.ERANGE:
            raise Invalid(f"{label}: refcnt must remain 1 to 65534, and a packet may have at most 65535 segments")
        self._fail(result, index)
