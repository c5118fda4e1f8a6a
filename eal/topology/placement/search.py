# SPDX-License-Identifier: BSD-3-Clause
"""The exact search for a plan: which node each group of workloads goes to."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, takewhile

from eal.errors import Stalled
from eal.topology.placement.demand import NOTHING, Bundle, Demand, Room

MOST_STATES = 100_000


class Search:
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
