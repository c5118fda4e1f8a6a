# SPDX-License-Identifier: BSD-3-Clause
"""Metadata that the hotplug tests plug into a FakeQemu."""

from __future__ import annotations

import eal
import ivshmem
from eal.metadata.table_file import TableFile

MIB = 1 << 20


def metadata_of(name: str, *sizes: int, readonly: bool = False) -> ivshmem.Metadata:
    """Create metadata with one zone in a segment of each size."""
    made = ivshmem.metadata_create(name, capacity=MIB)
    for number, size in enumerate(sizes):
        made.add_memzone(zone_in(f"{name}-{number}", size), readonly=readonly)
    return made


def zone_in(group: str, size: int = 2 * MIB) -> eal.Memzone:
    eal.segment_create(size, group=group)
    return eal.memzone_reserve(f"zone {group}", 64, group=group)


def file_of(metadata: ivshmem.Metadata) -> TableFile:
    assert metadata._file is not None
    return metadata._file


def ids(*metadata: ivshmem.Metadata) -> list[str]:
    return sorted({device.uuid: device.id for one in metadata for device in one.devices()}.values())
