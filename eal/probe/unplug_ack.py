# SPDX-License-Identifier: BSD-3-Clause
"""A guard's slot: the place in a segment from which a process answers when a share of it is to be unplugged."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from eal._native import lib
from eal.linux import process
from eal.linux.mapping import Mapping
from eal.memory.participant import adopt_dead, claim_free, share_word
from eal.memory.segment import HEADER_SIZE
from eal.probe.classify import SegmentDevice

log = logging.getLogger(__name__)


class MonitorSlot:
    """A slot among a segment's participants, with a mapping of the header page that is its own: no view keeps that, and
    it needs no right to open the device when the answer is due.
    """

    def __init__(self, metadata: UUID, carrier: SegmentDevice) -> None:
        """Takes a slot; `index` is -1 where there is none to be had, so that nobody waits for this process."""
        self.segment = carrier.record.uuid
        self.carrier = carrier
        self.owner = process.owner_word()
        self.page = carrier.bar().map(HEADER_SIZE, writable=True)
        self._forks = process.fork_count()
        # A free slot first: objects in a dead participant's mempool caches are for threads that use the pools.
        self.index = claim_free(self._base(), self.owner)
        if self.index < 0:
            self.index = adopt_dead(self._base(), self.owner)
        if self.index >= 0 and lib.ivs_participant_guard(self._base(), self.index, self.owner, share_word(metadata)):
            self.index = -1  # writes do not get there, or a peer scribbles over the slots
        if self.index < 0:
            log.warning("%s: no slot to be had: its host will not wait for this process", carrier.address)

    def _base(self) -> Any:
        return self.page.pointer()

    def move(self, carrier: SegmentDevice) -> None:
        """Stands in the same slot by way of another device of the segment."""
        self.page.replace(carrier.bar().map(HEADER_SIZE, writable=True))
        self.carrier = carrier

    def acknowledge(self, announcement: int) -> None:
        """Says that this process has let go. Nothing of the share is mapped then but this page."""
        if self.index >= 0:
            lib.ivs_participant_acknowledge(self._base(), self.index, self.owner, announcement)

    def leave(self) -> None:
        """Gives the slot up, and the page. Not in a forked child, where it is the parent's."""
        if self._forks == process.fork_count() and self.index >= 0:
            lib.ivs_participant_release(self._base(), self.index, self.owner)
        self.index = -1
        self.page.detach()

    def lose(self) -> None:
        """The device is gone: nothing is written there any more."""
        self.index = -1
        self.page.detach()


def give_up_slots(carrier: SegmentDevice, slots: list[tuple[int, int]]) -> None:
    """Frees slots, as (index, owner), of this process's threads in a segment that it has let go of already: none of
    them can reach it any more. What they had cached stays for who takes the slot next.
    """
    page: Mapping = carrier.bar().map(HEADER_SIZE, writable=True)
    for index, owner in slots:
        lib.ivs_participant_release(page.pointer(), index, owner)
    page.detach()
