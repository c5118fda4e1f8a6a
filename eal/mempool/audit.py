# SPDX-License-Identifier: BSD-3-Clause
"""Mempool audit: the location and the user of each object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from eal.errors import Invalid
from eal.linux import process

if TYPE_CHECKING:
    from eal.memory.participant import Participant

_SHOWN = 16  # indices per line of the text


class IndexRing(Protocol):
    """A ring whose elements are object indices, as `eal.Ring` with `elem_size` 4."""

    @property
    def name(self) -> str:
        """The name of the ring."""

    @property
    def elem_size(self) -> int:
        """Bytes of an element."""

    def elements(self) -> list[int]:
        """Return the queued elements."""


@dataclass(frozen=True)
class Audit:
    """The location of each object of a mempool; consistent only while no participant uses the mempool.

    `free`: objects in the shared bitmap. `cached`: objects in caches, by participant slot, including dead participants.
    `in_hand`: all other objects, which callers use; of these, `lost` objects are counted for no participant. `holders`
    (with MempoolFlag.DEBUG): objects in `in_hand` by owner word of their user. `twice`: objects found in two places.
    `foreign`: number of cached indices that are not less than `n`. `participants`: the slots in use. `in_rings`: by
    ring name, the objects queued in the rings passed to `audit`; not in `in_hand`.
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
        """Objects of dead participants by owner word: cached ones and, with MempoolFlag.DEBUG, those in `holders`."""
        slots = {p.slot: p.owner for p in self.participants if p.dead}
        found = {owner: list(self.cached.get(slot, ())) for slot, owner in slots.items()}
        for owner, objects in self.holders.items():
            if self._is_dead(owner):
                found.setdefault(owner, []).extend(objects)
        return {owner: sorted(objects) for owner, objects in found.items()}

    def _is_dead(self, owner: int) -> bool:
        """Return whether the participant is dead: by its slot, or by its thread if it has no slot any more."""
        slots = [p for p in self.participants if p.owner == owner]
        return any(p.dead for p in slots) if slots else process.is_dead(owner, 0)

    @property
    def ok(self) -> bool:
        """Whether each object is in exactly one place, and none is lost."""
        return not self.twice and not self.foreign and not self.lost

    def who(self, owner: int) -> str:
        """Return an owner word as text: machine, thread, and "(dead)" if the participant is dead."""
        return process.format_owner(owner, state="dead" if self._is_dead(owner) else "")

    def beside(self, rings: Iterable[IndexRing]) -> Audit:
        """Return a copy in which the objects queued in `rings` are in `in_rings` instead of `in_hand`.

        Raise Invalid for a ring whose elements do not have 4 bytes.
        """
        in_hand, in_rings = set(self.in_hand), {}
        for ring in rings:
            if ring.elem_size != 4:
                raise Invalid(f"ring {ring.name!r}: elem_size must be 4 to contain indices, got {ring.elem_size}")
            queued = ring.elements()
            in_rings[ring.name] = [index for index in queued if index in in_hand]
            in_hand.difference_update(queued)
        holders = {owner: [i for i in objects if i in in_hand] for owner, objects in self.holders.items()}
        return replace(
            self,
            in_hand=sorted(in_hand),
            in_rings=in_rings,
            holders={owner: objects for owner, objects in holders.items() if objects},
        )

    def __str__(self) -> str:
        """Return one line per location, as `rte_mempool_dump` does."""
        lines = [f"{self.n} objects, {len(self.free)} in the shared bitmap"]
        owners = {p.slot: self.who(p.owner) for p in self.participants}
        # Dead participants are listed even if their cache is empty.
        dead: dict[int, list[int]] = {p.slot: [] for p in self.participants if p.dead}
        for slot, objects in sorted({**dead, **self.cached}.items()):
            lines.append(f"{len(objects)} in the cache of slot {slot}, {owners.get(slot, 'not in use')}")
        for name, objects in self.in_rings.items():
            lines.append(f"{len(objects)} in ring {name!r}")
        if self.in_hand:
            lines.append(f"{len(self.in_hand)} in use: {_listed(self.in_hand)}")
        for owner, objects in sorted(self.holders.items()):
            lines.append(f"  {len(objects)} by {self.who(owner)}: {_listed(objects)}")
        if self.lost:
            lines.append(f"{self.lost} lost: neither free nor counted as in use")
        if self.twice:
            lines.append(f"{len(self.twice)} in two places: {_listed(self.twice)}")
        if self.foreign:
            lines.append(f"{self.foreign} invalid indices in caches (not less than {self.n})")
        return "\n".join(lines)


def _listed(indices: list[int]) -> str:
    text = ", ".join(map(str, indices[:_SHOWN]))
    return f"{text}, ..." if len(indices) > _SHOWN else text
