# SPDX-License-Identifier: BSD-3-Clause
"""The exact search for a plan: which node each group of workloads goes to.

The rules: a group stays on one node, with its memory and segments; a CPU has one user; no core has both a
polling lcore and a vCPU. A search that finds nothing has tried everything, so "does not fit" is a fact.
"""

from __future__ import annotations

from collections.abc import Iterable

from eal.errors import Invalid
from eal.topology.facts import Node
from eal.topology.model import Topology
from eal.topology.placement.cpus import place_on_node
from eal.topology.placement.demand import NORMAL_PAGES, NOTHING, Bundle, Demand, Room, demand_of
from eal.topology.placement.plan import Misfit, PlacementPlan
from eal.topology.placement.request import Request, Workload
from eal.topology.placement.search import Search

MOST_BUNDLES = 256


def solve(topology: Topology, request: Request) -> PlacementPlan:
    """The plan with the fewest groups left out.

    Raises NotFound when the request names a node or CPU that is not there, Invalid when a group names two
    nodes, Stalled when the search would take too long.
    """
    for cpu in request.exclude:
        topology.cpu(cpu)
    rooms = tuple(_room(topology, node, request.exclude) for node in topology.nodes)
    bundles = _bundles(topology, request.workloads)
    if len(bundles) > MOST_BUNDLES:
        raise Invalid(f"{len(bundles)} groups of workloads are too many for one plan: at most {MOST_BUNDLES}")
    search = Search(bundles, rooms)
    for left_out in range(len(bundles) + 1):  # leaving everything out always works
        if search.run(0, left_out, (NOTHING,) * len(rooms)):
            break
    return _finished(rooms, bundles, search.homes)


def _room(topology: Topology, node: Node, exclude: frozenset[int]) -> Room:
    """A node without excluded, offline and forbidden CPUs; a CPU of unknown core counts as a core."""
    cores: dict[tuple[str, int], list[int]] = {}
    for cpu in topology.cpus:
        if cpu.node == node.node and cpu.allowed and cpu.cpu not in exclude:
            key = ("cpu", cpu.cpu) if cpu.core is None else ("core", cpu.core)
            cores.setdefault(key, []).append(cpu.cpu)
    pools = {NORMAL_PAGES: node.available, **{pool.size: pool.free * pool.size for pool in node.hugepages}}
    return Room(node.node, tuple(tuple(core) for core in cores.values()), tuple(sorted(pools.items())))


def _bundles(topology: Topology, workloads: Iterable[Workload]) -> list[Bundle]:
    """Workloads by group, the largest first: what is hard to place is tried early."""
    groups: dict[tuple[bool, str], list[Workload]] = {}
    for workload in workloads:
        groups.setdefault((workload.group is None, workload.group or workload.name), []).append(workload)
    bundles = []
    for members in groups.values():
        forced = {workload.node for workload in members if workload.node is not None}
        if len(forced) > 1:
            raise Invalid(
                f"group {members[0].group!r} must be on one node, but its members name nodes {sorted(forced)}"
            )
        for node in forced:
            topology.node(node)
        demand = sum((demand_of(workload) for workload in members), NOTHING)
        bundles.append(Bundle(tuple(members), demand, next(iter(forced), None)))

    def size(bundle: Bundle) -> tuple[object, ...]:
        demand = bundle.demand
        return (demand.vcpus + demand.lcores, demand, -1 if bundle.node is None else bundle.node)

    return sorted(bundles, key=size, reverse=True)


def _finished(rooms: tuple[Room, ...], bundles: list[Bundle], homes: list[int | None]) -> PlacementPlan:
    """CPUs for what has a node, and words for what has none."""
    placements = []
    used = [NOTHING] * len(rooms)
    for index, room in enumerate(rooms):
        here = [bundle for bundle, home in zip(bundles, homes, strict=True) if home == index]
        used[index] = sum((bundle.demand for bundle in here), NOTHING)
        workloads = [workload for bundle in here for workload in bundle.workloads]
        placements += place_on_node(room.node, room.cores, workloads)
    misfits = [_misfit(b, rooms, used) for b, home in zip(bundles, homes, strict=True) if home is None]
    return PlacementPlan(tuple(placements), tuple(misfits), tuple(room.node for room in rooms))


def _misfit(bundle: Bundle, rooms: tuple[Room, ...], used: list[Demand]) -> Misfit:
    """Why a bundle was left out, and the most of it that fits: lcores first, then vCPUs, then memory."""
    candidates = [i for i, room in enumerate(rooms) if bundle.node in (None, room.node)]
    reasons = [reason for i in candidates for reason in rooms[i].lacks(bundle.demand)[:1]]
    if len(reasons) < len(candidates):  # it fits alone, so the others are the reason
        reasons = [
            "beside the others, " + reason for i in candidates for reason in rooms[i].lacks(used[i] + bundle.demand)[:1]
        ]
    best = max(
        ((_most(bundle.demand, rooms[i], used[i]), -i) for i in candidates),
        key=lambda most: (
            most[0].lcores,
            most[0].vcpus,
            sum(amount for _, amount in most[0].memory),
            most[1],
        ),
    )
    most, room = best[0], rooms[-best[1]]
    memory = sum(amount for _, amount in most.memory)
    node = room.node if most.vcpus or most.lcores else None
    return Misfit(bundle.workloads, tuple(reasons), node, most.vcpus, most.lcores, memory)


def _most(wanted: Demand, room: Room, used: Demand) -> Demand:
    """The greatest part of a demand that fits a room beside what it has."""
    pools, taken = dict(room.memory), dict(used.memory)
    memory = tuple((pool, min(amount, pools.get(pool, 0) - taken.get(pool, 0))) for pool, amount in wanted.memory)
    for lcores in range(wanted.lcores, -1, -1):
        for vcpus in range(wanted.vcpus, -1, -1):
            most = Demand(vcpus, lcores, memory)
            if room.holds(used + most):
                return most
    return NOTHING
