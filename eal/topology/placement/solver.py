# SPDX-License-Identifier: BSD-3-Clause
"""The exact search for a plan: which node each group of workloads goes to.

The rules: a group stays on one node, with its memory and segments; a CPU has one user; no core has both a
polling lcore and a vCPU. A search that finds nothing has tried everything, so "does not fit" is a fact.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, takewhile

from eal.errors import Invalid, Stalled
from eal.topology.facts import Node
from eal.topology.model import Topology
from eal.topology.placement.cpus import place_on_node
from eal.topology.placement.request import Misfit, Plan, Request, Workload

MOST_BUNDLES = 256
MOST_STATES = 100_000
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


def solve(topology: Topology, request: Request) -> Plan:
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
    search = _Search(bundles, rooms)
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


def demand_of(workload: Workload) -> Demand:
    """One workload's demand; hugepages are counted whole."""
    page = workload.pages or 1
    amount = sum(-(-size // page) * page for size in (workload.memory, workload.segments))
    return Demand(workload.vcpus, workload.lcores, ((workload.pages or NORMAL_PAGES, amount),) if amount else ())


class _Search:
    """One depth-first search: a home for each bundle, leaving out at most some of them.

    The emptiest node comes first. What failed once is not tried again, of nodes that are alike only one is
    tried, and a branch ends where what is still to be placed is more than all nodes together have.
    """

    def __init__(self, bundles: Sequence[Bundle], rooms: tuple[Room, ...]) -> None:
        self.bundles = bundles
        self.rooms = rooms
        self.homes: list[int | None] = []
        self.failed: set[tuple[object, ...]] = set()
        self.kinds = [self._kind(room) for room in rooms]
        self.offered = {"cpus": sum(room.cpus for room in rooms)}
        for room in rooms:
            for pool, amount in room.memory:
                self.offered[_key(pool)] = self.offered.get(_key(pool), 0) + amount
        self.sums = [self._smallest_sums(bundles[index:]) for index in range(len(bundles))]

    def run(self, index: int, skips: int, used: tuple[Demand, ...]) -> bool:
        """Place bundles from `index` on, beside what is `used`; true when `homes` says how."""
        if index == len(self.bundles):
            return True
        state = (index, skips, *sorted(zip(self.kinds, used, strict=True)))
        if state in self.failed or not self._enough(index, skips, used):
            return False
        bundle = self.bundles[index]
        for choice in self._choices(bundle, used):
            after = (*used[:choice], used[choice] + bundle.demand, *used[choice + 1 :])
            if self._try([choice], index, skips, after):
                return True
        twins = self._twins(index)
        if twins <= skips and self._try([None] * twins, index, skips - twins, used):
            return True
        if len(self.failed) >= MOST_STATES:
            raise Stalled(f"the plan's search gave up after {MOST_STATES} dead ends: name nodes (node=N) or plan less")
        self.failed.add(state)
        return False

    def _try(self, homes: Sequence[int | None], index: int, skips: int, used: tuple[Demand, ...]) -> bool:
        self.homes += homes
        if self.run(index + len(homes), skips, used):
            return True
        del self.homes[-len(homes) :]
        return False

    def _twins(self, index: int) -> int:
        """How many bundles from here on are alike. They are left out together: the first ones are placed."""
        first = self.bundles[index]
        alike = takewhile(lambda b: (b.demand, b.node) == (first.demand, first.node), self.bundles[index:])
        return sum(1 for _ in alike)

    def _kind(self, room: Room) -> tuple[object, ...]:
        """Equal for nodes that can replace each other; memory beyond what their CPUs can use is no matter."""
        smallest = min((b.demand.vcpus + b.demand.lcores for b in self.bundles), default=1)
        most = room.cpus // max(1, smallest)
        useful = []
        for pool, amount in room.memory:
            wanted = sorted((dict(b.demand.memory).get(pool, 0) for b in self.bundles), reverse=True)
            useful.append((pool, min(amount, sum(wanted[:most]))))
        named = any(bundle.node == room.node for bundle in self.bundles)
        return (tuple(sorted(map(len, room.cores))), tuple(useful), room.node if named else -1)

    def _choices(self, bundle: Bundle, used: tuple[Demand, ...]) -> list[int]:
        """Rooms that hold the bundle beside what they have, without those that are like an earlier one."""
        rooms = self.rooms
        seen = set()
        choices = []
        for index in sorted(range(len(rooms)), key=lambda i: (used[i].vcpus + used[i].lcores - rooms[i].cpus, i)):
            alike = (self.kinds[index], used[index])
            if alike in seen or bundle.node not in (None, rooms[index].node):
                continue
            seen.add(alike)
            if rooms[index].holds(used[index] + bundle.demand):
                choices.append(index)
        return choices

    def _smallest_sums(self, left: Sequence[Bundle]) -> dict[str, list[int]]:
        """For each resource, what the n smallest of these bundles take together, n from 0 on."""
        amounts = [_amounts(bundle.demand) for bundle in left]
        return {
            key: list(accumulate(sorted(amount.get(key, 0) for amount in amounts), initial=0)) for key in self.offered
        }

    def _enough(self, index: int, skips: int, used: tuple[Demand, ...]) -> bool:
        """Could the smallest of what is left fit, if all nodes were one?"""
        total = _amounts(sum(used, NOTHING))
        least = max(0, len(self.bundles) - index - skips)
        sums = self.sums[index]
        return all(sums[key][least] + total.get(key, 0) <= offered for key, offered in self.offered.items())


def _amounts(demand: Demand) -> dict[str, int]:
    return {"cpus": demand.vcpus + demand.lcores, **{_key(pool): amount for pool, amount in demand.memory}}


def _key(pool: int) -> str:
    return f"pages {pool}"


def _finished(rooms: tuple[Room, ...], bundles: list[Bundle], homes: list[int | None]) -> Plan:
    """CPUs for what has a node, and words for what has none."""
    placements = []
    used = [NOTHING] * len(rooms)
    for index, room in enumerate(rooms):
        here = [bundle for bundle, home in zip(bundles, homes, strict=True) if home == index]
        used[index] = sum((bundle.demand for bundle in here), NOTHING)
        workloads = [workload for bundle in here for workload in bundle.workloads]
        placements += place_on_node(room.node, room.cores, workloads)
    misfits = [_misfit(b, rooms, used) for b, home in zip(bundles, homes, strict=True) if home is None]
    return Plan(tuple(placements), tuple(misfits), tuple(room.node for room in rooms))


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
