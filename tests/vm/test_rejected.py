# SPDX-License-Identifier: BSD-3-Clause
"""Damaged devices: each is rejected with its address, name and reason, and a valid one beside them works."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import eal
import ivshmem
from eal._native import ffi, lib
from eal.metadata.records import Table
from eal.metadata.table_file import encode

HEADER = 4096
# Offsets of layout.h: in both headers, in a table file's header, in a segment's header, in a table.
MAGIC, VERSION = 0, 8
FILE_CRC, SELECTOR = 72, 128
SEGMENT_CRC = 60
TABLE_SELECTOR, TABLE_LENGTH = 8, 40


def crc32c(data: bytes) -> int:
    crc: int = lib.ivs_crc32c(0, ffi.from_buffer(data), len(data))
    return crc


def seal_header(file: bytearray, crc_at: int) -> None:
    """Recompute the CRC of a header."""
    identity = bytearray(file[:128])
    identity[MAGIC : MAGIC + 8] = bytes(8)
    identity[crc_at : crc_at + 4] = bytes(4)
    struct.pack_into("<I", file, crc_at, crc32c(bytes(identity)))


def slot_in_force(file: bytearray) -> int:
    (selector,) = struct.unpack_from("<Q", file, SELECTOR)
    room = (len(file) - HEADER) // 2 & ~63
    return HEADER + (selector & 1) * room


def put_table(file: bytearray, table: Table) -> None:
    """Overwrite the current table with a valid CRC, without validation."""
    raw = bytearray(encode(table))
    raw[TABLE_SELECTOR : TABLE_SELECTOR + 8] = file[SELECTOR : SELECTOR + 8]
    struct.pack_into("<Q", raw, TABLE_LENGTH, len(raw))
    struct.pack_into("<I", raw, 0, crc32c(bytes(4) + bytes(raw[4:])))
    at = slot_in_force(file)
    file[at : at + len(raw)] = raw


def metadata_of(name: str, **where: Any) -> ivshmem.Metadata:
    made = ivshmem.metadata_create(name, capacity=65536)
    made.add_memzone(eal.memzone_reserve(name, 4096, **where))
    return made


def content_of(metadata: ivshmem.Metadata) -> bytearray:
    return bytearray(Path(metadata.path).read_bytes())


def damaged() -> Iterator[tuple[str, bytes, str, str]]:
    """Return each damaged device: a title, its content, the expected name and a part of the expected reason."""
    newer = content_of(metadata_of("newer"))
    struct.pack_into("<I", newer, VERSION, 2)
    seal_header(newer, FILE_CRC)
    yield "newer version", bytes(newer), "newer", "got 2"

    bad_table = content_of(metadata_of("bad_table"))
    bad_table[slot_in_force(bad_table) + 70] ^= 1
    yield "bad CRC of the table", bytes(bad_table), "bad_table", "bad CRC"

    bad_header = content_of(metadata_of("bad_header"))
    bad_header[20] ^= 1  # the uuid
    yield "bad CRC of the header", bytes(bad_header), "bad_header", "bad CRC"

    outside = metadata_of("outside")
    (entry,) = outside.table.entries
    file, size = content_of(outside), outside.table.segments[0].size
    put_table(file, replace(outside.table, entries=(replace(entry, offset=size - 4096, length=4097),)))
    yield "entry outside its segment", bytes(file), "outside", "entry outside its segment"

    lonely = metadata_of("lonely", group="nobody gives it")
    missing = str(lonely.table.segments[0].uuid)
    yield "missing segment", bytes(content_of(lonely)), "lonely", missing

    yield "truncated metadata", bytes(content_of(metadata_of("halved"))[:32768]), "halved", "truncated"

    zone = eal.memzone_reserve("cut", 4096, group="cut")
    segment = Path(zone.segment.path).read_bytes()
    yield "truncated segment", segment[: len(segment) // 2], "", "truncated"

    zone = eal.memzone_reserve("spoiled", 4096, group="spoiled")
    spoiled = bytearray(Path(zone.segment.path).read_bytes())
    spoiled[SEGMENT_CRC] ^= 1
    yield "bad CRC of a segment", bytes(spoiled), "", "bad CRC"


def test_each_damaged_device_is_rejected_and_the_valid_one_works(
    primary: eal.Eal, guest: Callable[..., Any], tmp_path: Path
) -> None:
    good = metadata_of("good")
    eal.memzone_lookup("good").buf[:5] = b"there"
    cases = {tmp_path / what: (content, name, reason) for what, content, name, reason in damaged()}
    for path, (content, _, _) in cases.items():
        path.write_bytes(content)

    found = (running := guest("rejected", good, files=[*cases])).hear()
    running.end()

    assert found["shares"] == found["memzones"] == ["good"]
    assert found["foreign"] == []
    assert found["found"] == "there"
    assert bytes(eal.memzone_lookup("good").buf[:5]) == b"works"
    assert sorted(found["rejections"]) == sorted(running.addresses.values())
    for path, (_, name, reason) in cases.items():
        rejection = found["rejections"][running.addresses[path]]
        assert rejection["name"] == name, (path.name, rejection)
        assert reason in rejection["reason"], (path.name, rejection)


def test_metadata_file_with_a_damaged_segment_is_rejected(
    primary: eal.Eal, guest: Callable[..., Any], tmp_path: Path
) -> None:
    """Both devices are reported: the damaged one and the one that needs it."""
    good, needy = metadata_of("good"), metadata_of("needy", group="cut")
    eal.memzone_lookup("good").buf[:5] = b"there"
    (segment,) = (s for s in eal.segments() if s.group == "cut")
    half, table = tmp_path / "half", tmp_path / "table"
    half.write_bytes(Path(segment.path).read_bytes()[: segment.size // 2])
    table.write_bytes(content_of(needy))

    found = (running := guest("rejected", good, files=[half, table])).hear()
    running.end()

    assert found["shares"] == ["good"]
    refused = {path: found["rejections"][running.addresses[path]] for path in (half, table)}
    assert len(found["rejections"]) == 2
    assert "truncated" in refused[half]["reason"]
    assert refused[table]["name"] == "needy"
    assert str(segment.uuid) in refused[table]["reason"]
