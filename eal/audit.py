"""Audits: where each object of a pool is, and who has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eal.segment import Participant

_SHOWN = 16  # indices of one kind that the text names


@dataclass(frozen=True)
class Audit:
    """What holds each object of a pool; consistent only while nobody works the pool.

    `free`: in the shared list. `cached`: by participant slot, what its cache holds, the dead's too. `in_hand`: all
    others, `lost` of which nobody is counted as having. `holders`: with MempoolFlag.DEBUG, by owner word, what each one
    took and did not put back. `twice`: indices found in two places. `foreign`: how many indices in caches are none of
    this pool's. `participants`: who has which slot.
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

    @property
    def ok(self) -> bool:
        """Whether every index is in one place, and those in nobody's are in somebody's hand."""
        return not self.twice and not self.foreign and not self.lost

    def who(self, owner: int) -> str:
        """An owner word as text: machine, thread, and whether that is known to be dead."""
        dead = any(p.owner == owner and p.dead for p in self.participants)
        return f"machine {owner >> 32:08x} thread {owner & 0xFFFF_FFFF}{' (dead)' if dead else ''}"

    def __str__(self) -> str:
        """A line for each place, as `rte_mempool_dump` counts them."""
        lines = [f"{self.n} objects, {len(self.free)} in the shared list"]
        owners = {p.slot: self.who(p.owner) for p in self.participants}
        for slot, objects in sorted(self.cached.items()):
            lines.append(f"{len(objects)} in the cache of slot {slot}, {owners.get(slot, 'which nobody has now')}")
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
