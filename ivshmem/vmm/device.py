# SPDX-License-Identifier: BSD-3-Clause
"""Devices: the shared files that a VM is given, one ivshmem-plain device each."""

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
    """One shared file as a VM gets it. `id` is what QEMU calls its memory backend, `size` in bytes (a power of two),
    `socket_id` the NUMA node its pages are bound to (-1: any). `uuid` is the segment's or metadata's.
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
        """What QEMU calls the PCI device; `id` is its memory backend's."""
        return f"{self.id}-dev"


def devices_of(file: TableFile, path: str, registry: Table) -> list[Device]:
    """What a metadata takes: its segments, whose files the prefix's registry names, then the metadata itself.

    Raises NotFound for a file that is gone: QEMU would make an empty one in its place.
    """
    info = file.info
    paths = {record.uuid: record.path for record in registry.segments}
    found = []
    for record in file.read().segments:
        if record.uuid not in paths:
            raise NotFound(
                f"metadata {info.name!r} needs segment {record.uuid}, which its prefix does not have any more"
            )
        found.append(segment_device(info.uuid, replace(record, path=paths[record.uuid])))
    found.append(Device(id_of(info.uuid), info.uuid, path, info.size, readonly=True, is_metadata=True))
    for device in found:
        if not os.path.exists(device.path):
            raise NotFound(f"{device.path}, which metadata {info.name!r} needs, is gone: was it removed by hand?")
    return found


def id_of(metadata: UUID) -> str:
    """The id of a metadata's own device, with which those of its segments begin."""
    return f"ivs-{metadata.hex[:12]}"


def segment_device(metadata: UUID, record: SegmentRecord) -> Device:
    """A segment, with its path, as a metadata gives it to a VM."""
    return Device(
        id=f"{id_of(metadata)}-{record.uuid.hex[:12]}",
        uuid=record.uuid,
        path=record.path,
        size=record.size,
        readonly=record.readonly,
        socket_id=record.socket_id,
    )


def merge(devices: Iterable[Device]) -> list[Device]:
    """Each segment once, writable if it is so anywhere; in the order of their first appearance."""
    merged: dict[UUID, Device] = {}
    for device in devices:
        known = merged.setdefault(device.uuid, device)
        if known.readonly and not device.readonly:
            merged[device.uuid] = replace(known, readonly=False)
    return list(merged.values())
