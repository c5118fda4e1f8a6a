# SPDX-License-Identifier: BSD-3-Clause
"""Participants: the table in a segment's header with one slot for each thread and hotplug monitor that uses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from eal._native import ffi, lib
from eal.linux import process
from eal.linux.mapping import Mapping

PARTICIPANTS: int = lib.IVS_PARTICIPANTS


def share_word(metadata: UUID) -> int:
    """Return the word by which hotplug monitors identify a metadata file in the participant table."""
    word: int = lib.ivs_share_word(metadata.bytes)
    return word


@dataclass(frozen=True, slots=True)
class Participant:
    """A slot in use: its owner word and process word (`eal.linux.process`), and whether both are known to be dead.

    A hotplug monitor also has the `share_word` of its share, a heartbeat counter, and the number of the last unplug
    that it acknowledged. These are 0 for other participants.
    """

    slot: int
    owner: int
    process: int
    dead: bool
    heartbeat: int = 0
    ack: int = 0
    share: int = 0

    @property
    def pid(self) -> int:
        """The process id, 0 if not recorded."""
        return process.decode_owner(self.owner, self.process).pid


def read_participants(base: Any) -> list[Participant]:
    """Return the slots in use of the segment whose header is at `base`."""
    seen = ffi.new("struct ivs_participant_info *")
    found = []
    for slot in range(PARTICIPANTS):
        lib.ivs_participant_read(base, slot, seen)
        if seen.owner:
            dead = process.is_dead(seen.owner, seen.process)
            found.append(Participant(slot, seen.owner, seen.process, dead, seen.heartbeat, seen.ack, seen.share))
    return found


def claim_free(base: Any, owner: int) -> int:
    """Claim a free slot for an owner word of this process. Return its index, or -1 if every slot is in use."""
    index: int = lib.ivs_participant_claim(base, owner, process.process_word())
    return index


def adopt_dead(base: Any, owner: int) -> int:
    """Adopt a dead participant's slot for an owner word of this process. Return its index, or -1 if none is dead."""
    word = process.process_word()
    for found in read_participants(base):
        if found.dead and lib.ivs_participant_adopt(base, found.slot, found.owner, owner, word) == 0:
            return found.slot
    return -1


class Slot:
    """The calling thread's slot in a segment's participant table; released when the last reference is dropped."""

    def __init__(self, mapping: Mapping, base: Any, index: int, owner: int) -> None:
        self.index = index
        self.owner = owner
        self._base = base  # keeps the pages mapped until the slot is released
        self._pages = mapping.pages
        self._forks = process.fork_count()

    def __del__(self) -> None:
        if self._forks == process.fork_count() and self._pages.mapped:
            lib.ivs_participant_release(self._base, self.index, self.owner)


def claim_slot(mapping: Mapping) -> Slot | None:
    """Claim a slot for the calling thread in a mapped segment; None if live participants use all of them.

    A dead participant's slot is preferred: the objects in its mempool caches become usable again.
    """
    owner = process.owner_word()
    base = mapping.pointer()
    index = adopt_dead(base, owner)
    if index < 0:
        index = claim_free(base, owner)
    return Slot(mapping, base, index, owner) if index >= 0 else None
