# SPDX-License-Identifier: BSD-3-Clause
"""Topology: the cores, sockets, NUMA nodes, caches and devices of a machine; pinning of threads to its CPUs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cached_property

from eal.errors import Invalid, NotFound, from_errno
from eal.topology.cgroup import allowed_cpus
from eal.topology.cpulist import format_list
from eal.topology.facts import Cache, Core, Cpu, Lcore, Node, PciDevice, PinnedThread, Socket
from eal.topology.pci import read_pci
from eal.topology.pinning import read_pinned
from eal.topology.sysfs import node_masks, present_mask, read_caches, read_cpus, read_distances, read_nodes
from eal.topology.tree import Tree


class Topology:
    """The topology of this machine or of a captured sysfs tree. All values are read once and immutable.

    The constructor reads `cpus` and `nodes`; the other attributes are read at first access.
    """

    cpus: tuple[Cpu, ...]
    """Every present CPU, online or offline, ascending."""
    nodes: tuple[Node, ...]
    """Every online NUMA node, ascending, including nodes without CPUs (DPDK: socket ids)."""

    def __init__(self, sysfs: str | os.PathLike[str] | None = None) -> None:
        """Read this machine, or the captured tree `sysfs`: a directory that contains sys/ (and proc/), or that sys/.

        Raise NotFound if the directory contains no CPUs, Invalid if one of its files is malformed.
        """
        self.tree = Tree(None if sysfs is None else os.fspath(sysfs))
        masks = node_masks(self.tree, present_mask(self.tree))
        self.cpus = read_cpus(self.tree, masks, allowed_cpus(self.tree))
        self.nodes = read_nodes(self.tree, masks, self.cpus)

    @cached_property
    def sockets(self) -> tuple[Socket, ...]:
        """Every processor package with an online CPU, numbered as in `lscpu -e`."""
        members: dict[int, list[Cpu]] = {}
        for cpu in self.cpus:
            if cpu.socket is not None:
                members.setdefault(cpu.socket, []).append(cpu)
        return tuple(
            Socket(
                socket=number,
                package_id=cpus[0].package_id,
                cpus=tuple(cpu.cpu for cpu in cpus),
                nodes=tuple(sorted({cpu.node for cpu in cpus if cpu.node is not None})),
            )
            for number, cpus in sorted(members.items())
        )

    @cached_property
    def cores(self) -> tuple[Core, ...]:
        """Every core with an online CPU, numbered as in `lscpu -e`: numbers are unique in the machine."""
        members: dict[int, list[Cpu]] = {}
        for cpu in self.cpus:
            if cpu.core is not None:
                members.setdefault(cpu.core, []).append(cpu)
        return tuple(
            Core(number, cpus[0].socket, tuple(cpu.cpu for cpu in cpus), cpus[0].core_id)
            for number, cpus in sorted(members.items())
        )

    @cached_property
    def distances(self) -> Mapping[int, Mapping[int, int]]:
        """The ACPI SLIT: distances[a][b] from node a to node b, 10 from a node to itself."""
        return read_distances(self.tree, self.nodes)

    @cached_property
    def caches(self) -> tuple[Cache, ...]:
        """Every cache of the online CPUs, by level."""
        return read_caches(self.tree, self.cpus)

    @cached_property
    def pci(self) -> tuple[PciDevice, ...]:
        """Every PCI function, by address."""
        return read_pci(self.tree)

    @cached_property
    def pinned(self) -> tuple[PinnedThread, ...]:
        """Threads of QEMU and eal processes whose affinity lacks an online CPU; () if the tree has no processes."""
        return read_pinned(self.tree, self.cpus)

    def cpu(self, number: int) -> Cpu:
        """Return the CPU with this number. Raise NotFound if the machine has no such CPU."""
        for cpu in self.cpus:
            if cpu.cpu == number:
                return cpu
        present = format_list(cpu.cpu for cpu in self.cpus)
        raise NotFound(f"CPU must be one of {present} in {self.tree.root!r}, got {number}")

    def node(self, number: int) -> Node:
        """Return the NUMA node with this number. Raise NotFound if the machine has no such node."""
        for node in self.nodes:
            if node.node == number:
                return node
        online = format_list(node.node for node in self.nodes)
        raise NotFound(f"NUMA node must be one of {online} in {self.tree.root!r}, got {number}")

    def siblings(self, number: int) -> tuple[int, ...]:
        """Return the online CPUs of the core that CPU `number` belongs to; (number,) if the core is unknown."""
        core = self.cpu(number).core
        return (number,) if core is None else tuple(cpu.cpu for cpu in self.cpus if cpu.core == core)

    def lcores(self, chosen: Iterable[int] | Mapping[int, int] | None = None) -> tuple[Lcore, ...]:
        """Return lcores sorted by id.

        `chosen` contains CPU numbers, which become the lcore ids, or maps lcore ids to CPUs; None selects every CPU
        that this process may use. Raise NotFound for a CPU that the machine does not have, Invalid for a CPU that is
        offline or outside the cpuset or affinity.
        """
        if chosen is None:
            chosen = [cpu.cpu for cpu in self.cpus if cpu.allowed]
        cpu_of_lcore = chosen if isinstance(chosen, Mapping) else {number: number for number in chosen}
        for number in cpu_of_lcore.values():
            self._check_usable(number)
        return tuple(Lcore(lcore, cpu, self.socket_id_of(cpu)) for lcore, cpu in sorted(cpu_of_lcore.items()))

    def socket_id_of(self, number: int) -> int:
        """Return the NUMA node of a CPU, 0 if the node is unknown (DPDK: rte_lcore_to_socket_id)."""
        return self.cpu(number).node or 0

    def _check_usable(self, number: int) -> None:
        cpu = self.cpu(number)
        if not cpu.online:
            state = f"/sys/devices/system/cpu/cpu{number}/online"
            raise Invalid(f"CPU of an lcore must be online, got offline CPU {number}: run echo 1 > {state}")
        if not cpu.allowed:
            allowed = format_list(other.cpu for other in self.cpus if other.allowed)
            raise Invalid(
                f"CPU of an lcore must be in the cpuset and affinity of this process ({allowed}), got {number}"
            )


def lcores(chosen: Iterable[int] | Mapping[int, int] | None = None) -> tuple[Lcore, ...]:
    """Return the lcores of this machine: see Topology.lcores (DPDK: RTE_LCORE_FOREACH)."""
    return Topology().lcores(chosen)


def socket_id_of(cpu: int) -> int:
    """Return the NUMA node of a CPU of this machine, 0 if the node is unknown (DPDK: rte_lcore_to_socket_id)."""
    return Topology().socket_id_of(cpu)


def pin(cpu: int) -> None:
    """Pin the calling thread to one CPU (DPDK: rte_thread_set_affinity).

    Raise NotFound if the machine has no such CPU, Invalid if the CPU is offline or outside the cgroup's cpuset.
    """
    try:
        os.sched_setaffinity(0, {cpu})
    except (OSError, ValueError, OverflowError) as error:
        if not Topology().cpu(cpu).online:
            raise Invalid(f"cannot pin this thread to CPU {cpu}: the CPU is offline") from None
        code = error.errno if isinstance(error, OSError) and error.errno else 22
        raise from_errno(code, f"cannot pin this thread to CPU {cpu}: it is outside the cgroup's cpuset") from error
