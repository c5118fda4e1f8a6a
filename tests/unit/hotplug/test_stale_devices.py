# SPDX-License-Identifier: BSD-3-Clause
"""What a dead host left in a VM goes when its successor plugs; QEMU is a stand-in, which is this process."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import eal
import ivshmem
from tests.fake_qemu import FakeQemu

DYING = """
import json, sys, eal, ivshmem
app = eal.init(["--no-pci"], file_prefix=sys.argv[1], no_huge=True)
args = []
for name in ("vm0", "more"):
    metadata = ivshmem.metadata_create(name)
    metadata.add_memzone(eal.memzone_reserve(name, 64, group=name))
    args += metadata.qemu_args()
pairs = zip(args[::2], args[1::2])
print(json.dumps([word for pair in pairs if "pci-bridge" not in pair[1] for word in pair]), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def vm(tmp_path: Path) -> Iterator[Any]:
    with FakeQemu(tmp_path / "q") as running:
        yield running


@pytest.fixture
def undo() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def outlive(peer: Callable[..., Any], vm: Any, undo: ExitStack) -> list[Any]:
    """A host that gave two metadata to a VM and was killed; the files that QEMU has open."""
    host = peer(DYING)
    vm.cold(json.loads(host.hear()))
    opened = [undo.enter_context(open(one["mem-path"], "rb")) for one in vm.objects.values()]
    host.crash()
    assert len(vm.given()) == 4
    return opened


def successor(prefix: str, undo: ExitStack) -> ivshmem.Metadata:
    undo.enter_context(eal.init(["--no-pci"], file_prefix=prefix, no_huge=True))
    made = ivshmem.metadata_create("vm0")
    made.add_memzone(eal.memzone_reserve("vm0", 64, group="vm0"))
    return made


def ids(metadata: ivshmem.Metadata) -> list[str]:
    return sorted(device.id for device in metadata.devices())


def test_all_that_the_dead_one_gave_goes(peer: Callable[..., Any], vm: Any, prefix: str, undo: ExitStack) -> None:
    outlive(peer, vm, undo)
    metadata = successor(prefix, undo)
    metadata.plug(vm.path)
    assert sorted(vm.given()) == ids(metadata)
    adds = [number for number, (command, _) in enumerate(vm.commands) if command == "device_add"]
    removals = [(number, name) for number, (command, name) in enumerate(vm.commands) if command == "device_del"]
    assert max(adds) < removals[0][0], "the new one is there before the old one goes"
    assert [name.count("-") for _, name in removals] == [2, 2, 3, 3], "the metadata go first"


def test_what_the_guests_cannot_be_told_of_stays(
    peer: Callable[..., Any], vm: Any, prefix: str, undo: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    for file in outlive(peer, vm, undo):
        file.close()  # as if this process were not allowed to look
    metadata = successor(prefix, undo)
    with caplog.at_level(logging.WARNING, "ivshmem"):
        metadata.plug(vm.path)
    assert len(vm.given()) == 4 + 2
    assert caplog.text.count("stays in the VM, though nobody serves it any more") == 2


def test_one_that_a_living_host_has_closed_stays(vm: Any, primary: eal.Eal, undo: ExitStack) -> None:
    """Its segments are there, and a VM keeps what it has mapped."""
    closed, other = ivshmem.metadata_create("closed"), ivshmem.metadata_create("other")
    for metadata in (closed, other):
        metadata.add_memzone(eal.memzone_reserve(metadata.name, 64, group=metadata.name))
    closed.plug(vm.path)
    kept = [undo.enter_context(open(one["mem-path"], "rb")) for one in vm.objects.values()]
    assert len(kept) == 2
    before = vm.given()
    closed.close()
    other.plug(vm.path)
    assert sorted(vm.given()) == sorted([*before, *ids(other)])


def test_a_guest_that_does_not_give_it_up_keeps_nothing_from_being_plugged(
    peer: Callable[..., Any], vm: Any, prefix: str, undo: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    outlive(peer, vm, undo)
    metadata = successor(prefix, undo)
    vm.refuses = {name for name in vm.devices if name.count("-") == 2}
    with caplog.at_level(logging.WARNING, "ivshmem"):
        metadata.plug(vm.path)
    assert set(ids(metadata)) < set(vm.given())
    assert "what its dead host had plugged stays" in caplog.text
    vm.refuses = set()
    metadata.plug(vm.path)
    assert sorted(vm.given()) == ids(metadata)
