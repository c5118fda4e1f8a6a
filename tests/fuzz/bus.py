# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing input: a PCI bus with a metadata file and its two segments, which contain an object of each kind.

A seed and a number identify an input, so that it can be reproduced. `damage` modifies the valid files, `restore` makes
them valid again.
"""

from __future__ import annotations

import mmap
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np

from eal._native import ffi, lib
from eal.linux.mapping import Mapping
from eal.mbuf.format import format_mbuf_pool, mbuf_pool_memsize
from eal.memory.hugepages import Backend
from eal.memory.memzone import Memzone
from eal.memory.segment import Segment, create_segment
from eal.memory.segment_file import Ownership
from eal.mempool.format import format_mempool, mempool_memsize
from eal.metadata.records import Entry, Kind, Table
from eal.metadata.table_file import METADATA_MAGIC, TableFile
from eal.ring.format import format_ring, ring_memsize
from eal.text import dtypes

HEADER = 4096
TABLE_FILE = 16384
SEGMENT = 65536
DTYPES = ("<f8", [("a", "<u2"), ("b", "<i4", (2, 3))], [("x", [("y", "S3")])], "<U5", "<M8[ns]")
TEXTS = ("", "0", "1", "-1", "nonsense", "0x1af4", "0x10000000000000000", "\xff", "1" * 5000)

# Critical sizes, counts and offsets: limits of types, sign bits, and values that overflow when added or multiplied.
VALUES = [0, 1, 2, 3, 63, 64, 65, 96, 255, 384, 4095, 4096, 4097, 65535, 65536, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE]
VALUES += [
    0xFFFFFFFF,
    1 << 32,
    (1 << 32) // 96 + 1,
    (1 << 32) - 64,
    1 << 62,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) // 96 + 1,
]
VALUES += [(1 << 64) - 4096, (1 << 64) - 384, (1 << 64) - 64, (1 << 64) - 2, (1 << 64) - 1]


@dataclass(frozen=True)
class Part:
    """A part of a file that a peer can modify: its fields, and the function that recomputes its CRC."""

    file: str
    start: int
    length: int
    fields: tuple[tuple[int, int], ...]  # offset in the part, bytes
    seal: Callable[[memoryview], None]
    name: str = ""  # of the object in this part; "": all objects depend on it


def fields_of(name: str, at: int = 0) -> Iterator[tuple[int, int]]:
    """Yield offset and size of each field of a C struct."""
    for _, field in ffi.typeof(name).fields:
        yield at + field.offset, min(ffi.sizeof(field.type), 8)


def seal(crc_at: int, *holes: tuple[int, int], length: int = 128) -> Callable[[memoryview], None]:
    """Return a function that recomputes the CRC-32C of the first `length` bytes, with the ranges `holes` as zeros."""

    def recompute(part: memoryview) -> None:
        raw = bytearray(part[:length])
        for at, size in ((crc_at, 4), *holes):
            raw[at : at + size] = bytes(size)
        struct.pack_into("<I", part, crc_at, lib.ivs_crc32c(0, bytes(raw), len(raw)))

    return recompute


class Bus:
    """The files of a bus in a folder: `damage(seed, number)` turns them into an input, `restore()` makes them valid."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "sys"
        self._folder = folder
        self._addresses: list[Path] = []
        self._segments = [self._segment(number) for number in range(2)]
        entries, self.parts = self._objects()
        table = Table(tuple(segment.record for segment in self._segments), tuple(entries), 5)
        files = {"0": Path(self._segments[0].path), "1": Path(self._segments[1].path), "md": self._metadata(table)}
        self.parts += self._table_parts(table)
        self._memory = {name: self._map(file) for name, file in files.items()}
        self._valid = {name: bytes(memory) for name, memory in self._memory.items()}
        for file in files.values():
            self._device(file)
        self._texts: list[tuple[Path, str]] = []

    # --- valid files --------------------------------------------------------------------------------------

    def _segment(self, number: int) -> Segment:
        path = self._folder / f"segment{number}"
        return create_segment(
            Backend(self._folder, 4096, huge=False),
            path,
            UUID(int=1 + number),
            SEGMENT,
            group=f"group{number}",
            socket_id=-1,
            epoch=5,
            hint=0x3300_0000_0000 + number * SEGMENT,
            ownership=Ownership(),
        )

    def _objects(self) -> tuple[list[Entry], list[Part]]:
        entries, parts = [], []
        for number, segment in enumerate(self._segments):
            at = HEADER
            name = f"zone{number}"
            entries.append(Entry(name, Kind.MEMZONE, number, at, 256))
            for index, dtype in enumerate(DTYPES[number::2]):
                at += 256
                length = 4 * np.dtype(dtype).itemsize
                text = dtypes.describe(dtype)
                entries.append(Entry(f"array{number}{index}", Kind.MEMZONE, number, at, length, 64, 0, text, (2, 2)))
            at += 256
            length = ring_memsize(f"ring{number}", 64, 8, 0)
            entries.append(entry := Entry(f"ring{number}", Kind.RING, number, at, length))
            format_ring(Memzone(entry, segment), entry.name, 64, 8, 0)
            ends = ((0, 4), (4, 4), (8, 4), (12, 4), (16, 8))
            fields = ((0, 32), *((o, 4) for o in (32, 48, 52, 56, 72, 76, 96)), (40, 8), (64, 8))
            fields = (*fields, *((base + o, size) for base in (128, 256) for o, size in ends))
            parts.append(Part(str(number), at, length, fields, seal(96, (64, 8), (80, 16)), entry.name))
            at += -(-length // 64) * 64
            entries.append(self._pool(number, segment, at))
            length = entries[-1].length
            fields = ((0, 8), *((o, 4) for o in (8, 12, 16, 20, 24, 28, 56, 60, 96, 100, 144)), (64, 32))
            fields = (*fields, *((o, 8) for o in (32, 40, 48, 128, 136, 192)))
            parts.append(Part(str(number), at, length, fields, seal(60, (0, 8)), entries[-1].name))
        return entries, parts + [Part(name, 0, HEADER, SEGMENT_FIELDS, seal(60, (0, 8))) for name in ("0", "1")]

    def _pool(self, number: int, segment: Segment, at: int) -> Entry:
        """Format a plain mempool in segment 0, a pool of mbufs in segment 1; return its entry."""
        name = f"pool{number}"
        if number == 0:
            entry = Entry(name, Kind.MEMPOOL, number, at, mempool_memsize(name, 40, 100, 8, 0))
            format_mempool(Memzone(entry, segment), name, 40, 100, 8, 0)
            return entry
        length, flags = mbuf_pool_memsize(name, 40, 8, 512, 64, 0)
        entry = Entry(name, Kind.MEMPOOL, number, at, length, 64, flags)
        format_mbuf_pool(Memzone(entry, segment), name, 40, 8, 512, 64, 0)
        return entry

    def _metadata(self, table: Table) -> Path:
        path = self._folder / "metadata"
        with path.open("w+b") as file:
            file.truncate(TABLE_FILE)
            mapping = Mapping(file.fileno(), TABLE_FILE)
        TableFile.format(mapping, METADATA_MAGIC, "vm0", UUID(int=9), epoch=5).publish(table)
        return path

    @staticmethod
    def _table_parts(table: Table) -> list[Part]:
        segments_at = ffi.sizeof("struct ivs_table")
        entries_at = segments_at + len(table.segments) * ffi.sizeof("struct ivs_table_segment")
        fields = list(fields_of("struct ivs_table"))
        for number in range(len(table.segments)):
            fields += fields_of("struct ivs_table_segment", segments_at + number * 96)
            fields += [(segments_at + number * 96 + 80, 4), (segments_at + number * 96 + 84, 4)]
        for number in range(len(table.entries)):
            fields += fields_of("struct ivs_table_entry", entries_at + number * 96)
            fields += [(entries_at + number * 96 + at, 4) for at in (64, 68, 72, 76)]
        header = ((0, 8), (8, 4), (12, 4), (16, 8), (32, 8), (40, 32), (72, 4), (128, 8), (136, 4))
        return [
            Part("md", 0, HEADER, header, seal(72, (0, 8))),
            # The table is listed twice because it has most of the fields.
            Part("md", HEADER, (TABLE_FILE - HEADER) // 2, tuple(fields), seal_table),
            Part("md", HEADER, (TABLE_FILE - HEADER) // 2, tuple(fields), seal_table),
        ]

    @staticmethod
    def _map(path: Path) -> mmap.mmap:
        with path.open("r+b") as file:
            return mmap.mmap(file.fileno(), 0)

    def _device(self, bar: Path) -> None:
        device = self.root / f"bus/pci/devices/0000:00:{2 + len(self._addresses):02x}.0"
        device.mkdir(parents=True)
        self._addresses.append(device)
        for name, text in {"vendor": "0x1af4", "device": "0x1110", "enable": "0", "numa_node": "-1"}.items():
            (device / name).write_text(text)
        (device / "resource2").symlink_to(bar)

    # --- inputs -------------------------------------------------------------------------------------------

    def damage(self, seed: int, number: int) -> set[str]:
        """Turn the files into input `number` of `seed`; return the names of the affected objects ("": all objects)."""
        rng = random.Random(seed << 32 | number)
        about = set()
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            part = rng.choice(self.parts)
            about.add(part.name)
            view = memoryview(self._memory[part.file])[part.start : part.start + part.length]
            for _ in range(rng.choice((1, 1, 2, 4))):
                damage_part(rng, part, view)
            if rng.random() < 0.8:
                part.seal(view)
        if rng.random() < 0.01:
            self._damage_text(rng)
        return about

    def _damage_text(self, rng: random.Random) -> None:
        file = rng.choice(self._addresses) / rng.choice(("vendor", "device", "enable", "numa_node"))
        self._texts.append((file, file.read_text()))
        file.write_text(rng.choice(TEXTS))

    def restore(self) -> None:
        """Make all files valid again."""
        for name, memory in self._memory.items():
            memory[:] = self._valid[name]
        while self._texts:
            file, text = self._texts.pop()
            file.write_text(text)


def damage_part(rng: random.Random, part: Part, view: memoryview) -> None:
    """Set a field to a critical value, a nearby value or the value of another field, or set random bytes."""
    how = rng.random()
    at, size = rng.choice(part.fields)
    if how < 0.5:
        raw = (rng.choice(VALUES) & ((1 << 64) - 1)).to_bytes(8, "little")
    elif how < 0.7:
        raw = ((int.from_bytes(view[at : at + min(size, 8)], "little") + rng.randint(-8, 8)) % (1 << 64)).to_bytes(
            8, "little"
        )
    elif how < 0.8:
        other, _ = rng.choice(part.fields)
        raw = bytes(view[other : other + size])
    else:
        at, size = rng.randrange(min(part.length, 2048)), rng.choice((1, 1, 2, 8))
        raw = rng.randbytes(8)
    raw = raw.ljust(size, b"\0")[:size]
    view[at : at + size] = raw[: len(view[at : at + size])]


def seal_table(part: memoryview) -> None:
    """Recompute the CRC over the length in the table header; over all bytes if that length is invalid."""
    length = struct.unpack_from("<Q", part, 40)[0]
    seal(0, length=length if 64 <= length <= len(part) else len(part))(part)


SEGMENT_FIELDS = (
    *((0, 8), (8, 4), (12, 4), (16, 8), (24, 8), (32, 8), (40, 8), (48, 8), (56, 4), (60, 4), (64, 8), (72, 32)),
    *((128, 4), (132, 4), (2048, 8), (2056, 8), (2064, 8), (2072, 8)),
)
