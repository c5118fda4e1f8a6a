# SPDX-License-Identifier: BSD-3-Clause
"""Devices: the shared files of a VM, each the memory of an ivshmem-plain device."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from uuid import UUID

from eal.errors import NotFound
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.metadata.records import SegmentRecord, Table
from eal.metadata.table_file import TableFile


@dataclass(frozen=True)
class Device:
    """A shared file of a VM.

    `id` is QEMU's id of the memory backend, `uuid` that of the segment or metadata file. `size` is in bytes, a power of
    two. `socket_id` is the NUMA node to which the pages are bound (-1: any).
    """

    id: str
    uuid: UUID
    path: str
    size: int
    readonly: bool
    socket_id: int = SOCKET_ID_ANY
    is_metadata: bool = False

    @property
    def device_id(self) -> str:
        """QEMU's id of the PCI device."""
        return f"{self.id}-dev"


def devices_of(file: TableFile, path: str, registry: Table) -> list[Device]:
    """Return the devices of a metadata file: its segments, with paths from the prefix's registry, then the file itself.

    Raise NotFound if a file does not exist: QEMU would create an empty one in its place.
    """
    info = file.info
    paths = {record.uuid: record.path for record in registry.segments}
    found = []
    for record in file.read().segments:
        if record.uuid not in paths:
            raise NotFound(
                f"metadata {info.name!r} needs segment {record.uuid}, which its file_prefix no longer has: create the "
                "metadata again"
            )
        found.append(segment_device(info.uuid, replace(record, path=paths[record.uuid])))
    found.append(Device(id_of(info.uuid), info.uuid, path, info.size, readonly=True, is_metadata=True))
    for device in found:
        if not os.path.exists(device.path):
            raise NotFound(f"file {device.path} of metadata {info.name!r} does not exist: was it removed by hand?")
    return found


def id_of(metadata: UUID) -> str:
    """Return the id of a metadata file's device, which is also the prefix of its segments' ids."""
    return f"ivs-{metadata.hex[:12]}"


def segment_device(metadata: UUID, record: SegmentRecord) -> Device:
    """Return the device of a segment in a metadata file."""
    return Device(
        id=f"{id_of(metadata)}-{record.uuid.hex[:12]}",
        uuid=record.uuid,
        path=record.path,
        size=record.size,
        readonly=record.readonly,
        socket_id=record.socket_id,
    )


def merge(devices: Iterable[Device]) -> list[Device]:
    """Return each segment once, in the order of first appearance, writable if any of its devices is."""
    merged: dict[UUID, Device] = {}
    for device in devices:
        first = merged.setdefault(device.uuid, device)
        if first.readonly and not device.readonly:
            merged[device.uuid] = replace(first, readonly=False)
    return list(merged.values())
