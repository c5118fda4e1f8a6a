# SPDX-License-Identifier: BSD-3-Clause
"""Doctor: everything that would keep sharing from working or make it slow, on a host or in a guest."""

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
_SAMPLES = 16  # pages of a segment that are asked for their node


@dataclass(frozen=True)
class Report:
    """All checks. `role` is "guest" where the machine has ivshmem devices, else "host"."""

    role: str
    checks: list[Check]

    @property
    def ok(self) -> bool:
        return all(check.verdict != Verdict.FAIL for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        return {"role": self.role, "ok": self.ok, "checks": [asdict(check) for check in self.checks]}


def examine(sysfs_root: str | os.PathLike[str] | None = None) -> Report:
    """Looks at this machine, or at the devices of a tree that stands for /sys ($EAL_SYSFS_ROOT too).

    What such a tree leaves out is read in /sys itself.
    """
    root = Path(sysfs_root or os.environ.get("EAL_SYSFS_ROOT") or SYSFS)
    devices = scan(sysfs_root)
    checks = [*device_checks(devices, root), *machine_checks(root), *prefix_checks()]
    if not devices:
        checks += [qemu(), kvm()]
    return Report("guest" if devices else "host", checks)


# --- prefixes ---------------------------------------------------------------------------------------------------


def prefix_checks() -> Iterator[Check]:
    """Prefixes of this user: whether each lives, and whether the pages of its segments are on the node they should."""
    try:
        states = prefix_states(runtime.runtime_dir())
    except Denied:
        return  # the check of the runtime directory says so
    for state in states:
        yield _prefix(state)
        for record in state.table.segments if state.table else ():
            yield _place(record)


def _prefix(state: PrefixState) -> Check:
    segments = state.table.segments if state.table else ()
    value = f"{state.status}, {len(segments)} segments of {sum(s.size for s in segments) >> 20} MiB"
    measured = {"status": state.status, "pid": state.pid, "segments": len(segments)}
    if state.status == "dead":
        remedy = "ivshmem clean gives its memory back; eal.init(recover=True) takes it up again"
        return Check("prefix", state.prefix, value, Verdict.WARN, remedy, measured)
    return Check("prefix", state.prefix, value, measured=measured)


def _place(record: SegmentRecord) -> Check:
    """On which NUMA nodes the pages of a segment are, by a sample of them."""
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
        remedy = f"make it again while node {wanted} has enough free pages (ivshmem.placement says who is where)"
        return Check("numa", subject, where, Verdict.FAIL, remedy, measured)
    return Check("numa", subject, where, measured=measured)


# --- QEMU and KVM -----------------------------------------------------------------------------------------------


def qemu() -> Check:
    """Whether there is a QEMU, and not too old a one."""
    install = "apt-get install qemu-system-x86 (dnf install qemu-system-x86-core)"
    path = shutil.which(QEMU)
    if path is None:
        return Check("qemu", QEMU, "not there", Verdict.WARN, install)
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("qemu", path, f"does not run: {error}", Verdict.WARN, install)
    found = re.search(r"version (\d+)\.(\d+)(\S*)", said)
    if found is None:
        return Check("qemu", path, "tells no version", Verdict.WARN, install)
    version = (int(found[1]), int(found[2]))
    measured = {"path": path, "version": f"{found[1]}.{found[2]}{found[3]}"}
    if version < OLDEST_QEMU:
        remedy = "7.2 or later is what this is made for: " + install
        return Check("qemu", path, measured["version"], Verdict.FAIL, remedy, measured)
    return Check("qemu", path, measured["version"], measured=measured)


def kvm(path: Path = KVM) -> Check:
    """Whether VMs of this user run on the processor itself, or are emulated."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        remedy = (
            "modprobe kvm_intel (or kvm_amd), or turn virtualization on in the firmware; VMs are emulated meanwhile"
        )
        return Check("kvm", str(path), "not there", Verdict.WARN, remedy)
    except OSError as error:
        remedy = "add this user to group kvm; VMs are emulated meanwhile"
        return Check("kvm", str(path), f"cannot be opened: {error.strerror}", Verdict.WARN, remedy)
    try:
        version = fcntl.ioctl(fd, KVM_GET_API_VERSION)
    except OSError as error:
        return Check("kvm", str(path), f"is no KVM: {error.strerror}", Verdict.WARN, "rm it, and modprobe kvm")
    finally:
        os.close(fd)
    measured = {"api": version}
    if version != KVM_API:
        return Check(
            "kvm", str(path), f"API version {version}", Verdict.WARN, "use a kernel of 2.6.22 or later", measured
        )
    if _guests_do_not_boot():
        remedy = "VMs are emulated; a host that is a VM itself has to allow nesting, or run on the metal"
        return Check("kvm", str(path), "opens, but no guest booted with it", Verdict.WARN, remedy, measured)
    return Check("kvm", str(path), "can be opened", measured=measured)


def _guests_do_not_boot() -> bool:
    """Whether `ivshmem.vm.vm` has tried KVM since this machine booted, in vain."""
    try:
        return result_file().read_text() == "tcg"
    except OSError:
        return False
