# SPDX-License-Identifier: BSD-3-Clause
"""The guest of bench_scale.py: times eal.init(), and mapping the BARs of the PCI devices directly.

The argument is the number of rounds. Prints one JSON object: seconds of each round, and memory in KiB.
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


def device_directories() -> list[Path]:
    """Return the sysfs directories of all PCI devices, by pyudev or from the emulated bus."""
    if root := os.environ.get("EAL_SYSFS_ROOT"):
        return list(Path(root, "bus/pci/devices").iterdir())
    import pyudev

    return [Path(device.sys_path) for device in pyudev.Context().list_devices(subsystem="pci")]


def map_bars() -> list[mmap.mmap]:
    """Find the ivshmem devices and map the BAR 2 of each; a program without eal would do this."""
    maps = []
    for directory in device_directories():
        if [(directory / name).read_text().strip() for name in ("vendor", "device")] == IVSHMEM:
            with open(directory / "resource2", "r+b", buffering=0) as bar:
                maps.append(mmap.mmap(bar.fileno(), 0))
    return maps


def memory() -> dict[str, int]:
    """Return this process's resident memory in KiB: in total, anonymous, of files, and of shared memory."""
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return {name: int(fields[name].split()[0]) for name in ("VmRSS", "RssAnon", "RssFile", "RssShmem")}


def run_round(report: dict[str, Any]) -> None:
    """Time both ways once and append the times to the report."""
    begin = time.perf_counter()
    maps = map_bars()
    report["direct"].append(time.perf_counter() - begin)
    for mapping in maps:
        mapping.close()
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
    report: dict[str, Any] = {"direct": [], "init": [], "memzones": []}
    before = memory()
    with eal.init():  # includes the modules that it imports
        report["memory"] = {name: now - before[name] for name, now in memory().items()}
    for _ in range(int(sys.argv[1])):
        run_round(report)
    print(json.dumps(report), flush=True)


main()
