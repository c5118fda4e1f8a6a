# SPDX-License-Identifier: BSD-3-Clause
"""QEMU command lines: pure functions from devices to a list of options."""

from __future__ import annotations

import re
from collections.abc import Sequence
from uuid import UUID

from eal.errors import Invalid
from eal.memory.socket_id import SOCKET_ID_ANY
from ivshmem.vmm.device import Device

PER_BUS = 31  # devices on a bridge: its slots 1 to 31
# Slots of the root bus for bridges. They are high, because users assign low slots to other devices, and avoid the
# slots of a q35's own devices (0x1f; USB at 0x1d).
PLACES = (0x1C, 0x1B, *range(0x19, 0x0F, -1))
PLUG_SLOT = 0x1A
PLUG_BRIDGE = "ivs-plug"
MAX_BRIDGES = 240  # PCI has 256 bus numbers, one per bridge; the VM's other bridges and root ports need the rest


def quote(value: str) -> str:
    """Return a value for QEMU's comma-separated options, with each comma doubled."""
    return value.replace(",", ",,")


def backend_args(device: Device) -> list[str]:
    """Return the memory backend of a device. QEMU maps the existing file; with `share=on` writes reach the file."""
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
    """Return a device with its backend; `where` is bus and address, such as "bus=b,addr=1"."""
    return [*backend_args(device), "-device", f"ivshmem-plain,id={device.device_id},memdev={device.id},{where}"]


def vm_args(devices: Sequence[Device], plug: str | None = None, place: int = 0) -> list[str]:
    """Return all devices of a VM, on bridges of their own. `place` is the index in PLACES of the first bridge's slot.

    `plug`, a size such as "1G", adds a bridge with a window of this size for devices that are plugged into the running
    VM. Raise Invalid for more devices than PCI bus numbers allow, or an invalid `plug`.
    """
    check_plug(plug)
    args = _placed_args(devices, place)
    if plug is not None:
        args += _bridge_args(PLUG_BRIDGE, 255, f"addr={PLUG_SLOT:#x},pref64-reserve={plug},mem-reserve=4M")
    return args


def _placed_args(devices: Sequence[Device], place: int) -> list[str]:
    """Return the devices on a tree of bridges.

    The slots of all buses are numbered consecutively, as in a binary heap: bridges, each with a new bus, use the first
    slots, devices the following ones.
    """
    if not devices:
        return []
    bridges = max(1, -(-(len(devices) - 1) // (PER_BUS - 1)))
    if bridges > MAX_BRIDGES:
        raise Invalid(
            f"number of devices of a VM must be at most {MAX_BRIDGES * (PER_BUS - 1) + 1} (PCI has bus numbers for "
            f"{MAX_BRIDGES} bridges), got {len(devices)}: put more objects into one group"
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
    """Return the index in PLACES of the bridge for metadata files with these uuids.

    The uuid of a single file selects the place, so that the options of several files can be concatenated (design note
    0008). Files in one call of `ivshmem.qemu_args` use the first place.
    """
    return metadata[0].int % len(PLACES) if len(set(metadata)) == 1 else 0


def _chassis(place: int, number: int) -> int:
    """Return a chassis number, 1 to 254, different for each place and above the first numbers, which users assign."""
    return (99 + place * (254 // len(PLACES)) + number) % 254 + 1


def _bridge_args(name: str, chassis: int, options: str) -> list[str]:
    return ["-device", f"pci-bridge,id={name},chassis_nr={chassis},shpc=off,{options}"]


def check_plug(plug: object) -> None:
    """Raise Invalid unless `plug` is None or a size such as "1G"."""
    if plug is not None and not (isinstance(plug, str) and re.fullmatch("[0-9]*[1-9][0-9]*[MG]", plug)):
        raise Invalid(f"plug must be a size such as '1G' or '256M', got {plug!r}")
