# SPDX-License-Identifier: BSD-3-Clause
"""eal.memory.segment_file: pages are allocated at creation, so a shortage raises NoMemory and never SIGBUS."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import eal
from eal.lifecycle import cleanup
from eal.memory import hugepages, segment_file
from eal.text.sizes import KIB, MIB

# --- tmpfs --------------------------------------------------------------------------------------------------


@pytest.fixture
def small_tmpfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Mount a tmpfs of 8 MiB and use it instead of /dev/shm."""
    folder = tmp_path / "shm"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "none", folder], check=True)
    monkeypatch.setattr(hugepages, "SHM_DIR", folder)
    monkeypatch.setattr(cleanup, "SHM_DIR", folder)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.root
def test_reserve_on_full_tmpfs_raises_no_memory_and_changes_nothing(
    small_tmpfs: Path, runtime_dir: Path, prefix: str
) -> None:
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
            zone.buf[:] = b"\1" * MIB  # every page is allocated: no SIGBUS
    assert list(small_tmpfs.iterdir()) == []


def test_request_above_available_memory_allocates_no_page(primary: eal.Eal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Allocating every available page before the error would starve other processes."""

    def allocate(*_: object) -> None:
        raise AssertionError("pages were allocated")

    before = primary.segments()
    monkeypatch.setattr(os, "posix_fallocate", allocate)
    with pytest.raises(AssertionError):  # segment_create calls the patched posix_fallocate
        primary.segment_create(8 * MIB)
    monkeypatch.setattr(hugepages, "_available_memory", lambda: 4 * MIB)  # simulate a small machine
    with pytest.raises(eal.NoMemory, match=r"2048 pages of 4 KiB required in /dev/shm, 1024 available"):
        primary.segment_create(8 * MIB)
    monkeypatch.undo()
    monkeypatch.setattr(os, "posix_fallocate", allocate)
    for create in (lambda: primary.segment_create(1 << 50), lambda: primary.memzone_reserve("z", 1 << 45)):
        with pytest.raises(eal.NoMemory, match="pages of 4 KiB required in /dev/shm"):
            create()
    assert primary.segments() == before


@pytest.mark.root
def test_zone_is_usable_after_another_process_filled_the_tmpfs(
    small_tmpfs: Path, runtime_dir: Path, prefix: str
) -> None:
    with eal.init(file_prefix=prefix, no_huge=True):
        zone = eal.memzone_reserve("z", MIB)
        filler = small_tmpfs / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(MIB))
        zone.buf[:] = b"\2" * MIB
        assert bytes(zone.buf[-4:]) == b"\2" * 4
        assert eal.memzone_reserve("y", 900 * KIB).buf[0] == 0  # uses allocated pages of the segment
        with pytest.raises(eal.NoMemory):
            eal.memzone_reserve("x", 4 * MIB)
        filler.unlink()


@pytest.mark.root
def test_init_with_too_much_memory_raises_no_memory_and_leaves_no_files(
    small_tmpfs: Path, runtime_dir: Path, prefix: str
) -> None:
    with pytest.raises(eal.NoMemory):
        eal.init(file_prefix=prefix, no_huge=True, memory=64)
    assert list(small_tmpfs.iterdir()) == []
    assert os.listdir(runtime_dir) == []


# --- mode and owner ------------------------------------------------------------------------------------


def test_segment_file_is_private_by_default(primary: eal.Eal) -> None:
    assert os.stat(primary.memzone_reserve("z", 64).segment.path).st_mode & 0o7777 == 0o600


def test_segment_create_with_invalid_mode_or_unknown_owner_raises(primary: eal.Eal) -> None:
    for mode in (0o4600, 0o400, 0o066, -1, 0o1777, "0600", None):
        with pytest.raises(eal.Invalid, match="mode"):
            primary.segment_create(2 * MIB, mode=mode)  # type: ignore[arg-type]
    for keywords in ({"user": "no such user"}, {"user_group": "no such group"}):
        with pytest.raises(eal.NotFound, match="no such"):
            primary.segment_create(2 * MIB, **keywords)  # type: ignore[arg-type]
    assert primary.segments() == []


@pytest.mark.root
@pytest.mark.parametrize(("user", "user_group"), [("nobody", "nogroup"), (65534, 65534), (None, "nogroup")])
def test_later_segments_have_mode_and_owner_of_their_group(
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


# --- progress -----------------------------------------------------------------------------------------------


def test_progress_is_called_per_allocated_chunk(primary: eal.Eal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_file, "CHUNK", 3 * MIB)
    calls: list[int] = []
    segment = primary.segment_create(8 * MIB, progress=calls.append)
    assert calls == [3 * MIB, 3 * MIB, 2 * MIB]
    assert os.stat(segment.path).st_blocks * 512 >= segment.size


def test_interrupt_during_allocation_leaves_no_file(primary: eal.Eal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_file, "CHUNK", MIB)
    with pytest.raises(KeyboardInterrupt):
        primary.segment_create(8 * MIB, progress=lambda _: signal.raise_signal(signal.SIGINT))
    assert primary.segments() == []
    assert [name for name in os.listdir("/dev/shm") if primary.file_prefix in name] == []
