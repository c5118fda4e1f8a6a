# SPDX-License-Identifier: BSD-3-Clause
"""Buses: where a running VM has room for more devices, as QEMU's query-pci tells it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eal.errors import NoMemory
from eal.text.sizes import size_text
from ivshmem.vmm.device import Device
from ivshmem.vmm.qemu import PLUG_BRIDGE

# The slots that take a plugged device, by QEMU's name of the bridge. A PCI Express port has one.
_SLOTS: dict[str, Sequence[int]] = {
    "pci-bridge": range(1, 32),
    "pcie-pci-bridge": range(1, 32),
    "pcie-root-port": [0],
    "ioh3420": [0],
    "xio3130-downstream": [0],
}
_REMEDY = f'boot the VM with what ivshmem.qemu_args(..., plug="{{size}}") gives: a bridge {PLUG_BRIDGE!r} with a window'


class Window:
    """A range of addresses that a bridge passes on, and what of it is free. `name` says which of the two it is."""

    def __init__(self, name: str, base: int, limit: int) -> None:
        self.name = name
        self.size = max(0, limit + 1 - base) if base else 0  # a base of 0: no firmware was here yet
        self._free = [(base, base + self.size)] if self.size else []

    def take(self, size: int) -> bool:
        """The first range of this size and alignment, where Linux puts a BAR; False where there is none."""
        for start, end in self._free:
            if (at := -(-start // size) * size) + size <= end:
                self.use(at, size)
                return True
        return False

    def use(self, at: int, size: int) -> None:
        pieces = [piece for start, end in self._free for piece in ((start, min(end, at)), (max(start, at + size), end))]
        self._free = [(start, end) for start, end in pieces if start < end]

    @property
    def largest(self) -> int:
        """Bytes of the largest BAR that fits, 0 for none."""
        return max((_largest_in(start, end) for start, end in self._free), default=0)


def _largest_in(start: int, end: int) -> int:
    size = 1 << ((end - start).bit_length() - 1)
    while -(-start // size) * size + size > end:
        size >>= 1
    return size


@dataclass
class HotplugBus:
    """A bus behind a bridge or port that takes plugged devices. `name` is QEMU's id of the bridge."""

    name: str
    slots: list[int]
    windows: list[Window]

    def take(self, device: Device) -> int | None:
        """A slot for a device and room for its memory, both gone then; None where one of them is lacking."""
        if not self.slots or not any(window.take(device.size) for window in self.windows):
            return None
        return self.slots.pop(0)

    def __str__(self) -> str:
        if not self.slots:
            return f"{self.name!r} has no slot free"
        window = max(self.windows, key=lambda window: window.size)
        return (
            f"{self.name!r} has a window of {size_text(window.size)}, of which {size_text(window.largest)} are free "
            "in one piece"
        )


@dataclass(frozen=True)
class Placement:
    """Where a device is to be plugged."""

    device: Device
    bus: str
    slot: int


def firmware_was_here(pci: Sequence[Mapping[str, Any]]) -> bool:
    """Whether bridges have their numbers by now, or there is none. `pci` is what query-pci returns."""
    bridges = [device for device in _devices(pci) if "pci_bridge" in device]
    return not bridges or any(bridge["pci_bridge"]["bus"]["secondary"] for bridge in bridges)


def find_buses(pci: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> list[HotplugBus]:
    """The buses that may take plugged devices, the one that was made for it first. `kinds` are the models of devices by
    their id.
    """
    found = [
        _bus(device["qdev_id"], device["pci_bridge"], _SLOTS[kinds[device["qdev_id"]]])
        for device in _devices(pci)
        if "pci_bridge" in device and kinds.get(device["qdev_id"]) in _SLOTS
    ]
    return sorted(found, key=lambda bus: (bus.name != PLUG_BRIDGE, bus.name))


def regions_of(pci: Sequence[Mapping[str, Any]], device_id: str) -> list[Mapping[str, Any]]:
    """The BARs of a device; empty where it is not there, or its bus is not known yet."""
    return next((device["regions"] for device in _devices(pci) if device["qdev_id"] == device_id), [])


def _devices(pci: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """All devices, those behind bridges too."""
    for bus in pci:
        for device in bus["devices"]:
            yield device
            if "pci_bridge" in device:
                yield from _devices([{"devices": device["pci_bridge"].get("devices", [])}])


def _bus(name: str, bridge: Mapping[str, Any], slots: Sequence[int]) -> HotplugBus:
    there = bridge.get("devices", [])
    ranges = {"prefetchable": bridge["bus"]["prefetchable_range"], "memory": bridge["bus"]["memory_range"]}
    windows = [Window(kind, one["base"], one["limit"]) for kind, one in ranges.items()]
    for region in (region for device in there for region in _memory_of(device)):
        for window in windows:
            window.use(region["address"], region["size"])
    taken = {device["slot"] for device in there}
    return HotplugBus(name, [slot for slot in slots if slot not in taken], windows)


def _memory_of(device: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a device takes of its bus's windows; a bridge takes its own windows."""
    ranges = [region for region in device["regions"] if region["type"] == "memory" and region["address"] > 0]
    for one in (
        device.get("pci_bridge", {}).get("bus", {}).get(f"{kind}_range") for kind in ("prefetchable", "memory")
    ):
        if one and one["base"] < one["limit"]:
            ranges.append({"address": one["base"], "size": one["limit"] + 1 - one["base"]})
    return ranges


def place(devices: Sequence[Device], buses: Sequence[HotplugBus], refused: Mapping[str, str]) -> list[Placement]:
    """A place for each device, in their order, the large ones having had the first choice. `refused` are the buses that
    QEMU did not let us use, and why.

    Raises NoMemory, saying what each bus lacks, before anything is plugged.
    """
    places: dict[str, Placement] = {}
    for device in sorted(devices, key=lambda device: -device.size):
        for bus in buses:
            slot = bus.take(device) if bus.name not in refused else None
            if slot is not None:
                places[device.id] = Placement(device, bus.name, slot)
                break
        else:
            raise no_room(devices, device, [refused.get(bus.name) or str(bus) for bus in buses])
    return [places[device.id] for device in devices]


def no_room(devices: Sequence[Device], device: Device, lacking: Sequence[str]) -> NoMemory:
    """The error for a device that has no place, or was given no address by the guest."""
    total = sum(each.size for each in devices)
    plug = max(1 << 28, 1 << (2 * total - 1).bit_length())
    what = "bridge " + ", bridge ".join(lacking) if lacking else "there is no bridge or port that takes plugged devices"
    return NoMemory(
        f"no room in the VM for {device.path} ({size_text(device.size)} of {size_text(total)} in {len(devices)} "
        f"devices): {what}; " + _REMEDY.format(size=size_text(plug).replace(" ", "").removesuffix("iB"))
    )
