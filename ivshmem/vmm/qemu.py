# SPDX-License-Identifier: BSD-3-Clause
"""QEMU command lines: from devices to a list of strings, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from uuid import UUID

from eal.errors import Invalid
from eal.memory.socket_id import SOCKET_ID_ANY
from ivshmem.vmm.device import Device

PER_BUS = 31  # devices on a bridge: its slots 1 to 31
# Slots of the root bus for bridges: high ones, because in the first free slots they would collide with addresses that
# the user gives to other devices. Those of a q35's own devices, and of its USB at 0x1d, are not among them.
PLACES = (0x1C, 0x1B, *range(0x19, 0x0F, -1))
PLUG_SLOT = 0x1A
PLUG_BRIDGE = "ivs-plug"
MOST_BRIDGES = 240  # PCI has 256 bus numbers, one a bridge; the VM's other bridges and root ports need some


def quote(value: str) -> str:
    """A value of one of QEMU's comma-separated options: a comma is written twice."""
    return value.replace(",", ",,")


def backend_args(device: Device) -> list[str]:
    """The memory backend of a device. QEMU maps the file that is there; `share=on` makes writes reach it."""
    options = [
        f"memory-backend-file,id={device.id}",
        f"size={device.size}",
        f"mem-path={quote(device.path)}",
        "share=on",
    ]
    if device.readonly:
        options.append("readonly=on")
    if device.socket_id != SOCKET_ID_ANY:
        options.append(f"host-nodes={device.socket_id},policy=bind")
    return ["-object", ",".join(options)]


def device_args(device: Device, where: str) -> list[str]:
    """A device with its backend; `where` is a bus and an address on it, such as "bus=b,addr=1"."""
    return [*backend_args(device), "-device", f"ivshmem-plain,id={device.device_id},memdev={device.id},{where}"]


def vm_args(devices: Sequence[Device], plug: str | None = None, place: int = 0) -> list[str]:
    """All devices of a VM, on bridges of their own; with `plug`, a size such as "1G", also a bridge whose window has
    room for that much to be plugged into the running VM. `place` is a number of PLACES: where the first bridge sits.

    Raises Invalid for more devices than PCI has buses for, or a `plug` that is no size.
    """
    check_plug(plug)
    args = _placed_args(devices, place)
    if plug is not None:
        args += _bridge_args(PLUG_BRIDGE, 255, f"addr={PLUG_SLOT:#x},pref64-reserve={plug},mem-reserve=4M")
    return args


def _placed_args(devices: Sequence[Device], place: int) -> list[str]:
    """Devices on a tree of bridges, numbered as a heap is: slot by slot, bus by bus stand first the bridges, which open
    another bus each, and then the devices.
    """
    if not devices:
        return []
    bridges = max(1, -(-(len(devices) - 1) // (PER_BUS - 1)))
    if bridges > MOST_BRIDGES:
        raise Invalid(
            f"{len(devices)} devices for one VM: they need {bridges} bridges, and PCI's 256 bus numbers leave room for "
            f"{MOST_BRIDGES}, so for {MOST_BRIDGES * (PER_BUS - 1) + 1} devices; put more objects into one group"
        )
    names = [f"ivs-bus{place}", *(f"ivs-bus{place}-{number}" for number in range(1, bridges))]
    places = [f"addr={PLACES[place]:#x}"]
    places += [f"bus={name},addr={slot:#x}" for name in names for slot in range(1, PER_BUS + 1)]
    args = []
    for number, name in enumerate(names):
        args += _bridge_args(name, _chassis(place, number), places[number])
    for device, where in zip(devices, places[bridges:], strict=False):
        args += device_args(device, where)
    return args


def place_of(*metadata: UUID) -> int:
    """Where the bridge of these metadata sits. One has a place of its own, in its uuid, so that the options of several
    may follow each other (design note 25); those that are planned together take the first.
    """
    return metadata[0].int % len(PLACES) if len(set(metadata)) == 1 else 0


def _chassis(place: int, number: int) -> int:
    """A chassis number, 1 to 254: above those that a user's own bridges start from, apart for different places."""
    return (99 + place * (254 // len(PLACES)) + number) % 254 + 1


def _bridge_args(name: str, chassis: int, options: str) -> list[str]:
    return ["-device", f"pci-bridge,id={name},chassis_nr={chassis},shpc=off,{options}"]


def check_plug(plug: object) -> None:
    """Raises Invalid for what is neither None nor a size such as "1G"."""
    if plug is not None and not (isinstance(plug, str) and re.fullmatch("[0-9]*[1-9][0-9]*[MG]", plug)):
        raise Invalid(f"plug {plug!r}: a size such as '1G' or '256M'")
