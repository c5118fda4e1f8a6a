# SPDX-License-Identifier: BSD-3-Clause
"""Errors of a running VM: an unresponsive guest, a paused VM, a QEMU that ends."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eal
import ivshmem
from ivshmem.hotplug import qmp
from tests.unit.hotplug.metadata import file_of, ids, zone_in


def test_unresponsive_guest_raises_stalled_and_names_remaining_device(vm: Any, hot: ivshmem.Metadata) -> None:
    vm.silent = {f"{hot.devices()[1].id}-dev"}
    with pytest.raises(eal.Stalled, match=r"did not respond within 0.3 s.*rollback is incomplete: .* still has"):
        hot.plug(vm.path, timeout=0.3)
    assert vm.backends() == [hot.devices()[1].id]  # the device that QEMU cannot remove; the message names it
    vm.silent = set()
    hot.plug(vm.path)
    assert sorted(vm.backends()) == ids(hot)


def test_remaining_backend_is_replaced(vm: Any, hot: ivshmem.Metadata) -> None:
    """If the guest releases a device after an unplug has timed out, QEMU removes the device but not its backend."""
    vm.objects[hot.devices()[0].id] = {"mem-path": "/old", "readonly": True, "size": 1}
    hot.plug(vm.path)
    assert vm.objects[hot.devices()[0].id]["mem-path"] == hot.devices()[0].path


def test_unplug_rejected_by_guest_raises_and_leaves_share_plugged(vm: Any, hot: ivshmem.Metadata) -> None:
    hot.plug(vm.path)
    vm.rejects = {"*"}
    with pytest.raises(eal.InUse, match=r"the guest rejected the unplug of ivs-.*-dev"):
        hot.unplug(vm.path)
    assert sorted(vm.backends()) == ids(hot)
    assert not file_of(hot).leaving
    vm.rejects, vm.silent = set(), {"*"}
    with pytest.raises(eal.Stalled, match=r"did not respond within 0.1 s and still has ivs-"):
        hot.unplug(vm.path, timeout=0.1)
    assert not file_of(hot).leaving
    vm.silent, vm.busy = set(), 3  # QEMU releases the memory backend later than the device
    hot.unplug(vm.path)
    assert vm.backends() == []


def test_paused_vm_raises_in_use(vm: Any, hot: ivshmem.Metadata) -> None:
    vm.running = False
    with pytest.raises(eal.InUse, match=r"is not running .state: paused.; resume it first"):
        hot.plug(vm.path)
    vm.running = True
    hot.plug(vm.path)
    vm.running = False
    with pytest.raises(eal.InUse, match="resume it first"):
        hot.unplug(vm.path)
    table = hot.table
    with pytest.raises(eal.InUse, match="resume it first"):
        hot.add_memzone(zone_in("later"))
    assert hot.table == table


def test_plug_waits_for_firmware(vm: Any, hot: ivshmem.Metadata) -> None:
    vm.booting = 3
    hot.plug(vm.path)
    assert len(vm.backends()) == 3
    hot.unplug(vm.path)
    vm.booting = 10**6
    with pytest.raises(eal.Stalled, match="has not set up PCI bridges yet"):
        hot.plug(vm.path, timeout=0.1)


@pytest.mark.parametrize("command", ["qom-list", "query-pci", "object-add", "device_add"])
def test_qemu_ends_during_plug_raises_not_found(
    make: Callable[..., Any], hot: ivshmem.Metadata, primary: eal.Eal, command: str
) -> None:
    vm = make(dies_at=command)
    with pytest.raises(eal.NotFound, match="it has ended"):
        hot.plug(vm.path)
    record = primary.directory.path / "vms"
    assert not record.exists() or json.loads(record.read_text())[hot.uuid.hex]["vms"] == []
    hot.add_memzone(zone_in("later"))


def test_qemu_ends_during_unplug_raises_not_found(vm: Any, hot: ivshmem.Metadata) -> None:
    hot.plug(vm.path)
    vm.silent, vm.dies_at = {"*"}, "query-status"
    vm._query_status = lambda: {"running": True}
    start = time.monotonic()
    with pytest.raises(eal.NotFound, match="it has ended"):
        hot.unplug(vm.path, force=True)
    assert time.monotonic() - start < 3


def test_missing_qmp_socket_raises_not_found(hot: ivshmem.Metadata, tmp_path: Path) -> None:
    for call in (hot.plug, hot.unplug):
        with pytest.raises(eal.NotFound, match="no QEMU listens at the QMP socket"):
            call(tmp_path / "nobody")


def test_busy_qmp_socket_raises_stalled(vm: Any, hot: ivshmem.Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qmp, "TIMEOUT", 0.2)
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(vm.path))
        for call in (hot.plug, hot.unplug):
            with pytest.raises(eal.Stalled, match="another client may use the socket"):
                call(vm.path)
    monkeypatch.undo()
    hot.plug(vm.path)


def test_missing_file_raises_not_found_before_plug(vm: Any, hot: ivshmem.Metadata) -> None:
    os.unlink(hot.devices()[0].path)
    with pytest.raises(eal.NotFound, match="does not exist: was it removed by hand"):
        hot.plug(vm.path)
    assert vm.commands == []


def test_closed_metadata_raises_closed(vm: Any, hot: ivshmem.Metadata) -> None:
    hot.close()
    for call in (hot.plug, hot.unplug):
        with pytest.raises(eal.Closed):
            call(vm.path)
