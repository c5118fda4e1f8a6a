# SPDX-License-Identifier: BSD-3-Clause
"""Methods of Eal that create, look up and free rings. The functions of `eal` have the full docstrings."""

from __future__ import annotations

from eal.errors import InvalidType
from eal.memory.memzone import Memzone
from eal.memory.segment import Segment
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.metadata.records import Entry, Kind
from eal.objects.arguments import check_placement, check_same
from eal.objects.table import ObjectTable
from eal.ring.format import RingFlag, format_ring, ring_memsize
from eal.ring.ring import Ring
from eal.text.names import check_name


class RingMethods:
    """Methods for rings. Thread-safe."""

    _objects: ObjectTable

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
        """Create a ring; see `eal.ring_create` (DPDK: rte_ring_create_elem)."""
        check_name(name, "ring")
        length = ring_memsize(name, count, elem_size, flags)
        check_placement(group, socket_id)

        def fill(segment: Segment, entry: Entry) -> None:
            format_ring(Memzone(entry, segment), name, count, elem_size, flags)

        with self._objects.change():
            if zone := self._objects.find_existing(Kind.RING, name, exist_ok):
                ring = self._objects.ring(zone)
                capacity = count if flags & RingFlag.EXACT_SZ else count - 1
                pairs = {"elem_size": (ring.elem_size, elem_size), "flags": (ring.flags, RingFlag(flags))}
                check_same(Kind.RING, name, {**pairs, "capacity": (ring.capacity, capacity)})
                self._objects.check_same_placement(zone, group=group, socket_id=socket_id)
                return ring
            zone = self._objects.reserve(
                Kind.RING, name, length, socket_id=socket_id, group=group, flags=flags, fill=fill
            )
            return self._objects.ring(zone)

    def ring_lookup(self, name: str) -> Ring:
        """Return the ring of that name; see `eal.ring_lookup` (DPDK: rte_ring_lookup)."""
        check_name(name, "ring")
        return self._objects.ring(self._objects.lookup(Kind.RING, name))

    def ring_free(self, ring: Ring) -> None:
        """Free a ring; see `eal.ring_free` (DPDK: rte_ring_free)."""
        if not isinstance(ring, Ring):
            raise InvalidType(f"ring_free: ring must be a Ring, got {type(ring).__name__}")
        self._objects.free(ring.memzone.entry, ring)

    def rings(self) -> list[Ring]:
        """Return all rings, sorted by name (DPDK: rte_ring_list_dump)."""
        return self._objects.all(Kind.RING, self._objects.ring)
