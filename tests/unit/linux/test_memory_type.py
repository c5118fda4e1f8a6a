# SPDX-License-Identifier: BSD-3-Clause
"""eal.linux.memory_type: the kernel's list of memory types, and write-back mappings through /dev/mem."""

from __future__ import annotations

from pathlib import Path

import pytest

import eal
from eal.linux import memory_type
from eal.linux.latency import Speed
from eal.linux.memory_type import memory_types

LIST = """PAT memtype list:
PAT: [mem 0x0000000000000000-0x00000000000a0000] write-back
PAT: [mem 0x00000000fe800000-0x00000000fea00000] uncached-minus
PAT: [mem 0x0000000800000000-0x0000000800200000] write-back
PAT: [mem 0x0000000800200000-0x0000000800400000] write-combining
"""
LIST_BEFORE_5_6 = """PAT memtype list:
write-back @ 0x800000000-0x800200000
uncached-minus @ 0xfe800000-0xfea00000
"""
CACHED, UNCACHED = Speed(1.1, 1.0, None, 5.0), Speed(300.0, 1.0, None, 5.0)


@pytest.mark.parametrize(
    ("start", "length", "types"),
    [
        (0x8_0000_0000, 0x200000, {"write-back"}),
        (0x8_0000_0000, 0x200001, {"write-back", "write-combining"}),
        (0xFE7F_F000, 0x1000, set()),
        (0xFE7F_F000, 0x1001, {"uncached-minus"}),
        (0xFE9F_F000, 0x1000, {"uncached-minus"}),
        (0xFEA0_0000, 0x1000, set()),
    ],
)
def test_memory_types_of_range_returns_types_of_overlapping_lines(
    tmp_path: Path, start: int, length: int, types: set[str]
) -> None:
    (tmp_path / "list").write_text(LIST)
    assert memory_types(start, length, tmp_path / "list") == types


def test_memory_types_reads_list_of_kernel_before_5_6(tmp_path: Path) -> None:
    (tmp_path / "list").write_text(LIST_BEFORE_5_6)
    assert memory_types(0x8_0000_0000, 1, tmp_path / "list") == {"write-back"}
    assert memory_types(0xFE80_0000, 1, tmp_path / "list") == {"uncached-minus"}


def test_memory_types_without_list_returns_none(tmp_path: Path) -> None:
    assert memory_types(0, 1 << 40, tmp_path / "missing") is None


def test_map_write_back_with_missing_or_unreadable_devmem_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_type, "DEVMEM", tmp_path / "mem")
    with pytest.raises(eal.NotFound, match="this kernel has no"):
        memory_type.map_write_back(0, 4096, writable=True, label="a BAR")
    (tmp_path / "mem").mkdir()
    with pytest.raises(eal.Denied, match="run as root"):
        memory_type.map_write_back(0, 4096, writable=True, label="a BAR")


@pytest.mark.parametrize(
    ("listed", "speed", "error", "message"),
    [
        ({"write-back"}, UNCACHED, None, ""),
        (None, CACHED, None, ""),
        (None, UNCACHED, eal.EalError, "returned uncached memory"),
        ({"uncached-minus"}, CACHED, eal.InUse, "another process maps it uncached-minus"),
    ],
)
def test_map_write_back_checks_type_by_list_or_else_by_latency(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    listed: set[str] | None,
    speed: Speed,
    error: type[eal.EalError] | None,
    message: str,
) -> None:
    (tmp_path / "mem").write_bytes(bytes(8192))
    monkeypatch.setattr(memory_type, "DEVMEM", tmp_path / "mem")
    monkeypatch.setattr(memory_type, "memory_types", lambda start, length: listed)
    monkeypatch.setattr(memory_type, "measure", lambda mapping: speed)
    if error is None:
        assert memory_type.map_write_back(4096, 4096, writable=True, label="a BAR").length == 4096
    else:
        with pytest.raises(error, match=message):
            memory_type.map_write_back(4096, 4096, writable=True, label="a BAR")
