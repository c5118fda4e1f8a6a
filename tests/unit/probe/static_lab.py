# SPDX-License-Identifier: BSD-3-Clause
"""A host's files and a guest's bus whose devices are all present before the guest starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import eal
from eal.linux.mapping import Mapping
from eal.memory.hugepages import Backend
from eal.memory.memzone import Memzone
from eal.memory.segment import Segment, create_segment
from eal.memory.segment_file import Ownership
from eal.mempool.format import format_mempool, mempool_memsize
from eal.metadata.records import Entry, Kind, Table
from eal.metadata.table_file import METADATA_MAGIC, TableFile
from eal.pci.device import scan
from eal.probe.prober import Prober
from eal.probe.share import Findings
from eal.ring.format import format_ring, ring_memsize
from eal.text import dtypes

MIB = 1 << 20
HINT = 0x3300_0000_0000  # an address range that nothing else uses


@dataclass
class StaticLab:
    """A host's files and a guest's bus in one temporary directory."""

    folder: Path
    devices: int = 0
    segments: list[Segment] = field(default_factory=list)

    # --- the host

    def segment(self, group: str = "default", size: int = MIB, socket_id: int = -1) -> Segment:
        backend = Backend(self.folder, 4096, huge=False)
        path = self.folder / f"{group}{len(self.segments)}"
        where = {
            "group": group,
            "socket_id": socket_id,
            "epoch": 5,
            "hint": HINT + len(self.segments) * size,
            "ownership": Ownership(),
        }
        made = create_segment(backend, path, uuid4(), size, **where)  # type: ignore[arg-type]
        self.segments.append(made)
        return made

    def metadata(self, name: str, table: Table, size: int = 16384) -> Path:
        path = self.folder / f"{name}{self.devices}-{uuid4().hex}.md"
        with path.open("w+b") as file:
            file.truncate(size)
            mapping = Mapping(file.fileno(), size)
        TableFile.format(mapping, METADATA_MAGIC, name, uuid4(), epoch=5).publish(table)
        return path

    # --- the guest

    def device(self, bar: Path | None, numa_node: int = -1, **files: str) -> str:
        """Create an ivshmem device whose BAR2 is a file."""
        self.devices += 1
        address = f"0000:00:{self.devices + 1:02x}.0"
        device = self.folder / "sys/bus/pci/devices" / address
        device.mkdir(parents=True)
        texts = {"vendor": "0x1af4", "device": "0x1110", "enable": "0", "numa_node": str(numa_node), **files}
        for name, text in texts.items():
            (device / name).write_text(text)
        if bar is not None:
            (device / "resource2").symlink_to(bar)
        return address

    def enabled(self, address: str) -> str:
        return (self.folder / "sys/bus/pci/devices" / address / "enable").read_text()

    def probe(self) -> Findings:
        return Prober().probe(scan(self.folder / "sys"))


Guest = Callable[[], eal.Eal]


def zone(segment: Segment, name: str, offset: int = 4096, length: int = 4096, **more: Any) -> Entry:
    return Entry(name, Kind.MEMZONE, 0, offset, length, **more)


def ring(segment: Segment, name: str, offset: int) -> Entry:
    entry = Entry(name, Kind.RING, 0, offset, ring_memsize(name, 16, 8, 0))
    format_ring(Memzone(entry, segment), name, 16, 8, 0)
    return entry


def pool(segment: Segment, name: str, offset: int) -> Entry:
    entry = Entry(name, Kind.MEMPOOL, 0, offset, mempool_memsize(name, 64, 32, 8, 0))
    format_mempool(Memzone(entry, segment), name, 64, 32, 8, 0)
    return entry


def good(lab: StaticLab, name: str = "good", readonly: bool = False) -> tuple[str, Segment]:
    """Create a metadata file with one object of each kind on devices of its own; return its address and segment."""
    segment = lab.segment(name)
    entries = (
        zone(segment, f"{name} image", dtype=dtypes.describe("<f4"), shape=(4, 8), length=128),
        ring(segment, f"{name} ring", 16384),
        pool(segment, f"{name} pool", 65536),
    )
    table = Table((replace(segment.record, path="", readonly=readonly),), entries, epoch=5)
    address = lab.device(lab.metadata(name, table))
    lab.device(Path(segment.path))
    return address, segment


def one_zone(lab: StaticLab, **change: Any) -> tuple[Table, Segment]:
    segment = lab.segment()
    return Table((replace(segment.record, path=""),), (replace(zone(segment, "z"), **change),)), segment
