# SPDX-License-Identifier: BSD-3-Clause
"""Solver: turns a placement request into the plan that leaves out the fewest workload groups.

Rules of a plan: a group stays on one node, with its memory and segments; a CPU runs one vCPU or lcore; no core runs
both a polling lcore and a vCPU. The search is exhaustive, so a group that is left out cannot be placed.
"""

from __future__ import annotations

from collections.abc import Iterable

from eal.errors import Invalid
from eal.topology.facts import Node
from eal.topology.model import Topology
from eal.topology.placement.cpus import place_on_node
from eal.topology.placement.demand import NO_DEMAND, NORMAL_PAGES, Capacity, Demand, WorkloadGroup, demand_of
from eal.topology.placement.plan import Misfit, PlacementPlan
from eal.topology.placement.request import Request, Workload
from eal.topology.placement.search import Search

MAX_GROUPS = 256


def solve(topology: Topology, request: Request) -> PlacementPlan:
    """Return the plan that leaves out the fewest groups.

    Raise NotFound if the request names a node or CPU that the machine does not have, Invalid if a group names two
    nodes or there are more than MAX_GROUPS groups, Stalled if the search exceeds its limit.
    """
    for cpu in request.exclude:
        topology.cpu(cpu)
    nodes = tuple(_capacity(topology, node, request.exclude) for node in topology.nodes)
    groups = _groups(topology, request.workloads)
    if len(groups) > MAX_GROUPS:
        raise Invalid(f"plan must have at most {MAX_GROUPS} groups of workloads, got {len(groups)}")
    search = Search(groups, nodes)
    for skips in range(len(groups) + 1):  # always ends: the search succeeds if all groups may be left out
        if search.run(0, skips, (NO_DEMAND,) * len(nodes)):
            break
    return _plan(nodes, groups, search.assignment)


def _capacity(topology: Topology, node: Node, exclude: frozenset[int]) -> Capacity:
    """Return the node's capacity without excluded, offline and forbidden CPUs.

    A CPU whose core is unknown counts as a core of its own.
    """
    cores: dict[tuple[str, int], list[int]] = {}
    for cpu in topology.cpus:
        if cpu.node == node.node and cpu.allowed and cpu.cpu not in exclude:
            key = ("cpu", cpu.cpu) if cpu.core is None else ("core", cpu.core)
            cores.setdefault(key, []).append(cpu.cpu)
    pools = {NORMAL_PAGES: node.available, **{pool.size: pool.free * pool.size for pool in node.hugepages}}
    return Capacity(node.node, tuple(tuple(core) for core in cores.values()), tuple(sorted(pools.items())))


def _groups(topology: Topology, workloads: Iterable[Workload]) -> list[WorkloadGroup]:
    """Return the groups of workloads, the largest first: they have the fewest candidate nodes."""
    members_of: dict[tuple[bool, str], list[Workload]] = {}
    for workload in workloads:
        members_of.setdefault((workload.group is None, workload.group or workload.name), []).append(workload)
    groups = []
    for members in members_of.values():
        nodes = {workload.node for workload in members if workload.node is not None}
        if len(nodes) > 1:
            raise Invalid(f"members of group {members[0].group!r} must name the same node, got nodes {sorted(nodes)}")
        for node in nodes:
            topology.node(node)
        demand = sum((demand_of(workload) for workload in members), NO_DEMAND)
        groups.append(WorkloadGroup(tuple(members), demand, next(iter(nodes), None)))

    def size(group: WorkloadGroup) -> tuple[object, ...]:
        return (group.demand.cpus, group.demand, -1 if group.node is None else group.node)

    return sorted(groups, key=size, reverse=True)


def _plan(nodes: tuple[Capacity, ...], groups: list[WorkloadGroup], assignment: list[int | None]) -> PlacementPlan:
    """Return the plan: CPUs for each group with a node, a Misfit for each group without."""
    placements = []
    used = [NO_DEMAND] * len(nodes)
    for index, node in enumerate(nodes):
        assigned = [group for group, choice in zip(groups, assignment, strict=True) if choice == index]
        used[index] = sum((group.demand for group in assigned), NO_DEMAND)
        workloads = [workload for group in assigned for workload in group.workloads]
        placements += place_on_node(node.node, node.cores, workloads)
    misfits = [_misfit(group, nodes, used) for group, choice in zip(groups, assignment, strict=True) if choice is None]
    return PlacementPlan(tuple(placements), tuple(misfits), tuple(node.node for node in nodes))


def _misfit(group: WorkloadGroup, nodes: tuple[Capacity, ...], used: list[Demand]) -> Misfit:
    """Return the reason of each candidate node, and the largest part of the group that fits beside the placed groups.

    The largest part is the one with the most lcores, then the most vCPUs, then the most memory.
    """
    candidates = [i for i, node in enumerate(nodes) if group.node in (None, node.node)]
    reasons = [reason for i in candidates for reason in nodes[i].shortages(group.demand)[:1]]
    if len(reasons) < len(candidates):  # the group fits an empty node, so the placed groups are the reason
        reasons = [
            "beside the placed workloads, " + reason
            for i in candidates
            for reason in nodes[i].shortages(used[i] + group.demand)[:1]
        ]
    largest, best = max(
        ((_largest_part(group.demand, nodes[i], used[i]), -i) for i in candidates),
        key=lambda part: (part[0].lcores, part[0].vcpus, sum(size for _, size in part[0].memory), part[1]),
    )
    memory = sum(size for _, size in largest.memory)
    node = nodes[-best].node if largest.cpus else None
    return Misfit(group.workloads, tuple(reasons), node, largest.vcpus, largest.lcores, memory)


def _largest_part(wanted: Demand, node: Capacity, used: Demand) -> Demand:
    """Return the largest part of a demand that fits a node beside the demand already assigned to it."""
    pools, taken = dict(node.memory), dict(used.memory)
    memory = tuple((pool, min(size, pools.get(pool, 0) - taken.get(pool, 0))) for pool, size in wanted.memory)
    for lcores in range(wanted.lcores, -1, -1):
        for vcpus in range(wanted.vcpus, -1, -1):
            part = Demand(vcpus, lcores, memory)
            if node.fits(used + part):
                return part
    return NO_DEMAND
