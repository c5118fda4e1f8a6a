# SPDX-License-Identifier: BSD-3-Clause
"""Unplug handshake: announce an unplug in a metadata file, and wait until every guest process has acknowledged it.

The guest side is `eal.probe.unplug_ack`: a hotplug monitor detaches the share, then acknowledges.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack

from eal._native import lib
from eal.errors import EalError, Stalled
from eal.linux import process
from eal.memory.participant import Participant, share_word
from eal.memory.segment import Segment, open_segment
from eal.metadata.records import SegmentRecord
from eal.metadata.table_file import TableFile

log = logging.getLogger(__name__)

_POLL = 0.01  # seconds between two reads of the monitor slots
_SILENT = 2.0  # seconds without a heartbeat after which a monitor's process is considered dead
_NO_SLOTS = 1.0  # seconds for guests that cannot acknowledge, because no segment is writable for them


def set_announcement(file: TableFile, number: int) -> None:
    """Announce an unplug by a number that is not 0."""
    lib.ivs_table_set_leaving(file.mapping.pointer(), number)


def withdraw_announcement(file: TableFile) -> None:
    """Withdraw the announcement of an unplug that is complete or was given up. Guests then attach again."""
    lib.ivs_table_set_leaving(file.mapping.pointer(), 0)


def announce_unplug(
    file: TableFile, segments: Sequence[SegmentRecord], number: int, timeout: float, *, force: bool = False
) -> None:
    """Announce an unplug, and wait until every guest process has acknowledged it.

    `segments` are those of the metadata file, with paths. `timeout` is in seconds.

    Raise as `await_acknowledgements` and withdraw the announcement; with `force`, log the error and leave the
    announcement in place.
    """
    set_announcement(file, number)
    try:
        _await_guests(file, [one for one in segments if not one.readonly and one.path], number, timeout)
    except EalError as error:
        if force:
            log.warning("%s; continuing because of force", error)
            return
        withdraw_announcement(file)
        raise


def _await_guests(file: TableFile, records: Sequence[SegmentRecord], number: int, timeout: float) -> None:
    """Wait for the acknowledgements in the segments to which guests can write; without any, wait a fixed time."""
    if not records:
        time.sleep(_NO_SLOTS)
        return
    with ExitStack() as stack:
        segments = [open_segment(record) for record in records]
        for segment in segments:
            stack.callback(segment.close)
        await_acknowledgements(file, segments, number, timeout)


def await_acknowledgements(file: TableFile, segments: Sequence[Segment], number: int, timeout: float) -> None:
    """Wait until every live guest process has acknowledged announcement `number` in one of the mapped segments.

    Raise Stalled after `timeout` seconds, with the processes that have not acknowledged.
    """
    monitors = _Monitors(segments, share_word(file.info.uuid), number)
    deadline = time.monotonic() + timeout
    while attached := monitors.attached():
        if time.monotonic() > deadline:
            raise Stalled(
                f"metadata {file.info.name!r}: unplug not acknowledged within {timeout:g} s by {', '.join(attached)}; "
                "stop them or use force (they may then see the next device plugged at that address)"
            )
        time.sleep(_POLL)


class _Monitors:
    """The hotplug monitors of a share, and the time of the last heartbeat of each."""

    def __init__(self, segments: Sequence[Segment], word: int, number: int) -> None:
        self._segments = segments
        self._word = word
        self._number = number
        self._heartbeats: dict[tuple[int, int, int], tuple[int, float]] = {}

    def attached(self) -> list[str]:
        """Return the live processes that have not acknowledged the announcement, as text."""
        return [
            f"{process.format_owner(monitor.owner, monitor.process)} (slot {monitor.slot})"
            for index, segment in enumerate(self._segments)
            for monitor in segment.participants()
            if monitor.share == self._word and monitor.ack != self._number and not monitor.dead
            if not self._is_silent(index, monitor)
        ]

    def _is_silent(self, index: int, monitor: Participant) -> bool:
        now = time.monotonic()
        key = (index, monitor.slot, monitor.owner)
        heartbeat, since = self._heartbeats.get(key, (-1, now))
        if heartbeat != monitor.heartbeat:
            self._heartbeats[key] = (monitor.heartbeat, now)
            return False
        return now - since > _SILENT
