# SPDX-License-Identifier: BSD-3-Clause
"""Mempools: fixed-size objects in shared memory, allocated and freed by index from any machine."""

from __future__ import annotations

import errno
import math
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

from eal._native import ffi, lib
from eal.errors import TERMINAL_ERRNOS, Corrupt, Invalid, InvalidType, raise_for
from eal.mempool.audit import Audit, IndexRing
from eal.mempool.format import MempoolFlag
from eal.mempool.handle import MempoolHandle, attach_reader
from eal.native_handle import fault_text
from eal.text import dtypes

if TYPE_CHECKING:
    import numpy as np

    from eal.memory.memzone import Memzone

# Bound once: each attribute lookup in `lib` costs a fifth of a call.
_get_bulk, _put_bulk = lib.ivs_call_get_bulk, lib.ivs_call_put_bulk
_from_buffer, _INDICES = ffi.from_buffer, ffi.typeof("uint32_t[]")

_NONE = 0xFFFF_FFFF  # ivs_call_get: no object


class Mempool:
    """A pool of `n` objects of `elt_size` bytes (DPDK: struct rte_mempool). An object is identified by a uint32 index.

    Any thread on any machine may put an object. Each thread has a cache of `cache_size` objects, which is flushed when
    it would exceed 1.5 times that size. An empty pool is reported by a return value, not by an exception. Operations
    release the GIL. They raise Denied if the share is read-only, Closed after the Eal was closed.
    """

    def __init__(self, zone: Memzone, name: str) -> None:
        """Attach to the mempool `name` in `zone`. Raise Corrupt with the reason if validation fails."""
        self.memzone = zone
        self.name = name
        self._info = ffi.new("struct ivs_mempool_info *")
        base = zone.segment.mapping.pointer(zone.offset)
        fault = lib.ivs_mempool_check(base, zone.length, self._info)
        if fault:
            raise Corrupt(f"mempool {name!r}: {fault_text(fault)}")
        found = ffi.string(self._info.name).decode(errors="replace")
        if found != name:
            raise Corrupt(f"mempool {name!r}: name in its header must be {name!r}, got {found!r}")
        self.n: int = self._info.n
        self.elt_size: int = self._info.elt_size
        self.elt_stride: int = self._info.elt_stride
        self.cache_size: int = self._info.cache_size
        self.flags = MempoolFlag(self._info.flags)
        self._local = threading.local()
        self._handles: weakref.WeakSet[MempoolHandle] = weakref.WeakSet()  # of all threads
        self._refused = errno.EACCES if zone.readonly else 0

    # --- get and put --------------------------------------------------------------------------------------

    @property
    def _pool(self) -> Any:
        """The calling thread's C handle."""
        try:
            return self._local.handle.pointer
        except AttributeError:
            return self._join().pointer

    def _join(self) -> MempoolHandle:
        if self._refused:
            raise_for(-self._refused, "mempool", self.name)
        handle = self._local.handle = MempoolHandle(self.memzone, self._info, self.memzone.segment.slot())
        self._handles.add(handle)
        if self._refused:  # set by close() in another thread, which may have missed the new handle
            handle.close(self._refused)
        return handle

    def get(self) -> int | None:
        """Get one object; return its index, or None if no object is free (DPDK: rte_mempool_get)."""
        index: int = lib.ivs_call_get(self._pool)
        if index != _NONE:
            return index
        result = lib.ivs_call_status()
        if result < 0:
            self._fail(result)
        return None

    def put(self, index: SupportsIndex) -> None:
        """Put one object (DPDK: rte_mempool_put). Raise Invalid if the object is not in use."""
        try:
            result = lib.ivs_call_put(self._pool, index)
        except OverflowError:  # an int that is no uint32
            result = -errno.EINVAL
        if result < 0:
            self._fail(result, int(index))

    def get_bulk(self, out: Any) -> int:
        """Fill the writable uint32 array `out` with objects; return their number, or 0 if too few are free.

        DPDK: rte_mempool_get_bulk.
        """
        result: int = _get_bulk(self._pool, *self._indices(out, True))
        if result < 0:
            self._fail(result)
        return result

    def put_bulk(self, indices: Any) -> None:
        """Put the objects in a uint32 array (DPDK: rte_mempool_put_bulk).

        Raise Invalid and put no object if an index is not less than `n`, or if more objects are put than are in use.
        Raise Invalid for an object that is already free, after the other objects of the array have been put.
        """
        result = _put_bulk(self._pool, *self._indices(indices))
        if result < 0:
            self._fail(result)

    def _indices(self, array: Any, writable: bool = False) -> tuple[Any, int]:
        try:
            pointer = _from_buffer(_INDICES, array, writable)
            view = memoryview(array)
        except (TypeError, ValueError, BufferError) as error:
            if isinstance(array, list | tuple):
                kind = type(array).__name__
                raise InvalidType(f"mempool {self.name!r}: indices must be a uint32 array, got a {kind}") from error
            access = "writable " if writable else ""
            message = f"mempool {self.name!r}: indices must be a {access}C-contiguous uint32 array: {error}"
            raise InvalidType(message) from error
        if view.format not in ("I", "L") or view.itemsize != 4 or view.ndim != 1:
            kind = f"format {view.format!r} with {view.ndim} dimensions"
            raise InvalidType(f"mempool {self.name!r}: indices must be a one-dimensional uint32 array, got {kind}")
        return pointer, len(pointer)

    def _fail(self, result: int, index: int | None = None) -> NoReturn:
        """Raise the exception for a failed get or put of the object `index`; None: of an array."""
        result = self.memzone.map_errno(result)
        if self.flags & MempoolFlag.DEBUG and result in (-errno.EALREADY, -errno.EOVERFLOW):
            index = self._local.handle.culprit
        if result == -errno.EINVAL:
            self._reject("object", index, self._local.handle.fault)
        which = "an object in the array" if index is None else f"object {index}"
        if result == -errno.EOVERFLOW:
            raise Corrupt(
                f"mempool {self.name!r}: bytes before or after {which} were overwritten: check the code that writes to "
                "this object and to its neighbors"
            )
        if result == -errno.EALREADY:
            raise Invalid(f"mempool {self.name!r}: {which} is already free: it was put twice")
        raise_for(result, "mempool", self.name)

    def _reject(self, noun: str, index: int | None, fault: int) -> NoReturn:
        """Raise Invalid for the object or mbuf `index`; None: for an array of indices.

        `fault`: the `enum ivs_fault` that the C core reports if `index` is less than n.
        """
        if index is not None and not 0 <= index < self.n:
            message = f"{noun} index must be less than n ({self.n}), got {index}"
        elif index is None and fault == lib.IVS_FAULT_OBJECT:
            message = f"each {noun} index in the array must be less than n ({self.n})"
        else:
            which = f"the array of {noun} indices" if index is None else f"{noun} {index}"
            message = f"{which}: {fault_text(fault)}"
        raise Invalid(f"mempool {self.name!r}: {message}")

    @property
    def handle(self) -> int:
        """The address of the calling thread's C handle, for `eal.jit` and for C code in this thread.

        The address stays valid as long as this object and the thread live; after `close` the operations on it fail.
        Raise Denied, Closed.
        """
        _ = self._pool
        if self._refused:
            raise_for(-self._refused, "mempool", self.name)
        address: int = self._local.handle.lend()
        return address

    # --- counts and audit ---------------------------------------------------------------------------------

    def _reader_handle(self) -> Any:
        """Return a C handle without a slot. Raise Closed, Detached or Stale."""
        if self._refused in TERMINAL_ERRNOS:
            raise_for(-self._refused, "mempool", self.name)
        return attach_reader(self.memzone, self._info)

    @property
    def available(self) -> int:
        """Number of free objects, in the shared bitmap and in all caches (DPDK: rte_mempool_avail_count)."""
        count: int = lib.ivs_mempool_available(self._reader_handle())
        return count

    @property
    def in_use(self) -> int:
        """Number of objects in use (DPDK: rte_mempool_in_use_count)."""
        return self.n - self.available

    def __len__(self) -> int:
        return self.n

    def audit(self, rings: Iterable[IndexRing] = ()) -> Audit:
        """Locate every object: in the shared bitmap, in all caches, and in `rings`, whose elements are object indices.

        The result is consistent only while no participant uses the pool. Raise Invalid for a ring whose elements do not
        have 4 bytes. DPDK: rte_mempool_audit.
        """
        pool = self._reader_handle()
        where = ffi.new("uint16_t[]", self.n)
        foreign = lib.ivs_mempool_audit(pool, where)
        places: dict[int, list[int]] = {}
        for index, place in enumerate(ffi.unpack(where, self.n)):
            places.setdefault(place, []).append(index)
        in_hand = places.pop(lib.IVS_HELD_BY_NOBODY_SEEN, [])
        holders: dict[int, list[int]] = {}
        for index in in_hand if self.flags & MempoolFlag.DEBUG else ():
            holders.setdefault(lib.ivs_mempool_holder(pool, index), []).append(index)
        return Audit(
            n=self.n,
            free=places.pop(lib.IVS_HELD_FREE, []),
            twice=places.pop(lib.IVS_HELD_TWICE, []),
            cached={place - lib.IVS_HELD_CACHE: indices for place, indices in places.items()},
            in_hand=in_hand,
            lost=max(0, len(in_hand) - lib.ivs_mempool_out(pool)),
            foreign=foreign,
            participants=self.memzone.segment.participants(),
            holders=holders,
        ).beside(rings)

    # --- object memory ------------------------------------------------------------------------------------

    @property
    def array(self) -> np.ndarray[Any, Any]:
        """All objects as uint8, shape `(n, elt_size)`, without a copy; read-only if the share is read-only."""
        return self.view("u1", self.elt_size)

    def view(self, dtype: Any, shape: int | tuple[int, ...] = ()) -> np.ndarray[Any, Any]:
        """Return all objects as an array of `dtype` and shape `(n, *shape)`, without a copy.

        Raise Invalid if `dtype` and `shape` need more than `elt_size` bytes, or if `dtype` contains Python objects.
        """
        import numpy as np

        dtype = np.dtype(dtype)
        dims = dtypes.dims_of(shape)
        if dtype.hasobject or any(d < 0 for d in dims):
            raise Invalid(f"mempool {self.name!r}: shared memory cannot contain {dtype} of shape {dims}")
        size = math.prod(dims) * dtype.itemsize
        if size > self.elt_size:
            message = f"{dtype} of shape {dims} must fit elt_size ({self.elt_size} bytes), got {size} bytes"
            raise Invalid(f"mempool {self.name!r}: {message}")
        inner = np.empty(dims, dtype).strides
        objects = self.memzone.buf[self._info.objects_offset :]
        return np.ndarray((self.n, *dims), dtype, objects, strides=(self.elt_stride, *inner))

    def __iter__(self) -> Iterator[memoryview]:
        """Iterate over the bytes of all objects, free or in use, in index order (DPDK: rte_mempool_obj_iter)."""
        return (self.object(index) for index in range(self.n))

    def object(self, index: int) -> memoryview:
        """Return the bytes of one object, without a copy. Raise Invalid if `index` is not less than `n`."""
        if not 0 <= index < self.n:
            self._reject("object", index, lib.IVS_FAULT_OBJECT)
        at = self._info.objects_offset + index * self.elt_stride
        return self.memzone.buf[at : at + self.elt_size]

    # --- lifetime -----------------------------------------------------------------------------------------

    def close(self, code: int = errno.ESHUTDOWN) -> None:
        """Make all further operations raise Closed; Detached for ENODEV, Stale for ESTALE.

        Flush the cache of each thread, once that thread has returned from C. May be called twice.
        """
        self._refused = code
        for handle in list(self._handles):
            handle.close(code)

    def __repr__(self) -> str:
        return f"<Mempool {self.name!r} {self.n} objects of {self.elt_size} bytes>"
