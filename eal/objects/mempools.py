# SPDX-License-Identifier: BSD-3-Clause
"""Methods of Eal that create, look up and free mempools. The functions of `eal` have the full docstrings."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from eal.errors import InvalidType
from eal.mbuf.format import DEFAULT_DATA_ROOM, format_mbuf_pool, mbuf_pool_memsize
from eal.mbuf.pool import MbufPool
from eal.memory.memzone import Memzone
from eal.memory.segment import Segment
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.mempool.format import format_mempool, mempool_memsize
from eal.mempool.mempool import Mempool
from eal.metadata.records import Entry, Kind
from eal.objects.arguments import check_placement, check_same
from eal.objects.table import ObjectTable
from eal.text.names import check_name


class MempoolMethods:
    """Methods for mempools and pools of mbufs. Thread-safe."""

    _objects: ObjectTable

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
        """Create a mempool of `n` objects of `elt_size` bytes; see `eal.mempool_create` (DPDK: rte_mempool_create)."""
        check_name(name, "mempool")
        length = mempool_memsize(name, n, elt_size, cache_size, flags)
        check_placement(group, socket_id)

        def fill(segment: Segment, entry: Entry) -> None:
            zone = Memzone(entry, segment)
            format_mempool(zone, name, n, elt_size, cache_size, flags)
            if obj_init is not None:
                for index, memory in enumerate(Mempool(zone, name)):
                    obj_init(memory, index)

        with self._objects.change():
            if zone := self._objects.find_existing(Kind.MEMPOOL, name, exist_ok):
                pool = self._objects.mempool(zone)
                pairs = {"n": (pool.n, n), "elt_size": (pool.elt_size, elt_size), "flags": (pool.flags, flags)}
                check_same(Kind.MEMPOOL, name, {**pairs, "cache_size": (pool.cache_size, cache_size)})
                self._objects.check_same_placement(zone, group=group, socket_id=socket_id)
                return pool
            zone = self._objects.reserve(
                Kind.MEMPOOL, name, length, socket_id=socket_id, group=group, flags=flags, fill=fill
            )
            return self._objects.mempool(zone)

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
        """Create a pool of `n` mbufs; see `eal.pktmbuf_pool_create` (DPDK: rte_pktmbuf_pool_create)."""
        check_name(name, "mempool")
        length, pool_flags = mbuf_pool_memsize(name, n, cache_size, data_room, private_size, flags)
        check_placement(group, socket_id)

        def fill(segment: Segment, entry: Entry) -> None:
            format_mbuf_pool(Memzone(entry, segment), name, n, cache_size, data_room, private_size, flags)

        with self._objects.change():
            zone = self._objects.find_existing(Kind.MEMPOOL, name, exist_ok)
            if zone is None:
                zone = self._objects.reserve(
                    Kind.MEMPOOL, name, length, socket_id=socket_id, group=group, flags=pool_flags, fill=fill
                )
            pool = cast(MbufPool, self._objects.mempool(zone))  # for a plain mempool, `flags` differ
            check_same(Kind.MEMPOOL, name, {"flags": (pool.flags, pool_flags), "n": (pool.n, n)})
            sizes = {"cache_size": (pool.cache_size, cache_size), "private_size": (pool.private_size, private_size)}
            check_same(Kind.MEMPOOL, name, {**sizes, "data_room": (pool.data_room, data_room)})
            self._objects.check_same_placement(zone, group=group, socket_id=socket_id)
            return pool

    def mempool_lookup(self, name: str) -> Mempool:
        """Return the mempool of that name; see `eal.mempool_lookup` (DPDK: rte_mempool_lookup)."""
        check_name(name, "mempool")
        return self._objects.mempool(self._objects.lookup(Kind.MEMPOOL, name))

    def mempool_free(self, pool: Mempool) -> None:
        """Free a mempool; see `eal.mempool_free` (DPDK: rte_mempool_free)."""
        if not isinstance(pool, Mempool):
            raise InvalidType(f"mempool_free: pool must be a Mempool, got {type(pool).__name__}")
        self._objects.free(pool.memzone.entry, pool)

    def mempools(self) -> list[Mempool]:
        """Return all mempools, sorted by name (DPDK: rte_mempool_list_dump)."""
        return self._objects.all(Kind.MEMPOOL, self._objects.mempool)
