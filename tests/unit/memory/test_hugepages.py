# SPDX-License-Identifier: BSD-3-Clause
"""eal.memory.hugepages: the choice of a backend, and segments on hugetlbfs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import eal
from eal.memory import hugepages
from eal.memory.hugepages import Backend
from eal.text.sizes import GIB, KIB, MIB


def test_hugetlbfs_mounts_are_sorted_by_page_size(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "tmpfs /dev/shm tmpfs rw 0 0\n"
        "none /mnt/huge\\040one hugetlbfs rw,pagesize=1024M,size=1G 0 0\n"
        "none /dev/hugepages hugetlbfs rw,relatime,pagesize=2M 0 0\n"
    )
    assert hugepages.hugetlbfs_mounts(mounts) == [
        Backend(Path("/dev/hugepages"), 2 * MIB, huge=True),
        Backend(Path("/mnt/huge one"), GIB, huge=True),
    ]


@pytest.fixture
def no_hugepages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hugepages, "hugetlbfs_mounts", list)


def test_init_without_hugepages_uses_tmpfs_and_warns_with_commands(
    no_hugepages: None, runtime_dir: Path, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "eal"), eal.init(file_prefix=prefix):
        segment = eal.memzone_reserve("z", 64).segment
        assert Path(segment.path).parent == Path("/dev/shm")
        assert segment.page_size == 4096
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    for command in ("nr_hugepages", "mount -t hugetlbfs", "/dev/hugepages"):
        assert command in warning


def test_init_with_no_huge_does_not_warn(
    no_hugepages: None, runtime_dir: Path, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "eal"), eal.init(file_prefix=prefix, no_huge=True):
        eal.memzone_reserve("z", 64)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_init_with_required_but_missing_hugepages_raises_not_found(
    no_hugepages: None, runtime_dir: Path, prefix: str
) -> None:
    with pytest.raises(eal.NotFound, match="mount -t hugetlbfs"):
        eal.init(file_prefix=prefix, no_huge=False)
    assert os.listdir(runtime_dir) == []
    with eal.init(file_prefix=prefix, no_huge=True):  # the failed init left no lock
        pass


@pytest.mark.parametrize("exists", [True, False])
def test_huge_dir_outside_hugetlbfs_raises_invalid(
    runtime_dir: Path, prefix: str, tmp_path: Path, exists: bool
) -> None:
    folder = tmp_path / "folder"
    if exists:
        folder.mkdir()
    with pytest.raises(eal.Invalid, match=f"huge_dir {folder} is not on a hugetlbfs. To mount one: .*mount -t"):
        eal.init(file_prefix=prefix, huge_dir=str(folder))
    assert os.listdir(runtime_dir) == []


def test_huge_dir_with_no_huge_raises_invalid(runtime_dir: Path, prefix: str) -> None:
    with pytest.raises(eal.Invalid, match="huge_dir and no_huge exclude each other"):
        eal.init(file_prefix=prefix, huge_dir="/dev/hugepages", no_huge=True)


# --- hugetlbfs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [2 * MIB, GIB], ids=["2MiB", "1GiB"])
def test_objects_in_huge_dir_are_on_hugepages_and_removed_at_close(
    hugepages: Callable[..., Path], runtime_dir: Path, prefix: str, page_size: int
) -> None:
    mount = hugepages(2, page_size)
    with eal.init(file_prefix=prefix, huge_dir=str(mount)) as made:
        zone = eal.memzone_reserve("z", page_size // 2)
        assert (zone.segment.page_size, zone.segment.size) == (page_size, page_size)
        assert zone.segment.address % page_size == 0
        (file,) = mount.iterdir()
        assert str(file) == zone.segment.path
        assert prefix in file.name
        assert file.stat().st_blksize == page_size
        zone.buf[:] = b"\x5a" * len(zone.buf)
        assert kernel_page_size(zone.address) == page_size
        ring = eal.ring_create("r", 1024)
        assert ring.enqueue(1)
        pool = eal.mempool_create("p", 100, 64, group="other")
        assert pool.memzone.segment.page_size == page_size
        assert len(list(mount.iterdir())) == 2
        made.memzone_free(zone)
    assert list(mount.iterdir()) == []


def kernel_page_size(address: int) -> int:
    """Return KernelPageSize in bytes of the mapping that contains an address."""
    size = 0
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split(" ")[0]
        if "-" in head and not head.endswith(":"):
            start, end = (int(part, 16) for part in head.split("-"))
            inside = start <= address < end
        elif inside and line.startswith("KernelPageSize:"):
            size = int(line.split()[1]) * KIB
    return size


@pytest.mark.parametrize("page_size", [2 * MIB, GIB], ids=["2MiB", "1GiB"])
def test_reserve_with_too_few_hugepages_raises_no_memory_and_changes_nothing(
    hugepages: Callable[..., Path], runtime_dir: Path, prefix: str, page_size: int
) -> None:
    mount = hugepages(1, page_size)
    with eal.init(file_prefix=prefix, huge_dir=str(mount)):
        with pytest.raises(eal.NoMemory, match=r"2 hugepages of \d+ KiB required in .*nr_hugepages"):
            eal.memzone_reserve("big", page_size)  # plus the header: two pages
        assert (list(mount.iterdir()), eal.memzones(), eal.segments()) == ([], [], [])
        zone = eal.memzone_reserve("fits", page_size // 2)
        zone.buf[:] = b"\1" * len(zone.buf)
        with pytest.raises(eal.NoMemory):
            eal.memzone_reserve("more", page_size // 2)
        assert len(list(mount.iterdir())) == 1
        assert [z.name for z in eal.memzones()] == ["fits"]


def test_init_finds_mounted_hugetlbfs(hugepages: Callable[..., Path], runtime_dir: Path, prefix: str) -> None:
    mount = hugepages(1)
    with eal.init(file_prefix=prefix, no_huge=False):
        zone = eal.memzone_reserve("z", 64)
        assert zone.segment.page_size == 2 * MIB
        assert Path(zone.segment.path).parent == mount


def test_directory_below_hugetlbfs_mount_is_valid_huge_dir(
    hugepages: Callable[..., Path], runtime_dir: Path, prefix: str
) -> None:
    folder = hugepages(1) / "mine"
    folder.mkdir()
    with eal.init(file_prefix=prefix, huge_dir=folder):
        assert Path(eal.memzone_reserve("z", 64).segment.path).parent == folder
    assert list(folder.iterdir()) == []


def test_segment_file_on_hugetlbfs_does_not_match_cleanup_pattern_of_dpdk(
    hugepages: Callable[..., Path], runtime_dir: Path, prefix: str
) -> None:
    mount = hugepages(1)
    with eal.init(file_prefix=f"map_{prefix}", huge_dir=str(mount)):
        eal.memzone_reserve("z", 64)
        (file,) = mount.iterdir()
        assert not file.match("*map_*")
    assert list(mount.iterdir()) == []
