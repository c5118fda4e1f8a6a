# SPDX-License-Identifier: BSD-3-Clause
"""eal.memory.registry: add, find and remove objects; epochs; validation of the file."""

from __future__ import annotations

import os
import time
from pathlib import Path
from uuid import uuid4

import pytest

import eal
from eal.memory.registry import Registry, create_registry, next_epoch, open_registry
from eal.metadata.records import Entry, Kind, SegmentRecord


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = create_registry(tmp_path / "registry", last_epoch=0)
    made.add_segment(SegmentRecord(uuid4(), 1 << 30, 4096, 1 << 45, -1, "default", made.table.epoch, path="/x"))
    return made


def zone(name: str, kind: Kind = Kind.MEMZONE) -> Entry:
    return Entry(name, kind, 0, 4096, 64)


def test_other_mapping_finds_added_and_misses_removed_object(registry: Registry, tmp_path: Path) -> None:
    other = open_registry(tmp_path / "registry", writable=False)
    added = registry.add(zone("a"))
    assert other.find(Kind.MEMZONE, "a") == added
    assert other.find(Kind.RING, "a") is None
    registry.remove(added)
    assert other.find(Kind.MEMZONE, "a") is None
    assert other.table == registry.table


def test_add_of_existing_name_and_kind_raises_exists(registry: Registry) -> None:
    for kind in Kind:
        registry.add(zone("a", kind))
        with pytest.raises(eal.Exists, match=f"{kind.name.lower()} 'a' exists already"):
            registry.add(zone("a", kind))


def test_entry_added_again_differs_by_serial(registry: Registry) -> None:
    first = registry.add(zone("a"))
    registry.remove(first)
    second = registry.add(zone("a"))
    assert first != second
    assert first.serial < second.serial
    with pytest.raises(eal.NotFound, match="'a' does not exist any more"):
        registry.remove(first)
    assert registry.find(Kind.MEMZONE, "a") == second


def test_next_epoch_increases_if_clock_is_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    assert abs(next_epoch(0) - now // 1_000_000) < 60_000
    monkeypatch.setattr(time, "time_ns", lambda: 5_000_000)
    assert (next_epoch(3), next_epoch(7)) == (5, 8)
    made = create_registry(tmp_path / "registry", last_epoch=1 << 50)
    assert made.table.epoch == (1 << 50) + 1
    made.raise_epoch()
    assert open_registry(tmp_path / "registry").table.epoch == (1 << 50) + 2


def test_kept_flag_is_stored(registry: Registry, tmp_path: Path) -> None:
    assert not registry.table.kept
    registry.set_kept()
    assert open_registry(tmp_path / "registry").table.kept


def test_create_registry_replaces_private_file_and_keeps_open_mapping(registry: Registry, tmp_path: Path) -> None:
    assert os.stat(tmp_path / "registry").st_mode & 0o7777 == 0o600
    create_registry(tmp_path / "registry", last_epoch=0)
    assert os.listdir(tmp_path) == ["registry"]
    assert len(registry.table.segments) == 1  # the open mapping of the replaced file stays valid


@pytest.mark.parametrize("content", [b"", b"x", bytes(4095), bytes(8192), b"\xff" * 8192])
def test_open_invalid_registry_raises_corrupt(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "registry").write_bytes(content)
    with pytest.raises(eal.Corrupt, match="registry"):
        open_registry(tmp_path / "registry")


def test_open_missing_registry_raises_not_found(tmp_path: Path) -> None:
    with pytest.raises(eal.NotFound, match=r"registry .* does not exist"):
        open_registry(tmp_path / "registry")


def test_registry_with_many_objects_finds_each(registry: Registry, tmp_path: Path) -> None:
    for number in range(1000):
        registry.add(zone(f"z{number}"))
    assert len(open_registry(tmp_path / "registry").table.entries) == 1000
    assert registry.find(Kind.MEMZONE, "z999") is not None
