# SPDX-License-Identifier: BSD-3-Clause
"""Leaving: an unplug is announced in a metadata, and every guest process lets go of it."""

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

_POLL = 0.01  # seconds between two looks at the guards' slots
_SILENT = 2.0  # seconds without a heartbeat after which a guard's process is taken for dead
_UNHEARD = 1.0  # seconds for guests that have no segment in which to answer


def set_leaving(file: TableFile, number: int) -> None:
    """Announces an unplug; 0 takes the announcement back."""
    lib.ivs_table_set_leaving(file.mapping.pointer(), number)


def is_leaving(file: TableFile) -> bool:
    return bool(lib.ivs_table_leaving(file.mapping.pointer()))


def announce(
    file: TableFile, segments: Sequence[SegmentRecord], number: int, timeout: float, *, force: bool = False
) -> None:
    """Tells every guest process to let go, by announcement `number`, and waits. `segments` are those of the metadata,
    with paths. Takes the announcement back and raises what `await_guards` does; with `force` it stands all the same.
    """
    set_leaving(file, number)
    try:
        await_guards(file, [one for one in segments if not one.readonly and one.path], number, timeout)
    except EalError as error:
        if force:
            log.warning("%s; going on all the same", error)
            return
        set_leaving(file, 0)
        raise


def await_guards(file: TableFile, records: Sequence[SegmentRecord], number: int, timeout: float) -> None:
    """Waits until every guest process has let go for announcement `number`. `records`, with paths, are the segments
    that a guest may write.

    Raises Stalled after `timeout` seconds, naming who did not.
    """
    if not records:
        time.sleep(_UNHEARD)
        return
    with ExitStack() as undo:
        segments = [open_segment(record) for record in records]
        for segment in segments:
            undo.callback(segment.close)
        await_letting_go(file, segments, number, timeout)


def await_letting_go(file: TableFile, segments: Sequence[Segment], number: int, timeout: float) -> None:
    """As `await_guards`, of segments that are mapped."""
    watch = _Watch(segments, share_word(file.info.uuid), number)
    deadline = time.monotonic() + timeout
    while left := watch.left():
        if time.monotonic() > deadline:
            raise Stalled(
                f"metadata {file.info.name!r} was not let go of within {timeout:g} s by {', '.join(left)}: end "
                "them, or unplug with force, and they will see the memory of whatever is plugged next"
            )
        time.sleep(_POLL)


class _Watch:
    """The guards of a metadata, and when the heart of each has beaten last."""

    def __init__(self, segments: Sequence[Segment], word: int, number: int) -> None:
        self._segments = segments
        self._word = word
        self._number = number
        self._beats: dict[tuple[int, int, int], tuple[int, float]] = {}

    def left(self) -> list[str]:
        """Those who hold the metadata still."""
        return [
            f"{process.format_owner(guard.owner, guard.process)} (slot {guard.slot})"
            for index, segment in enumerate(self._segments)
            for guard in segment.participants()
            if guard.share == self._word and guard.ack != self._number and not guard.dead
            if not self._silent(index, guard)
        ]

    def _silent(self, index: int, guard: Participant) -> bool:
        now = time.monotonic()
        who = (index, guard.slot, guard.owner)
        beat, since = self._beats.get(who, (-1, now))
        if beat != guard.heartbeat:
            self._beats[who] = (guard.heartbeat, now)
            return False
        return now - since > _SILENT
