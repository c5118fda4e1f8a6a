# SPDX-License-Identifier: BSD-3-Clause
"""Recovery: what a host that starts again finds half done, and puts right or leaves alone."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from eal.linux import process
from eal.ring.headtail import ENDS, EndState

if TYPE_CHECKING:
    from eal.ring.ring import Ring

log = logging.getLogger(__name__)

_GRACE = 0.02  # seconds for which an end must not move: a peer that is inside would, however seldom it gets to run


def mend(ring: Ring) -> list[str]:
    """Undoes what a dead process of this machine began and did not finish at ST ends; gives the names of those ends.

    An end whose owner lives, is of another machine, or is not recorded is left alone, and so are ends of other sync
    types. The caller holds the CHANGE lock of its prefix.
    """
    return [role for role in ENDS if _is_abandoned(ring, ring.end(role)) and _mend_end(ring, role)]


def needs_mending(ring: Ring) -> bool:
    """Whether `mend` may have something to do."""
    return any(_is_abandoned(ring, ring.end(role)) for role in ENDS)


def _is_abandoned(ring: Ring, end: EndState) -> bool:
    return end.sync == "ST" and end.half_moved and not ring.memzone.readonly and is_gone(end.owner, ring)


def _mend_end(ring: Ring, role: str) -> bool:
    before = ring.end(role)
    time.sleep(_GRACE)
    seen = ring.end(role)
    if seen != before or not _is_abandoned(ring, seen) or not ring.undo(role, seen):
        return False
    log.warning(
        "ring %r: %s died in the middle of an operation on %d elements at its %s end: undone",
        ring.name,
        process.format_owner(seen.owner),
        seen.distance,
        role,
    )
    return True


def is_gone(owner: int, ring: Ring) -> bool:
    """Whether the process that an owner word names is of this machine and does not work the ring any more.

    Either there is none of that id, or it does not map the segment: then the id is another one's by now.
    """
    pid = process.local_pid(owner)
    return pid is not None and (process.start_time(pid) == 0 or not _maps(pid, ring.memzone.segment.path))


def _maps(pid: int, path: str) -> bool:
    """Whether a process maps a file; True where that cannot be known."""
    try:
        inode = str(os.stat(path).st_ino)
        with open(f"/proc/{pid}/maps") as maps:
            return any(fields[4] == inode for fields in map(str.split, maps))
    except OSError:
        return process.start_time(pid) != 0
