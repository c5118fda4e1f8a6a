# SPDX-License-Identifier: BSD-3-Clause
"""A plan as people use it: a table, what does not fit, and what to paste for QEMU, libvirt and the EAL."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from eal.text.sizes import rounded_size_text
from eal.topology.cpulist import format_list
from eal.topology.placement.plan import Misfit, Placement, PlacementPlan
from eal.topology.view.text import Paint, table


def plan_as_dict(plan: PlacementPlan) -> dict[str, Any]:
    """The plan as plain data: `fits`, `placements` with what to paste, `misfits`."""
    return {
        "fits": plan.fits,
        "placements": [
            {
                **asdict(placement),
                "qemu": qemu_args(placement),
                "taskset": taskset(placement),
                "libvirt": libvirt_xml(placement),
                "eal": eal_args(placement, plan.nodes),
            }
            for placement in plan.placements
        ],
        "misfits": [asdict(misfit) for misfit in plan.misfits],
    }


def plan_lines(plan: PlacementPlan, paint: Paint) -> list[str]:
    """The table, what was left out and why, and below it what to paste for each workload."""
    lines = _table(plan.placements, paint) if plan.placements else []
    alike: dict[tuple[object, ...], list[Misfit]] = {}
    for misfit in plan.misfits:
        key = (misfit.reasons, misfit.node, misfit.vcpus, misfit.lcores, misfit.memory)
        alike.setdefault(key, []).append(misfit)
    for misfits in alike.values():
        lines += ["", *_misfit_lines(misfits, paint)]
    for placement in plan.placements:
        lines += ["", *_paste_lines(placement, plan.nodes, paint)]
    return lines


def _table(placements: Sequence[Placement], paint: Paint) -> list[str]:
    rows = []
    for placement in placements:
        workload = placement.workload
        rows.append(
            (
                workload.name,
                str(placement.node),
                ",".join(map(str, placement.vcpus)) or "-",
                ",".join(map(str, placement.lcores)) or "-",
                format_list(placement.emulator) or "-",
                rounded_size_text(workload.memory) if workload.memory else "-",
                rounded_size_text(workload.segments) if workload.segments else "-",
            )
        )
    header = ("NAME", "NODE", "VCPUS ON", "LCORES ON", "QEMU'S OTHERS ON", "MEMORY", "SEGMENTS")
    return table(header, rows, paint, lambda row: int(row[1]))


def _misfit_lines(misfits: Sequence[Misfit], paint: Paint) -> list[str]:
    """One paragraph for groups that lack the same."""
    misfit = misfits[0]
    names = ", ".join(" with ".join(workload.name for workload in each.workloads) for each in misfits)
    verb = "does" if len(misfits) == 1 else "do"
    if misfit.node is None:
        nearest = "nothing of it fits"
    else:
        nearest = (
            f"the nearest that fits beside the rest is {misfit.vcpus} vCPUs, {misfit.lcores} lcores and "
            f"{rounded_size_text(misfit.memory)} on node {misfit.node}"
        )
    reasons = [f"  {reason}" for reason in misfit.reasons]
    return [paint.bad(f"{names} {verb} not fit: {nearest}."), *reasons]


def _paste_lines(placement: Placement, nodes: Sequence[int], paint: Paint) -> list[str]:
    name = placement.workload.name
    lines = [paint.bold(f"# {name}: node {placement.node}")]
    if placement.vcpus:
        cpus = format_list({*placement.vcpus, *placement.emulator})
        lines += [paint.dim("# QEMU; append your own options, and what `ivshmem cmdline` prints for the segments")]
        lines += [f"taskset -c {cpus} qemu-system-x86_64 {shlex.join(qemu_args(placement))}"]
        lines += [
            paint.dim("# each vCPU on its CPU, once QEMU runs; PID is QEMU's"),
            *taskset(placement).splitlines(),
        ]
        lines += [paint.dim("# the same for libvirt"), *libvirt_xml(placement).splitlines()]
    if placement.lcores:
        lines += [paint.dim("# the host app's EAL options"), shlex.join(eal_args(placement, nodes))]
    if placement.workload.segments:
        lines.append(paint.dim(f"# reserve its zones with socket_id={placement.node}"))
    return lines


def qemu_args(placement: Placement) -> list[str]:
    """QEMU's options for a VM: CPUs, and memory bound to its node. Empty for host lcores."""
    if not placement.vcpus:
        return []
    workload = placement.workload
    count = len(placement.vcpus)
    ram = f"ram-{workload.name}"
    bound = f"size={workload.memory >> 10}K,host-nodes={placement.node},policy=bind,prealloc=on"
    if workload.pages is None:
        backend = f"memory-backend-ram,id={ram},{bound}"
    else:
        backend = f"memory-backend-memfd,id={ram},hugetlb=on,hugetlbsize={workload.pages >> 10}K,{bound}"
    return [
        *("-name", f"{workload.name},debug-threads=on"),
        *("-smp", f"{count},sockets=1,cores={count // placement.threads},threads={placement.threads}"),
        *("-m", f"{workload.memory >> 10}K"),
        *("-object", backend),
        *("-numa", f"node,nodeid=0,cpus=0-{count - 1},memdev={ram}"),
    ]


def taskset(placement: Placement) -> str:
    """Shell lines that pin each vCPU thread of the QEMU whose process id is in $PID; "" for host lcores.

    They find threads by the names that debug-threads=on gives them: "CPU 0/KVM", "CPU 0/TCG".
    """
    if not placement.vcpus:
        return ""
    cases = " ".join(f'"CPU {index}/"*) taskset -pc {cpu} "${{t##*/}}";;' for index, cpu in enumerate(placement.vcpus))
    return f'for t in /proc/"$PID"/task/*; do case "$(cat "$t/comm")" in {cases} esac; done'


def libvirt_xml(placement: Placement) -> str:
    """The elements of libvirt's domain XML that do the same; "" for host lcores."""
    if not placement.vcpus:
        return ""
    workload = placement.workload
    count = len(placement.vcpus)
    pins = [f"  <vcpupin vcpu='{index}' cpuset='{cpu}'/>" for index, cpu in enumerate(placement.vcpus)]
    lines = [
        f"<memory unit='KiB'>{workload.memory >> 10}</memory>",
        f"<vcpu placement='static' cpuset='{format_list(placement.vcpus)}'>{count}</vcpu>",
        "<cputune>",
        *pins,
        f"  <emulatorpin cpuset='{format_list(placement.emulator)}'/>",
        "</cputune>",
        f"<numatune><memory mode='strict' nodeset='{placement.node}'/></numatune>",
        f"<cpu><topology sockets='1' cores='{count // placement.threads}' threads='{placement.threads}'/></cpu>",
    ]
    if workload.pages is not None:
        pages = f"<page size='{workload.pages >> 10}' unit='KiB'/>"
        lines.append(f"<memoryBacking><hugepages>{pages}</hugepages></memoryBacking>")
    return "\n".join(lines)


def eal_args(placement: Placement, nodes: Sequence[int]) -> list[str]:
    """Options for eal.init in the host app: lcores, and memory of the segments on this node alone."""
    if not placement.lcores:
        return []
    args = ["-l", format_list(placement.lcores)]
    if placement.workload.segments:
        mebibytes = -(-placement.workload.segments // (1 << 20))
        amounts = [str(mebibytes if node == placement.node else 0) for node in range(max(nodes) + 1)]
        args += ["--socket-mem", ",".join(amounts)]
    return args
