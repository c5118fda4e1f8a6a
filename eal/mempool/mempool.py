# SPDX-License-Identifier: BSD-3-Clause
"""Mempools: fixed-size objects in shared memory, taken and put back by index on any machine."""

from __future__ import annotations

import errno
import math
import threading
import weakref
from collections.abc import Iterable, Iterator
from enum import IntFlag
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

from eal._native import ffi, lib
from eal.errors import TERMINAL_ERRNOS, Corrupt, Invalid, InvalidType, raise_for
from eal.linux import process
from eal.mempool.audit import Audit
from eal.native_handle import fault_text, own
from eal.text import dtypes
from eal.text.names import pack_name

if TYPE_CHECKING:
    import numpy as np

    from eal.memory.memzone import Memzone
    from eal.memory.participant import Slot
    from eal.ring.ring import Ring

# Looked up once: an attribute of `lib` takes a fifth of the time that a call through it takes.
_get_bulk, _put_bulk = lib.ivs_call_get_bulk, lib.ivs_call_put_bulk
_from_buffer, _INDICES = ffi.from_buffer, ffi.typeof("uint32_t[]")

_NONE = 0xFFFF_FFFF  # what the C core gives where no object could be taken


class MempoolFlag(IntFlag):
    """DPDK: RTE_MEMPOOL_F_*. NO_CACHE_ALIGN: objects are not padded to whole cache lines.

    DEBUG: cookies round each object tell a double put and an overrun, and who holds it (RTE_LIBRTE_MEMPOOL_DEBUG).
    """

    NO_CACHE_ALIGN = lib.IVS_MEMPOOL_NO_CACHE_ALIGN
    DEBUG = lib.IVS_MEMPOOL_DEBUG


def plan_mempool(
    name: str, n: int, elt_size: int, cache_size: int, flags: int, private_size: int = 0
) -> tuple[Any, int]:
    """The C core's plan of a pool and the bytes it takes. Raises Invalid and says what does not fit."""
    for what, value in (("n", n), ("elt_size", elt_size), ("cache_size", cache_size), ("flags", flags)):
        if not isinstance(value, int):
            raise InvalidType(f"mempool {name!r}: {what} is an int, not {type(value).__name__}")
        if not 0 <= value < 1 << 32:
            raise Invalid(f"mempool {name!r}: {what} {value} is out of range")
    info = ffi.new("struct ivs_mempool_info *")
    info.name = pack_name(name)
    info.n, info.elt_size, info.cache_size, info.flags = n, elt_size, cache_size, flags
    info.private_size = private_size
    need = lib.ivs_mempool_plan(info)
    if need < 0:
        if cache_size > lib.IVS_MEMPOOL_CACHE_MAX or cache_size * 3 // 2 > n > 0:
            raise Invalid(
                f"mempool {name!r}: cache_size {cache_size}: at most {lib.IVS_MEMPOOL_CACHE_MAX}, and one and a "
                f"half of it at most n ({n})"
            )
        raise Invalid(f"mempool {name!r}: n {n}, elt_size {elt_size}, flags {flags:#x}: one of them is out of range")
    return info, need


def mempool_memsize(name: str, n: int, elt_size: int, cache_size: int, flags: int) -> int:
    """Bytes that a pool takes. Raises Invalid."""
    if isinstance(flags, int) and flags & lib.IVS_MEMPOOL_MBUF:
        raise Invalid(f"mempool {name!r}: flags {flags:#x}: a pool of mbufs is made by pktmbuf_pool_create")
    return plan_mempool(name, n, elt_size, cache_size, flags)[1]


def format_mempool(zone: Memzone, name: str, n: int, elt_size: int, cache_size: int, flags: int) -> None:
    """Makes a pool with all objects free in a zeroed zone that is long enough."""
    info, _ = plan_mempool(name, n, elt_size, cache_size, flags)
    result = lib.ivs_mempool_create(zone.segment.mapping.pointer(zone.offset), zone.length, info)
    if result < 0:
        raise_for(result, "mempool", name, {errno.ENOSPC: f"does not fit its zone of {zone.length} bytes"})


def _shut(code: int) -> Any:
    memory = ffi.new("uint64_t[]", -(-lib.ivs_mempool_handle_size(0) // 8))
    pool = own(ffi.cast("struct ivs_mempool *", memory), memory)
    lib.ivs_mempool_refuse(pool, -code)
    return pool


# What a pool that is over has for a handle, by errno: every operation on it is refused before it looks at anything.
_SHUT = {code: _shut(code) for code in TERMINAL_ERRNOS}


class _Handle:
    """One thread's way into a pool: its C handle, which holds its slot in the segment for as long as it is used."""

    def __init__(self, pool: Mempool, slot: Slot | None) -> None:
        memory = ffi.new("uint64_t[]", -(-lib.ivs_mempool_handle_size(pool.cache_size) // 8))
        raw = ffi.cast("struct ivs_mempool *", memory)
        mapping = pool.memzone.segment.mapping
        pages = mapping.pages
        # The cache is emptied for others when the handle goes: with its thread, or when the pool is closed.
        leave = lib.ivs_mempool_leave
        self.pointer = own(raw, memory, mapping.view(), slot, finish=lambda: pages.mapped and leave(raw))
        lib.ivs_mempool_attach(raw, mapping.pointer(pool.memzone.offset), pool._info)
        if slot is not None:
            lib.ivs_mempool_join(raw, slot.index)
        raw.owner = process.owner_word()
        self._raw, self._memory, self._mapping = raw, memory, mapping
        self._lent: Any = None

    def lend(self) -> int:
        """The handle's address, good for as long as this object lives: its memory and the pages stay."""
        self._lent = self._mapping.pointer()
        return int(ffi.cast("uintptr_t", self._raw))

    def close(self, code: int) -> None:
        if self._lent is not None:
            lib.ivs_mempool_refuse(self._raw, -code)
        self.pointer = _SHUT[code]


class Mempool:
    """A pool of `n` objects of `elt_size` bytes (DPDK: struct rte_mempool). Objects are uint32 indices.

    Every object may be put back on any machine and by any thread. Each thread has a cache of up to `cache_size`
    objects (and half as many again before it is emptied). An empty pool is a return value, not an exception.
    Operations raise Denied on a read-only share and Closed after the Eal was closed. They release the GIL.
    """

    def __init__(self, zone: Memzone, name: str) -> None:
        """Attaches to the pool in `zone`. Raises Corrupt with the reason where there is none that is sound."""
        self.memzone = zone
        self.name = name
        self._info = ffi.new("struct ivs_mempool_info *")
        base = zone.segment.mapping.pointer(zone.offset)
        fault = lib.ivs_mempool_check(base, zone.length, self._info)
        if fault:
            raise Corrupt(f"mempool {name!r}: {fault_text(fault)}")
        found = ffi.string(self._info.name).decode(errors="replace")
        if found != name:
            raise Corrupt(f"mempool {name!r}: the pool in its zone is called {found!r}")
        self.n: int = self._info.n
        self.elt_size: int = self._info.elt_size
        self.elt_stride: int = self._info.elt_stride
        self.cache_size: int = self._info.cache_size
        self.flags = MempoolFlag(self._info.flags)
        self._local = threading.local()
        self._handles: weakref.WeakSet[_Handle] = weakref.WeakSet()  # of all threads
        self._refused = errno.EACCES if zone.readonly else 0

    # --- taking and putting back --------------------------------------------------------------------------

    @property
    def _pool(self) -> Any:
        """The calling thread's C handle."""
        try:
            return self._local.handle.pointer
        except AttributeError:
            return self._join().pointer

    def _join(self) -> _Handle:
        if self._refused:
            raise_for(-self._refused, "mempool", self.name)
        handle = self._local.handle = _Handle(self, self.memzone.segment.slot())
        self._handles.add(handle)
        if self._refused:  # closed by another thread meanwhile
            handle.close(self._refused)
        return handle

    def get(self) -> int | None:
        """Takes one object; None where none is left (DPDK: rte_mempool_get)."""
        index: int = lib.ivs_call_get(self._pool)
        if index != _NONE:
            return index
        result = lib.ivs_call_status()
        if result < 0:
            self._fail(result)
        return None

    def put(self, index: SupportsIndex) -> None:
        """Puts one object back (DPDK: rte_mempool_put). Raises Invalid for one that is not out."""
        try:
            result = lib.ivs_call_put(self._pool, index)
        except OverflowError:
            result = -errno.EINVAL
        if result < 0:
            self._fail(result, f"{index}")

    def get_bulk(self, out: Any) -> int:
        """Fills a writable uint32 array with objects, or takes none: gives their number or 0.

        (DPDK: rte_mempool_get_bulk)
        """
        result: int = _get_bulk(self._pool, *self._indices(out, True))
        if result < 0:
            self._fail(result)
        return result

    def put_bulk(self, indices: Any) -> None:
        """Puts a uint32 array of objects back (DPDK: rte_mempool_put_bulk).

        Raises Invalid, and puts nothing back, for an index out of range or more objects than are out; where an
        object is seen to be free already, the others of the array have been put back.
        """
        result = _put_bulk(self._pool, *self._indices(indices))
        if result < 0:
            self._fail(result, "of the array")

    def _indices(self, array: Any, writable: bool = False) -> tuple[Any, int]:
        try:
            pointer = _from_buffer(_INDICES, array, writable)
            view = memoryview(array)
        except (TypeError, ValueError, BufferError) as error:
            if isinstance(array, list | tuple):
                raise InvalidType(f"mempool {self.name!r}: indices are a uint32 array, not a list") from error
            raise InvalidType(f"mempool {self.name!r}: not a C-contiguous buffer that can be used: {error}") from error
        if view.format not in ("I", "L") or view.itemsize != 4 or view.ndim != 1:
            raise InvalidType(f"mempool {self.name!r}: indices are a one-dimensional uint32 array")
        return pointer, len(pointer)

    def _fail(self, result: int, which: str = "") -> NoReturn:
        result = self.memzone.map_errno(result)
        if self.flags & MempoolFlag.DEBUG and result in (-errno.EALREADY, -errno.EOVERFLOW):
            which = str(self._local.handle.pointer.culprit)
        if result == -errno.EOVERFLOW:
            raise Corrupt(
                f"mempool {self.name!r}: the bytes before or behind object {which} were overwritten by whoever had it "
                "or a neighbour"
            )
        if result == -errno.EALREADY:
            raise Invalid(f"mempool {self.name!r}: object {which} was free already: it was put back twice")
        if result == -errno.EINVAL:
            raise Invalid(
                f"mempool {self.name!r}: object {which} is not below n ({self.n}), or more are put back than are out"
            )
        raise_for(result, "mempool", self.name)

    @property
    def handle(self) -> int:
        """The address of the calling thread's C handle, for eal.jit and for C code in this thread.

        Once asked for, it stays good as long as this object and the thread live, and the pages with it: after close()
        calls with it are refused. Raises Denied, Closed.
        """
        _ = self._pool
        if self._refused:
            raise_for(-self._refused, "mempool", self.name)
        address: int = self._local.handle.lend()
        return address

    # --- counting -----------------------------------------------------------------------------------------

    def _look(self) -> Any:
        """A C handle for counting, without a slot. Raises Closed, Detached or Stale."""
        if self._refused in TERMINAL_ERRNOS:
            raise_for(-self._refused, "mempool", self.name)
        memory = ffi.new("uint64_t[]", -(-lib.ivs_mempool_handle_size(self.cache_size) // 8))
        mapping = self.memzone.segment.mapping
        pointer = own(ffi.cast("struct ivs_mempool *", memory), memory, mapping.view())
        lib.ivs_mempool_attach(pointer, mapping.pointer(self.memzone.offset), self._info)
        return pointer

    @property
    def available(self) -> int:
        """Objects that are free: in the shared list and in all caches (DPDK: rte_mempool_avail_count)."""
        count: int = lib.ivs_mempool_available(self._look())
        return count

    @property
    def in_use(self) -> int:
        """Objects that are out (DPDK: rte_mempool_in_use_count)."""
        return self.n - self.available

    def __len__(self) -> int:
        return self.n

    def audit(self, rings: Iterable[Ring] = ()) -> Audit:
        """Looks for every index in the shared list and all caches, and in `rings` whose elements are such indices.

        Meaningful while nobody works the pool. Raises Invalid for a ring of other elements (rte_mempool_audit).
        """
        pool = self._look()
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

    # --- memory -------------------------------------------------------------------------------------------

    @property
    def array(self) -> np.ndarray[Any, Any]:
        """All objects as uint8, shape `(n, elt_size)`, without a copy; read-only where the share is."""
        return self.view("u1", self.elt_size)

    def view(self, dtype: Any, shape: int | tuple[int, ...] = ()) -> np.ndarray[Any, Any]:
        """All objects as arrays: shape `(n, *shape)` of `dtype`, without a copy.

        Raises Invalid where one object is too small for that.
        """
        import numpy as np

        dtype = np.dtype(dtype)
        dims = dtypes.dims_of(shape)
        if dtype.hasobject or any(d < 0 for d in dims):
            raise Invalid(f"mempool {self.name!r}: {dtype} of shape {dims} cannot be laid over shared memory")
        if math.prod(dims) * dtype.itemsize > self.elt_size:
            raise Invalid(f"mempool {self.name!r}: {dtype} of shape {dims} does not fit {self.elt_size} bytes")
        inner = np.empty(dims, dtype).strides
        objects = self.memzone.buf[self._info.objects_offset :]
        return np.ndarray((self.n, *dims), dtype, objects, strides=(self.elt_stride, *inner))

    def __iter__(self) -> Iterator[memoryview]:
        """The bytes of every object, free or not, in the order of their indices (DPDK: rte_mempool_obj_iter)."""
        return (self.object(index) for index in range(self.n))

    def object(self, index: int) -> memoryview:
        """The bytes of one object, without a copy. Raises Invalid for an index that is not below n."""
        if not 0 <= index < self.n:
            raise Invalid(f"mempool {self.name!r}: object {index} is not below n ({self.n})")
        at = self._info.objects_offset + index * self.elt_stride
        return self.memzone.buf[at : at + self.elt_size]

    # --- for the Eal --------------------------------------------------------------------------------------

    def close(self, code: int = errno.ESHUTDOWN) -> None:
        """From now on every operation raises Closed, or with ENODEV Detached, with ESTALE Stale. Each thread's cache is
        emptied for others as soon as that thread is out of C. May be called twice.
        """
        self._refused = code
        for handle in list(self._handles):
            handle.close(code)

    def __repr__(self) -> str:
        return f"<Mempool {self.name!r} {self.n} objects of {self.elt_size} bytes>"
