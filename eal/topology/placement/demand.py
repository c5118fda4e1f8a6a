# SPDX-License-Identifier: BSD-3-Clause
"""Demand: what workloads need of a NUMA node, and whether a node has it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from eal.topology.placement.request import Workload

NORMAL_PAGES = 0
"""The memory pool that is not hugepages; other pools are named by their page size."""


@dataclass(frozen=True, order=True)
class Demand:
    """What a group, or several together, need of a node: CPUs, and bytes of each memory pool."""

    vcpus: int
    lcores: int
    memory: tuple[tuple[int, int], ...]

    def __add__(self, other: Demand) -> Demand:
        pools = dict(self.memory)
        for pool, amount in other.memory:
            pools[pool] = pools.get(pool, 0) + amount
        return Demand(self.vcpus + other.vcpus, self.lcores + other.lcores, tuple(sorted(pools.items())))


NOTHING = Demand(0, 0, ())


@dataclass(frozen=True)
class Bundle:
    """Workloads that share a node, and the nodes that may have them (None: any)."""

    workloads: tuple[Workload, ...]
    demand: Demand
    node: int | None


@dataclass(frozen=True)
class Room:
    """What a node offers: its usable CPUs by core, and bytes of each memory pool."""

    node: int
    cores: tuple[tuple[int, ...], ...]
    memory: tuple[tuple[int, int], ...]

    @property
    def cpus(self) -> int:
        """Usable CPUs."""
        return sum(map(len, self.cores))

    def lacks(self, demand: Demand) -> list[str]:
        """Why the demand does not fit, in words; empty when it fits."""
        reasons = []
        for_lcores = smallest_sum(tuple(sorted(map(len, self.cores))), demand.lcores)
        if for_lcores is None or self.cpus - for_lcores < demand.vcpus:
            taken = "" if not demand.lcores else f" and {demand.lcores} lcores on cores of their own"
            reasons.append(f"node {self.node} has {self.cpus} CPUs to give, too few for {demand.vcpus} vCPUs{taken}")
        pools = dict(self.memory)
        for pool, amount in demand.memory:
            if amount > pools.get(pool, 0):
                kind = "memory" if pool == NORMAL_PAGES else f"{pool >> 20} MiB pages"
                reasons.append(f"node {self.node} has {pools.get(pool, 0) >> 20} MiB of {kind}, not {amount >> 20} MiB")
        return reasons

    def holds(self, demand: Demand) -> bool:
        """Does the demand fit?"""
        return not self.lacks(demand)


@cache
def smallest_sum(sizes: tuple[int, ...], least: int) -> int | None:
    """The smallest sum, not below `least`, of some of `sizes`: CPUs lost to vCPUs when `least` lcores poll.

    None when all of them are too few. Bit n of `sums` says that n is a sum.
    """
    sums = 1
    for size in sizes:
        sums |= sums << size
    sums >>= least
    return None if not sums else least + (sums & -sums).bit_length() - 1


def demand_of(workload: Workload) -> Demand:
    """One workload's demand; hugepages are counted whole."""
    page = workload.pages or 1
    amount = sum(-(-size // page) * page for size in (workload.memory, workload.segments))
    return Demand(workload.vcpus, workload.lcores, ((workload.pages or NORMAL_PAGES, amount),) if amount else ())
