# SPDX-License-Identifier: BSD-3-Clause
"""Cost of eal.init() in a guest with many memzones and segments, compared with mapping the BARs directly.

The guest runs on the emulated bus; --vm adds a virtual machine. The direct way lists the devices with pyudev (or
the directory of the emulated bus), reads vendor and device id of each, and opens and maps `resource2`. Both ways run in
turns in the same process and are timed separately.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import eal
import ivshmem
from ivshmem.emulate.runner import guest_environment

GUEST = Path(__file__).with_name("scale_guest.py")
CASES = [(125, 64), (250, 64), (500, 64), (1000, 64), (1000, 8), (1000, 16), (1000, 32)]
ROUNDS, VM_ROUNDS = 31, 9


def emulated(metadata: ivshmem.Metadata) -> dict[str, Any]:
    with guest_environment(device.path for device in metadata.devices()) as env:
        command = [sys.executable, "-P", str(GUEST), str(ROUNDS)]
        done = subprocess.run(command, env={**os.environ, **env}, check=True, stdout=subprocess.PIPE, text=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def virtual(metadata: ivshmem.Metadata) -> dict[str, Any]:
    from ivshmem.vm.vm import run

    command = [sys.executable, "-P", str(GUEST), str(VM_ROUNDS)]
    done = run(command, qemu_args=ivshmem.qemu_args(metadata), timeout=300)
    assert done.status == 0, done.output
    report: dict[str, Any] = json.loads(done.output[done.output.index("{") :])
    return report


def measure(zones: int, segments: int, guest: Any) -> dict[str, Any]:
    """Measure one case in the `guest` function; return medians in ms, and memory in KiB."""
    prefix = f"scale{os.getpid()}"
    with eal.init(["--no-pci"], file_prefix=prefix, no_huge=True):
        metadata = ivshmem.metadata_create(prefix)
        for number in range(zones):
            metadata.add_memzone(eal.memzone_reserve(f"zone{number}", 4096, group=f"group{number % segments}"))
        report = guest(metadata)
    assert report["found"] == {"devices": segments + 1, "segments": segments, "zones": zones}, report["found"]
    times = {name: 1000 * statistics.median(report[name]) for name in ("direct", "init", "memzones")}
    return {"zones": zones, "segments": segments, **times, "memory": report["memory"]}


def show(guest: str, found: dict[str, Any]) -> None:
    ratio = found["init"] / found["direct"]
    print(
        f"{guest:8} {found['zones']:5} {found['segments']:8} {found['direct']:8.2f} {found['init']:8.2f} {ratio:6.2f} "
        f"{found['memzones']:9.2f} {found['memory']['VmRSS']:8} {found['memory']['RssAnon']:8}",
        flush=True,
    )


def main() -> None:
    """Print one line per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vm", action="store_true", help="also measure two cases in a virtual machine")
    options = parser.parse_args()
    print("eal.init() in ms; memory in KiB that the first call adds, including imports")
    print("guest    zones segments   direct     init  ratio  memzones      RSS     anon")
    for zones, segments in CASES:
        show("emulated", measure(zones, segments, emulated))
    if options.vm:
        for zones in (250, 1000):
            show("vm", measure(zones, 64, virtual))


if __name__ == "__main__":
    main()
