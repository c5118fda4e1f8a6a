# SPDX-License-Identifier: BSD-3-Clause
"""Methods of Eal that reserve, look up and free memzones. The functions of `eal` have the full docstrings."""

from __future__ import annotations

import math
from typing import Any, TextIO

from eal.errors import Invalid, InvalidType
from eal.memory.memzone import Memzone
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.metadata.records import Kind
from eal.objects.arguments import check_placement, check_same
from eal.objects.table import ObjectTable
from eal.text import dtypes
from eal.text.names import POOL_PREFIX, RING_PREFIX, check_name, check_user_zone


class MemzoneMethods:
    """Methods for memzones. Thread-safe."""

    _objects: ObjectTable

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
        """Reserve `length` zeroed bytes; see `eal.memzone_reserve` (DPDK: rte_memzone_reserve_aligned)."""
        check_user_zone(name)
        check_placement(group, socket_id)
        with self._objects.change():
            if zone := self._objects.find_existing(Kind.MEMZONE, name, exist_ok):
                check_same(Kind.MEMZONE, name, {"length": (zone.length, length)})
                self._objects.check_same_placement(zone, group=group, socket_id=socket_id, align=align, flags=flags)
                return zone
            return self._objects.reserve(
                Kind.MEMZONE, name, length, socket_id=socket_id, align=align, group=group, flags=flags
            )

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
        """Reserve a zone that records a dtype and a shape; see `eal.array_reserve`."""
        import numpy as np  # 0.1 s: loaded by the first process that needs arrays

        check_user_zone(name)
        check_placement(group, socket_id)
        text = dtypes.describe(dtype)
        dims = dtypes.dims_of(shape)
        length = math.prod(dims) * np.dtype(dtype).itemsize
        if length < 1 or any(d < 0 for d in dims):
            raise Invalid(f"memzone {name!r}: an array must have at least one byte, got shape {dims} of {dtype}")
        with self._objects.change():
            if zone := self._objects.find_existing(Kind.MEMZONE, name, exist_ok):
                check_same(Kind.MEMZONE, name, {"dtype": (zone.entry.dtype, text), "shape": (zone.shape, dims)})
                self._objects.check_same_placement(zone, group=group, socket_id=socket_id, align=align, flags=flags)
                return zone
            return self._objects.reserve(
                Kind.MEMZONE,
                name,
                length,
                socket_id=socket_id,
                align=align,
                group=group,
                flags=flags,
                dtype=text,
                shape=dims,
            )

    def memzone_lookup(self, name: str) -> Memzone:
        """Return the zone of that name; see `eal.memzone_lookup` (DPDK: rte_memzone_lookup)."""
        check_name(name, "memzone")
        for kind, prefix in ((Kind.RING, RING_PREFIX), (Kind.MEMPOOL, POOL_PREFIX)):
            # A metadata file may list the zone of a ring or mempool as a plain memzone, with this prefix in its name.
            if name.startswith(prefix) and not self._objects.zones.is_shared(Kind.MEMZONE, name):
                return self._objects.lookup(kind, name[len(prefix) :])
        return self._objects.lookup(Kind.MEMZONE, name)

    def memzone_free(self, zone: Memzone) -> None:
        """Free a zone; see `eal.memzone_free` (DPDK: rte_memzone_free)."""
        if not isinstance(zone, Memzone):
            raise InvalidType(f"memzone_free: zone must be a Memzone, got {type(zone).__name__}")
        kind = zone.entry.kind.name.lower()
        if zone.entry.kind != Kind.MEMZONE:
            raise Invalid(f"memzone {zone.name!r} belongs to a {kind}; free the {kind} with {kind}_free")
        self._objects.free(zone.entry)

    def memzones(self) -> list[Memzone]:
        """Return all zones, including those of rings and mempools, sorted by name (DPDK: rte_memzone_walk)."""
        zones = (self._objects.zones.issue(entry, segment) for entry, segment in self._objects.entries())
        return sorted(zones, key=lambda zone: zone.name)

    def memzone_dump(self, file: TextIO) -> None:
        """Write one line per zone to `file` (DPDK: rte_memzone_dump)."""
        for number, zone in enumerate(self.memzones()):
            file.write(
                f"Zone {number}: name:<{zone.name}>, len:{zone.length:#x}, virt:{zone.address:#x}, "
                f"socket_id:{zone.socket_id}, flags:{zone.flags:#x}, segment:{zone.segment.uuid}, "
                f"offset:{zone.offset:#x}\n"
            )
