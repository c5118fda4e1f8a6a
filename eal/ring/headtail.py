# SPDX-License-Identifier: BSD-3-Clause
"""Ends of rings as they lie in memory: for who looks at a ring from outside, or repairs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eal._native import ffi, lib

RING_HEADER = 384  # bytes before the first element: sizeof(struct rte_ring)
ENDS = ("producer", "consumer")
_ROLES = {"producer": lib.IVS_PRODUCER, "consumer": lib.IVS_CONSUMER}
_SYNCS = ("MT", "ST", "RTS", "HTS")


@dataclass(frozen=True, slots=True)
class EndState:
    """An end of a ring. `head` and `tail` are indices that wrap at 2**32, `sync` is "ST", "MT", "RTS" or "HTS".

    `half_moved`: somebody is between the move of the head and that of the tail, or died there. `owner`: who took an ST
    end over last (a word as in eal.linux.process), 0 where that is not recorded. `word` changes with each finished
    operation.
    """

    sync: str
    head: int
    tail: int
    half_moved: bool
    owner: int
    word: int

    @property
    def distance(self) -> int:
        """Elements that were reserved and are not finished."""
        return (self.head - self.tail) % (1 << 32)


def end_state(ring: Any, role: str) -> EndState:
    """What the "producer" or "consumer" end of an attached C ring looks like."""
    info = ffi.new("struct ivs_ring_end_info *")
    lib.ivs_ring_look(ring, _ROLES[role], info)
    return EndState(_SYNCS[info.sync & 3], info.head, info.tail, bool(info.half_moved), info.owner, info.word)


def undo(ring: Any, role: str, seen: EndState) -> int:
    """Undoes what was begun and not finished at an ST end that still is as `seen`: 1, 0 if it moved, or an errno."""
    info = ffi.new("struct ivs_ring_end_info *", {"head": seen.head, "tail": seen.tail})
    result: int = lib.ivs_ring_mend(ring, _ROLES[role], info)
    return result
