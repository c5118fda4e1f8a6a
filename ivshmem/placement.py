# SPDX-License-Identifier: BSD-3-Clause
"""Is a running host app, with its VMs, where the rules want it? Reads QEMU by QMP and threads from /proc."""

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
    """One vCPU: its index, QEMU's thread for it, and the CPUs that thread may run on."""

    index: int
    tid: int
    cpus: tuple[int, ...]


@dataclass(frozen=True)
class Memory:
    """One memory backend of a VM. `nodes` is empty where it is not bound."""

    name: str
    size: int
    policy: str
    nodes: tuple[int, ...]


@dataclass(frozen=True)
class SharedFile:
    """A file that a process maps shared, and how many of its pages lie on which node."""

    path: str
    pages: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class RunningVm:
    """A QEMU as it runs."""

    name: str
    pid: int
    vcpus: tuple[Vcpu, ...]
    memory: tuple[Memory, ...]
    files: tuple[SharedFile, ...] = ()


@dataclass(frozen=True)
class RunningApp:
    """A host app as it runs. A thread that may run on one CPU alone is a polling lcore."""

    pid: int
    program: str
    lcores: tuple[PinnedThread, ...]
    files: tuple[SharedFile, ...] = ()


@dataclass(frozen=True)
class Violation:
    """One broken rule: `rule` is its short name, `subject` who breaks it, `text` how, and what to do."""

    rule: str
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.text} [{self.rule}]"


def check(qmp: Iterable[str | os.PathLike[str]], apps: Iterable[int] | None = None) -> list[Violation]:
    """Every broken rule of the QEMUs behind these QMP sockets and of host apps.

    `apps` are process ids; None: every process that loaded this project's core, except the calling one. A QMP
    socket serves one client at a time: NotFound when nobody listens, Stalled when QEMU gives no answer.
    """
    topology = Topology()
    vms = [read_vm(os.fspath(path), topology.tree) for path in qmp]
    return violations(topology, vms, read_apps(topology.tree, apps))


# --- reading ------------------------------------------------------------------------------------------------


def read_vm(path: str, tree: Tree) -> RunningVm:
    """One QEMU: its vCPUs and memory by QMP, its threads and files from /proc."""
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
    """Host apps with their lcores and files. Raises NotFound for a process id that is not an app of ours."""
    threads: dict[int, list[PinnedThread]] = {}
    for thread in read_threads(tree):
        if thread.kind == "app":
            threads.setdefault(thread.pid, []).append(thread)
    wanted = [pid for pid in threads if pid != os.getpid()] if pids is None else list(pids)
    apps = []
    for pid in wanted:
        if pid not in threads:
            raise NotFound(f"process {pid} is no app of ours: it is gone, or has not loaded eal's compiled core")
        lcores = tuple(thread for thread in threads[pid] if len(thread.cpus) == 1)
        apps.append(RunningApp(pid, threads[pid][0].program, lcores, shared_files(tree, pid)))
    return apps


def shared_files(tree: Tree, pid: int) -> tuple[SharedFile, ...]:
    """The files that a process maps shared and writable or not, with the nodes of their pages."""
    shared = set(re.findall(r"^\S+ \S{3}s \S+ \S+ [1-9]\d* +(/.*)$", tree.text(f"proc/{pid}/maps") or "", re.MULTILINE))
    pages: dict[str, dict[int, int]] = {path: {} for path in shared}
    for line in (tree.text(f"proc/{pid}/numa_maps") or "").splitlines():
        found = re.search(r" file=(\S+)", line)
        path = found[1].replace("\\040", " ") if found else ""
        if path in pages:
            for node, count in re.findall(r" N(\d+)=(\d+)", line):
                pages[path][int(node)] = pages[path].get(int(node), 0) + int(count)
    return tuple(SharedFile(path, tuple(sorted(found.items()))) for path, found in sorted(pages.items()))


# --- rules --------------------------------------------------------------------------------------------------


def violations(topology: Topology, vms: Sequence[RunningVm], apps: Sequence[RunningApp]) -> list[Violation]:
    """Every broken rule, the same as a plan keeps: see docs/cpu-layout.md."""
    found = [violation for vm in vms for violation in (*_pinning(vm), *_one_node(topology, vm))]
    users = [(f"{vm.name} vCPU {vcpu.index}", vcpu.cpus[0]) for vm in vms for vcpu in vm.vcpus if len(vcpu.cpus) == 1]
    lcores = [(f"{app.program} lcore {thread.tid}", thread.cpus[0]) for app in apps for thread in app.lcores]
    found += _one_user(users + lcores)
    found += _siblings(topology, users, lcores)
    for app in apps:
        for vm in vms:
            found += _near(topology, app, vm)
    return found


def home_of(topology: Topology, vm: RunningVm) -> int | None:
    """The node of a VM: where its vCPUs are; None where they are on several, or anywhere."""
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
    """vCPUs and memory of a VM on one node. With one node there is nothing to choose."""
    if len(topology.nodes) == 1:
        return []
    nodes = {node for vcpu in vm.vcpus for cpu in vcpu.cpus if (node := topology.cpu(cpu).node) is not None}
    if len(nodes) > 1:
        return [Violation("one-node", vm.name, f"its vCPUs may run on nodes {format_list(nodes)}; keep them on one")]
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
        Violation("one-user", " and ".join(names), f"share CPU {cpu}; give each its own")
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
            f"poll and run on CPUs {cpu} and {other}, hyperthreads of one core; move one of them",
        )
        for lcore, cpu in lcores
        for vcpu, other in vcpus
        if cpu != other and other in topology.siblings(cpu)
    ]


def _near(topology: Topology, app: RunningApp, vm: RunningVm) -> list[Violation]:
    """An app that shares memory with a VM polls on the VM's node, where the memory is too."""
    home = home_of(topology, vm)
    common = {file.path for file in app.files} & {file.path for file in vm.files}
    if home is None or not common or len(topology.nodes) == 1:
        return []
    found = []
    nodes = {topology.cpu(thread.cpus[0]).node for thread in app.lcores}
    if app.lcores and home not in nodes:
        text = f"shares memory with {vm.name} on node {home}, but no lcore of it polls there"
        found.append(Violation("near", app.program, text))
    for file in vm.files:
        away = {node: count for node, count in file.pages if node != home and count}
        if file.path in common and away:
            text = f"{sum(away.values())} pages of {file.path} are on nodes {format_list(away)}, {vm.name} on {home}"
            found.append(Violation("near", app.program, f"{text}; reserve with socket_id={home}"))
    return found
