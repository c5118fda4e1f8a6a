# SPDX-License-Identifier: BSD-3-Clause
"""A placement plan as text or JSON, with the QEMU, taskset, libvirt and EAL options that apply it."""

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
    """Return the plan as data for json.dump: `fits`, `placements` with their options, `misfits`."""
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
    """Return the table of placements, the workloads that do not fit with reasons, and the options of each placement."""
    lines = _table(plan.placements, paint) if plan.placements else []
    same_reasons: dict[tuple[object, ...], list[Misfit]] = {}
    for misfit in plan.misfits:
        key = (misfit.reasons, misfit.node, misfit.vcpus, misfit.lcores, misfit.memory)
        same_reasons.setdefault(key, []).append(misfit)
    for misfits in same_reasons.values():
        lines += ["", *_misfit_lines(misfits, paint)]
    for placement in plan.placements:
        lines += ["", *_option_lines(placement, plan.nodes, paint)]
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
    header = ("NAME", "NODE", "VCPUS ON", "LCORES ON", "EMULATOR ON", "MEMORY", "SEGMENTS")
    return table(header, rows, paint, lambda row: int(row[1]))


def _misfit_lines(misfits: Sequence[Misfit], paint: Paint) -> list[str]:
    """Return one paragraph for groups with equal reasons."""
    misfit = misfits[0]
    names = ", ".join(" with ".join(workload.name for workload in each.workloads) for each in misfits)
    verb = "does" if len(misfits) == 1 else "do"
    if misfit.node is None:
        largest = "no part fits"
    else:
        largest = (
            f"the largest part that fits is {misfit.vcpus} vCPUs, {misfit.lcores} lcores and "
            f"{rounded_size_text(misfit.memory)} on node {misfit.node}"
        )
    reasons = [f"  {reason}" for reason in misfit.reasons]
    return [paint.bad(f"{names} {verb} not fit: {largest}."), *reasons]


def _option_lines(placement: Placement, nodes: Sequence[int], paint: Paint) -> list[str]:
    name = placement.workload.name
    lines = [paint.bold(f"# {name}: node {placement.node}")]
    if placement.vcpus:
        cpus = format_list({*placement.vcpus, *placement.emulator})
        lines += [paint.dim("# QEMU; append your other options, and the output of `ivshmem cmdline` for the segments")]
        lines += [f"taskset -c {cpus} qemu-system-x86_64 {shlex.join(qemu_args(placement))}"]
        lines += [
            paint.dim("# pin each vCPU of the running QEMU; PID is its process id"),
            *taskset(placement).splitlines(),
        ]
        lines += [paint.dim("# libvirt domain XML"), *libvirt_xml(placement).splitlines()]
    if placement.lcores:
        lines += [paint.dim("# EAL options of the host application"), shlex.join(eal_args(placement, nodes))]
    if placement.workload.segments:
        lines.append(paint.dim(f"# reserve the memzones with socket_id={placement.node}"))
    return lines


def qemu_args(placement: Placement) -> list[str]:
    """Return the QEMU options for a VM's CPUs, and its memory bound to the node; [] for host lcores."""
    if not placement.vcpus:
        return []
    workload = placement.workload
    count = len(placement.vcpus)
    ram = f"ram-{workload.name}"
    properties = f"size={workload.memory >> 10}K,host-nodes={placement.node},policy=bind,prealloc=on"
    if workload.pages is None:
        backend = f"memory-backend-ram,id={ram},{properties}"
    else:
        backend = f"memory-backend-memfd,id={ram},hugetlb=on,hugetlbsize={workload.pages >> 10}K,{properties}"
    return [
        *("-name", f"{workload.name},debug-threads=on"),
        *("-smp", f"{count},sockets=1,cores={count // placement.threads},threads={placement.threads}"),
        *("-m", f"{workload.memory >> 10}K"),
        *("-object", backend),
        *("-numa", f"node,nodeid=0,cpus=0-{count - 1},memdev={ram}"),
    ]


def taskset(placement: Placement) -> str:
    """Return a shell command that pins the vCPU threads of the QEMU process $PID; "" for host lcores.

    The command finds the threads by their names, which -name debug-threads=on sets: "CPU 0/KVM", "CPU 0/TCG".
    """
    if not placement.vcpus:
        return ""
    cases = " ".join(f'"CPU {index}/"*) taskset -pc {cpu} "${{t##*/}}";;' for index, cpu in enumerate(placement.vcpus))
    return f'for t in /proc/"$PID"/task/*; do case "$(cat "$t/comm")" in {cases} esac; done'


def libvirt_xml(placement: Placement) -> str:
    """Return the libvirt domain XML elements for the VM's CPUs and memory; "" for host lcores."""
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
    """Return options for eal.init in the host application: lcores, and segment memory on the placement's node.

    `nodes` contains the numbers of all nodes. A placement without lcores has no options.
    """
    if not placement.lcores:
        return []
    args = ["-l", format_list(placement.lcores)]
    if placement.workload.segments:
        mebibytes = -(-placement.workload.segments // (1 << 20))
        amounts = [str(mebibytes if node == placement.node else 0) for node in range(max(nodes) + 1)]
        args += ["--socket-mem", ",".join(amounts)]
    return args
