# SPDX-License-Identifier: BSD-3-Clause
"""Shares: metadata files accepted from PCI devices, and the other results of probing."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from eal.errors import EalError
from eal.memory.segment import Segment
from eal.metadata.records import Entry, Kind, Table
from eal.metadata.table_file import TableFile
from eal.probe.classify import DeviceTable, MetadataDevice
from eal.probe.unplug_ack import MonitorSlot


@dataclass(eq=False)
class Share:
    """An accepted metadata file: its name, the address of its device, and the segments it needs, mapped.

    `stale` is the reason why its host is considered restarted, "" if it is not. `terminal_errno` is the errno with
    which its objects are refused, 0 if they are not.
    """

    name: str
    address: str
    uuid: UUID
    file: TableFile
    table: Table
    segments: list[Segment]
    device: MetadataDevice
    slot: MonitorSlot | None = None
    stale: str = ""
    terminal_errno: int = 0
    unused: str = ""  # why the newer table has not been adopted

    def __post_init__(self) -> None:
        self.index = by_name(self.table)

    def find(self, kind: Kind, name: str) -> Entry | None:
        return self.index.get((kind, name))

    def segment_of(self, entry: Entry) -> Segment:
        return self.segments[entry.segment]

    def first_of(self, segments: set[UUID]) -> UUID | None:
        """Return the first of its segments that is one of these."""
        return next((segment.uuid for segment in self.segments if segment.uuid in segments), None)

    def no_longer_lists(self, segments: set[UUID]) -> bool:
        """Return whether the host has published a table without these segments."""
        try:
            return segments.isdisjoint(record.uuid for record in self.file.read().segments)
        except EalError:
            return False

    def has(self, entry: Entry, segment: Segment) -> bool:
        """Return whether the share contains this object: same kind, name, segment and offset."""
        mine = self.find(entry.kind, entry.name)
        return mine is not None and self.segment_of(mine) is segment and mine.offset == entry.offset


@dataclass(frozen=True)
class Rejection:
    """A rejected device: its PCI address, the name of the metadata file if readable, and the reason."""

    address: str
    name: str
    reason: str


@dataclass
class Findings:
    """Results of probing. `foreign` are the addresses of devices without this project's formats."""

    shares: list[Share] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def update(self, devices: DeviceTable) -> None:
        """List the faults of the devices, sorted by address, and the foreign devices."""
        faults = ((probed, probed.fault) for _, probed in sorted(devices.devices.items()))
        self.rejections = [Rejection(probed.address, probed.name, fault) for probed, fault in faults if fault]
        self.foreign = devices.foreign()


def by_name(table: Table) -> dict[tuple[Kind, str], Entry]:
    """Return the entries of a table by kind and name."""
    return {(entry.kind, entry.name): entry for entry in table.entries}


def place_of(table: Table, entry: Entry) -> tuple[UUID, int, int]:
    """Return the identity of an object across tables: segment uuid, offset and length."""
    return table.segments[entry.segment].uuid, entry.offset, entry.length
