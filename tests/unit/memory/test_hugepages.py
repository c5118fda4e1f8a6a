# SPDX-License-Identifier: BSD-3-Clause
"""Pages: hugetlbfs and tmpfs, taken when a segment is made, so that too few of them are an error and never a SIGBUS."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import eal
from eal._native import lib
from eal.lifecycle import cleanup as leftovers
from eal.memory import hugepages, numa
from eal.memory.hugepages import Backend
from eal.text.sizes import GIB, KIB, MIB

# --- choosing -----------------------------------------------------------------------------------------------


def test_mounts_of_small_pages_come_first(tmp_path: Path) -> None:
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


def test_without_hugepages_tmpfs_and_the_commands_to_get_some(
    no_hugepages: None, runtime_dir: Path, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "eal"), eal.init(file_prefix=prefix):
        segment = eal.memzone_reserve("z", 64).segment
        assert Path(segment.path).parent == Path("/dev/shm")
        assert segment.page_size == 4096
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    for command in ("nr_hugepages", "mount -t hugetlbfs", "/dev/hugepages"):
        assert command in warning


def test_no_warning_where_tmpfs_was_asked_for(
    no_hugepages: None, runtime_dir: Path, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "eal"), eal.init(file_prefix=prefix, no_huge=True):
        eal.memzone_reserve("z", 64)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_insisting_on_hugepages_where_there_are_none(no_hugepages: None, runtime_dir: Path, prefix: str) -> None:
    with pytest.raises(eal.NotFound, match="mount -t hugetlbfs"):
        eal.init(file_prefix=prefix, no_huge=False)
    assert os.listdir(runtime_dir) == []
    with eal.init(file_prefix=prefix, no_huge=True):  # nothing is held by the one that failed
        pass


@pytest.mark.parametrize("exists", [True, False])
def test_a_huge_dir_that_is_no_hugetlbfs(runtime_dir: Path, prefix: str, tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "folder"
    if exists:
        folder.mkdir()
    with pytest.raises(eal.Invalid, match=f"huge_dir {folder} is not on a hugetlbfs. To mount one: .*mount -t"):
        eal.init(file_prefix=prefix, huge_dir=str(folder))
    assert os.listdir(runtime_dir) == []


def test_huge_dir_and_no_huge_contradict(runtime_dir: Path, prefix: str) -> None:
    with pytest.raises(eal.Invalid, match="huge_dir and no_huge exclude each other"):
        eal.init(file_prefix=prefix, huge_dir="/dev/hugepages", no_huge=True)


# --- hugetlbfs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [2 * MIB, GIB], ids=["2MiB", "1GiB"])
def test_zones_on_hugepages(hugepages: Callable[..., Path], runtime_dir: Path, prefix: str, page_size: int) -> None:
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
    """What the kernel says of the mapping that begins below an address."""
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
def test_too_few_hugepages(hugepages: Callable[..., Path], runtime_dir: Path, prefix: str, page_size: int) -> None:
    mount = hugepages(1, page_size)
    with eal.init(file_prefix=prefix, huge_dir=str(mount)):
        with pytest.raises(eal.NoMemory, match=r"2 hugepages of \d+ KiB required in .*nr_hugepages"):
            eal.memzone_reserve("big", page_size)  # and a header: two pages
        assert (list(mount.iterdir()), eal.memzones(), eal.segments()) == ([], [], [])
        zone = eal.memzone_reserve("fits", page_size // 2)
        zone.buf[:] = b"\1" * len(zone.buf)
        with pytest.raises(eal.NoMemory):
            eal.memzone_reserve("more", page_size // 2)
        assert len(list(mount.iterdir())) == 1
        assert [z.name for z in eal.memzones()] == ["fits"]


def test_hugepages_are_found_without_being_named(
    hugepages: Callable[..., Path], runtime_dir: Path, prefix: str
) -> None:
    mount = hugepages(1)
    with eal.init(file_prefix=prefix, no_huge=False):
        zone = eal.memzone_reserve("z", 64)
        assert zone.segment.page_size == 2 * MIB
        assert Path(zone.segment.path).parent == mount


def test_a_folder_below_a_mount_is_a_huge_dir(hugepages: Callable[..., Path], runtime_dir: Path, prefix: str) -> None:
    folder = hugepages(1) / "mine"
    folder.mkdir()
    with eal.init(file_prefix=prefix, huge_dir=folder):
        assert Path(eal.memzone_reserve("z", 64).segment.path).parent == folder
    assert list(folder.iterdir()) == []


def test_a_starting_dpdk_would_not_remove_the_file(
    hugepages: Callable[..., Path], runtime_dir: Path, prefix: str
) -> None:
    mount = hugepages(1)
    with eal.init(file_prefix=f"map_{prefix}", huge_dir=str(mount)):
        eal.memzone_reserve("z", 64)
        (file,) = mount.iterdir()
        assert not file.match("*map_*")
    assert list(mount.iterdir()) == []


# --- tmpfs --------------------------------------------------------------------------------------------------


@pytest.fixture
def small_tmpfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tmpfs of 8 MiB in place of /dev/shm."""
    folder = tmp_path / "shm"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "none", folder], check=True)
    monkeypatch.setattr(hugepages, "SHM_DIR", folder)
    monkeypatch.setattr(leftovers, "SHM_DIR", folder)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.root
def test_a_full_tmpfs(small_tmpfs: Path, runtime_dir: Path, prefix: str) -> None:
    with eal.init(file_prefix=prefix, no_huge=True):
        with pytest.raises(eal.NoMemory, match=r"4096 pages of 4 KiB required in .*shm, 2048 available"):
            eal.memzone_reserve("too large", 12 * MIB)
        assert list(small_tmpfs.iterdir()) == []
        zones = [eal.memzone_reserve("z0", MIB)]
        with contextlib.suppress(eal.NoMemory):
            for number in range(1, 20):
                zones.append(eal.memzone_reserve(f"z{number}", MIB))
        assert len(zones) >= 4
        assert len(zones) == len(eal.memzones()) < 8
        before = sorted(small_tmpfs.iterdir())
        with pytest.raises(eal.NoMemory):
            eal.memzone_reserve("more", 2 * MIB)
        assert sorted(small_tmpfs.iterdir()) == before
        for zone in zones:
            zone.buf[:] = b"\1" * MIB  # every page is there: no SIGBUS
    assert list(small_tmpfs.iterdir()) == []


def test_a_request_that_is_too_large_takes_nothing_first(primary: eal.Eal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a page: taking all there are, only to find that they are too few, would starve everybody else meanwhile."""

    def take(*_: object) -> None:
        raise AssertionError("pages were taken")

    there = primary.segments()
    monkeypatch.setattr(os, "posix_fallocate", take)
    with pytest.raises(AssertionError):  # so that is how they are taken
        primary.segment_create(8 * MIB)
    monkeypatch.setattr(hugepages, "_available_memory", lambda: 4 * MIB)  # as if the machine had no more
    with pytest.raises(eal.NoMemory, match=r"2048 pages of 4 KiB required in /dev/shm, 1024 available"):
        primary.segment_create(8 * MIB)
    monkeypatch.undo()
    monkeypatch.setattr(os, "posix_fallocate", take)
    for make in (lambda: primary.segment_create(1 << 50), lambda: primary.memzone_reserve("z", 1 << 45)):
        with pytest.raises(eal.NoMemory, match="pages of 4 KiB required in /dev/shm"):  # more than any machine has
            make()
    assert primary.segments() == there


@pytest.mark.root
def test_what_others_take_later_cannot_hurt(small_tmpfs: Path, runtime_dir: Path, prefix: str) -> None:
    with eal.init(file_prefix=prefix, no_huge=True):
        zone = eal.memzone_reserve("z", MIB)
        filler = small_tmpfs / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(MIB))
        zone.buf[:] = b"\2" * MIB
        assert bytes(zone.buf[-4:]) == b"\2" * 4
        assert eal.memzone_reserve("y", 900 * KIB).buf[0] == 0  # of the pages that are there already
        with pytest.raises(eal.NoMemory):
            eal.memzone_reserve("x", 4 * MIB)
        filler.unlink()


@pytest.mark.root
def test_memory_at_the_start_that_is_not_there(small_tmpfs: Path, runtime_dir: Path, prefix: str) -> None:
    with pytest.raises(eal.NoMemory):
        eal.init(file_prefix=prefix, no_huge=True, memory=64)
    assert list(small_tmpfs.iterdir()) == []
    assert os.listdir(runtime_dir) == []


# --- who may open a file ------------------------------------------------------------------------------------


def test_files_are_private_by_default(primary: eal.Eal) -> None:
    assert os.stat(primary.memzone_reserve("z", 64).segment.path).st_mode & 0o7777 == 0o600


def test_ownership_of_what_cannot_be(primary: eal.Eal) -> None:
    for mode in (0o4600, 0o400, 0o066, -1, 0o1777, "0600", None):
        with pytest.raises(eal.Invalid, match="mode"):
            primary.segment_create(2 * MIB, mode=mode)  # type: ignore[arg-type]
    for keywords in ({"user": "no such user"}, {"user_group": "no such group"}):
        with pytest.raises(eal.NotFound, match="no such"):
            primary.segment_create(2 * MIB, **keywords)  # type: ignore[arg-type]
    assert primary.segments() == []


@pytest.mark.root
@pytest.mark.parametrize(("user", "user_group"), [("nobody", "nogroup"), (65534, 65534), (None, "nogroup")])
def test_mode_user_and_group_are_the_groups(
    primary: eal.Eal, user: str | int | None, user_group: str | int | None
) -> None:
    first = primary.segment_create(2 * MIB, group="vm", mode=0o660, user=user, user_group=user_group)
    primary.memzone_reserve("z", 3 * MIB, group="vm")
    primary.memzone_reserve("y", 64)
    owners: dict[str, set[tuple[int, int, int]]] = {}
    for segment in primary.segments():
        found = os.stat(segment.path)
        owners.setdefault(segment.group, set()).add((found.st_mode & 0o7777, found.st_uid, found.st_gid))
    assert owners == {"vm": {(0o660, 0 if user is None else 65534, 65534)}, "default": {(0o600, 0, 0)}}
    assert len([s for s in primary.segments() if s.group == "vm"]) == 2
    assert first.group == "vm"


# --- segments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, -4096, 4096, 3 * MIB, 2 * MIB + 1, 2 * MIB - 4096])
def test_a_segment_that_cannot_be(primary: eal.Eal, size: int) -> None:
    with pytest.raises(eal.Invalid, match="power of two"):
        primary.segment_create(size)
    assert primary.segments() == []


@pytest.mark.parametrize("size", [None, 2.0, "2M"])
def test_a_size_is_an_int(primary: eal.Eal, size: object) -> None:
    with pytest.raises(TypeError):
        primary.segment_create(size)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [8192, MIB, 64 * MIB])
def test_segment_create(primary: eal.Eal, size: int) -> None:
    segment = primary.segment_create(size, group="g")
    assert (segment.size, segment.group, segment.page_size) == (size, "g", 4096)
    assert os.stat(segment.path).st_size == size
    assert os.stat(segment.path).st_blocks * 512 >= size
    assert primary.segments() == [segment]
    assert primary.memzone_reserve("z", 1024, group="g").segment is segment


def test_segments_lie_where_they_were_wanted(primary: eal.Eal) -> None:
    segments = [primary.segment_create(4 * MIB, group=f"g{number}") for number in range(3)]
    addresses = [segment.address for segment in segments]
    assert addresses == [addresses[0] + number * 4 * MIB for number in range(3)]
    assert 0x2000_0000_0000 <= addresses[0] < 0x4000_0000_0000
    assert not any(segment.relocated for segment in segments)


def test_memory_is_taken_at_the_start(runtime_dir: Path, prefix: str) -> None:
    with eal.init(["--socket-mem", "4"], file_prefix=prefix, no_huge=True, memory=6) as made:
        assert sorted((s.size // MIB, s.socket_id, s.group) for s in made.segments()) == [
            (2, -1, "default"),
            (4, -1, "default"),
            (4, 0, "default"),
        ]
        zone = made.memzone_reserve("z", 3 * MIB)
        assert zone.segment.size == 4 * MIB
        assert len(made.segments()) == 3


# --- NUMA ---------------------------------------------------------------------------------------------------


def test_a_segment_of_node_0_is_there(primary: eal.Eal) -> None:
    zone = primary.memzone_reserve("z", 64, socket_id=0)
    assert (zone.socket_id, zone.host_socket_id, zone.segment.socket_id) == (0, 0, 0)
    assert lib.ivs_node_of(zone.address) == 0
    policies = Path("/proc/self/numa_maps").read_text()
    (line,) = [line for line in policies.splitlines() if line.startswith(f"{zone.segment.address:08x} ")]
    assert "bind:0" in line
    anywhere = primary.memzone_reserve("y", 64)
    assert anywhere.segment is zone.segment  # any node will do


def test_a_zone_of_a_node_is_not_put_into_a_segment_of_any(primary: eal.Eal) -> None:
    anywhere = primary.memzone_reserve("y", 64)
    assert primary.memzone_reserve("z", 64, socket_id=0).segment is not anywhere.segment
    assert len(primary.segments()) == 2


@pytest.mark.parametrize("socket_id", [99, 1023, 1024, 1 << 40, -2])
def test_a_node_that_is_not_there(primary: eal.Eal, socket_id: int) -> None:
    with pytest.raises(eal.Invalid, match=rf"got {socket_id}|socket_id {socket_id}"):
        primary.memzone_reserve("z", 64, socket_id=socket_id)
    assert (primary.segments(), primary.memzones()) == ([], [])
    assert [name for name in os.listdir("/dev/shm") if primary.file_prefix in name] == []


def test_pages_that_came_to_lie_elsewhere(primary: eal.Eal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is asked where they are; nothing is left of a segment that is not where it was bound to."""
    monkeypatch.setattr(numa, "nodes_with_memory", lambda: {0, 1})
    monkeypatch.setattr(numa, "bind", lambda *_: None)
    message = r"512 pages of 4 KiB .* on NUMA node 1, .*\(512 pages were allocated on other NUMA nodes"
    with pytest.raises(eal.NoMemory, match=message):
        primary.memzone_reserve("z", 64, socket_id=1)
    assert (primary.segments(), primary.memzones()) == ([], [])
    assert [name for name in os.listdir("/dev/shm") if primary.file_prefix in name] == []


def test_a_node_that_is_not_there_names_those_that_are(primary: eal.Eal) -> None:
    with pytest.raises(eal.Invalid, match=r"^socket_id must be a NUMA node with memory \(0.*\), got 7"):
        primary.segment_create(2 * MIB, socket_id=7)
