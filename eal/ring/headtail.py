# SPDX-License-Identifier: BSD-3-Clause
"""Head and tail of one side of a ring, for diagnostics and recovery (DPDK: struct rte_ring_headtail)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eal._native import ffi, lib

SIDES = ("producer", "consumer")
_ROLES = {"producer": lib.IVS_PRODUCER, "consumer": lib.IVS_CONSUMER}
_SYNCS = ("MT", "ST", "RTS", "HTS")


@dataclass(frozen=True, slots=True)
class HeadTail:
    """A snapshot of one side. `head` and `tail` are indices that wrap at 2**32, `sync` is "ST", "MT", "RTS" or "HTS".

    `incomplete`: elements are reserved but not published. `owner`: owner word of the process that acquired an ST side
    last (eal.linux.process), 0 if not recorded. `word` changes with each completed operation.
    """

    sync: str
    head: int
    tail: int
    incomplete: bool
    owner: int
    word: int

    @property
    def distance(self) -> int:
        """Number of elements that are reserved but not published."""
        return (self.head - self.tail) % (1 << 32)


def read_headtail(ring: Any, side: str) -> HeadTail:
    """Return the "producer" or "consumer" side of an attached C ring."""
    info = ffi.new("struct ivs_ring_headtail *")
    lib.ivs_ring_headtail_get(ring, _ROLES[side], info)
    return HeadTail(_SYNCS[info.sync & 3], info.head, info.tail, bool(info.incomplete), info.owner, info.word)


def rollback(ring: Any, side: str, seen: HeadTail) -> int:
    """Roll back an incomplete operation of an ST side that is as `seen`: 1, 0 if it moved, or a negative errno."""
    info = ffi.new("struct ivs_ring_headtail *", {"head": seen.head, "tail": seen.tail})
    result: int = lib.ivs_ring_rollback(ring, _ROLES[side], info)
    return result
