# SPDX-License-Identifier: BSD-3-Clause
"""HostShare: a metadata file with its segments, as the host plugs it into VMs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID

from eal.metadata.records import SegmentRecord, Table
from eal.metadata.table_file import TableFile
from eal.runtime.prefix_dir import PrefixDir
from ivshmem.hotplug.attached_vms import AttachedVms
from ivshmem.vmm.device import Device, devices_of


@dataclass(frozen=True)
class HostShare:
    """A writable metadata file, its path, its file_prefix, and the table of that prefix's registry."""

    directory: PrefixDir
    file: TableFile
    path: str
    registry: Table

    @property
    def name(self) -> str:
        return self.file.info.name

    @property
    def uuid(self) -> UUID:
        return self.file.info.uuid

    @property
    def vms(self) -> AttachedVms:
        """The VMs into which the share was plugged."""
        return AttachedVms(self.directory, self.uuid)

    def devices(self) -> list[Device]:
        """Return the devices of the share, segments first. Raise NotFound if a file is missing."""
        return devices_of(self.file, self.path, self.registry)

    def segments(self) -> list[SegmentRecord]:
        """Return the segments with their paths from the registry; "" for a segment that the registry lacks."""
        paths = {record.uuid: record.path for record in self.registry.segments}
        return [replace(record, path=paths.get(record.uuid, "")) for record in self.file.read().segments]
