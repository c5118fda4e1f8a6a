# SPDX-License-Identifier: BSD-3-Clause
"""Synthetic machines: sysfs trees with given CPUs, NUMA nodes and memory, written into a temporary directory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

GIB = 1 << 30
MIB = 1 << 20

# lscpu does not list CPUs without a model.
_MODEL = "vendor_id\t: {}\ncpu family\t: {}\nmodel\t\t: 85\nmodel name\t: Synthetic\nstepping\t: 4\n"


@dataclass(frozen=True)
class Machine:
    """Content of a sysfs tree. `cpus` maps a CPU to its (package id, core id), which determine its siblings.

    `nodes` maps a node to its CPUs, None for a kernel without NUMA. `memory` and `free` map a node to bytes,
    `hugepages` maps it to {page size: (total, free)}. CPUs in `bare` have no topology files; `masks` False omits the
    sibling masks of all CPUs. `units` contains sets of CPUs with one thread mask but different core ids. `cpuset` is
    (cgroup version, CPU list).
    """

    cpus: Mapping[int, tuple[int, int]]
    nodes: Mapping[int, Iterable[int]] | None
    memory: Mapping[int, int] = field(default_factory=dict)
    free: Mapping[int, int] = field(default_factory=dict)
    hugepages: Mapping[int, Mapping[int, tuple[int, int]]] = field(default_factory=dict)
    distances: Mapping[int, Iterable[int]] = field(default_factory=dict)
    offline: frozenset[int] = frozenset()
    bare: frozenset[int] = frozenset()
    masks: bool = True
    units: tuple[frozenset[int], ...] = ()
    model: tuple[str, int] = ("GenuineIntel", 6)
    cpuset: tuple[str, str] | None = None
    shared_l3: tuple[frozenset[int], ...] = ()

    def write(self, root: Path) -> Path:
        """Write the tree into `root` and return `root`."""
        online = [cpu for cpu in sorted(self.cpus) if cpu not in self.offline]
        system = root / "sys/devices/system"
        for name, numbers in (("possible", self.cpus), ("present", self.cpus), ("online", online)):
            put(system / "cpu" / name, listed(numbers))
        for cpu in self.cpus:
            self._write_cpu(system / f"cpu/cpu{cpu}", cpu)
        self._write_nodes(system / "node")
        total = sum(self.memory.get(node, GIB) for node in (self.nodes or {0: ()}))
        put(root / "proc/meminfo", f"MemTotal: {total >> 10} kB\nMemFree: {total >> 11} kB\n")
        model = _MODEL.format(*self.model)
        put(root / "proc/cpuinfo", "\n".join(f"processor\t: {cpu}\n{model}" for cpu in online))
        put(root / "proc/hwloc-nofile-info", "OSName: Linux\nArchitecture: x86_64\n")
        self._write_cpuset(root)
        return root

    def _write_cpu(self, directory: Path, cpu: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        if cpu:
            put(directory / "online", "0" if cpu in self.offline else "1")
        if cpu in self.offline or cpu in self.bare:
            return
        package, core = self.cpus[cpu]
        put(directory / "topology/core_id", str(core))
        put(directory / "topology/physical_package_id", str(package))
        listed_cpus = [other for other in self.cpus if other not in self.offline | self.bare]
        if self.masks:
            unit = next((unit for unit in self.units if cpu in unit), frozenset())
            threads = {other for other in listed_cpus if self.cpus[other] == (package, core)} | unit
            package_cpus = {other for other in listed_cpus if self.cpus[other][0] == package}
            put(directory / "topology/thread_siblings", mask(threads))
            put(directory / "topology/core_siblings", mask(package_cpus))
        for l3 in self.shared_l3:
            if cpu in l3:
                for name, text in (("level", "3"), ("type", "Unified"), ("size", "8192K")):
                    put(directory / "cache/index3" / name, text)
                put(directory / "cache/index3/shared_cpu_map", mask(l3))

    def _write_nodes(self, directory: Path) -> None:
        if self.nodes is None:
            return
        put(directory / "online", listed(self.nodes))
        for node, cpus in self.nodes.items():
            node_directory = directory / f"node{node}"
            total = self.memory.get(node, GIB)
            free = self.free.get(node, total)
            put(node_directory / "cpumap", mask(set(cpus) - self.offline))
            put(
                node_directory / "meminfo",
                f"Node {node} MemTotal: {total >> 10} kB\nNode {node} MemFree: {free >> 10} kB\n",
            )
            row = self.distances.get(node, [10 if other == node else 20 for other in self.nodes])
            put(node_directory / "distance", " ".join(map(str, row)))
            for size, (pages, unused) in self.hugepages.get(node, {}).items():
                pool = node_directory / f"hugepages/hugepages-{size >> 10}kB"
                put(pool / "nr_hugepages", str(pages))
                put(pool / "free_hugepages", str(unused))

    def _write_cpuset(self, root: Path) -> None:
        if self.cpuset is None:
            return
        version, allowed = self.cpuset
        if version == "v2":
            put(root / "proc/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n")
            put(root / "proc/self/cgroup", "0::/vms/web\n")
            put(root / "sys/fs/cgroup/cgroup.controllers", "cpuset cpu memory")
            put(root / "sys/fs/cgroup/vms/web/cpuset.cpus.effective", allowed)
            put(root / "sys/fs/cgroup/vms/web/cpuset.mems.effective", listed(self.nodes or {0: ()}))
        else:
            put(root / "proc/mounts", "cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\n")
            put(root / "proc/self/cgroup", "4:cpuset:/batch\n")
            put(root / "proc/self/cpuset", "/batch\n")
            put(root / "sys/fs/cgroup/cpuset/batch/cpuset.cpus", allowed)
            put(root / "sys/fs/cgroup/cpuset/batch/cpuset.mems", listed(self.nodes or {0: ()}))


def put(path: Path, text: str) -> None:
    """Write a file with a newline at its end, and create its parent directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.rstrip("\n") + "\n")


def mask(numbers: Iterable[int]) -> str:
    """Return the numbers as a CPU mask in the kernel's notation: words of 32 bits, the highest first."""
    value = sum(1 << number for number in set(numbers))
    words = [value >> shift & 0xFFFFFFFF for shift in range(0, max(value.bit_length(), 1), 32)]
    return ",".join(f"{word:08x}" for word in reversed(words))


def listed(numbers: Iterable[int]) -> str:
    """Return the numbers as a CPU list without ranges."""
    return ",".join(map(str, sorted(numbers)))


def regular(sockets: int, cores: int, threads: int, nodes_per_socket: int = 1, *, interleaved: bool = False) -> Machine:
    """Return a machine with equal sockets. `interleaved`: CPUs are numbered thread by thread, as on x86."""
    cpus = {}
    nodes: dict[int, list[int]] = {node: [] for node in range(sockets * nodes_per_socket)}
    for socket in range(sockets):
        for core in range(cores):
            for thread in range(threads):
                if interleaved:
                    cpu = thread * sockets * cores + socket * cores + core
                else:
                    cpu = (socket * cores + core) * threads + thread
                cpus[cpu] = (socket, core)
                nodes[socket * nodes_per_socket + core * nodes_per_socket // cores].append(cpu)
    l3 = tuple(frozenset(cpu for cpu in cpus if cpus[cpu][0] == socket) for socket in range(sockets))
    return Machine(dict(sorted(cpus.items())), nodes, shared_l3=l3)


SHAPES: dict[str, Callable[[], Machine]] = {
    "one-core": lambda: regular(1, 1, 1),
    "two-sockets-smt": lambda: regular(2, 4, 2, interleaved=True),
    "sub-numa-clusters": lambda: regular(2, 4, 1, 2),
    "power-smt8": lambda: regular(2, 2, 8),
    "holes-in-numbering": lambda: Machine(
        {cpu: (cpu // 8, cpu % 8) for cpu in range(0, 16, 2)}, {0: range(0, 8, 2), 1: range(8, 16, 2)}
    ),
    "offline-cpus": lambda: replace(regular(2, 2, 2), offline=frozenset({1, 4, 5})),
    "memory-only-nodes": lambda: Machine(
        {cpu: (0, cpu) for cpu in range(4)}, {0: range(4), 7: (), 64: ()}, {7: 16 * GIB, 64: 16 * GIB}
    ),
    "node-without-memory": lambda: replace(regular(2, 2, 1), memory={0: 2 * GIB, 1: 0}),
    "kernel-without-numa": lambda: replace(regular(1, 2, 2), nodes=None),
    "hybrid": lambda: Machine(
        {0: (0, 0), 1: (0, 0), 2: (0, 4), 3: (0, 4), 4: (0, 8), 5: (0, 9), 6: (0, 10)}, {0: range(7)}
    ),
    "cgroup-v2": lambda: replace(regular(2, 2, 1), cpuset=("v2", "1-2")),
    "cgroup-v1": lambda: replace(regular(2, 2, 1), cpuset=("v1", "0,3")),
    "repeated-core-ids": lambda: Machine(
        dict.fromkeys(range(2), (-1, 0)) | {2: (5, 3), 3: (5, 3)}, {0: (0, 1), 1: (2, 3)}
    ),
    "compute-units": lambda: replace(
        regular(1, 4, 1), units=(frozenset({0, 1}), frozenset({2, 3})), model=("AuthenticAMD", 21)
    ),
    "masks-against-core-ids": lambda: replace(regular(1, 4, 1), units=(frozenset({0, 1}), frozenset({2, 3}))),
    "ids-without-masks": lambda: replace(regular(2, 2, 2), masks=False),
    "no-topology-files": lambda: replace(regular(1, 4, 1), bare=frozenset({2, 3})),
}
