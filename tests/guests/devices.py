# SPDX-License-Identifier: BSD-3-Clause
"""Guest that records all PCI devices before and after eal.init, and prints the ivshmem devices that eal accepted.

The ivshmem device with the highest address on the root bus is enabled first, as if another program used it.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import eal

DEVICES = Path(os.environ.get("EAL_SYSFS_ROOT", "/sys")) / "bus/pci/devices"


def read(device: Path, name: str) -> str | None:
    try:
        return (device / name).read_text().strip()
    except FileNotFoundError:
        return None


def state(device: Path) -> dict[str, Any]:
    """Return the state that must not change for a foreign device. `command`: whether the device decodes accesses and
    may be bus master.
    """
    config = device / "config"
    return {
        "ids": [read(device, "vendor"), read(device, "device")],
        "enable": read(device, "enable"),
        "driver": (device / "driver").readlink().name if (device / "driver").exists() else None,
        "command": config.read_bytes()[4:6].hex() if config.exists() else None,
    }


def snapshot() -> dict[str, Any]:
    return {device.name: state(device) for device in sorted(DEVICES.iterdir())}


def is_ivshmem(device: Path) -> bool:
    return [read(device, "vendor"), read(device, "device")] == ["0x1af4", "0x1110"]


def checksums() -> dict[str, int]:
    import mmap

    found = {}
    for device in filter(is_ivshmem, DEVICES.iterdir()):
        with open(device / "resource2", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
            found[device.name] = zlib.crc32(memory)
    return found


def main() -> None:
    for device in sorted(filter(is_ivshmem, DEVICES.glob("0000:00:*")))[-1:]:
        (device / "enable").write_text("1")
    before = snapshot()
    with eal.init() as guest:
        report = {
            "before": before,
            "after": snapshot(),
            "checksums": checksums(),
            "foreign": guest.findings.foreign,
            "rejections": [vars(rejection) for rejection in guest.rejections],
            "shares": {share.name: share.address for share in guest.shares},
            "segments": len(eal.segments()),
            "memzones": {zone.name: bytes(zone.buf).rstrip(b"\0").decode() for zone in eal.memzones()},
        }
        for zone in eal.memzones():
            zone.buf[-5:] = b"guest"
    print(json.dumps(report))


main()
