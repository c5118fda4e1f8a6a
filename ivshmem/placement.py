# SPDX-License-Identifier: BSD-3-Clause
"""Placement check of running VMs and host applications. Reads QEMU by QMP, and threads and memory from /proc."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from eal.errors import NotFound
from eal.topology.cpulist import format_list
from eal.topology.facts import PinnedThread
from eal.topology.model import Topology
from eal.topology.pinning import read_threads
from eal.topology.tree import Tree
from ivshmem.hotplug.qmp import Qmp


@dataclass(frozen=True)
class Vcpu:
    """One vCPU: its index, the thread id of its QEMU thread, and the CPUs that the thread may run on."""

    index: int
    tid: int
    cpus: tuple[int, ...]


@dataclass(frozen=True)
class Memory:
    """One memory backend of a VM, `size` in bytes. `nodes` is empty if the backend is not bound to nodes."""

    name: str
    size: int
    policy: str
    nodes: tuple[int, ...]


@dataclass(frozen=True)
class SharedFile:
    """A file that a process maps as shared; `pages`: (node, number of pages on the node)."""

    path: str
    pages: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class RunningVm:
    """One QEMU process."""

    name: str
    pid: int
    vcpus: tuple[Vcpu, ...]
    memory: tuple[Memory, ...]
    files: tuple[SharedFile, ...] = ()


@dataclass(frozen=True)
class RunningApp:
    """One host application. Each of its threads that is pinned to a single CPU counts as a polling lcore."""

    pid: int
    program: str
    lcores: tuple[PinnedThread, ...]
    files: tuple[SharedFile, ...] = ()


@dataclass(frozen=True)
class Violation:
    """One broken rule: its short name, the VM or application that breaks it, and a text with the remedy."""

    rule: str
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.text} [{self.rule}]"


def check(qmp: Iterable[str | os.PathLike[str]], apps: Iterable[int] | None = None) -> list[Violation]:
    """Return the rules that these VMs and host applications break. `qmp` contains the paths of QMP sockets.

    `apps` contains process ids, None: every process that has loaded eal's compiled core, except the caller. Raise
    NotFound if no QEMU listens on a socket or a process has not loaded eal, Stalled if QEMU does not answer (a QMP
    socket serves one client at a time).
    """
    topology = Topology()
    vms = [read_vm(os.fspath(path), topology.tree) for path in qmp]
    return violations(topology, vms, read_apps(topology.tree, apps))


# --- reading ------------------------------------------------------------------------------------------------


def read_vm(path: str, tree: Tree) -> RunningVm:
    """Return the VM behind a QMP socket: vCPUs and memory by QMP, CPU affinity and shared files from /proc."""
    with Qmp(path) as qmp:
        pid = qmp.pid
        name = qmp.execute("query-name").get("name") or f"QEMU {pid}"
        cpus = qmp.execute("query-cpus-fast")
        backends = qmp.execute("query-memdev")
    allowed = {thread.tid: thread.cpus for thread in read_threads(tree)}
    vcpus = [Vcpu(cpu["cpu-index"], cpu["thread-id"], allowed.get(cpu["thread-id"], ())) for cpu in cpus]
    memory = [
        Memory(backend.get("id", "ram"), backend["size"], backend["policy"], tuple(backend["host-nodes"]))
        for backend in backends
    ]
    return RunningVm(name, pid, tuple(vcpus), tuple(memory), shared_files(tree, pid))


def read_apps(tree: Tree, pids: Iterable[int] | None) -> list[RunningApp]:
    """Return the host applications with these process ids, None: all but the calling process.

    Raise NotFound for a process that has not loaded eal's compiled core.
    """
    threads: dict[int, list[PinnedThread]] = {}
    for thread in read_threads(tree):
        if thread.kind == "app":
            threads.setdefault(thread.pid, []).append(thread)
    wanted = [pid for pid in threads if pid != os.getpid()] if pids is None else list(pids)
    apps = []
    for pid in wanted:
        if pid not in threads:
            raise NotFound(f"process {pid} must have loaded eal's compiled core; it has not, or has ended")
        lcores = tuple(thread for thread in threads[pid] if len(thread.cpus) == 1)
        apps.append(RunningApp(pid, threads[pid][0].program, lcores, shared_files(tree, pid)))
    return apps


def shared_files(tree: Tree, pid: int) -> tuple[SharedFile, ...]:
    """Return the files that a process maps as shared, with the NUMA nodes of their pages."""
    shared = set(re.findall(r"^\S+ \S{3}s \S+ \S+ [1-9]\d* +(/.*)$", tree.text(f"proc/{pid}/maps") or "", re.MULTILINE))
    pages: dict[str, dict[int, int]] = {path: {} for path in shared}
    for line in (tree.text(f"proc/{pid}/numa_maps") or "").splitlines():
        field = re.search(r" file=(\S+)", line)
        path = field[1].replace("\\040", " ") if field else ""
        if path in pages:
            for node, count in re.findall(r" N(\d+)=(\d+)", line):
                pages[path][int(node)] = pages[path].get(int(node), 0) + int(count)
    return tuple(SharedFile(path, tuple(sorted(counts.items()))) for path, counts in sorted(pages.items()))


# --- rules --------------------------------------------------------------------------------------------------


def violations(topology: Topology, vms: Sequence[RunningVm], apps: Sequence[RunningApp]) -> list[Violation]:
    """Return the broken rules. docs/cpu-layout.md lists the rules, which a placement plan keeps."""
    found = [violation for vm in vms for violation in (*_pinning(vm), *_one_node(topology, vm))]
    vcpus = [(f"{vm.name} vCPU {vcpu.index}", vcpu.cpus[0]) for vm in vms for vcpu in vm.vcpus if len(vcpu.cpus) == 1]
    lcores = [(f"{app.program} lcore {thread.tid}", thread.cpus[0]) for app in apps for thread in app.lcores]
    found += _one_user(vcpus + lcores)
    found += _siblings(topology, vcpus, lcores)
    for app in apps:
        for vm in vms:
            found += _near_vm(topology, app, vm)
    return found


def node_of(topology: Topology, vm: RunningVm) -> int | None:
    """Return the node of a VM's vCPUs, None if they may run on several nodes."""
    nodes = {topology.cpu(cpu).node for vcpu in vm.vcpus for cpu in vcpu.cpus}
    return nodes.pop() if len(nodes) == 1 else None


def _pinning(vm: RunningVm) -> list[Violation]:
    return [
        Violation(
            "pinned",
            f"{vm.name} vCPU {vcpu.index}",
            f"may run on CPUs {format_list(vcpu.cpus) or 'unknown'}; pin it to one: taskset -pc CPU {vcpu.tid}",
        )
        for vcpu in vm.vcpus
        if len(vcpu.cpus) != 1
    ]


def _one_node(topology: Topology, vm: RunningVm) -> list[Violation]:
    """Check that a VM's vCPUs and memory are on one node. A machine with one node cannot break the rule."""
    if len(topology.nodes) == 1:
        return []
    nodes = {node for vcpu in vm.vcpus for cpu in vcpu.cpus if (node := topology.cpu(cpu).node) is not None}
    if len(nodes) > 1:
        return [
            Violation(
                "one-node", vm.name, f"its vCPUs may run on nodes {format_list(nodes)}; pin them to CPUs of one node"
            )
        ]
    found = []
    for memory in vm.memory if nodes else ():
        if memory.policy == "default":
            text = f"memory {memory.name} is not bound; add host-nodes={format_list(nodes)},policy=bind to its -object"
        elif not set(memory.nodes) <= nodes:
            text = f"memory {memory.name} is on nodes {format_list(memory.nodes)}, its vCPUs on {format_list(nodes)}"
        else:
            continue
        found.append(Violation("one-node", vm.name, text))
    return found


def _one_user(users: Sequence[tuple[str, int]]) -> list[Violation]:
    by_cpu: dict[int, list[str]] = {}
    for name, cpu in users:
        by_cpu.setdefault(cpu, []).append(name)
    return [
        Violation("one-user", " and ".join(names), f"share CPU {cpu}; pin each to a CPU of its own")
        for cpu, names in sorted(by_cpu.items())
        if len(names) > 1
    ]


def _siblings(
    topology: Topology, vcpus: Sequence[tuple[str, int]], lcores: Sequence[tuple[str, int]]
) -> list[Violation]:
    return [
        Violation(
            "siblings",
            f"{lcore} and {vcpu}",
            f"poll and run on CPUs {cpu} and {other}, hyperthreads of one core; pin one of them to another core",
        )
        for lcore, cpu in lcores
        for vcpu, other in vcpus
        if cpu != other and other in topology.siblings(cpu)
    ]


def _near_vm(topology: Topology, app: RunningApp, vm: RunningVm) -> list[Violation]:
    """Check that an application polls on the node of a VM that it shares memory with, and that the memory is there."""
    vm_node = node_of(topology, vm)
    shared = {file.path for file in app.files} & {file.path for file in vm.files}
    if vm_node is None or not shared or len(topology.nodes) == 1:
        return []
    found = []
    nodes = {topology.cpu(thread.cpus[0]).node for thread in app.lcores}
    if app.lcores and vm_node not in nodes:
        remedy = f"pin one to a CPU of node {vm_node}"
        text = f"shares memory with {vm.name} on node {vm_node}, but none of its lcores polls there; {remedy}"
        found.append(Violation("near", app.program, text))
    for file in vm.files:
        remote = {node: count for node, count in file.pages if node != vm_node and count}
        if file.path in shared and remote:
            count = sum(remote.values())
            text = f"{count} pages of {file.path} are on nodes {format_list(remote)}, {vm.name} on {vm_node}"
            found.append(Violation("near", app.program, f"{text}; reserve with socket_id={vm_node}"))
    return found
