"""Devices: the shared files that a VM is given, one ivshmem-plain device each."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from uuid import UUID

from eal.errors import NotFound
from eal.segment import SOCKET_ID_ANY
from eal.table import Table, TableFile


@dataclass(frozen=True)
class Device:
    """One shared file as a VM gets it. `id` is what QEMU calls it, `size` in bytes (a power of two), `socket_id` the
    NUMA node its pages are bound to (-1: any). `uuid` is the segment's or metadata's.
    """

    id: str
    uuid: UUID
    path: str
    size: int
    readonly: bool
    socket_id: int = SOCKET_ID_ANY
    is_metadata: bool = False


def devices_of(file: TableFile, path: str, registry: Table) -> list[Device]:
    """What a metadata takes: its segments, whose files the prefix's registry names, then the metadata itself.

    Raises NotFound for a file that is gone: QEMU would make an empty one in its place.
    """
    info = file.info
    mine = info.uuid.hex[:12]
    paths = {record.uuid: record.path for record in registry.segments}
    found = []
    for record in file.read().segments:
        if record.uuid not in paths:
            raise NotFound(
                f"metadata {info.name!r} needs segment {record.uuid}, which its prefix does not have any more"
            )
        found.append(
            Device(
                id=f"ivs-{mine}-{record.uuid.hex[:12]}",
                uuid=record.uuid,
                path=paths[record.uuid],
                size=record.size,
                readonly=record.readonly,
                socket_id=record.socket_id,
            )
        )
    found.append(Device(f"ivs-{mine}", info.uuid, path, info.size, readonly=True, is_metadata=True))
    for device in found:
        if not os.path.exists(device.path):
            raise NotFound(f"{device.path}, which metadata {info.name!r} needs, is gone: was it removed by hand?")
    return found


def merge(devices: Iterable[Device]) -> list[Device]:
    """Each segment once, writable if it is so anywhere; in the order of their first appearance."""
    merged: dict[UUID, Device] = {}
    for device in devices:
        known = merged.setdefault(device.uuid, device)
        if known.readonly and not device.readonly:
            merged[device.uuid] = replace(known, readonly=False)
    return list(merged.values())
