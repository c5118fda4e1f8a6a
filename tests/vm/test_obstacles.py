# SPDX-License-Identifier: BSD-3-Clause
"""Obstacles in a guest, created in one boot of a real VM: each is reported, and everything else works."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import eal
import ivshmem
from ivshmem.hotplug.qmp import Qmp
from ivshmem.vm.config import VmConfig
from ivshmem.vm.image import cache_dir
from ivshmem.vm.vm import VM
from ivshmem.vmm.device import Device
from ivshmem.vmm.qemu import device_args

pytestmark = [pytest.mark.vm]

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
GOOD, GOOD_SEGMENT, SEGMENT_AGAIN, WANTS, CLAIMED, ALIKE = (f"0000:00:{slot:02x}.0" for slot in range(0x10, 0x16))
PLUGGED = "0000:01:00.0"  # behind the root port
PORT = "pcie-root-port,id=rp1,chassis=9,addr=0x16"  # with a window of 2 MiB, the size of an empty port


def vfio_modules() -> list[str]:
    """Return the files of vfio-pci and its dependencies for the guest's kernel."""
    (root,) = cache_dir().glob("kernel-*")
    names = ["modprobe", "-S", root.name.removeprefix("kernel-"), "-d", str(root), "--show-depends"]
    files: dict[str, None] = {}
    for module in ("vfio_iommu_type1", "vfio-pci"):
        shown = subprocess.run([*names, module], capture_output=True, text=True, check=True).stdout
        files.update((line.split()[1], None) for line in shown.splitlines() if line.startswith("insmod"))
    return list(files)


def metadata_of(name: str, group: str) -> ivshmem.Metadata:
    made = ivshmem.metadata_create(name, capacity=65536)
    made.add_memzone(eal.memzone_reserve(name, 4096, group=group))
    return made


def renamed(metadata: ivshmem.Metadata, name: str) -> None:
    """Give an object of one metadata file the name of an object in another one; no host of this project does that."""
    file = metadata._open()
    (entry,) = file.read().entries
    file.publish(replace(file.read(), entries=(replace(entry, name=name),)))


def placed(devices: Iterator[Device]) -> list[str]:
    return [word for slot, device in enumerate(devices, start=0x10) for word in device_args(device, f"addr={slot:#x}")]


def devices_of() -> Iterator[Device]:
    """Return the devices at the addresses above, in this order."""
    segment, good = metadata_of("good", "default").devices()
    yield from (good, segment, replace(segment, id="again"))
    segment, wants = metadata_of("wants", "claimed").devices()
    yield from (wants, segment)
    alike = metadata_of("alike", "default")
    renamed(alike, "good")
    yield next(device for device in alike.devices() if device.is_metadata)


def plug_too_much(qmp_path: Path, file: Path) -> None:
    """Plug more memory than the port's window holds. QEMU reports success."""
    with file.open("wb") as made:
        made.truncate(64 * MIB)
    with Qmp(qmp_path) as qmp:
        backend = {"qom-type": "memory-backend-file", "id": "big", "size": 64 * MIB, "share": True}
        qmp.execute("object-add", **backend, **{"mem-path": str(file)})
        qmp.execute("device_add", driver="ivshmem-plain", memdev="big", id="big-dev", bus="rp1")


def test_each_obstacle_is_reported_and_everything_else_works(primary: eal.Eal, tmp_path: Path) -> None:
    command = [sys.executable, "-P", str(ROOT / "tests/guests/obstacles.py"), CLAIMED]
    command += [str(ROOT / "docs/60-ivshmem.rules"), *vfio_modules()]
    iommu = ["-device", "intel-iommu,intremap=on,caching-mode=on"]
    config = VmConfig(
        command,
        qemu_args=[*iommu, *placed(devices_of()), "-device", PORT],
        kernel_args=["intel_iommu=on", "hugepages=4"],
        qmp=tmp_path / "qmp",
    )
    steps: dict[str, Any] = {}
    with VM(config) as vm:
        for line in vm.lines():
            if line.startswith("{"):
                said = json.loads(line)
                steps[said["step"]] = said
                if said["step"] == "plug":
                    plug_too_much(tmp_path / "qmp", tmp_path / "big")
        result = vm.wait()
    assert result.status == 0, result.output
    check_what_it_said(steps)
    assert bytes(eal.memzone_lookup("good").buf[:4]) == b"rule"


def check_what_it_said(steps: dict[str, Any]) -> None:
    ordinary = steps["nothing"]
    assert ordinary["shares"] == ["good", "wants"]
    assert list(ordinary["rejections"]) == [ALIKE]
    for said in ("metadata 'alike'", "metadata 'good'", GOOD, "memzone 'good'", "rename one"):
        assert said in ordinary["rejections"][ALIKE]
    assert list(ordinary["failed"]) == [ALIKE]
    assert ordinary["own"]["page_size"] == 2 * MIB  # the guest's own heap, besides the host's segments
    assert ordinary["own"]["path"].startswith("/dev/hugepages/")
    assert all(step["relocated"] == [] for step in steps.values() if "relocated" in step)

    low = steps["below 4 GiB"]
    assert low["shares"] == ["good", "wants"]
    assert list(low["fallbacks"]) == [GOOD_SEGMENT, CLAIMED]
    assert all("/dev/mem returned uncached-minus memory at 0xf" in reason for reason in low["fallbacks"].values())

    claimed = steps["claimed"]
    assert claimed["shares"] == ["good"]
    unbind = f"echo {CLAIMED} > /sys/bus/pci/drivers/vfio-pci/unbind"
    assert claimed["rejections"][CLAIMED] == f"{CLAIMED}: BAR2 is claimed by driver vfio-pci: {unbind}"
    assert "but no device carries it" in claimed["rejections"][WANTS]
    assert unbind in claimed["failed"][CLAIMED]
    assert "vfio-pci" in claimed["warned"]["driver"]
    assert steps["let go"]["shares"] == ["good", "wants"]

    without = steps["no address"]
    assert without["shares"] == ["good", "wants"]
    assert "BAR2 has no address" in without["rejections"][PLUGGED]
    assert "plug=SIZE" in without["failed"][PLUGGED]

    nobody, rule = steps["nobody"], steps["rule"]
    assert nobody["shares"] == []
    for reason in nobody["rejections"].values():
        assert "Permission denied" in reason or "BAR2 has no address" in reason
    assert "udev rule of docs/nonroot.md" in nobody["rejections"][GOOD]
    assert rule["shares"] == ["good", "wants"]

    locked = steps["lockdown"]
    assert locked["shares"] == []
    assert "kernel lockdown integrity forbids mapping BARs: boot with lockdown=none" in locked["rejections"][GOOD]
    assert "boot with lockdown=none" in locked["failed"]["kernel"]
