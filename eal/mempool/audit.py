# SPDX-License-Identifier: BSD-3-Clause
"""Audits: where each object of a pool is, and who has it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from eal.errors import Invalid
from eal.linux import process

if TYPE_CHECKING:
    from eal.memory.participant import Participant
    from eal.ring.ring import Ring

_SHOWN = 16  # indices of one kind that the text names


@dataclass(frozen=True)
class Audit:
    """What holds each object of a pool; consistent only while nobody works the pool.

    `free`: in the shared list. `cached`: by participant slot, what its cache holds, the dead's too. `in_hand`: all
    others, `lost` of which nobody is counted as having. `holders`: with MempoolFlag.DEBUG, by owner word, what each one
    took and did not put back. `twice`: indices found in two places. `foreign`: how many indices in caches are none of
    this pool's. `participants`: who has which slot. `in_rings`: by ring, what stands in those that the audit was told
    of; it is not among `in_hand` then.
    """

    n: int
    free: list[int]
    cached: dict[int, list[int]]
    in_hand: list[int]
    twice: list[int]
    foreign: int
    lost: int = 0
    participants: list[Participant] = field(default_factory=list)
    holders: dict[int, list[int]] = field(default_factory=dict)
    in_rings: dict[str, list[int]] = field(default_factory=dict)

    @property
    def dead(self) -> dict[int, list[int]]:
        """By owner word, what participants that are known to be dead hold: what is in their caches and, with
        MempoolFlag.DEBUG, what they took that is in nobody else's place.
        """
        slots = {p.slot: p.owner for p in self.participants if p.dead}
        found = {owner: list(self.cached.get(slot, ())) for slot, owner in slots.items()}
        for owner, objects in self.holders.items():
            if self._is_dead(owner):
                found.setdefault(owner, []).extend(objects)
        return {owner: sorted(objects) for owner, objects in found.items()}

    def _is_dead(self, owner: int) -> bool:
        """By its slot, or where another one has that by now, by its thread."""
        slots = [p for p in self.participants if p.owner == owner]
        return any(p.dead for p in slots) if slots else process.is_dead(owner, 0)

    @property
    def ok(self) -> bool:
        """Whether every index is in one place, and those in nobody's are in somebody's hand."""
        return not self.twice and not self.foreign and not self.lost

    def who(self, owner: int) -> str:
        """An owner word as text: machine, thread, and whether that is known to be dead."""
        return process.format_owner(owner, state="dead" if self._is_dead(owner) else "")

    def beside(self, rings: Iterable[Ring]) -> Audit:
        """The same, with what stands in these rings of indices told apart from what is in hand.

        Raises Invalid for a ring whose elements are no 4-byte indices.
        """
        in_hand, places = set(self.in_hand), {}
        for ring in rings:
            if ring.elem_size != 4:
                raise Invalid(f"ring {ring.name!r} has elements of {ring.elem_size} bytes, an index has 4")
            there = ring.elements()
            places[ring.name] = [index for index in there if index in in_hand]
            in_hand.difference_update(there)
        holders = {owner: [i for i in objects if i in in_hand] for owner, objects in self.holders.items()}
        return replace(
            self,
            in_hand=sorted(in_hand),
            in_rings=places,
            holders={owner: objects for owner, objects in holders.items() if objects},
        )

    def __str__(self) -> str:
        """A line for each place, as `rte_mempool_dump` counts them."""
        lines = [f"{self.n} objects, {len(self.free)} in the shared list"]
        owners = {p.slot: self.who(p.owner) for p in self.participants}
        dead: dict[int, list[int]] = {
            p.slot: [] for p in self.participants if p.dead
        }  # named even where they hold nothing
        for slot, objects in sorted({**dead, **self.cached}.items()):
            lines.append(f"{len(objects)} in the cache of slot {slot}, {owners.get(slot, 'which nobody has now')}")
        for name, objects in self.in_rings.items():
            lines.append(f"{len(objects)} in ring {name!r}")
        if self.in_hand:
            lines.append(f"{len(self.in_hand)} in hand: {_listed(self.in_hand)}")
        for owner, objects in sorted(self.holders.items()):
            lines.append(f"  {len(objects)} of {self.who(owner)}: {_listed(objects)}")
        if self.lost:
            lines.append(f"{self.lost} lost: out of the list, and nobody is counted as having them")
        if self.twice:
            lines.append(f"{len(self.twice)} in two places: {_listed(self.twice)}")
        if self.foreign:
            lines.append(f"{self.foreign} indices in caches that are none of this pool's")
        return "\n".join(lines)


def _listed(indices: list[int]) -> str:
    text = ", ".join(map(str, indices[:_SHOWN]))
    return f"{text}, ..." if len(indices) > _SHOWN else text
