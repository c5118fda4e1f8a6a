# SPDX-License-Identifier: BSD-3-Clause
"""PCI windows: the buses of a running VM with room for plugged devices, from the result of QEMU's query-pci."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eal.errors import NoMemory
from eal.text.sizes import align_up, size_text
from ivshmem.vmm.device import Device
from ivshmem.vmm.qemu import PLUG_BRIDGE

# The slots for plugged devices, by QEMU's model of the bridge. A PCI Express port has one slot.
_SLOTS: dict[str, Sequence[int]] = {
    "pci-bridge": range(1, 32),
    "pcie-pci-bridge": range(1, 32),
    "pcie-root-port": [0],
    "ioh3420": [0],
    "xio3130-downstream": [0],
}
_WINDOW_KINDS = ("prefetchable", "memory")
_REMEDY = f'boot the VM with ivshmem.qemu_args(..., plug="{{size}}"), which adds a bridge {PLUG_BRIDGE!r} with a window'


class Window:
    """An address range that a bridge forwards, and its free parts. `kind` is "prefetchable" or "memory"."""

    def __init__(self, kind: str, base: int, limit: int) -> None:
        self.kind = kind
        self.size = max(0, limit + 1 - base) if base else 0  # base 0: the firmware has not set up the bridge
        self._free = [(base, base + self.size)] if self.size else []

    def allocate(self, size: int) -> bool:
        """Reserve the lowest free range for a BAR, as Linux does. Return False if there is none."""
        for start, end in self._free:
            if (address := align_up(start, size)) + size <= end:
                self.reserve(address, size)
                return True
        return False

    def reserve(self, address: int, size: int) -> None:
        """Remove a range from the free parts."""
        pieces = [
            piece
            for start, end in self._free
            for piece in ((start, min(end, address)), (max(start, address + size), end))
        ]
        self._free = [(start, end) for start, end in pieces if start < end]

    @property
    def largest(self) -> int:
        """Size in bytes of the largest BAR that fits, 0 if none does."""
        return max((_largest_bar(start, end) for start, end in self._free), default=0)


def _largest_bar(start: int, end: int) -> int:
    size = 1 << ((end - start).bit_length() - 1)
    while align_up(start, size) + size > end:
        size >>= 1
    return size


@dataclass
class HotplugBus:
    """A bus behind a bridge or port that supports hotplug. `name` is QEMU's id of the bridge."""

    name: str
    slots: list[int]
    windows: list[Window]

    def allocate(self, device: Device) -> int | None:
        """Allocate a slot and a window range for a device, and return the slot. None if there is no room."""
        if not self.slots or not any(window.allocate(device.size) for window in self.windows):
            return None
        return self.slots.pop(0)

    def __str__(self) -> str:
        if not self.slots:
            return f"{self.name!r} has no free slot"
        window = max(self.windows, key=lambda window: window.size)
        return f"{self.name!r} has a window of {size_text(window.size)}, largest free BAR {size_text(window.largest)}"


@dataclass(frozen=True)
class PlacedDevice:
    """The bus and slot into which a device is plugged."""

    device: Device
    bus: str
    slot: int


def is_firmware_done(pci: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the firmware has numbered the bridges, or there are none. `pci` is the result of query-pci."""
    bridges = [device for device in _devices(pci) if "pci_bridge" in device]
    return not bridges or any(bridge["pci_bridge"]["bus"]["secondary"] for bridge in bridges)


def find_buses(pci: Sequence[Mapping[str, Any]], models: Mapping[str, str]) -> list[HotplugBus]:
    """Return the buses that support hotplug, that of `ivshmem.qemu_args` first. `models`: QEMU's, by device id."""
    found = [
        _bus(device["qdev_id"], device["pci_bridge"], _SLOTS[models[device["qdev_id"]]])
        for device in _devices(pci)
        if "pci_bridge" in device and models.get(device["qdev_id"]) in _SLOTS
    ]
    return sorted(found, key=lambda bus: (bus.name != PLUG_BRIDGE, bus.name))


def regions_of(pci: Sequence[Mapping[str, Any]], device_id: str) -> list[Mapping[str, Any]]:
    """Return the BARs of a device; none if the device is absent or its bus has no number yet."""
    return next((device["regions"] for device in _devices(pci) if device["qdev_id"] == device_id), [])


def _devices(pci: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield all devices, also those behind bridges."""
    for bus in pci:
        for device in bus["devices"]:
            yield device
            if "pci_bridge" in device:
                yield from _devices([{"devices": device["pci_bridge"].get("devices", [])}])


def _bus(name: str, bridge: Mapping[str, Any], slots: Sequence[int]) -> HotplugBus:
    devices = bridge.get("devices", [])
    ranges = {kind: bridge["bus"][f"{kind}_range"] for kind in _WINDOW_KINDS}
    windows = [Window(kind, one["base"], one["limit"]) for kind, one in ranges.items()]
    for region in (region for device in devices for region in _memory_of(device)):
        for window in windows:
            window.reserve(region["address"], region["size"])
    used = {device["slot"] for device in devices}
    return HotplugBus(name, [slot for slot in slots if slot not in used], windows)


def _memory_of(device: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the address ranges that a device uses on its bus: its BARs, and the windows of a bridge."""
    ranges = [region for region in device["regions"] if region["type"] == "memory" and region["address"] > 0]
    bridge = device.get("pci_bridge", {}).get("bus", {})
    for window in (bridge.get(f"{kind}_range") for kind in _WINDOW_KINDS):
        if window and window["base"] < window["limit"]:
            ranges.append({"address": window["base"], "size": window["limit"] + 1 - window["base"]})
    return ranges


def place_devices(
    devices: Sequence[Device], buses: Sequence[HotplugBus], rejecting: Mapping[str, str]
) -> list[PlacedDevice]:
    """Return a placement for each device, in the order of the devices; larger devices are placed first.

    `rejecting` are the buses that QEMU rejects for hotplug, with the reason. Raise NoMemory, with the shortage of each
    bus, before any device is plugged.
    """
    placements: dict[str, PlacedDevice] = {}
    for device in sorted(devices, key=lambda device: -device.size):
        for bus in buses:
            slot = bus.allocate(device) if bus.name not in rejecting else None
            if slot is not None:
                placements[device.id] = PlacedDevice(device, bus.name, slot)
                break
        else:
            raise no_room(devices, device, [rejecting.get(bus.name) or str(bus) for bus in buses])
    return [placements[device.id] for device in devices]


def no_room(devices: Sequence[Device], device: Device, shortages: Sequence[str]) -> NoMemory:
    """Return the error for one of the devices that has no placement, or that got no address from the guest."""
    total = sum(each.size for each in devices)
    plug = max(1 << 28, 1 << (2 * total - 1).bit_length())
    cause = "bridge " + ", bridge ".join(shortages) if shortages else "no bridge or port supports hotplug"
    return NoMemory(
        f"no room in the VM for {device.path} ({size_text(device.size)} of {size_text(total)} in {len(devices)} "
        f"devices): {cause}; " + _REMEDY.format(size=size_text(plug).replace(" ", "").removesuffix("iB"))
    )
