# SPDX-License-Identifier: BSD-3-Clause
"""Stale devices of a killed host, removed when its successor plugs. FakeQemu runs in this process."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import eal
import ivshmem

KILLED_HOST = """
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
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def killed_host(peer: Callable[..., Any], vm: Any, stack: ExitStack) -> list[Any]:
    """Plug two metadata files of a host and kill the host. Return the files, which QEMU still has open."""
    host = peer(KILLED_HOST)
    vm.cold(json.loads(host.hear()))
    opened = [stack.enter_context(open(one["mem-path"], "rb")) for one in vm.objects.values()]
    host.crash()
    assert len(vm.backends()) == 4
    return opened


def successor(prefix: str, stack: ExitStack) -> ivshmem.Metadata:
    stack.enter_context(eal.init(["--no-pci"], file_prefix=prefix, no_huge=True))
    made = ivshmem.metadata_create("vm0")
    made.add_memzone(eal.memzone_reserve("vm0", 64, group="vm0"))
    return made


def ids(metadata: ivshmem.Metadata) -> list[str]:
    return sorted(device.id for device in metadata.devices())


def test_plug_removes_stale_devices_after_adding_new_ones(
    peer: Callable[..., Any], vm: Any, prefix: str, stack: ExitStack
) -> None:
    killed_host(peer, vm, stack)
    metadata = successor(prefix, stack)
    metadata.plug(vm.path)
    assert sorted(vm.backends()) == ids(metadata)
    adds = [number for number, (command, _) in enumerate(vm.commands) if command == "device_add"]
    removals = [(number, name) for number, (command, name) in enumerate(vm.commands) if command == "device_del"]
    assert max(adds) < removals[0][0], "new devices are added before stale ones are removed"
    assert [name.count("-") for _, name in removals] == [2, 2, 3, 3], "metadata files are removed first"


def test_unreadable_stale_metadata_remains(
    peer: Callable[..., Any], vm: Any, prefix: str, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    for file in killed_host(peer, vm, stack):
        file.close()  # as if this process could not read QEMU's descriptors
    metadata = successor(prefix, stack)
    with caplog.at_level(logging.WARNING, "ivshmem"):
        metadata.plug(vm.path)
    assert len(vm.backends()) == 4 + 2
    assert caplog.text.count("remains in the VM") == 2


def test_closed_metadata_of_live_host_remains(vm: Any, primary: eal.Eal, stack: ExitStack) -> None:
    """The share is not stale, because the files of its segments still exist."""
    closed, other = ivshmem.metadata_create("closed"), ivshmem.metadata_create("other")
    for metadata in (closed, other):
        metadata.add_memzone(eal.memzone_reserve(metadata.name, 64, group=metadata.name))
    closed.plug(vm.path)
    kept = [stack.enter_context(open(one["mem-path"], "rb")) for one in vm.objects.values()]
    assert len(kept) == 2
    before = vm.backends()
    closed.close()
    other.plug(vm.path)
    assert sorted(vm.backends()) == sorted([*before, *ids(other)])


def test_rejected_unplug_of_stale_devices_does_not_prevent_plug(
    peer: Callable[..., Any], vm: Any, prefix: str, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    killed_host(peer, vm, stack)
    metadata = successor(prefix, stack)
    vm.rejects = {name for name in vm.devices if name.count("-") == 2}
    with caplog.at_level(logging.WARNING, "ivshmem"):
        metadata.plug(vm.path)
    assert set(ids(metadata)) < set(vm.backends())
    assert "stale devices remain in the VM" in caplog.text
    vm.rejects = set()
    metadata.plug(vm.path)
    assert sorted(vm.backends()) == ids(metadata)
