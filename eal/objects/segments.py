# SPDX-License-Identifier: BSD-3-Clause
"""Objects: memzones, rings and mempools, reserved, made, looked up and freed by name."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any, TextIO

from eal.errors import Invalid, InvalidType
from eal.mbuf.format import DEFAULT_DATA_ROOM, format_mbuf_pool, mbuf_pool_memsize
from eal.mbuf.pool import MbufPool
from eal.memory import hugepages
from eal.memory.memzone import Memzone
from eal.memory.segment import Segment
from eal.memory.segment_file import Ownership, Progress, check_mode
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.mempool.mempool import Mempool, format_mempool, mempool_memsize
from eal.metadata.records import Entry, Kind
from eal.objects.table import Directory
from eal.ring.format import RingFlag, format_ring, ring_memsize
from eal.ring.ring import Ring
from eal.text import dtypes
from eal.text.names import POOL_PREFIX, RING_PREFIX, check_name, check_user_zone


class Objects(Directory):
    """What can be reserved, made, looked up and freed. Thread-safe."""

    # --- memzones -----------------------------------------------------------------------------------------

    def memzone_reserve(
        self,
        name: str,
        length: int,
        *,
        socket_id: int = SOCKET_ID_ANY,
        align: int = 64,
        group: str = "default",
        flags: int = 0,
        exist_ok: bool = False,
    ) -> Memzone:
        """Reserves `length` zeroed bytes in a segment of `group` (DPDK: rte_memzone_reserve_aligned).

        `align` is a power of two, 64 at least. With `exist_ok` a zone of that name and length is given instead.
        Raises Exists, Invalid, or NoMemory where there are too few pages.
        """
        check_user_zone(name)
        with self._change():
            if zone := self._existing(Kind.MEMZONE, name, exist_ok):
                self._check_same("memzone", name, {"length": (zone.length, length)})
                self._check_same_place("memzone", zone, group=group, socket_id=socket_id, align=align, flags=flags)
                return zone
            return self._reserve(name, length, socket_id=socket_id, align=align, group=group, flags=flags)

    def array_reserve(
        self,
        name: str,
        shape: int | tuple[int, ...],
        dtype: Any,
        *,
        socket_id: int = SOCKET_ID_ANY,
        align: int = 64,
        group: str = "default",
        flags: int = 0,
        exist_ok: bool = False,
    ) -> Memzone:
        """Reserves a zone for an array; whoever looks it up gets it by `Memzone.array()`, knowing neither dtype nor
        shape. Raises as `memzone_reserve`, and Invalid for a dtype that holds Python objects or has no bytes.
        """
        import numpy as np

        check_user_zone(name)
        text = dtypes.describe(dtype)
        dims = dtypes.dims_of(shape)
        length = math.prod(dims) * np.dtype(dtype).itemsize
        if length < 1 or any(d < 0 for d in dims):
            raise Invalid(f"memzone {name!r}: an array of shape {dims} of {dtype} has no bytes")
        with self._change():
            if zone := self._existing(Kind.MEMZONE, name, exist_ok):
                self._check_same("memzone", name, {"dtype": (zone.entry.dtype, text), "shape": (zone.shape, dims)})
                self._check_same_place("memzone", zone, group=group, socket_id=socket_id, align=align, flags=flags)
                return zone
            return self._reserve(
                name,
                length,
                socket_id=socket_id,
                align=align,
                group=group,
                flags=flags,
                dtype=text,
                shape=dims,
            )

    def _reserve(self, name: str, length: int, **how: Any) -> Memzone:
        self._check_place(**how)
        return self._own_zone(self._heap.reserve(name, Kind.MEMZONE, length, **how))

    def memzone_lookup(self, name: str) -> Memzone:
        """The zone of that name; a ring's is called RG_ and its name, a pool's MP_ and its name.

        Raises NotFound (DPDK: rte_memzone_lookup).
        """
        check_name(name, "memzone")
        for kind, prefix in ((Kind.RING, RING_PREFIX), (Kind.MEMPOOL, POOL_PREFIX)):
            # A metadata may have the bare zone, without the ring or pool in it.
            if name.startswith(prefix) and not any(share.find(Kind.MEMZONE, name) for share in self._shares):
                return self._lookup_zone(kind, name[len(prefix) :])
        return self._lookup_zone(Kind.MEMZONE, name)

    def memzone_free(self, zone: Memzone) -> None:
        """Gives a zone back (DPDK: rte_memzone_free). Views of it stay readable and show what comes next there.

        Raises InUse while it stands in a metadata, NotFound if it is gone, Denied for a zone of a share.
        """
        if not isinstance(zone, Memzone):
            raise InvalidType(f"memzone_free takes a Memzone, not {type(zone).__name__}")
        if zone.entry.kind != Kind.MEMZONE:
            raise Invalid(f"memzone {zone.name!r} belongs to a {zone.entry.kind.name.lower()}: free that")
        self._free(zone.entry, zone)

    def memzones(self) -> list[Memzone]:
        """All zones, those of rings and pools too, sorted by name (DPDK: rte_memzone_walk)."""
        return sorted((self._zone(*found) for found in self._entries()), key=lambda zone: zone.name)

    def memzone_dump(self, file: TextIO) -> None:
        """Writes a line for each zone (DPDK: rte_memzone_dump)."""
        for number, zone in enumerate(self.memzones()):
            file.write(
                f"Zone {number}: name:<{zone.name}>, len:{zone.length:#x}, virt:{zone.address:#x}, "
                f"socket_id:{zone.socket_id}, flags:{zone.flags:#x}, segment:{zone.segment.uuid}, "
                f"offset:{zone.offset:#x}\n"
            )

    # --- segments -----------------------------------------------------------------------------------------

    def segments(self) -> list[Segment]:
        """All segments that objects lie in: the prefix's own, then those of shares (DPDK: rte_memseg_list_walk)."""
        self._check()
        own = [self._heap.segment(record) for record in self._heap.registry.table.segments]
        shared = {segment.uuid: segment for share in self._shares for segment in share.segments}
        return own + [segment for uuid, segment in shared.items() if uuid not in {s.uuid for s in own}]

    def segment_create(
        self,
        size: int,
        *,
        group: str = "default",
        socket_id: int = SOCKET_ID_ANY,
        mode: int = 0o600,
        user: str | int | None = None,
        user_group: str | int | None = None,
        page_size: int | None = None,
        huge_dir: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> Segment:
        """Makes a segment of `size` bytes (a power of two) for a group, before zones are reserved from it.

        `mode`, `user` and `user_group` say who may open its file, because QEMU often runs as another user; `page_size`
        in bytes or `huge_dir` say of which pages it is (None: as `eal.init` chose); `socket_id` on which NUMA node.
        Later segments of the group get the same. `progress` is called with the number of bytes whenever some more are
        taken. Raises Invalid, NoMemory, Denied, or NotFound for an unknown user or pages that are not to be had.
        """
        self._check()
        self._check_place(group=group, socket_id=socket_id)
        if not isinstance(size, int):
            raise InvalidType(f"the size of a segment is an int, not {type(size).__name__}")
        check_mode(mode, "segment")
        backend = hugepages.choose(huge_dir=huge_dir, page_size=page_size) if huge_dir or page_size else None
        return self._heap.create_segment(
            size,
            group=group,
            socket_id=socket_id,
            ownership=Ownership(mode, user, user_group),
            backend=backend,
            progress=progress,
        )

    # --- rings --------------------------------------------------------------------------------------------

    def ring_create(
        self,
        name: str,
        count: int,
        *,
        elem_size: int = 8,
        flags: int = 0,
        socket_id: int = SOCKET_ID_ANY,
        group: str = "default",
        exist_ok: bool = False,
    ) -> Ring:
        """Makes a ring for `count - 1` elements, or exactly `count` with EXACT_SZ (DPDK: rte_ring_create_elem).

        `count` is a power of two (any number with EXACT_SZ), `elem_size` a multiple of 4 in bytes, `flags` of
        RingFlag. With `exist_ok` a ring of that name and kind is given instead. Raises Exists, Invalid, NoMemory.
        """
        check_name(name, "ring")
        length = ring_memsize(name, count, elem_size, flags)
        self._check_place(group=group, socket_id=socket_id)

        def fill(segment: Segment, entry: Entry) -> None:
            format_ring(Memzone(entry, segment), name, count, elem_size, flags)

        with self._change():
            if zone := self._existing(Kind.RING, name, exist_ok):
                ring: Ring = self._handle(zone)
                capacity = count if flags & RingFlag.EXACT_SZ else count - 1
                asked = {"elem_size": (ring.elem_size, elem_size), "flags": (ring.flags, RingFlag(flags))}
                self._check_same("ring", name, {**asked, "capacity": (ring.capacity, capacity)})
                self._check_same_place("ring", zone, group=group, socket_id=socket_id)
                return ring
            entry = self._heap.reserve(
                name, Kind.RING, length, socket_id=socket_id, group=group, flags=flags, fill=fill
            )
            made: Ring = self._handle(self._own_zone(entry))
            return made

    def ring_lookup(self, name: str) -> Ring:
        """The ring of that name. Raises NotFound, or Corrupt where it is damaged (DPDK: rte_ring_lookup)."""
        check_name(name, "ring")
        ring: Ring = self._handle(self._lookup_zone(Kind.RING, name))
        return ring

    def ring_free(self, ring: Ring) -> None:
        """Frees a ring; its handles in this process raise Closed from now on (DPDK: rte_ring_free).

        Raises InUse while it stands in a metadata, NotFound if it is gone, Denied for a ring of a share.
        """
        if not isinstance(ring, Ring):
            raise InvalidType(f"ring_free takes a Ring, not {type(ring).__name__}")
        self._free(ring.memzone.entry, ring)

    def rings(self) -> list[Ring]:
        """All rings, sorted by name (DPDK: rte_ring_list_dump)."""
        return self._all(Kind.RING)

    # --- mempools -----------------------------------------------------------------------------------------

    def mempool_create(
        self,
        name: str,
        n: int,
        elt_size: int,
        *,
        cache_size: int = 0,
        socket_id: int = SOCKET_ID_ANY,
        group: str = "default",
        flags: int = 0,
        obj_init: Callable[[memoryview, int], object] | None = None,
        exist_ok: bool = False,
    ) -> Mempool:
        """Makes a pool of `n` zeroed objects of `elt_size` bytes (DPDK: rte_mempool_create).

        `cache_size` is the number of objects that each thread keeps for itself (up to 512, one and a half times it
        at most `n`), `flags` of MempoolFlag. `obj_init` is called with each object's bytes and index before anybody can
        look the pool up. With `exist_ok` a pool of that name and kind is given instead. Raises
        Exists, Invalid, NoMemory.
        """
        check_name(name, "mempool")
        length = mempool_memsize(name, n, elt_size, cache_size, flags)
        self._check_place(group=group, socket_id=socket_id)

        def fill(segment: Segment, entry: Entry) -> None:
            zone = Memzone(entry, segment)
            format_mempool(zone, name, n, elt_size, cache_size, flags)
            if obj_init is not None:
                for index, memory in enumerate(Mempool(zone, name)):
                    obj_init(memory, index)

        with self._change():
            if zone := self._existing(Kind.MEMPOOL, name, exist_ok):
                pool: Mempool = self._handle(zone)
                asked = {"n": (pool.n, n), "elt_size": (pool.elt_size, elt_size), "flags": (pool.flags, flags)}
                self._check_same("mempool", name, {**asked, "cache_size": (pool.cache_size, cache_size)})
                self._check_same_place("mempool", zone, group=group, socket_id=socket_id)
                return pool
            entry = self._heap.reserve(
                name, Kind.MEMPOOL, length, socket_id=socket_id, group=group, flags=flags, fill=fill
            )
            made: Mempool = self._handle(self._own_zone(entry))
            return made

    def pktmbuf_pool_create(
        self,
        name: str,
        n: int,
        *,
        cache_size: int = 0,
        data_room: int = DEFAULT_DATA_ROOM,
        private_size: int = 0,
        socket_id: int = SOCKET_ID_ANY,
        group: str = "default",
        flags: int = 0,
        exist_ok: bool = False,
    ) -> MbufPool:
        """Makes a pool of `n` mbufs (DPDK: rte_pktmbuf_pool_create).

        `data_room` is the size of each buffer in bytes (up to 65535), with the 128 of its headroom; `private_size` (a
        multiple of 8) is what the app has to itself in each mbuf. The rest as in `mempool_create`.
        """
        check_name(name, "mempool")
        length, kept = mbuf_pool_memsize(name, n, cache_size, data_room, private_size, flags)
        self._check_place(group=group, socket_id=socket_id)

        def fill(segment: Segment, entry: Entry) -> None:
            format_mbuf_pool(Memzone(entry, segment), name, n, cache_size, data_room, private_size, flags)

        with self._change():
            zone = self._existing(Kind.MEMPOOL, name, exist_ok)
            if zone is None:
                entry = self._heap.reserve(
                    name, Kind.MEMPOOL, length, socket_id=socket_id, group=group, flags=kept, fill=fill
                )
                zone = self._own_zone(entry)
            pool: MbufPool = self._handle(zone)
            self._check_same("mempool", name, {"flags": (pool.flags, kept), "n": (pool.n, n)})
            sizes = {"cache_size": (pool.cache_size, cache_size), "private_size": (pool.private_size, private_size)}
            self._check_same("mempool", name, {**sizes, "data_room": (pool.data_room, data_room)})
            self._check_same_place("mempool", zone, group=group, socket_id=socket_id)
            return pool

    def mempool_lookup(self, name: str) -> Mempool:
        """The pool of that name, an MbufPool where it is one (DPDK: rte_mempool_lookup).

        Raises NotFound, or Corrupt where it is damaged.
        """
        check_name(name, "mempool")
        pool: Mempool = self._handle(self._lookup_zone(Kind.MEMPOOL, name))
        return pool

    def mempool_free(self, pool: Mempool) -> None:
        """Frees a pool; its handles in this process raise Closed from now on (DPDK: rte_mempool_free).

        Raises InUse while it stands in a metadata, NotFound if it is gone, Denied for a pool of a share.
        """
        if not isinstance(pool, Mempool):
            raise InvalidType(f"mempool_free takes a Mempool, not {type(pool).__name__}")
        self._free(pool.memzone.entry, pool)

    def mempools(self) -> list[Mempool]:
        """All pools, sorted by name (DPDK: rte_mempool_list_dump)."""
        return self._all(Kind.MEMPOOL)
