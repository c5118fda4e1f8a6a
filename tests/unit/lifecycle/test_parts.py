# SPDX-License-Identifier: BSD-3-Clause
"""Create the parts of an Eal: a failure releases all parts, and `join` retries if the directory was removed."""

from __future__ import annotations

import gc
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

import eal
from eal.lifecycle.membership import Membership, join
from eal.lifecycle.options import Options
from eal.lifecycle.parts import LazyMonitor, create_parts
from eal.memory.heap import Heap
from eal.objects.table import ObjectTable
from eal.probe.events import Event
from eal.probe.prober import Prober
from eal.runtime.lock_file import LockFile
from eal.runtime.prefix_dir import PrefixDir
from tests.hotplug import Lab


def descriptors() -> list[str]:
    """Return the paths of the open files of this process."""
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return sorted(os.readlink(link) for link in links if os.path.islink(link))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Return a guest bus with one share."""
    lab = Lab(tmp_path)
    lab.plug_all(lab.metadata("vm0"))
    return lab


class Failure(Exception):
    """Injected failure of a part."""


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (Prober, "probe"),
        (Heap, "__init__"),
        (Heap, "create_segment"),
        (ObjectTable, "repair_rings"),
        (LazyMonitor, "start"),
    ],
)
def test_failure_of_part_leaves_no_files_and_no_descriptors(
    lab: Lab, runtime_dir: Path, prefix: str, monkeypatch: pytest.MonkeyPatch, owner: type, method: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise Failure

    monkeypatch.setattr(owner, method, fail)
    before = descriptors()
    with pytest.raises(Failure):
        create_parts(Options(file_prefix=prefix, no_huge=True, memory=2, sysfs_root=lab.root))
    assert descriptors() == before
    assert list(runtime_dir.iterdir()) == []
    assert [name for name in os.listdir("/dev/shm") if f".{prefix}." in name] == []
    monkeypatch.undo()
    eal.init(["--no-pci"], file_prefix=prefix, no_huge=True).close()


def test_failed_recovery_keeps_files(runtime_dir: Path, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise Failure

    with monkeypatch.context() as patched:
        patched.setattr(ObjectTable, "repair_rings", fail)
        with pytest.raises(Failure):
            create_parts(Options(file_prefix=prefix, no_huge=True, no_pci=True, recover=True))
    assert PrefixDir(runtime_dir, prefix).registry.exists()
    with eal.init(["--no-pci"], file_prefix=prefix, no_huge=True, recover=True) as made:
        assert made.proc_type == "primary"


def test_parts_are_closed_in_reverse_order(runtime_dir: Path, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    for owner in (LazyMonitor, ObjectTable, Prober):
        close = owner.close

        def record(self: object, name: str = owner.__name__, close: object = close) -> None:
            order.append(name)
            assert callable(close)
            close(self)

        monkeypatch.setattr(owner, "close", record)
    eal.init(["--no-pci"], file_prefix=prefix, no_huge=True).close()
    assert order == ["LazyMonitor", "ObjectTable", "Prober"]


@pytest.mark.parametrize("enabled", [True, False])
def test_probe_runs_without_garbage_collector(
    runtime_dir: Path, prefix: str, monkeypatch: pytest.MonkeyPatch, enabled: bool
) -> None:
    during: list[bool] = []
    monkeypatch.setattr(Prober, "probe", lambda self, devices: during.append(gc.isenabled()))
    if not enabled:
        gc.disable()
    try:
        eal.init(file_prefix=prefix, no_huge=True, sysfs_root=runtime_dir).close()
        assert (during, gc.isenabled()) == ([False], enabled)
    finally:
        gc.enable()


def test_events_without_monitor_are_dropped() -> None:
    monitor = LazyMonitor()
    monitor.report(Event("plugged", "vm0", "0000:00:04.0"))
    monitor.close()
    monitor.abandon()


def test_join_retries_if_directory_was_removed(runtime_dir: Path, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[LockFile] = []
    is_current = LockFile.is_current

    def removed_twice(locks: LockFile) -> bool:
        attempts.append(locks)
        return len(attempts) > 2 and is_current(locks)

    monkeypatch.setattr(LockFile, "is_current", removed_twice)
    directory = PrefixDir(runtime_dir, prefix)
    before = descriptors()
    membership = join(directory, "auto", recover=False)
    assert (membership.proc_type, len(attempts)) == ("primary", 3)
    leave(membership)
    monkeypatch.setattr(LockFile, "is_current", lambda locks: False)
    with pytest.raises(eal.InUse, match="disappeared 100 times during start-up; use another file_prefix"):
        join(directory, "auto", recover=False)
    assert descriptors() == before


def leave(membership: Membership) -> None:
    with ExitStack() as resources:
        resources.callback(membership.registry.close)
        membership.leave(resources, remove=True)
    with pytest.raises(eal.Closed):
        membership.check_open()
