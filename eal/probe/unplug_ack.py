# SPDX-License-Identifier: BSD-3-Clause
"""Monitor slot: the participant slot in which a process acknowledges the unplug of a share."""

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
    """A participant slot with its own mapping of the segment's header page: independent of all views, and usable
    without the right to open the device when the acknowledgement is due.
    """

    def __init__(self, metadata: UUID, carrier: SegmentDevice) -> None:
        """Claim a slot; `index` is -1 if none is available, and then no host waits for this process."""
        self.segment = carrier.record.uuid
        self.carrier = carrier
        self.owner = process.owner_word()
        self.page = carrier.bar().map(HEADER_SIZE, writable=True)
        self._forks = process.fork_count()
        # Prefer a free slot: objects in the mempool cache of a dead participant's slot are for threads that use the
        # pools.
        self.index = claim_free(self._base(), self.owner)
        if self.index < 0:
            self.index = adopt_dead(self._base(), self.owner)
        if self.index >= 0 and lib.ivs_participant_guard(self._base(), self.index, self.owner, share_word(metadata)):
            self.index = -1  # writes are dropped, or a peer overwrites the slots
        if self.index < 0:
            log.warning("%s: no free participant slot: an unplug will not wait for this process", carrier.address)

    def _base(self) -> Any:
        return self.page.pointer()

    def move(self, carrier: SegmentDevice) -> None:
        """Map the same slot through another device of the segment."""
        self.page.replace(carrier.bar().map(HEADER_SIZE, writable=True))
        self.carrier = carrier

    def acknowledge(self, announcement: int) -> None:
        """Acknowledge that this process has detached. Only this page of the share is still mapped."""
        if self.index >= 0:
            lib.ivs_participant_acknowledge(self._base(), self.index, self.owner, announcement)

    def leave(self) -> None:
        """Release the slot and the page. In a forked child the slot belongs to the parent and is kept."""
        if self._forks == process.fork_count() and self.index >= 0:
            lib.ivs_participant_release(self._base(), self.index, self.owner)
        self.index = -1
        self.page.detach()

    def lose(self) -> None:
        """Stop writing to the page, because the device was removed."""
        self.index = -1
        self.page.detach()


def release_slots(carrier: SegmentDevice, slots: list[tuple[int, int]]) -> None:
    """Release slots, as (index, owner), of this process's threads in a segment that is already detached, so that no
    thread can reach them. Cached objects stay for the next owner of the slot.
    """
    page: Mapping = carrier.bar().map(HEADER_SIZE, writable=True)
    for index, owner in slots:
        lib.ivs_participant_release(page.pointer(), index, owner)
    page.detach()
