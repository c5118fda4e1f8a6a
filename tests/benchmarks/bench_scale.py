# SPDX-License-Identifier: BSD-3-Clause
"""What eal.init() costs a guest with many zones and segments, beside listing the devices and mapping BARs by hand.

On the emulated bus, and with --vm in a virtual machine too. By hand: the list by pyudev (or of the folder), vendor and
device read of each, open and mmap of `resource2`; in the same process, in turns with eal.init(), timed alone.
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
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def virtual(metadata: ivshmem.Metadata) -> dict[str, Any]:
    from ivshmem.vm.vm import run

    command = [sys.executable, "-P", str(GUEST), str(VM_ROUNDS)]
    done = run(command, qemu_args=ivshmem.qemu_args(metadata), timeout=300)
    assert done.status == 0, done.output
    found: dict[str, Any] = json.loads(done.output[done.output.index("{") :])
    return found


def measure(zones: int, segments: int, guest: Any) -> dict[str, Any]:
    """One case: milliseconds (medians) and kilobytes."""
    prefix = f"scale{os.getpid()}"
    with eal.init(["--no-pci"], file_prefix=prefix, no_huge=True):
        metadata = ivshmem.metadata_create(prefix)
        for number in range(zones):
            metadata.add_memzone(eal.memzone_reserve(f"zone{number}", 4096, group=f"group{number % segments}"))
        report = guest(metadata)
    assert report["found"] == {"devices": segments + 1, "segments": segments, "zones": zones}, report["found"]
    times = {name: 1000 * statistics.median(report[name]) for name in ("by_hand", "init", "memzones")}
    return {"zones": zones, "segments": segments, **times, "memory": report["memory"]}


def show(where: str, found: dict[str, Any]) -> None:
    ratio = found["init"] / found["by_hand"]
    print(
        f"{where:8} {found['zones']:5} {found['segments']:8} {found['by_hand']:8.2f} {found['init']:8.2f} {ratio:6.2f} "
        f"{found['memzones']:9.2f} {found['memory']['VmRSS']:8} {found['memory']['RssAnon']:8}",
        flush=True,
    )


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vm", action="store_true", help="the largest case in a virtual machine too")
    chosen = parser.parse_args()
    print("eal.init(), ms; kB that the first one added, with what it loads")
    print("guest    zones segments  by hand     init  ratio  memzones      RSS     anon")
    for zones, segments in CASES:
        show("emulated", measure(zones, segments, emulated))
    if chosen.vm:
        for zones in (250, 1000):
            show("vm", measure(zones, 64, virtual))


if __name__ == "__main__":
    main()
