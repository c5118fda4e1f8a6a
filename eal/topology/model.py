# SPDX-License-Identifier: BSD-3-Clause
"""Topology: the cores, sockets, NUMA nodes, caches and devices of a machine, and pinning to them."""

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
    """What one machine, or one captured tree, consists of. Read once; everything it returns is immutable.

    `cpus` and `nodes` are read at once, the rest when first asked for.
    """

    cpus: tuple[Cpu, ...]
    """Every present CPU, ascending, offline ones too."""
    nodes: tuple[Node, ...]
    """Every online NUMA node, ascending, with or without CPUs. DPDK calls their numbers socket ids."""

    def __init__(self, sysfs: str | os.PathLike[str] | None = None) -> None:
        """`sysfs`: a captured tree, which holds sys/ (and proc/) or is such a sys/. None: this machine.

        Raises NotFound when there are no CPUs below it, Invalid when one of its files is damaged.
        """
        self.tree = Tree(None if sysfs is None else os.fspath(sysfs))
        masks = node_masks(self.tree, present_mask(self.tree))
        self.cpus = read_cpus(self.tree, masks, allowed_cpus(self.tree))
        self.nodes = read_nodes(self.tree, masks, self.cpus)

    @cached_property
    def sockets(self) -> tuple[Socket, ...]:
        """Every package with an online CPU, numbered as `lscpu -e` does."""
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
        """Every core with an online CPU, numbered as `lscpu -e` does: unique in the machine."""
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
        """distances[a][b] between nodes, 10 for a node and itself (ACPI's SLIT)."""
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
        """Threads of QEMU and of apps of ours that may not run everywhere. Empty for a captured tree."""
        return read_pinned(self.tree, self.cpus)

    def cpu(self, number: int) -> Cpu:
        """The CPU of that number. Raises NotFound when the machine has none."""
        for cpu in self.cpus:
            if cpu.cpu == number:
                return cpu
        here = format_list(cpu.cpu for cpu in self.cpus)
        raise NotFound(f"there is no CPU {number} in {self.tree.root!r}: it has {here}")

    def node(self, number: int) -> Node:
        """The NUMA node of that number. Raises NotFound when the machine has none."""
        for node in self.nodes:
            if node.node == number:
                return node
        here = format_list(node.node for node in self.nodes)
        raise NotFound(f"there is no NUMA node {number} in {self.tree.root!r}: it has {here}")

    def siblings(self, number: int) -> tuple[int, ...]:
        """The online CPUs of one core, `number` among them. A CPU whose core is unknown is alone."""
        core = self.cpu(number).core
        return (number,) if core is None else tuple(cpu.cpu for cpu in self.cpus if cpu.core == core)

    def lcores(self, chosen: Iterable[int] | Mapping[int, int] | None = None) -> tuple[Lcore, ...]:
        """Lcores by id. `chosen`: CPU numbers, or lcore id -> CPU; None: every CPU this process may use.

        Raises NotFound for a CPU that is not there, Invalid for one that is offline or forbidden.
        """
        if chosen is None:
            chosen = [cpu.cpu for cpu in self.cpus if cpu.allowed]
        pairs = chosen if isinstance(chosen, Mapping) else {number: number for number in chosen}
        for number in pairs.values():
            self._usable(number)
        return tuple(Lcore(lcore, pairs[lcore], self.socket_id_of(pairs[lcore])) for lcore in sorted(pairs))

    def socket_id_of(self, number: int) -> int:
        """The NUMA node of a CPU; 0 where the machine does not tell, as in DPDK (rte_lcore_to_socket_id)."""
        return self.cpu(number).node or 0

    def _usable(self, number: int) -> None:
        cpu = self.cpu(number)
        if not cpu.online:
            raise Invalid(f"CPU {number} is offline: echo 1 > /sys/devices/system/cpu/cpu{number}/online brings it up")
        if not cpu.allowed:
            may = format_list(other.cpu for other in self.cpus if other.allowed)
            raise Invalid(f"CPU {number} is outside this process's cpuset or affinity: it may use {may}")


def lcores(chosen: Iterable[int] | Mapping[int, int] | None = None) -> tuple[Lcore, ...]:
    """The lcores of this machine, see Topology.lcores (DPDK: RTE_LCORE_FOREACH)."""
    return Topology().lcores(chosen)


def socket_id_of(cpu: int) -> int:
    """The NUMA node of a CPU of this machine, see Topology.socket_id_of (DPDK: rte_lcore_to_socket_id)."""
    return Topology().socket_id_of(cpu)


def pin(cpu: int) -> None:
    """Let the calling thread run on this CPU alone (DPDK: rte_thread_set_affinity).

    Raises NotFound when there is no such CPU, Invalid when it is offline or outside the cpuset.
    """
    try:
        os.sched_setaffinity(0, {cpu})
    except (OSError, ValueError, OverflowError) as error:
        machine = Topology()
        if not machine.cpu(cpu).online:
            raise Invalid(f"cannot pin to CPU {cpu}: it is offline") from None
        code = error.errno if isinstance(error, OSError) and error.errno else 22
        raise from_errno(code, f"cannot pin this thread to CPU {cpu}: its cgroup's cpuset does not have it") from error
