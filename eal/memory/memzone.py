# SPDX-License-Identifier: BSD-3-Clause
"""Memzones: named ranges of segments."""

from __future__ import annotations

import errno
import math
import weakref
from typing import TYPE_CHECKING, Any

from eal.errors import Corrupt, Invalid, raise_for
from eal.memory.segment import Segment
from eal.metadata.records import Entry
from eal.text import dtypes

if TYPE_CHECKING:
    import numpy as np


class Memzone:
    """A named range of one segment (DPDK: struct rte_memzone).

    `offset` counts from the first byte of the segment's file, `length` is in bytes. `address` is where this
    process sees it and `host_address` where its creator does; `relocated` says whether these differ. `socket_id`
    is the NUMA node in this machine (-1: any), `host_socket_id` the one the creator bound it to.
    """

    def __init__(self, entry: Entry, segment: Segment, name: str | None = None) -> None:
        self.entry = entry
        self.segment = segment
        self.name = entry.name if name is None else name
        self.length = entry.length
        self.offset = entry.offset
        self.align = entry.align
        self.flags = entry.flags
        self.users: weakref.WeakSet[Any] = weakref.WeakSet()  # the Ring or Mempool that was attached in it
        self.over = 0  # the errno with which it is refused

    @property
    def address(self) -> int:
        return self.segment.address + self.offset

    @property
    def host_address(self) -> int:
        return self.segment.host_address + self.offset

    @property
    def relocated(self) -> bool:
        return self.segment.relocated

    @property
    def socket_id(self) -> int:
        return self.segment.socket_id

    @property
    def host_socket_id(self) -> int:
        return self.segment.host_socket_id

    @property
    def readonly(self) -> bool:
        return self.segment.readonly

    @property
    def buf(self) -> memoryview:
        """The zone's bytes themselves: format 'B', exactly `length` of them, read-only where the share is.

        Raises Closed once the Eal is closed; a view that was taken before stays usable. Raises Detached once the
        device is unplugged; a view that was taken before reads zeros then.
        """
        if self.over:
            raise_for(-self.over, "memzone", self.name)
        return self.segment.view(self.offset, self.length)

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The dtype that the zone was reserved with, or None. Raises Corrupt if it makes no sense."""
        return dtypes.restore(self.entry.dtype) if self.entry.dtype else None

    @property
    def shape(self) -> tuple[int, ...] | None:
        return self.entry.shape

    def array(self, dtype: Any = None, shape: int | tuple[int, ...] | None = None) -> np.ndarray[Any, Any]:
        """A numpy view of the zone, without a copy; read-only where the share is.

        Both may be left out where the zone carries them (`array_reserve`). Without a shape, as many elements as
        fit. Raises Invalid where the zone is too short or no dtype is known, Corrupt where the dtype and shape
        that a peer wrote do not fit the zone.
        """
        import numpy as np

        own = dtype is None
        if own:
            dtype = self.dtype
            if dtype is None:
                raise Invalid(f"memzone {self.name!r} was reserved without a dtype: give one to array()")
            shape = self.entry.shape if shape is None else shape
        dtype = np.dtype(dtype)
        if dtype.hasobject or dtype.itemsize == 0:
            raise Invalid(f"dtype {dtype} cannot be laid over shared memory")
        if shape is None:
            shape = self.length // dtype.itemsize
        dims = dtypes.dims_of(shape)
        need = math.prod(dims) * dtype.itemsize
        if need > self.length or any(d < 0 for d in dims):
            message = f"shape {dims} of {dtype} takes {need} bytes, memzone {self.name!r} has {self.length}"
            raise Corrupt(message) if own else Invalid(message)
        try:
            return np.frombuffer(self.buf[:need], dtype=dtype).reshape(dims)
        except ValueError as error:  # an array of no elements with a dimension beyond numpy's, or too many dimensions
            message = f"memzone {self.name!r}: numpy has no shape {dims} of {dtype}: {error}"
            raise Corrupt(message) if own else Invalid(message) from error

    def map_errno(self, result: int) -> int:
        """What the errno of an operation that failed comes to: that the device went, where it went meanwhile. Half of
        the operation was done on other pages then, and what it says of them means nothing.
        """
        if self.over:
            return -self.over
        return -errno.ENODEV if self.segment.mapping.detached else result

    def close(self, code: int) -> None:
        """From now on its memory and what lies in it are refused: Detached with ENODEV, Stale with ESTALE."""
        self.over = code
        for user in list(self.users):
            user.close(code)

    def __repr__(self) -> str:
        return f"<Memzone {self.name!r} {self.length} bytes at {self.address:#x}>"
