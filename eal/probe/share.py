# SPDX-License-Identifier: BSD-3-Clause
"""Shares: metadata files accepted from PCI devices, and what else probing has found."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from eal.memory.segment import Segment
from eal.metadata.records import Entry, Kind, Table
from eal.metadata.table_file import TableFile
from eal.probe.classify import MetadataDevice
from eal.probe.unplug_ack import MonitorSlot


@dataclass(eq=False)
class Share:
    """A metadata that was found and accepted: its name, the device it is on, and the segments it needs, mapped.

    `stale` says why its host is taken to have started afresh, "" while it is not. `over` is the errno with which its
    objects are refused, 0 while they are not.
    """

    name: str
    address: str
    uuid: UUID
    file: TableFile
    table: Table
    segments: list[Segment]
    device: MetadataDevice
    guard: MonitorSlot | None = None
    stale: str = ""
    over: int = 0
    unused: str = ""  # why the newer table that is there is not gone by yet

    def __post_init__(self) -> None:
        self.index = by_name(self.table)

    def find(self, kind: Kind, name: str) -> Entry | None:
        return self.index.get((kind, name))

    def segment_of(self, entry: Entry) -> Segment:
        return self.segments[entry.segment]

    def has(self, entry: Entry, segment: Segment) -> bool:
        """Whether this very object is in it."""
        mine = self.find(entry.kind, entry.name)
        return mine is not None and self.segment_of(mine) is segment and mine.offset == entry.offset


@dataclass(frozen=True)
class Rejection:
    """A device whose content was refused: its PCI address, the metadata's name where readable, and the reason."""

    address: str
    name: str
    reason: str


@dataclass
class Findings:
    """What probing came to. `foreign` are the addresses of devices that carry nothing of ours."""

    shares: list[Share] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


def by_name(table: Table) -> dict[tuple[Kind, str], Entry]:
    """The objects of a table by kind and name."""
    return {(entry.kind, entry.name): entry for entry in table.entries}


def place_of(table: Table, entry: Entry) -> tuple[UUID, int, int]:
    """What makes an object of two tables the same object: segment, offset and length."""
    return table.segments[entry.segment].uuid, entry.offset, entry.length
