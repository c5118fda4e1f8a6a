# SPDX-License-Identifier: BSD-3-Clause
"""Doctor checks of the ivshmem devices of this machine: content, obstacles and speed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eal._native import lib
from eal.doctor.check import Check, Verdict
from eal.doctor.machine import of_tree
from eal.errors import Denied, NotFound
from eal.linux.latency import measure
from eal.linux.lockdown import HOW_TO_LIFT, lockdown
from eal.linux.memory_type import PAT_LIST, memory_types
from eal.memory.segment import Segment
from eal.pci.bar_access import read_choice
from eal.pci.device import SYSFS, IvshmemDevice
from eal.probe.prober import Prober
from eal.probe.share import Findings
from eal.runtime import prefix_dir as runtime
from eal.text.sizes import KIB, MIB
from eal.topology.model import Topology

HOW_TO_GET_WRITE_BACK = (
    "run the application as root with bar_access='devmem', with the device behind a bridge with a window above 4 GiB "
    "(ivshmem.qemu_args(..., plug='1G'))"
)
HOW_TO_PLACE = "put the device behind a pxb-pcie with numa_node=N, where N is the node of the host's pages"


def device_checks(devices: list[IvshmemDevice], sys_folder: Path) -> Iterator[Check]:
    """Return the checks of all devices, by the same probe as `eal.init`.

    As in `init`, a device with this project's formats is enabled and stays so; a foreign one is restored.
    """
    findings = Prober().probe(devices)
    segments = {s.path: s for share in findings.shares for s in share.segments}
    try:
        for device in devices:
            yield _content(device, findings, segments)
            yield from _driver(device)
            if segment := segments.get(device.resource_name):
                yield _speed(device, segment, sys_folder)
                yield from _place(device, sys_folder)
        yield _lockdown(devices, sys_folder)
        yield from _fallbacks()
    finally:
        for segment in segments.values():
            segment.close()


def _content(device: IvshmemDevice, findings: Findings, segments: dict[str, Segment]) -> Check:
    measured: dict[str, Any] = {"bar_size": device.bar_size, "bar_start": device.bar_start}
    for rejection in findings.rejections:
        if rejection.address == device.address:
            name = f"metadata {rejection.name!r} " if rejection.name else ""
            return Check("device", device.address, f"{name}rejected", Verdict.FAIL, rejection.reason, measured)
    for share in findings.shares:
        if share.address == device.address:
            entries, needs = len(share.table.entries), len(share.segments)
            value = f"metadata {share.name!r}: {entries} objects in {needs} segments"
            return Check("device", device.address, value, measured={**measured, "uuid": str(share.uuid)})
    if device.address in findings.foreign:
        return Check("device", device.address, "foreign: left unchanged", measured=measured)
    segment = segments.get(device.resource_name)
    if segment is None:
        remedy = "plug the metadata file that lists it; a segment alone, or a second copy of one, is not used"
        return Check("device", device.address, "unused segment", Verdict.WARN, remedy, measured)
    measured["uuid"] = str(segment.uuid)
    value = f"segment of group {segment.group!r}, {_size(segment.size)}"
    if segment.retired:
        remedy = "the host made a fresh start: unplug its old metadata file and plug the new one"
        return Check("device", device.address, f"{value}, retired", Verdict.FAIL, remedy, measured)
    return Check("device", device.address, value, measured=measured)


def _driver(device: IvshmemDevice) -> Iterator[Check]:
    if device.driver:
        remedy = f"echo {device.address} > /sys/bus/pci/drivers/{device.driver}/unbind"
        value = f"bound to {device.driver}, which may claim BAR2"
        yield Check("driver", device.address, value, Verdict.WARN, remedy, {"driver": device.driver})


def _speed(device: IvshmemDevice, segment: Segment, sys_folder: Path) -> Check:
    """Check the memory type of a BAR as an application maps it, and the latency of an access."""
    speed = measure(segment.mapping, None if segment.readonly else lib.IVS_SEGMENT_SCRATCH)
    pat_list = sys_folder / PAT_LIST.relative_to(SYSFS)
    types = memory_types(device.bar_start, device.bar_size, pat_list)
    kind = ", ".join(sorted(types)) if types else "an ordinary file" if device.emulated else "unknown type"
    measured = {
        "types": sorted(types) if types else None,
        "load_ns": round(speed.load, 2),
        "ordinary_load_ns": round(speed.ordinary_load, 2),
        "atomic_ns": None if speed.atomic is None else round(speed.atomic, 2),
        "ordinary_atomic_ns": round(speed.ordinary_atomic, 2),
    }
    value = f"{kind}; {speed}"
    if speed.uncached:
        return Check("caching", device.address, value, Verdict.WARN, HOW_TO_GET_WRITE_BACK, measured)
    return Check("caching", device.address, value, measured=measured)


def _nodes(sys_folder: Path) -> list[int]:
    """Return the NUMA nodes of the sysfs tree, or of this machine if the tree has only devices."""
    for tree in (sys_folder, None):
        try:
            return [node.node for node in Topology(tree).nodes]
        except NotFound:
            pass
    return [0]


def _place(device: IvshmemDevice, sys_folder: Path) -> Iterator[Check]:
    """Check the NUMA node of a segment, on a machine with several nodes."""
    nodes = _nodes(sys_folder)
    measured = {"node": device.numa_node, "nodes": nodes}
    if len(nodes) > 1 and device.numa_node < 0:
        yield Check("numa", device.address, f"no node, of {len(nodes)}", Verdict.WARN, HOW_TO_PLACE, measured)
    else:
        where = f"node {device.numa_node}" if device.numa_node >= 0 else "the only node"
        yield Check("numa", device.address, where, measured=measured)


def _lockdown(devices: list[IvshmemDevice], sys_folder: Path) -> Check:
    """Check kernel lockdown, which prevents mapping of BARs; irrelevant without ivshmem devices."""
    mode = lockdown(of_tree(sys_folder, "kernel/security/lockdown").parent)
    measured = {"mode": mode}
    own_tree = (sys_folder / "kernel/security/lockdown").exists()
    if mode in (None, "none") or not any(own_tree or not device.emulated for device in devices):
        return Check("lockdown", "kernel", mode or "not reported by the kernel", measured=measured)
    return Check("lockdown", "kernel", f"{mode}: BARs cannot be mapped", Verdict.FAIL, HOW_TO_LIFT, measured)


def _fallbacks() -> Iterator[Check]:
    """Report the BAR access that the prefixes of this machine have chosen."""
    try:
        directories = runtime.prefixes(runtime.runtime_dir())
    except Denied:
        return  # reported by another check
    for directory in directories:
        choice = read_choice(directory.bar_access)
        if choice.access == "auto":
            continue
        subject = f"file_prefix {directory.prefix}"
        yield Check("bar access", subject, f"{choice.access}: {choice.why}", measured={"access": choice.access})
        for address, reason in choice.fallbacks.items():
            value = f"{address} through sysfs: {reason}"
            yield Check("bar access", subject, value, Verdict.WARN, HOW_TO_GET_WRITE_BACK, {"address": address})


def _size(size: int) -> str:
    return f"{size // MIB} MiB" if size % MIB == 0 else f"{size // KIB} KiB"
