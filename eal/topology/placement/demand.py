# SPDX-License-Identifier: BSD-3-Clause
"""Demand of workload groups, and capacity of NUMA nodes, in CPUs and bytes of memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from eal.text.sizes import align_up
from eal.topology.placement.request import Workload

NORMAL_PAGES = 0
"""The memory pool of normal pages. Other memory pools have their hugepage size in bytes as their number."""


@dataclass(frozen=True, order=True)
class Demand:
    """CPUs and memory that one or several groups need on a node. `memory`: (memory pool, bytes) of each pool."""

    vcpus: int
    lcores: int
    memory: tuple[tuple[int, int], ...]

    def __add__(self, other: Demand) -> Demand:
        pools = dict(self.memory)
        for pool, size in other.memory:
            pools[pool] = pools.get(pool, 0) + size
        return Demand(self.vcpus + other.vcpus, self.lcores + other.lcores, tuple(sorted(pools.items())))

    @property
    def cpus(self) -> int:
        """vCPUs and lcores together."""
        return self.vcpus + self.lcores


NO_DEMAND = Demand(0, 0, ())


@dataclass(frozen=True)
class WorkloadGroup:
    """Workloads that must share a node. `node` is the node that the request names, None: any node."""

    workloads: tuple[Workload, ...]
    demand: Demand
    node: int | None


@dataclass(frozen=True)
class Capacity:
    """Capacity of one node: its usable CPUs by core, and (memory pool, available bytes) of each pool."""

    node: int
    cores: tuple[tuple[int, ...], ...]
    memory: tuple[tuple[int, int], ...]

    @property
    def cpus(self) -> int:
        """Number of usable CPUs."""
        return sum(map(len, self.cores))

    def shortages(self, demand: Demand) -> list[str]:
        """Return a text for each resource that is too small for the demand; [] if the demand fits."""
        shortages = []
        polling_cpus = smallest_sum(tuple(sorted(map(len, self.cores))), demand.lcores)
        if polling_cpus is None or self.cpus - polling_cpus < demand.vcpus:
            lcores = "" if not demand.lcores else f" and {demand.lcores} lcores on separate cores"
            shortages.append(f"node {self.node} has {self.cpus} usable CPUs, too few for {demand.vcpus} vCPUs{lcores}")
        pools = dict(self.memory)
        for pool, size in demand.memory:
            available = pools.get(pool, 0)
            if size > available:
                kind = "available memory" if pool == NORMAL_PAGES else f"free {pool >> 20} MiB hugepages"
                shortages.append(f"node {self.node} has {available >> 20} MiB of {kind}, needed {size >> 20} MiB")
        return shortages

    def fits(self, demand: Demand) -> bool:
        """Return whether the node has enough CPUs and memory for the demand."""
        return not self.shortages(demand)


@cache
def smallest_sum(sizes: tuple[int, ...], least: int) -> int | None:
    """Return the smallest sum of a subset of `sizes` that is not below `least`, or None if there is none.

    With core sizes and a number of lcores, the sum is the number of CPUs that polling lcores take from vCPUs. An
    integer serves as the set of all subset sums: bit n is set if n is a sum.
    """
    sums = 1
    for size in sizes:
        sums |= sums << size
    sums >>= least
    return None if not sums else least + (sums & -sums).bit_length() - 1


def demand_of(workload: Workload) -> Demand:
    """Return the demand of one workload; memory and segments are rounded up to whole hugepages."""
    size = sum(align_up(part, workload.pages or 1) for part in (workload.memory, workload.segments))
    return Demand(workload.vcpus, workload.lcores, ((workload.pages or NORMAL_PAGES, size),) if size else ())
