# SPDX-License-Identifier: BSD-3-Clause
"""The registry of a prefix: what is there, what is refused, and how many objects it holds."""

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


def test_another_process_sees_what_is_added_and_removed(registry: Registry, tmp_path: Path) -> None:
    other = open_registry(tmp_path / "registry", writable=False)
    added = registry.add(zone("a"))
    assert other.find(Kind.MEMZONE, "a") == added
    assert other.find(Kind.RING, "a") is None
    registry.remove(added)
    assert other.find(Kind.MEMZONE, "a") is None
    assert other.table == registry.table


def test_a_name_is_taken_once_for_each_kind(registry: Registry) -> None:
    for kind in Kind:
        registry.add(zone("a", kind))
        with pytest.raises(eal.Exists, match=f"{kind.name.lower()} 'a' exists already"):
            registry.add(zone("a", kind))


def test_a_later_object_of_a_name_is_another(registry: Registry) -> None:
    first = registry.add(zone("a"))
    registry.remove(first)
    second = registry.add(zone("a"))
    assert first != second
    assert first.serial < second.serial
    with pytest.raises(eal.NotFound, match="'a' does not exist any more"):
        registry.remove(first)
    assert registry.find(Kind.MEMZONE, "a") == second


def test_epochs_rise_even_if_the_clock_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    assert abs(next_epoch(0) - now // 1_000_000) < 60_000
    monkeypatch.setattr(time, "time_ns", lambda: 5_000_000)
    assert (next_epoch(3), next_epoch(7)) == (5, 8)
    made = create_registry(tmp_path / "registry", last_epoch=1 << 50)
    assert made.table.epoch == (1 << 50) + 1
    made.raise_epoch()
    assert open_registry(tmp_path / "registry").table.epoch == (1 << 50) + 2


def test_kept_is_remembered(registry: Registry, tmp_path: Path) -> None:
    assert not registry.table.kept
    registry.set_kept()
    assert open_registry(tmp_path / "registry").table.kept


def test_the_file_is_private_and_replaced_in_one_step(registry: Registry, tmp_path: Path) -> None:
    assert os.stat(tmp_path / "registry").st_mode & 0o7777 == 0o600
    create_registry(tmp_path / "registry", last_epoch=0)
    assert os.listdir(tmp_path) == ["registry"]
    assert len(registry.table.segments) == 1  # whoever has the old one open keeps it


@pytest.mark.parametrize("content", [b"", b"x", bytes(4095), bytes(8192), b"\xff" * 8192])
def test_what_is_no_registry_is_corrupt(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "registry").write_bytes(content)
    with pytest.raises(eal.Corrupt, match="registry"):
        open_registry(tmp_path / "registry")


def test_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(eal.NotFound, match=r"registry .* does not exist"):
        open_registry(tmp_path / "registry")


def test_many_objects(registry: Registry, tmp_path: Path) -> None:
    for number in range(1000):
        registry.add(zone(f"z{number}"))
    assert len(open_registry(tmp_path / "registry").table.entries) == 1000
    assert registry.find(Kind.MEMZONE, "z999") is not None
