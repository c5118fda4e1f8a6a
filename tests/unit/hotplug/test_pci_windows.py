# SPDX-License-Identifier: BSD-3-Clause
"""Placement of plugged devices on the buses of a VM, and the errors if there is no room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import eal
import ivshmem
from tests.fake_qemu import Bridge
from tests.unit.hotplug.metadata import MIB, ids, metadata_of, zone_in


def test_too_small_window_raises_no_memory_with_sizes(make: Callable[..., Any], hot: ivshmem.Metadata) -> None:
    """The VM is not changed, and the message has the sizes and the remedy."""
    vm = make(bridges={"ivs-plug": Bridge(window=16 * MIB), "rp": Bridge("pcie-root-port", 2 * MIB)})
    hot.add_memzone(zone_in("larger", 32 * MIB))
    with pytest.raises(eal.NoMemory) as caught:
        hot.plug(vm.path)
    text = str(caught.value)
    assert f"{hot.devices()[2].path} (32 MiB of 51 MiB in 4 devices)" in text
    assert "bridge 'ivs-plug' has a window of 16 MiB, largest free BAR 16 MiB" in text
    assert "bridge 'rp' has a window of 2 MiB" in text
    assert 'ivshmem.qemu_args(..., plug="256M")' in text
    assert not {"object-add", "device_add"} & set(dict(vm.commands))


def test_too_few_slots_raises_no_memory(make: Callable[..., Any], primary: eal.Eal) -> None:
    vm = make()
    metadata = metadata_of("many", *[2 * MIB] * 31)
    with pytest.raises(eal.NoMemory, match="'ivs-plug' has no free slot"):
        metadata.plug(vm.path)
    assert vm.backends() == []


def test_devices_are_spread_over_several_buses(make: Callable[..., Any], hot: ivshmem.Metadata) -> None:
    ports = {f"rp{number}": Bridge("pcie-root-port", (number + 1) * 16 * MIB) for number in range(2)}
    vm = make(bridges=ports | {"own": Bridge("pci-bridge", 2 * MIB)})
    hot.plug(vm.path)
    assert sorted(vm.backends()) == ids(hot)
    assert sorted((d.bus, d.slot) for d in vm.devices.values()) == [("own", 1), ("rp0", 0), ("rp1", 0)]


def test_vm_without_hotplug_bridge_raises_no_memory(make: Callable[..., Any], hot: ivshmem.Metadata) -> None:
    with pytest.raises(eal.NoMemory, match="no bridge or port supports hotplug; boot the VM with"):
        hot.plug(make(bridges={"video": Bridge("i82801b11-bridge")}).path)


def test_bus_rejected_by_qemu_is_skipped(make: Callable[..., Any], hot: ivshmem.Metadata) -> None:
    vm = make(bridges={"ivs-plug": Bridge(window=2 * MIB), "one": Bridge(hotplug=False), "two": Bridge()})
    hot.plug(vm.path)
    assert sorted(vm.backends()) == ids(hot)
    assert "one" not in {device.bus for device in vm.devices.values()}


def test_all_buses_rejected_by_qemu_raises_no_memory(make: Callable[..., Any], hot: ivshmem.Metadata) -> None:
    vm = make(bridges={"ivs-plug": Bridge(hotplug=False)})
    with pytest.raises(eal.NoMemory, match=r"'ivs-plug' is rejected by QEMU .*does not support hotplugging"):
        hot.plug(vm.path)
    assert vm.backends() == []


def test_guest_without_room_raises_no_memory_and_rolls_back(vm: Any, hot: ivshmem.Metadata) -> None:
    """QEMU reports success; only the missing BAR address shows that the guest has no room."""
    vm.lacks_room = {f"{hot.devices()[1].id}-dev"}
    with pytest.raises(eal.NoMemory, match="'ivs-plug' has a window that is too small: the guest found no room in it"):
        hot.plug(vm.path)
    assert vm.backends() == []
    vm.lacks_room = set()
    hot.plug(vm.path)
