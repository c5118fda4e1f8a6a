# SPDX-License-Identifier: BSD-3-Clause
"""Exhaustive search for an assignment of workload groups to NUMA nodes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, takewhile

from eal.errors import Stalled
from eal.topology.placement.demand import NO_DEMAND, Capacity, Demand, WorkloadGroup

MAX_DEAD_ENDS = 100_000


class Search:
    """Depth-first search: assigns a node to every group, except to a given number of groups that it leaves out.

    The least loaded node is tried first. The search is exact; three rules prune it: a state that failed is not
    searched again, only one of several equal nodes is tried, and a branch ends if the remaining groups need more than
    all nodes together have.
    """

    def __init__(self, groups: Sequence[WorkloadGroup], nodes: tuple[Capacity, ...]) -> None:
        self.groups = groups
        self.nodes = nodes
        self.assignment: list[int | None] = []
        """Index of the node of each group, None for a group that is left out."""
        self._dead_ends: set[tuple[object, ...]] = set()
        self._node_keys = [self._node_key(node) for node in nodes]
        self._capacity = {"cpus": sum(node.cpus for node in nodes)}
        for node in nodes:
            for pool, size in node.memory:
                self._capacity[_pool_key(pool)] = self._capacity.get(_pool_key(pool), 0) + size
        self._smallest_sums = [self._sum_smallest(groups[index:]) for index in range(len(groups))]

    def run(self, index: int, skips: int, used: tuple[Demand, ...]) -> bool:
        """Assign the groups from `index` on and return whether that succeeded.

        `skips` is the number of groups that may be left out, `used` is the demand already assigned to each node.
        Raise Stalled after MAX_DEAD_ENDS dead ends.
        """
        if index == len(self.groups):
            return True
        state = (index, skips, *sorted(zip(self._node_keys, used, strict=True)))
        if state in self._dead_ends or not self._can_fit(index, skips, used):
            return False
        group = self.groups[index]
        for node in self._candidates(group, used):
            next_used = (*used[:node], used[node] + group.demand, *used[node + 1 :])
            if self._assign([node], index, skips, next_used):
                return True
        equal = self._count_equal(index)
        if equal <= skips and self._assign([None] * equal, index, skips - equal, used):
            return True
        if len(self._dead_ends) >= MAX_DEAD_ENDS:
            raise Stalled(f"no plan found within {MAX_DEAD_ENDS} dead ends; add node=N to workloads or plan fewer")
        self._dead_ends.add(state)
        return False

    def _assign(self, nodes: Sequence[int | None], index: int, skips: int, used: tuple[Demand, ...]) -> bool:
        self.assignment += nodes
        if self.run(index + len(nodes), skips, used):
            return True
        del self.assignment[-len(nodes) :]
        return False

    def _count_equal(self, index: int) -> int:
        """Return the length of the run of equal groups from `index` on.

        Equal groups are interchangeable: only the last ones are ever left out, so the run is left out as a whole.
        """
        first = self.groups[index]
        equal = takewhile(lambda g: (g.demand, g.node) == (first.demand, first.node), self.groups[index:])
        return sum(1 for _ in equal)

    def _node_key(self, node: Capacity) -> tuple[object, ...]:
        """Return a key that is equal for interchangeable nodes.

        Memory is capped at the amount that the groups on the node's CPUs can use.
        """
        smallest = min((group.demand.cpus for group in self.groups), default=1)
        most_groups = node.cpus // max(1, smallest)
        usable = []
        for pool, size in node.memory:
            needs = sorted((dict(group.demand.memory).get(pool, 0) for group in self.groups), reverse=True)
            usable.append((pool, min(size, sum(needs[:most_groups]))))
        is_named = any(group.node == node.node for group in self.groups)
        return (tuple(sorted(map(len, node.cores))), tuple(usable), node.node if is_named else -1)

    def _candidates(self, group: WorkloadGroup, used: tuple[Demand, ...]) -> list[int]:
        """Return the nodes with enough free capacity for the group, least loaded first, one of each equal kind."""
        nodes = self.nodes
        seen = set()
        candidates = []
        for index in sorted(range(len(nodes)), key=lambda i: (used[i].cpus - nodes[i].cpus, i)):
            key = (self._node_keys[index], used[index])
            if key in seen or group.node not in (None, nodes[index].node):
                continue
            seen.add(key)
            if nodes[index].fits(used[index] + group.demand):
                candidates.append(index)
        return candidates

    def _sum_smallest(self, groups: Sequence[WorkloadGroup]) -> dict[str, list[int]]:
        """Return, for each resource, a list: entry n is the sum of the n smallest demands of these groups."""
        demands = [_by_resource(group.demand) for group in groups]
        return {
            key: list(accumulate(sorted(demand.get(key, 0) for demand in demands), initial=0)) for key in self._capacity
        }

    def _can_fit(self, index: int, skips: int, used: tuple[Demand, ...]) -> bool:
        """Return whether all nodes together have enough for the smallest remaining groups that must be placed."""
        total = _by_resource(sum(used, NO_DEMAND))
        least = max(0, len(self.groups) - index - skips)
        sums = self._smallest_sums[index]
        return all(sums[key][least] + total.get(key, 0) <= size for key, size in self._capacity.items())


def _by_resource(demand: Demand) -> dict[str, int]:
    return {"cpus": demand.cpus, **{_pool_key(pool): size for pool, size in demand.memory}}


def _pool_key(pool: int) -> str:
    return f"pages {pool}"
