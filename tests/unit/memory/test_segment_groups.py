# SPDX-License-Identifier: BSD-3-Clause
"""Pages of a group's own, pages that vanish after they were chosen, and what is seen while they are taken."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import eal
from eal.memory import segment_file
from eal.memory.hugepages import Backend
from eal.text.sizes import GIB, MIB

# --- pages of a group's own, and pages that vanish ----------------------------------------------------------


def test_a_group_of_its_own_pages(hugepages: Callable[..., Path], primary: eal.Eal) -> None:
    """And what the group gets later is of the same; other groups are as eal.init chose."""
    mount = hugepages(4)
    primary.segment_create(2 * MIB, group="huge", huge_dir=mount, mode=0o640)
    more = primary.memzone_reserve("more", 2 * MIB, group="huge")
    assert (more.segment.page_size, Path(more.segment.path).parent) == (2 * MIB, mount)
    assert os.stat(more.segment.path).st_mode & 0o777 == 0o640
    assert primary.memzone_reserve("other", 64).segment.page_size == 4096
    assert primary.segment_create(2 * MIB, group="small", page_size=4096).page_size == 4096
    with pytest.raises(eal.NoMemory, match="nr_hugepages"):  # the group has hugepages, or none
        primary.memzone_reserve("too much", 16 * MIB, group="huge")
    assert {s.page_size for s in primary.segments() if s.group == "huge"} == {2 * MIB}


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"page_size": 3 * MIB}, eal.NotFound, "no writable hugetlbfs has free pages of 3145728 bytes"),
        ({"huge_dir": "/dev/shm"}, eal.Invalid, "huge_dir /dev/shm is not on a hugetlbfs"),
    ],
)
def test_pages_that_are_not_to_be_had(primary: eal.Eal, how: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        primary.segment_create(2 * MIB, **how)
    assert primary.segments() == []


def test_a_huge_dir_of_other_pages(hugepages: Callable[..., Path], primary: eal.Eal) -> None:
    with pytest.raises(eal.Invalid, match=r"page_size must be 2097152 in huge_dir .*, got 1073741824"):
        primary.segment_create(GIB, huge_dir=hugepages(1), page_size=GIB)


def test_hugepages_that_vanish_after_they_were_chosen(
    hugepages: Callable[..., Path], runtime_dir: Path, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody asked for hugepages: tmpfs instead, and the log says why."""
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
def test_hugepages_that_vanish_where_they_were_insisted_on(
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
    """Somebody else has the one page of a mount."""
    backend = Backend(mount, 2 * MIB, huge=True)
    other = segment_file.create(backend, mount / "other", 2 * MIB)
    try:
        yield
    finally:
        other.release()
        (mount / "other").unlink()


# --- progress -----------------------------------------------------------------------------------------------


def test_progress_while_pages_are_taken(primary: eal.Eal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_file, "CHUNK", 3 * MIB)
    told: list[int] = []
    segment = primary.segment_create(8 * MIB, progress=told.append)
    assert told == [3 * MIB, 3 * MIB, 2 * MIB]
    assert os.stat(segment.path).st_blocks * 512 >= segment.size


def test_an_interrupt_while_pages_are_taken_leaves_nothing(primary: eal.Eal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_file, "CHUNK", MIB)
    with pytest.raises(KeyboardInterrupt):
        primary.segment_create(8 * MIB, progress=lambda _: signal.raise_signal(signal.SIGINT))
    assert primary.segments() == []
    assert [name for name in os.listdir("/dev/shm") if primary.file_prefix in name] == []
