# SPDX-License-Identifier: BSD-3-Clause
"""The guest of bench_scale.py: what eal.init() costs, beside listing the PCI devices and mapping their BARs by hand.

Argument: how many times. Prints one JSON object: seconds of each time, and kilobytes of memory.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from pathlib import Path
from typing import Any

import eal

IVSHMEM = ["0x1af4", "0x1110"]


def folders() -> list[Path]:
    """All PCI devices: by pyudev, or where an emulated bus is."""
    if root := os.environ.get("EAL_SYSFS_ROOT"):
        return list(Path(root, "bus/pci/devices").iterdir())
    import pyudev

    return [Path(device.sys_path) for device in pyudev.Context().list_devices(subsystem="pci")]


def by_hand() -> list[mmap.mmap]:
    """What a program does that knows where everything is: it looks for the devices, and maps each."""
    maps = []
    for folder in folders():
        if [(folder / name).read_text().strip() for name in ("vendor", "device")] == IVSHMEM:
            with open(folder / "resource2", "r+b", buffering=0) as bar:
                maps.append(mmap.mmap(bar.fileno(), 0))
    return maps


def memory() -> dict[str, int]:
    """Kilobytes: this process's own, and pages of shared files that it has touched."""
    status = Path("/proc/self/status").read_text()
    found = dict(line.split(":", 1) for line in status.splitlines())
    return {name: int(found[name].split()[0]) for name in ("VmRSS", "RssAnon", "RssFile", "RssShmem")}


def once(report: dict[str, Any]) -> None:
    begin = time.perf_counter()
    maps = by_hand()
    report["by_hand"].append(time.perf_counter() - begin)
    for one in maps:
        one.close()
    begin = time.perf_counter()
    guest = eal.init()
    report["init"].append(time.perf_counter() - begin)
    begin = time.perf_counter()
    zones = eal.memzones()
    report["memzones"].append(time.perf_counter() - begin)
    report["found"] = {"devices": len(maps), "segments": len(eal.segments()), "zones": len(zones)}
    del zones
    guest.close()


def main() -> None:
    report: dict[str, Any] = {"by_hand": [], "init": [], "memzones": []}
    before = memory()
    with eal.init():  # and what is loaded on first use
        report["memory"] = {name: now - before[name] for name, now in memory().items()}
    for _ in range(int(sys.argv[1])):
        once(report)
    print(json.dumps(report), flush=True)


main()
