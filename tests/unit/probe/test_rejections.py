# SPDX-License-Identifier: BSD-3-Clause
"""Rejections: invalid metadata files and segments leave the valid ones beside them usable."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

import eal
from eal._native import lib
from eal.metadata.records import Kind, Table
from eal.metadata.table_file import encode
from eal.text import dtypes
from tests.unit.probe.static_lab import MIB, Guest, StaticLab, good, one_zone, zone


@pytest.fixture
def lab(tmp_path: Path) -> StaticLab:
    (tmp_path / "sys").mkdir()
    return StaticLab(tmp_path)


@pytest.fixture
def guest(lab: StaticLab, runtime_dir: Path, prefix: str) -> Guest:
    """`guest()` starts this process's Eal as the guest of the lab's bus."""
    return lambda: eal.init(file_prefix=prefix, no_huge=True, sysfs_root=lab.folder / "sys", stall_timeout=0.2)


def rejection(lab: StaticLab, guest: Guest, address: str, name: str, reason: str) -> None:
    """Check that the device at `address` is rejected with this name and reason while a valid share beside it works."""
    good(lab, "beside")
    with guest() as made:
        (found,) = made.rejections
        assert (found.address, found.name) == (address, name)
        assert reason in found.reason
        if name:
            assert name in found.reason
        assert [share.name for share in made.shares] == ["beside"]
        assert made.ring_lookup("beside ring").enqueue(1)


def patched(path: Path, at: int, value: bytes) -> Path:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(value)
    return path


def test_newer_version_is_rejected(lab: StaticLab, guest: Guest) -> None:
    table, segment = one_zone(lab)
    address = lab.device(patched(lab.metadata("vm0", table), 8, struct.pack("<I", 2)))
    lab.device(Path(segment.path))
    rejection(lab, guest, address, "vm0", "format version must be 1, got 2")


@pytest.mark.parametrize(("at", "name"), [(20, "vm0"), (4096 + 70, "vm0")], ids=["header", "table"])
def test_bad_crc_is_rejected(lab: StaticLab, guest: Guest, at: int, name: str) -> None:
    table, segment = one_zone(lab)
    address = lab.device(patched(lab.metadata("vm0", table), at, b"\x99"))
    lab.device(Path(segment.path))
    rejection(lab, guest, address, name, "CRC")


def test_entry_outside_its_segment_is_rejected(lab: StaticLab, guest: Guest) -> None:
    table, segment = one_zone(lab)
    path = lab.metadata("vm0", table)
    raw = bytearray(encode(table))
    struct.pack_into("<Q", raw, 64 + 96 + 48, MIB)  # its length
    struct.pack_into("<Q", raw, 8, 2)
    struct.pack_into("<Q", raw, 40, len(raw))
    struct.pack_into("<I", raw, 0, lib.ivs_crc32c(0, bytes(raw), len(raw)))
    lab.device(Path(segment.path))
    rejection(lab, guest, lab.device(patched(path, 4096, bytes(raw))), "vm0", "entry outside its segment")


def test_missing_segment_is_rejected(lab: StaticLab, guest: Guest) -> None:
    table, segment = one_zone(lab)
    address = lab.device(lab.metadata("vm0", table))
    rejection(lab, guest, address, "vm0", f"needs segment {segment.uuid} of {MIB} bytes, but no device carries it")


@pytest.mark.parametrize(("length", "name"), [(8192, "vm0"), (4096, "vm0")])
def test_truncated_metadata_file_is_rejected(lab: StaticLab, guest: Guest, length: int, name: str) -> None:
    table, segment = one_zone(lab)
    path = lab.metadata("vm0", table)
    with path.open("r+b") as file:
        file.truncate(length)
    lab.device(Path(segment.path))
    rejection(lab, guest, lab.device(path), name, "truncated")


def test_truncated_segment_is_rejected(lab: StaticLab, guest: Guest) -> None:
    table, segment = one_zone(lab)
    short = lab.folder / "short"
    short.write_bytes(Path(segment.path).read_bytes()[: MIB // 2])
    metadata = lab.device(lab.metadata("vm0", table))
    address = lab.device(short)
    good(lab, "beside")
    with guest() as made:
        reasons = {found.address: found for found in made.rejections}
        assert set(reasons) == {metadata, address}
        assert "truncated" in reasons[address].reason
        assert reasons[metadata].name == "vm0"
        assert [share.name for share in made.shares] == ["beside"]


def test_segment_that_differs_from_its_record_is_rejected(lab: StaticLab, guest: Guest) -> None:
    table, segment = one_zone(lab)
    other = replace(table, segments=(replace(table.segments[0], size=MIB // 2),))
    lab.device(Path(segment.path))
    rejection(lab, guest, lab.device(lab.metadata("vm0", other)), "vm0", f"has {MIB} bytes and group 'default'")


def test_bar_without_address_is_rejected(lab: StaticLab, guest: Guest) -> None:
    rejection(lab, guest, lab.device(None), "", "BAR2 has no address")


def test_segment_with_damaged_header_is_rejected(lab: StaticLab, guest: Guest) -> None:
    segment = lab.segment()
    rejection(lab, guest, lab.device(patched(Path(segment.path), 40, b"\x77")), "", "segment with bad CRC")


def test_duplicate_name_in_one_metadata_file_is_rejected(lab: StaticLab, guest: Guest) -> None:
    segment = lab.segment()
    table = Table((replace(segment.record, path=""),), (zone(segment, "z"), zone(segment, "z", 8192)))
    lab.device(Path(segment.path))
    rejection(lab, guest, lab.device(lab.metadata("vm0", table)), "vm0", "lists two objects with one kind and name")


@pytest.mark.parametrize("kind", [Kind.RING, Kind.MEMPOOL])
def test_lookup_of_damaged_object_raises_corrupt(lab: StaticLab, guest: Guest, kind: Kind) -> None:
    """The metadata file is valid, but the memory of the object is not: its lookup raises."""
    table, segment = one_zone(lab, kind=kind)
    lab.device(lab.metadata("vm0", table))
    lab.device(Path(segment.path))
    with guest() as made:
        lookup = made.ring_lookup if kind == Kind.RING else made.mempool_lookup
        with pytest.raises(eal.Corrupt, match=f"{kind.name.lower()} 'z': bad magic"):
            lookup("z")


def test_every_flipped_bit_of_a_metadata_file_is_detected(lab: StaticLab) -> None:
    """Any wrong bit of the identity, the selector or the current table leads to rejection."""
    table, segment = one_zone(lab, dtype=dtypes.describe("u1"), shape=(4096,))
    path = lab.metadata("vm0", table)
    address = lab.device(path)
    lab.device(Path(segment.path))
    raw = bytearray(path.read_bytes())
    length = len(encode(table))
    assert lab.probe().rejections == []
    with path.open("r+b", buffering=0) as file:
        for at in [*range(136), *range(4096, 4096 + length)]:
            for bit in range(8):
                file.seek(at)
                file.write(bytes([raw[at] ^ 1 << bit]))
                found = lab.probe()
                assert found.shares == [], (at, bit)
                if at < 8:  # without its magic the device is foreign
                    assert found.foreign == [address]
                else:
                    assert [r.address for r in found.rejections] == [address], (at, bit)
            file.seek(at)
            file.write(raw[at : at + 1])
    assert [share.name for share in lab.probe().shares] == ["vm0"]
