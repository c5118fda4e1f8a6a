"""QEMU command lines: from devices to a list of strings, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence

from eal.errors import Invalid
from eal.segment import SOCKET_ID_ANY
from ivshmem.device import Device

DIRECT_LIMIT = 16  # devices that QEMU may place on the root bus itself, beside the VM's other ones
PER_BRIDGE = 31
# Bridges sit at the upper end of the root bus: in the first free slots they would collide with addresses that the
# user gives to other devices later on the command line.
FIRST_BRIDGE_SLOT, LAST_BRIDGE_SLOT = 0x18, 0x1D
PLUG_BRIDGE = "ivs-plug"


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


def device_args(device: Device, place: str = "") -> list[str]:
    """A device with its backend; `place` is a bus and an address on it, such as "bus=b,addr=1"."""
    options = [f"ivshmem-plain,id={device.id}-dev", f"memdev={device.id}", *([place] if place else [])]
    return [*backend_args(device), "-device", ",".join(options)]


def direct_args(devices: Sequence[Device]) -> list[str]:
    """All devices on the root bus, placed by QEMU."""
    return [word for device in devices for word in device_args(device)]


def vm_args(devices: Sequence[Device], plug: str | None = None) -> list[str]:
    """All devices of a VM, on bridges of their own where they are many; with `plug`, a size such as "1G", also a bridge
    whose window has room for that much to be plugged into the running VM.

    Raises Invalid for more devices than fit, or a `plug` that is no size.
    """
    if plug is not None and not _is_size(plug):
        raise Invalid(f"plug {plug!r}: a size such as '1G' or '256M'")
    bridges = 0 if len(devices) <= DIRECT_LIMIT else -(-len(devices) // PER_BRIDGE)
    most = LAST_BRIDGE_SLOT - FIRST_BRIDGE_SLOT + (plug is None)
    if bridges > most:
        raise Invalid(f"{len(devices)} devices for one VM: at most {most * PER_BRIDGE} fit; put more into one metadata")
    args = []
    for number in range(bridges):
        args += _bridge_args(number, f"ivs-bridge{number}")
        for slot, device in enumerate(devices[number * PER_BRIDGE : (number + 1) * PER_BRIDGE], start=1):
            args += device_args(device, f"bus=ivs-bridge{number},addr={slot:#x}")
    if not bridges:
        args += direct_args(devices)
    if plug is not None:
        args += _bridge_args(bridges, PLUG_BRIDGE, f",pref64-reserve={plug},mem-reserve=4M")
    return args


def _bridge_args(number: int, name: str, more: str = "") -> list[str]:
    """A bridge. Its chassis number is above those that a user's own root ports start from."""
    return [
        "-device",
        f"pci-bridge,id={name},chassis_nr={100 + number},shpc=off,addr={FIRST_BRIDGE_SLOT + number:#x}{more}",
    ]


def _is_size(text: object) -> bool:
    return isinstance(text, str) and re.fullmatch("[0-9]*[1-9][0-9]*[MG]", text) is not None
