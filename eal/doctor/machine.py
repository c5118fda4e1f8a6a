# SPDX-License-Identifier: BSD-3-Clause
"""Doctor checks of this machine: obstacles to sharing and causes of slow sharing, each with value and remedy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from eal._native import ffi, lib
from eal.doctor.check import Check, Verdict
from eal.errors import Denied
from eal.memory.hugepages import HOW_TO_GET_HUGEPAGES, SHM_DIR, hugetlbfs_mounts
from eal.pci.device import SYSFS
from eal.runtime.prefix_dir import check_private, runtime_dir
from eal.text.sizes import KIB, MIB

LITTLE_SHM = 64 * MIB


def of_tree(sys_folder: Path, name: str) -> Path:
    """Return the path of a file in the sysfs tree, or in /sys if the tree does not have it."""
    return sys_folder / name if (sys_folder / name).exists() else SYSFS / name


def machine_checks(sys_folder: Path) -> Iterator[Check]:
    """Return the checks that apply to every machine: pages, free space, the runtime directory, atomic instructions."""
    yield from hugepages(sys_folder)
    yield shared_memory()
    yield runtime_directory()
    yield emulated_processor()


def hugepages(sys_folder: Path) -> Iterator[Check]:
    """Check each hugepage size: total and free pages, and a mount on which a file can be created."""
    pools = sorted(of_tree(sys_folder, "kernel/mm/hugepages").glob("hugepages-*kB"), key=lambda path: _kib(path.name))
    if not pools:
        yield Check("hugepages", "kernel", "this kernel has none", Verdict.WARN, "use a kernel with hugetlbfs")
    mounts: dict[int, list[Path]] = {}
    for backend in hugetlbfs_mounts():
        mounts.setdefault(backend.page_size, []).append(backend.folder)
    found = [_pool(pool, mounts.get(_kib(pool.name) * KIB, [])) for pool in pools]
    usable = any(check.verdict == Verdict.OK for check in found)
    for check in found:
        # One usable size is enough.
        if usable and check.verdict == Verdict.WARN and not check.measured["total"]:
            yield Check(check.check, check.subject, check.value, measured=check.measured)
        else:
            yield check


def _pool(pool: Path, mounts: list[Path]) -> Check:
    total, free, reserved = (int((pool / f"{name}_hugepages").read_text()) for name in ("nr", "free", "resv"))
    writable = [str(folder) for folder in mounts if os.access(folder, os.W_OK)]
    size = _kib(pool.name) * KIB
    measured = {"page_size": size, "total": total, "free": free, "reserved": reserved, "mounts": writable}
    where = f"at {', '.join(writable)}" if writable else "not mounted where this user may write"
    value = f"{free - reserved} of {total} free, {where}"
    subject = f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"
    if free - reserved > 0 and writable:
        return Check("hugepages", subject, value, measured=measured)
    if total and not free - reserved:
        remedy = "end the processes that use them, or raise nr_hugepages; segments are on tmpfs, which costs TLB misses"
    else:
        remedy = f"{HOW_TO_GET_HUGEPAGES}; until then segments are on tmpfs, which costs TLB misses"
    return Check("hugepages", subject, value, Verdict.WARN, remedy, measured)


def _kib(name: str) -> int:
    return int(name.removeprefix("hugepages-").removesuffix("kB"))


def shared_memory(folder: Path = SHM_DIR) -> Check:
    """Check the free space of the tmpfs, which holds all metadata files, and segments without hugepages."""
    try:
        found = os.statvfs(folder)
    except OSError as error:
        return Check("room", str(folder), error.strerror or "", Verdict.FAIL, f"mount -t tmpfs tmpfs {folder}")
    free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    value = f"{free // MIB} of {total // MIB} MiB free"
    measured = {"free": free, "total": total}
    if not os.access(folder, os.W_OK | os.X_OK):
        return Check("room", str(folder), value, Verdict.FAIL, f"chmod 1777 {folder}", measured)
    if free < LITTLE_SHM:
        remedy = f"ivshmem clean, or mount -o remount,size=50% {folder}"
        return Check("room", str(folder), value, Verdict.WARN, remedy, measured)
    return Check("room", str(folder), value, measured=measured)


def runtime_directory() -> Check:
    """Check that no other user can write to the runtime directory."""
    path = runtime_dir()
    try:
        check_private(path)
    except Denied as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return Check("runtime directory", str(path), "not created yet")
        return Check("runtime directory", str(path), "not private", Verdict.FAIL, str(error))
    return Check("runtime directory", str(path), "private")


def hypervisor() -> str:
    """Return the hypervisor's CPUID name, such as "KVMKVMKVM" or "TCGTCGTCGTCG"; "" on bare metal."""
    name = ffi.new("char[13]")
    lib.ivs_hypervisor(name)
    return bytes(ffi.string(name)).decode("ascii", "replace")


def emulated_processor() -> Check:
    """Check for TCG with one processor, whose atomic instructions are not atomic, so that shared data is corrupted."""
    name, cpus = hypervisor(), os.cpu_count() or 1
    runs_on = {"": "no hypervisor", "TCGTCGTCGTCG": "TCG", "KVMKVMKVM": "KVM"}.get(name, name)
    value = f"{cpus} CPU{'s' if cpus > 1 else ''}, {runs_on}"
    measured = {"hypervisor": name, "cpus": cpus}
    if runs_on == "TCG" and cpus == 1:
        remedy = "give the VM two CPUs (-smp 2), or KVM: with one, TCG emulates atomic instructions without atomicity"
        return Check("atomics", "processor", value, Verdict.FAIL, remedy, measured)
    return Check("atomics", "processor", value, measured=measured)
