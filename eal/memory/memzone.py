# SPDX-License-Identifier: BSD-3-Clause
"""Memzones: named ranges of segments, as bytes or as numpy arrays (DPDK: rte_memzone)."""

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

    `offset` is in bytes from the start of the segment's file, `length` in bytes. `address` is the address in this
    process, `host_address` the address in the process that created the segment; `relocated` is True if they differ.
    `socket_id` is the NUMA node in this machine (-1: any), `host_socket_id` the node that the creator selected.
    """

    def __init__(self, entry: Entry, segment: Segment, name: str | None = None) -> None:
        self.entry = entry
        self.segment = segment
        self.name = entry.name if name is None else name
        self.length = entry.length
        self.offset = entry.offset
        self.align = entry.align
        self.flags = entry.flags
        self.users: weakref.WeakSet[Any] = weakref.WeakSet()  # the Ring or Mempool attached to this zone
        self.terminal_errno = 0  # after `close`: the errno of every further use

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
        """A view of the zone's bytes: format 'B', `length` bytes, read-only if the share is read-only.

        Raise Closed after the Eal was closed; earlier views remain valid. Raise Detached after an unplug of the device;
        earlier views read zeros.
        """
        if self.terminal_errno:
            raise_for(-self.terminal_errno, "memzone", self.name)
        return self.segment.view(self.offset, self.length)

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The dtype given to `array_reserve`, or None. Raise Corrupt if the stored description is invalid."""
        return dtypes.restore(self.entry.dtype) if self.entry.dtype else None

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape given to `array_reserve`, or None."""
        return self.entry.shape

    def array(self, dtype: Any = None, shape: int | tuple[int, ...] | None = None) -> np.ndarray[Any, Any]:
        """Return a numpy view of the zone without a copy; read-only if the share is read-only.

        The defaults are the dtype and shape given to `array_reserve`; without a shape, as many elements as fit. Raise
        Invalid if the zone is too short or has no dtype, Corrupt if the stored dtype and shape exceed the zone.
        """
        import numpy as np

        stored = dtype is None
        if stored:
            dtype = self.dtype
            if dtype is None:
                raise Invalid(f"memzone {self.name!r} has no dtype: pass one to array(), or use array_reserve")
            shape = self.entry.shape if shape is None else shape
        dtype = np.dtype(dtype)
        if dtype.hasobject or dtype.itemsize == 0:
            raise Invalid(f"dtype must have a size and no Python objects, got {dtype}")
        if shape is None:
            shape = self.length // dtype.itemsize
        dims = dtypes.dims_of(shape)
        need = math.prod(dims) * dtype.itemsize
        if need > self.length or any(d < 0 for d in dims):
            message = f"memzone {self.name!r} has {self.length} bytes, shape {dims} of {dtype} requires {need}"
            raise Corrupt(message) if stored else Invalid(message)
        try:
            return np.frombuffer(self.buf[:need], dtype=dtype).reshape(dims)
        except ValueError as error:  # an empty array with a dimension above numpy's limit, or too many dimensions
            message = f"memzone {self.name!r}: numpy does not support shape {dims} of {dtype}: {error}"
            raise Corrupt(message) if stored else Invalid(message) from error

    def map_errno(self, result: int) -> int:
        """Return the negative errno to report for a failed operation: -ENODEV or -ESTALE if the share was removed.

        The operation may have run partly on the zero pages that replaced the device, so its own result is meaningless.
        """
        if self.terminal_errno:
            return -self.terminal_errno
        return -errno.ENODEV if self.segment.mapping.detached else result

    def close(self, code: int) -> None:
        """Refuse every further use of the zone and of its object: Detached for ENODEV, Stale for ESTALE."""
        self.terminal_errno = code
        for user in list(self.users):
            user.close(code)

    def __repr__(self) -> str:
        return f"<Memzone {self.name!r} {self.length} bytes at {self.address:#x}>"
