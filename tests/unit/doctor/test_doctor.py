# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem doctor`: value and remedy of each check on synthetic machines."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import eal
import ivshmem
from eal.doctor import devices as doctor_devices
from eal.doctor import machine
from eal.doctor.check import Check, Verdict
from eal.linux.latency import Speed
from eal.memory.hugepages import Backend
from eal.pci.bar_access import Choice
from ivshmem import doctor as whole
from ivshmem.cli import cli
from ivshmem.doctor import examine
from ivshmem.emulate.bus import EmulatedBus
from tests.machines import put

MIB = 1 << 20


def of(checks: list[Check], name: str, subject: str = "") -> Check:
    (found,) = (c for c in checks if c.check == name and subject in c.subject)
    assert bool(found.remedy) == (found.verdict != Verdict.OK), found
    return found


@pytest.fixture
def bus(primary: eal.Eal, tmp_path: Path) -> Any:
    """A bus with a metadata file, its two segments and a foreign device, in this order."""
    metadata = ivshmem.metadata_create("camera")
    metadata.add_memzone(eal.memzone_reserve("image", 4096))
    metadata.add_memzone(eal.memzone_reserve("facts", 4096, group="facts"), readonly=True)
    foreign = tmp_path / "foreign"
    foreign.write_bytes(os.urandom(8192))
    segments = sorted(eal.segments(), key=lambda segment: segment.group)
    with EmulatedBus([metadata.path, *(s.path for s in segments), foreign]) as made:
        yield made


DEVICES = METADATA, DEFAULT, FACTS, FOREIGN = tuple(f"0000:00:{slot:02x}.0" for slot in range(2, 6))


# --- devices ----------------------------------------------------------------------------------------------------


def test_guest_devices_are_ok(bus: EmulatedBus) -> None:
    report = examine(bus.root)
    assert (report.role, report.ok) == ("guest", True)
    values = [of(report.checks, "device", address).value for address in DEVICES]
    assert values == [
        "metadata 'camera': 2 objects in 2 segments",
        "segment of group 'default', 2 MiB",
        "segment of group 'facts', 2 MiB",
        "foreign: left unchanged",
    ]
    writable, readonly = of(report.checks, "caching", DEFAULT), of(report.checks, "caching", FACTS)
    assert 0 < writable.measured["load_ns"] < 1000
    assert writable.measured["atomic_ns"] > 0
    assert readonly.measured["atomic_ns"] is None  # doctor writes nothing there
    assert "an ordinary file; a load takes" in writable.value
    assert of(report.checks, "lockdown").verdict == Verdict.OK
    assert {check.check for check in report.checks}.isdisjoint({"qemu", "kvm"})
    assert (bus.root / "bus/pci/devices" / FOREIGN / "enable").read_text().strip() == "0"


def test_uncached_bar_warns(bus: EmulatedBus, monkeypatch: pytest.MonkeyPatch) -> None:
    speed = Speed(310.0, 1.0, 900.0, 6.0)
    monkeypatch.setattr(doctor_devices, "measure", lambda mapping, atomic_at: speed)
    device = bus.root / "bus/pci/devices" / DEFAULT
    start, end, _ = (device / "resource").read_text().splitlines()[2].split()
    listed = f"PAT: [mem {start}-{int(end, 16) + 1:#018x}] uncached-minus"
    put(bus.root / "kernel/debug/x86/pat_memtype_list", listed)
    report = examine(bus.root)
    found = of(report.checks, "caching", DEFAULT)
    assert found.verdict == Verdict.WARN
    assert found.value == f"uncached-minus; {speed}"
    assert "bar_access='devmem'" in found.remedy
    assert found.measured == {
        "types": ["uncached-minus"],
        "load_ns": 310.0,
        "ordinary_load_ns": 1.0,
        "atomic_ns": 900.0,
        "ordinary_atomic_ns": 6.0,
    }
    assert report.ok  # slow, but not failed


def test_kernel_lockdown_fails(bus: EmulatedBus) -> None:
    put(bus.root / "kernel/security/lockdown", "none [integrity] confidentiality")
    report = examine(bus.root)
    found = of(report.checks, "lockdown")
    assert (found.verdict, report.ok) == (Verdict.FAIL, False)
    assert "integrity" in found.value
    assert "lockdown=none" in found.remedy


def test_bound_driver_warns(bus: EmulatedBus) -> None:
    put(bus.root / "bus/pci/drivers/vfio-pci/new_id", "")
    (bus.root / "bus/pci/devices" / DEFAULT / "driver").symlink_to(bus.root / "bus/pci/drivers/vfio-pci")
    found = of(examine(bus.root).checks, "driver")
    assert (found.subject, found.verdict) == (DEFAULT, Verdict.WARN)
    assert found.remedy == f"echo {DEFAULT} > /sys/bus/pci/drivers/vfio-pci/unbind"


def test_rejected_device_fails_with_the_reason_of_init(bus: EmulatedBus) -> None:
    bus.remove(FACTS)
    report = examine(bus.root)
    rejected = of(report.checks, "device", METADATA)
    assert (rejected.verdict, rejected.value) == (Verdict.FAIL, "metadata 'camera' rejected")
    assert "start the VM with all devices" in rejected.remedy
    assert of(report.checks, "device", DEFAULT).verdict == Verdict.WARN  # no metadata file lists it now
    assert not report.ok


def test_retired_segment_warns(bus: EmulatedBus) -> None:
    eal.memzone_lookup("image").segment.retire()
    found = of(examine(bus.root).checks, "device", DEFAULT)
    assert found.verdict == Verdict.FAIL
    assert "retired" in found.value
    assert "plug the new one" in found.remedy


def test_segment_on_another_node_warns(bus: EmulatedBus) -> None:
    put(bus.root / "devices/system/cpu/present", "0-1")
    put(bus.root / "devices/system/cpu/online", "0-1")
    put(bus.root / "devices/system/node/online", "0-1")
    for node in "01":
        put(bus.root / f"devices/system/node/node{node}/cpulist", node)
    put(bus.root / "bus/pci/devices" / FACTS / "numa_node", "1")
    checks = examine(bus.root).checks
    assert of(checks, "numa", FACTS).value == "node 1"
    nowhere = of(checks, "numa", DEFAULT)
    assert (nowhere.verdict, nowhere.measured) == (Verdict.WARN, {"node": -1, "nodes": [0, 1]})
    assert "pxb-pcie" in nowhere.remedy


def test_bar_access_of_prefixes_is_reported(bus: EmulatedBus, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = Choice("devmem", "asked for", {"0000:00:07.0": "/dev/mem gave uncached-minus"})
    monkeypatch.setattr(doctor_devices, "read_choice", lambda path: choice)
    chosen, fallback = (c for c in examine(bus.root).checks if c.check == "bar access")
    assert chosen.value == "devmem: asked for"
    assert fallback.verdict == Verdict.WARN
    assert fallback.value == "0000:00:07.0 through sysfs: /dev/mem gave uncached-minus"


# --- the machine ------------------------------------------------------------------------------------------------


def pools(root: Path, **pages: tuple[int, int, int]) -> None:
    for size, numbers in pages.items():
        for name, number in zip(("nr", "free", "resv"), numbers, strict=True):
            put(root / f"kernel/mm/hugepages/hugepages-{size.lstrip('k')}kB/{name}_hugepages", str(number))


def test_hugepages_warn_without_a_usable_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "hugetlbfs_mounts", lambda: [Backend(tmp_path, 2 * MIB, True)])
    pools(tmp_path, k2048=(8, 5, 1), k1048576=(0, 0, 0))
    small, large = machine.hugepages(tmp_path)
    assert (small.verdict, small.value) == (Verdict.OK, f"4 of 8 free, at {tmp_path}")
    assert large.verdict == Verdict.OK  # one usable size is enough

    pools(tmp_path, k2048=(8, 1, 1))
    small, large = machine.hugepages(tmp_path)
    assert (small.verdict, small.measured["free"]) == (Verdict.WARN, 1)
    assert "raise nr_hugepages" in small.remedy
    assert large.verdict == Verdict.WARN

    monkeypatch.setattr(machine, "hugetlbfs_mounts", list)
    pools(tmp_path, k2048=(8, 8, 0))
    assert "mount -t hugetlbfs" in next(machine.hugepages(tmp_path)).remedy


@pytest.mark.parametrize(
    ("name", "cpus", "verdict"),
    [
        ("TCGTCGTCGTCG", 1, Verdict.FAIL),
        ("TCGTCGTCGTCG", 2, Verdict.OK),
        ("KVMKVMKVM", 1, Verdict.OK),
        ("", 1, Verdict.OK),
    ],
)
def test_tcg_with_one_cpu_fails(monkeypatch: pytest.MonkeyPatch, name: str, cpus: int, verdict: Verdict) -> None:
    monkeypatch.setattr(machine, "hypervisor", lambda: name)
    monkeypatch.setattr(os, "cpu_count", lambda: cpus)
    found = machine.emulated_processor()
    assert (found.verdict, found.measured) == (verdict, {"hypervisor": name, "cpus": cpus})
    assert ("-smp 2" in found.remedy) == (verdict == Verdict.FAIL)


def test_hypervisor_name_matches_the_kernels() -> None:
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    assert bool(machine.hypervisor()) == ("hypervisor" in flags.split())


def test_small_or_missing_shared_memory_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.shared_memory(tmp_path / "none").verdict == Verdict.FAIL
    monkeypatch.setattr(machine, "LITTLE_SHM", 1 << 62)
    found = machine.shared_memory(tmp_path)
    assert found.verdict == Verdict.WARN
    assert "ivshmem clean" in found.remedy
    assert found.measured["free"] > 0


def test_runtime_directory_of_other_users_fails(runtime_dir: Path) -> None:
    assert machine.runtime_directory() == Check("runtime directory", str(runtime_dir), "private")
    runtime_dir.chmod(0o770)
    found = machine.runtime_directory()
    assert found.verdict == Verdict.FAIL
    assert "chmod go-w" in found.remedy
    runtime_dir.rmdir()
    assert machine.runtime_directory().verdict == Verdict.OK


# --- prefixes, QEMU, KVM ----------------------------------------------------------------------------------------


def test_live_prefix_reports_the_nodes_of_its_pages(primary: eal.Eal) -> None:
    segment = eal.memzone_reserve("zone", 4096).segment
    checks = list(whole.prefix_checks())
    assert of(checks, "prefix").value.startswith("alive, 1 segments of 2 MiB")
    place = of(checks, "numa", str(segment.uuid)[:8])
    assert (place.verdict, place.measured["nodes"], place.measured["bound_to"]) == (Verdict.OK, [0], None)


def test_pages_on_another_node_warn(primary: eal.Eal, monkeypatch: pytest.MonkeyPatch) -> None:
    eal.segment_create(2 * MIB, group="far", socket_id=0)
    assert of(list(whole.prefix_checks()), "numa").value == "on node 0, bound to 0"

    class Elsewhere:
        def ivs_node_of(self, address: int) -> int:
            return 1

    monkeypatch.setattr(whole, "lib", Elsewhere())
    found = of(list(whole.prefix_checks()), "numa")
    assert (found.verdict, found.value) == (Verdict.FAIL, "on node 1, bound to 0")


@pytest.mark.leaves_files
def test_dead_prefix_warns(peer: Callable[..., Any]) -> None:
    dying = peer(
        """
        import sys, eal
        eal.init(["--no-pci"], file_prefix=sys.argv[1], no_huge=True)
        eal.memzone_reserve("zone", 64)
        print("here")
        input()
        """
    )
    dying.hear()
    dying.crash()
    found = of(list(whole.prefix_checks()), "prefix")
    assert (found.verdict, found.measured["status"]) == (Verdict.WARN, "dead")
    assert "ivshmem clean" in found.remedy


def fake_qemu(folder: Path, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / whole.QEMU
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize(
    ("said", "value", "verdict"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg)", "7.2.22", Verdict.OK),
        ("QEMU emulator version 10.0.0", "10.0.0", Verdict.OK),
        ("QEMU emulator version 6.2.0", "6.2.0", Verdict.FAIL),
        ("hello", "reports no version", Verdict.WARN),
    ],
)
def test_old_or_broken_qemu_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, value: str, verdict: Verdict
) -> None:
    fake_qemu(tmp_path, said, monkeypatch)
    found = whole.qemu()
    assert (found.value, found.verdict, bool(found.remedy)) == (value, verdict, verdict != Verdict.OK)


def test_missing_qemu_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = whole.qemu()
    assert found.verdict == Verdict.WARN
    assert "apt-get install" in found.remedy


def test_unusable_kvm_warns(tmp_path: Path) -> None:
    missing = whole.kvm(tmp_path / "kvm")
    assert (missing.value, missing.verdict) == ("not found", Verdict.WARN)
    (tmp_path / "file").write_text("")
    other = whole.kvm(tmp_path / "file")
    assert other.verdict == Verdict.WARN
    assert "is not KVM" in other.value


# --- the command ------------------------------------------------------------------------------------------------


def test_command_prints_table_and_json(bus: EmulatedBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EAL_SYSFS_ROOT", str(bus.root))
    done = CliRunner().invoke(cli, ["doctor"])
    assert done.exit_code == 0, done.output
    assert "metadata 'camera'" in done.output
    assert "this is a guest: sharing works" in done.output
    found = json.loads(CliRunner().invoke(cli, ["doctor", "--json"]).stdout)
    assert (found["role"], found["ok"]) == ("guest", True)
    for check in found["checks"]:
        assert set(check) == {"check", "subject", "value", "verdict", "remedy", "measured"}
        assert (check["verdict"] == "ok") == (check["remedy"] == "")


def test_command_exit_status_counts_failures(bus: EmulatedBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EAL_SYSFS_ROOT", str(bus.root))
    put(bus.root / "kernel/security/lockdown", "none [confidentiality]")
    done = CliRunner().invoke(cli, ["doctor"])
    assert done.exit_code == 1
    assert "FAIL lockdown, kernel: boot with lockdown=none" in done.output
    found = CliRunner().invoke(cli, ["doctor", "--json"])
    assert found.exit_code == 1
    assert json.loads(found.stdout)["ok"] is False
