# SPDX-License-Identifier: BSD-3-Clause
"""eal.memory.heap: creation, growth and page kind of the segments of a group."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import eal
from eal.memory import segment_file
from eal.memory.hugepages import Backend
from eal.text.sizes import GIB, MIB


@pytest.mark.parametrize("size", [0, -4096, 4096, 3 * MIB, 2 * MIB + 1, 2 * MIB - 4096])
def test_segment_create_with_invalid_size_raises_invalid(primary: eal.Eal, size: int) -> None:
    with pytest.raises(eal.Invalid, match="power of two"):
        primary.segment_create(size)
    assert primary.segments() == []


@pytest.mark.parametrize("size", [None, 2.0, "2M"])
def test_segment_create_with_size_of_wrong_type_raises_type_error(primary: eal.Eal, size: object) -> None:
    with pytest.raises(TypeError):
        primary.segment_create(size)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [8192, MIB, 64 * MIB])
def test_segment_create_allocates_exactly_the_size(primary: eal.Eal, size: int) -> None:
    segment = primary.segment_create(size, group="g")
    assert (segment.size, segment.group, segment.page_size) == (size, "g", 4096)
    assert os.stat(segment.path).st_size == size
    assert os.stat(segment.path).st_blocks * 512 >= size
    assert primary.segments() == [segment]
    assert primary.memzone_reserve("z", 1024, group="g").segment is segment


def test_segments_are_mapped_consecutively_at_base_address(primary: eal.Eal) -> None:
    segments = [primary.segment_create(4 * MIB, group=f"g{number}") for number in range(3)]
    addresses = [segment.address for segment in segments]
    assert addresses == [addresses[0] + number * 4 * MIB for number in range(3)]
    assert 0x2000_0000_0000 <= addresses[0] < 0x4000_0000_0000
    assert not any(segment.relocated for segment in segments)


def test_init_with_memory_creates_segments(runtime_dir: Path, prefix: str) -> None:
    with eal.init(["--socket-mem", "4"], file_prefix=prefix, no_huge=True, memory=6) as made:
        assert sorted((s.size // MIB, s.socket_id, s.group) for s in made.segments()) == [
            (2, -1, "default"),
            (4, -1, "default"),
            (4, 0, "default"),
        ]
        zone = made.memzone_reserve("z", 3 * MIB)
        assert zone.segment.size == 4 * MIB
        assert len(made.segments()) == 3


# --- page kind of a group -------------------------------------------------------------------------------


def test_group_keeps_page_kind_and_mode_of_its_first_segment(hugepages: Callable[..., Path], primary: eal.Eal) -> None:
    mount = hugepages(4)
    primary.segment_create(2 * MIB, group="huge", huge_dir=mount, mode=0o640)
    more = primary.memzone_reserve("more", 2 * MIB, group="huge")
    assert (more.segment.page_size, Path(more.segment.path).parent) == (2 * MIB, mount)
    assert os.stat(more.segment.path).st_mode & 0o777 == 0o640
    assert primary.memzone_reserve("other", 64).segment.page_size == 4096
    assert primary.segment_create(2 * MIB, group="small", page_size=4096).page_size == 4096
    with pytest.raises(eal.NoMemory, match="nr_hugepages"):  # no fallback: a group never mixes page kinds
        primary.memzone_reserve("too much", 16 * MIB, group="huge")
    assert {s.page_size for s in primary.segments() if s.group == "huge"} == {2 * MIB}


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"page_size": 3 * MIB}, eal.NotFound, "no writable hugetlbfs has free pages of 3145728 bytes"),
        ({"huge_dir": "/dev/shm"}, eal.Invalid, "huge_dir /dev/shm is not on a hugetlbfs"),
    ],
)
def test_segment_create_with_unavailable_pages_raises(
    primary: eal.Eal, how: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        primary.segment_create(2 * MIB, **how)
    assert primary.segments() == []


def test_huge_dir_with_another_page_size_raises_invalid(hugepages: Callable[..., Path], primary: eal.Eal) -> None:
    with pytest.raises(eal.Invalid, match=r"page_size must be 2097152 in huge_dir .*, got 1073741824"):
        primary.segment_create(GIB, huge_dir=hugepages(1), page_size=GIB)


def test_default_hugepages_that_run_out_fall_back_to_tmpfs_with_warning(
    hugepages: Callable[..., Path], runtime_dir: Path, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    mount = hugepages(1)
    with caplog.at_level(logging.WARNING, "eal"), eal.init(file_prefix=prefix) as made, taken(mount):
        assert caplog.records == []
        zone = eal.memzone_reserve("z", 64)
        assert (zone.segment.page_size, Path(zone.segment.path).parent) == (4096, Path("/dev/shm"))
        assert list(mount.glob("ivshmem*")) == []
        assert made.segment_create(2 * MIB, group="g").page_size == 4096
    for record in caplog.records:
        assert re.match(
            r"falling back to tmpfs .*: 1 hugepages of 2048 KiB required in .*, 0 available", record.message
        )
    assert len(caplog.records) == 2


@pytest.mark.parametrize("how", [{"no_huge": False}, {"huge_dir": True}])
def test_required_hugepages_that_run_out_raise_no_memory(
    hugepages: Callable[..., Path], runtime_dir: Path, prefix: str, how: dict[str, Any]
) -> None:
    mount = hugepages(1)
    if "huge_dir" in how:
        how = {"huge_dir": mount}
    with eal.init(file_prefix=prefix, **how) as made, taken(mount):
        for make in (lambda: eal.memzone_reserve("z", 64), lambda: made.segment_create(2 * MIB)):
            with pytest.raises(eal.NoMemory, match="1 hugepages of 2048 KiB required"):
                make()
        assert made.segments() == []


@contextlib.contextmanager
def taken(mount: Path) -> Iterator[None]:
    """Allocate the only page of a mount to another file."""
    backend = Backend(mount, 2 * MIB, huge=True)
    other = segment_file.create(backend, mount / "other", 2 * MIB)
    try:
        yield
    finally:
        other.release()
        (mount / "other").unlink()
