# SPDX-License-Identifier: BSD-3-Clause
"""A host's files, and a bus with devices that are plugged and unplugged, in one directory."""

from __future__ import annotations

import itertools
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import eal
from eal._native import lib
from eal.linux.mapping import Mapping
from eal.memory.hugepages import Backend
from eal.memory.memzone import Memzone
from eal.memory.participant import Participant, share_word
from eal.memory.segment import Segment, create_segment
from eal.memory.segment_file import Ownership
from eal.mempool.format import format_mempool, mempool_memsize
from eal.metadata.records import Entry, Kind, Table
from eal.metadata.table_file import METADATA_MAGIC, TableFile
from eal.ring.format import format_ring, ring_memsize
from eal.ring.ring import Ring

MIB = 1 << 20
RING_AT, POOL_AT, ROOM = 16384, 65536, 65536
_numbers = itertools.count()


@dataclass
class Metadata:
    """A metadata file of the lab and the segments that it needs."""

    path: Path
    file: TableFile
    segments: list[Segment]
    addresses: list[str] = field(default_factory=list)  # of its devices, the metadata file's first

    def monitor_slots(self) -> list[Participant]:
        """Return the monitor slots of this metadata file in all segments."""
        word = share_word(self.file.info.uuid)
        return [p for segment in self.segments for p in segment.participants() if p.share == word]

    def announce(self, number: int) -> None:
        lib.ivs_table_set_leaving(self.file.mapping.pointer(), number)

    def zone(self, name: str) -> Memzone:
        """Return one of its objects as the host sees it."""
        table = self.file.read()
        entry = next(entry for entry in table.entries if entry.name == name)
        return Memzone(entry, self.segments[entry.segment])

    def ring(self, name: str) -> Ring:
        return Ring(self.zone(name), name, 1.0)


@dataclass
class Lab:
    """`root` replaces /sys for a guest."""

    folder: Path

    def __post_init__(self) -> None:
        self.root = self.folder / "sys"
        self._devices = self.root / "bus/pci/devices"
        self._devices.mkdir(parents=True)
        self._aside = self.folder / "aside"
        self._aside.mkdir()

    # --- the host

    def segment(self, group: str = "default", epoch: int = 5) -> Segment:
        path = self.folder / f"{group}{next(_numbers)}"
        return create_segment(
            Backend(self.folder, 4096, huge=False),
            path,
            uuid4(),
            MIB,
            group=group,
            socket_id=-1,
            epoch=epoch,
            hint=0,
            ownership=Ownership(),
        )

    def metadata(self, name: str, *segments: Segment, entries: tuple[Entry, ...] = (), epoch: int = 5) -> Metadata:
        """Create a metadata file of these segments, with a zone, a ring and a pool in the first unless entries are
        given.
        """
        used = list(segments) or [self.segment(epoch=epoch)]
        path = self.folder / f"{name}{next(_numbers)}.md"
        with path.open("w+b") as file:
            file.truncate(16384)
            mapping = Mapping(file.fileno(), 16384)
        made = TableFile.format(mapping, METADATA_MAGIC, name, uuid4(), epoch=epoch)
        records = tuple(replace(segment.record, path="") for segment in used)
        made.publish(Table(records, entries or self.objects(used[0], name), epoch=epoch))
        return Metadata(path, made, used)

    def objects(self, segment: Segment, name: str) -> tuple[Entry, ...]:
        return (self.zone(f"{name} zone"), self.ring(segment, f"{name} ring"), self.pool(segment, f"{name} pool"))

    def zone(self, name: str, offset: int = 4096, segment: int = 0) -> Entry:
        return Entry(name, Kind.MEMZONE, segment, offset, 4096)

    def ring(self, segment: Segment, name: str, offset: int = RING_AT, index: int = 0, flags: int = 0) -> Entry:
        entry = Entry(name, Kind.RING, index, offset, ring_memsize(name, 64, 8, flags))
        format_ring(Memzone(entry, segment), name, 64, 8, flags)
        return entry

    def pool(self, segment: Segment, name: str, offset: int = POOL_AT) -> Entry:
        entry = Entry(name, Kind.MEMPOOL, 0, offset, mempool_memsize(name, 64, 32, 8, 0))
        format_mempool(Memzone(entry, segment), name, 64, 32, 8, 0)
        return entry

    # --- the bus

    def plug(self, file: Path | str, address: str | None = None, *, whole: bool = True) -> str:
        """Plug a device over a file: complete, or at first without its memory."""
        address = address or f"0000:01:{next(_numbers):02x}.0"
        device = self._aside / f"{next(_numbers)}"
        device.mkdir()
        for name, text in {"vendor": "0x1af4", "device": "0x1110", "enable": "0", "numa_node": "-1"}.items():
            (device / name).write_text(text)
        if whole:
            (device / "resource2").symlink_to(file)
        os.rename(device, self._devices / address)
        return address

    def complete(self, address: str, file: Path | str) -> None:
        (self._devices / address / "resource2").symlink_to(file)

    def plug_all(self, metadata: Metadata) -> str:
        """Plug the segments, then the metadata file, as a host does; return the metadata file's address."""
        segments = [self.plug(segment.path) for segment in metadata.segments]
        metadata.addresses = [self.plug(metadata.path), *segments]
        return metadata.addresses[0]

    def pull(self, *addresses: str) -> None:
        """Remove devices without an announcement."""
        for address in addresses:
            aside = self._aside / f"{next(_numbers)}"
            os.rename(self._devices / address, aside)
            shutil.rmtree(aside)

    def unplug(self, metadata: Metadata, number: int = 1, timeout: float = 5.0) -> None:
        """Unplug as a host does: announce, wait for acknowledgements, remove."""
        metadata.announce(number)
        until(lambda: all(slot.ack == number for slot in metadata.monitor_slots()), timeout)
        self.pull(*metadata.addresses)
        metadata.announce(0)


class EventLog:
    """A callback that stores the events."""

    def __init__(self) -> None:
        self.events: list[eal.Event] = []
        self._changed = threading.Condition()

    def __call__(self, event: eal.Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def next(self, kind: str, timeout: float = 5.0, metadata: str = "") -> eal.Event:
        """Wait for the first event of a kind and remove it from the list."""

        def found() -> eal.Event | None:
            for event in self.events:
                if event.kind == kind and metadata in ("", event.metadata):
                    return event
            return None

        with self._changed:
            assert self._changed.wait_for(lambda: found() is not None, timeout), f"no {kind}, but {self.events}"
            event = found()
            assert event is not None
            self.events.remove(event)
            return event


def until(condition: Callable[[], Any], timeout: float = 5.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"condition not met within {timeout:g} s"
        time.sleep(0.005)
