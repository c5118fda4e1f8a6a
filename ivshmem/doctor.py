# SPDX-License-Identifier: BSD-3-Clause
"""Doctor: all checks for problems that prevent sharing or make it slow, on a host or in a guest."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eal._native import lib
from eal.doctor.check import Check, Verdict
from eal.doctor.devices import device_checks
from eal.doctor.machine import machine_checks
from eal.errors import Denied, EalError
from eal.memory.segment import open_segment
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.metadata.records import SegmentRecord
from eal.pci.device import SYSFS, scan
from eal.runtime import prefix_dir as runtime
from ivshmem.inspect.prefixes import PrefixState, prefix_states
from ivshmem.vm.accelerator import result_file

KVM = Path("/dev/kvm")
KVM_GET_API_VERSION, KVM_API = 0xAE00, 12
QEMU = "qemu-system-x86_64"
OLDEST_QEMU = (7, 2)
_SAMPLES = 16  # pages of a segment whose node is checked


@dataclass(frozen=True)
class Report:
    """All checks. `role` is "guest" if the machine has ivshmem devices, otherwise "host"."""

    role: str
    checks: list[Check]

    @property
    def ok(self) -> bool:
        return all(check.verdict != Verdict.FAIL for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        return {"role": self.role, "ok": self.ok, "checks": [asdict(check) for check in self.checks]}


def examine(sysfs_root: str | os.PathLike[str] | None = None) -> Report:
    """Check this machine, or the devices of another sysfs tree (also $EAL_SYSFS_ROOT).

    Files that the tree does not have are read in /sys.
    """
    root = Path(sysfs_root or os.environ.get("EAL_SYSFS_ROOT") or SYSFS)
    devices = scan(sysfs_root)
    checks = [*device_checks(devices, root), *machine_checks(root), *prefix_checks()]
    if not devices:
        checks += [qemu(), kvm()]
    return Report("guest" if devices else "host", checks)


# --- prefixes -----------------------------------------------------------------------------------------------


def prefix_checks() -> Iterator[Check]:
    """Check the prefixes of this user: whether each is alive, and whether its segments are on their node."""
    try:
        states = prefix_states(runtime.runtime_dir())
    except Denied:
        return  # reported by the check of the runtime directory
    for state in states:
        yield _prefix(state)
        for record in state.table.segments if state.table else ():
            yield _place(record)


def _prefix(state: PrefixState) -> Check:
    segments = state.table.segments if state.table else ()
    value = f"{state.status}, {len(segments)} segments of {sum(s.size for s in segments) >> 20} MiB"
    measured = {"status": state.status, "pid": state.pid, "segments": len(segments)}
    if state.status == "dead":
        remedy = "`ivshmem clean` frees its memory; eal.init(recover=True) continues with it"
        return Check("prefix", state.prefix, value, Verdict.WARN, remedy, measured)
    return Check("prefix", state.prefix, value, measured=measured)


def _place(record: SegmentRecord) -> Check:
    """Return the NUMA nodes of a sample of a segment's pages."""
    subject = f"segment {str(record.uuid)[:8]}"
    try:
        segment = open_segment(record)
    except EalError as error:
        return Check("numa", subject, "cannot be opened", Verdict.FAIL, str(error))
    try:
        step = max(record.size // _SAMPLES // record.page_size, 1) * record.page_size
        nodes = {int(lib.ivs_node_of(segment.address + at)) for at in range(0, record.size, step)}
    finally:
        segment.close()
    wanted = record.socket_id
    measured = {
        "nodes": sorted(nodes),
        "bound_to": None if wanted == SOCKET_ID_ANY else wanted,
        "uuid": str(record.uuid),
    }
    where = f"on node {', '.join(map(str, sorted(nodes)))}, " + (
        "bound to none" if wanted == SOCKET_ID_ANY else f"bound to {wanted}"
    )
    if wanted != SOCKET_ID_ANY and nodes != {wanted}:
        remedy = f"create it again while node {wanted} has enough free pages (`ivshmem placement` shows the users)"
        return Check("numa", subject, where, Verdict.FAIL, remedy, measured)
    return Check("numa", subject, where, measured=measured)


# --- QEMU and KVM -------------------------------------------------------------------------------------------


def qemu() -> Check:
    """Check that a recent QEMU is installed."""
    install = "apt-get install qemu-system-x86 (dnf install qemu-system-x86-core)"
    path = shutil.which(QEMU)
    if path is None:
        return Check("qemu", QEMU, "not found", Verdict.WARN, install)
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("qemu", path, f"does not run: {error}", Verdict.WARN, install)
    found = re.search(r"version (\d+)\.(\d+)(\S*)", said)
    if found is None:
        return Check("qemu", path, "reports no version", Verdict.WARN, install)
    version = (int(found[1]), int(found[2]))
    measured = {"path": path, "version": f"{found[1]}.{found[2]}{found[3]}"}
    if version < OLDEST_QEMU:
        remedy = "install QEMU 7.2 or later: " + install
        return Check("qemu", path, measured["version"], Verdict.FAIL, remedy, measured)
    return Check("qemu", path, measured["version"], measured=measured)


def kvm(path: Path = KVM) -> Check:
    """Check whether VMs of this user use KVM or are emulated."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        remedy = (
            "modprobe kvm_intel (or kvm_amd), or enable virtualization in the firmware; until then VMs are emulated"
        )
        return Check("kvm", str(path), "not found", Verdict.WARN, remedy)
    except OSError as error:
        remedy = "add this user to group kvm; until then VMs are emulated"
        return Check("kvm", str(path), f"cannot be opened: {error.strerror}", Verdict.WARN, remedy)
    try:
        version = fcntl.ioctl(fd, KVM_GET_API_VERSION)
    except OSError as error:
        return Check("kvm", str(path), f"is not KVM: {error.strerror}", Verdict.WARN, f"rm {path} && modprobe kvm")
    finally:
        os.close(fd)
    measured = {"api": version}
    if version != KVM_API:
        return Check(
            "kvm", str(path), f"API version {version}", Verdict.WARN, "use a kernel of 2.6.22 or later", measured
        )
    if _guests_do_not_boot():
        remedy = "VMs are emulated; enable nested virtualization on the host of this machine, or use bare metal"
        return Check("kvm", str(path), "opens, but no guest booted with it", Verdict.WARN, remedy, measured)
    return Check("kvm", str(path), "can be opened", measured=measured)


def _guests_do_not_boot() -> bool:
    """Return whether `ivshmem.vm` has tried KVM without success since this machine booted."""
    try:
        return result_file().read_text() == "tcg"
    except OSError:
        return False
