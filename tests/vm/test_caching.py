# SPDX-License-Identifier: BSD-3-Clause
"""Memory types of BARs in a real VM, read from the kernel's PAT list."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import eal
import ivshmem
from ivshmem.vm.config import VmConfig
from ivshmem.vm.vm import VM
from ivshmem.vmm.device import Device
from ivshmem.vmm.qemu import device_args

pytestmark = [pytest.mark.vm]

SCRIPT = Path(__file__).parents[1] / "guests" / "caching.py"
RUNS = 4  # by one process alone in the guest
WRITE_BACK, UNCACHED = ["write-back"], ["uncached-minus"]


def above_4_gib(devices: list[Device]) -> list[str]:
    """Return options that place all devices behind a bridge whose window does not fit below 4 GiB."""
    args = ["-device", "pci-bridge,id=high,chassis_nr=50,shpc=off,addr=0x10,pref64-reserve=1G,mem-reserve=4M"]
    for slot, device in enumerate(devices, start=1):
        args += device_args(device, f"bus=high,addr={slot}")
    return args


def test_bar_access_maps_the_memory_type_that_the_kernel_lists(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_memzone(eal.memzone_reserve("first", 4096, group="first"))
    metadata.add_memzone(eal.memzone_reserve("second", 4096))
    wire = eal.ring_create("wire", 16, group="first")
    metadata.add_ring(wire)
    for number in range(RUNS):
        wire.enqueue(number + 100)

    with VM(VmConfig([sys.executable, "-P", str(SCRIPT)], qemu_args=above_4_gib(metadata.devices()))) as vm:
        lines = [json.loads(line) for line in vm.lines() if line.startswith("{")]
        output = vm.wait().output
    assert len(lines) == RUNS + 1, output
    sysfs, devmem, auto, held, several = lines
    alone = lines[:RUNS]

    assert [found["number"] for found in alone] == [100, 101, 102, 103]
    assert eal.memzone_lookup("first").array("<u8")[1] == 2 * (100 + RUNS - 1)
    assert not any(any(found["relocated"]) for found in alone)
    assert [found["after"] for found in alone[:3]] == [{"first": [], "second": []}] * 3  # no mapping is left

    assert sysfs["choice"] == {"access": "sysfs", "why": "asked for", "fallbacks": {}}
    assert sysfs["during"] == {"first": UNCACHED, "second": UNCACHED}

    assert devmem["during"] == {"first": WRITE_BACK, "second": WRITE_BACK}
    assert devmem["choice"] == {"access": "devmem", "why": "asked for", "fallbacks": {}}

    # TCG caches every memory type, which the measurement shows.
    assert auto["choice"]["access"] == "sysfs"
    assert "the processor caches BARs in spite of their memory type: a load takes" in auto["choice"]["why"]
    assert auto["during"] == {"first": UNCACHED, "second": UNCACHED}

    # While another process maps the BAR through sysfs, /dev/mem silently returns uncached memory: detect this.
    assert held["during"] == {"first": UNCACHED, "second": WRITE_BACK}
    (address, reason), *others = held["choice"]["fallbacks"].items()
    assert (address, others) == (held["addresses"]["first"], [])
    assert "another process maps it uncached-minus" in reason

    assert several["types"] == {"first": WRITE_BACK, "second": WRITE_BACK}
    followers = {"role": "secondary", "access": "devmem", "first": WRITE_BACK}
    assert several["a secondary"] == several["one that wants sysfs"] == followers
    assert several["another prefix"] == {"role": "primary", "access": "devmem", "first": WRITE_BACK}
    # A range has one memory type at a time: a sysfs mapping gets the existing one.
    assert several["one with sysfs"] == {"role": "primary", "access": "sysfs", "first": WRITE_BACK}
    assert bytes(eal.memzone_lookup("first").buf[64:69]) == b"child"
