# SPDX-License-Identifier: BSD-3-Clause
"""Recovery of rings: roll back operations that a dead process of this machine left incomplete on an ST side."""

from __future__ import annotations

import logging
import os
import time

from eal.linux import process
from eal.ring.headtail import SIDES, HeadTail
from eal.ring.ring import Ring

log = logging.getLogger(__name__)

_GRACE = 0.02  # seconds without movement; a live process inside an operation is scheduled more often


def repair(ring: Ring) -> list[str]:
    """Roll back incomplete operations of dead processes on ST sides; return the names of these sides.

    Sides of other sync types, and sides whose owner is alive, unknown or on another machine, stay unchanged. The caller
    holds the CHANGE lock of its prefix.
    """
    return [side for side in SIDES if _is_abandoned(ring, ring.end(side)) and _repair_side(ring, side)]


def needs_repair(ring: Ring) -> bool:
    """Return whether `repair` may change the ring."""
    return any(_is_abandoned(ring, ring.end(side)) for side in SIDES)


def _is_abandoned(ring: Ring, side: HeadTail) -> bool:
    return side.sync == "ST" and side.incomplete and not ring.memzone.readonly and is_gone(side.owner, ring)


def _repair_side(ring: Ring, name: str) -> bool:
    first = ring.end(name)
    time.sleep(_GRACE)
    seen = ring.end(name)
    if seen != first or not _is_abandoned(ring, seen) or not ring.undo(name, seen):
        return False
    log.warning(
        "ring %r: %s died during an operation on %d elements on its %s side: rolled back",
        ring.name,
        process.format_owner(seen.owner),
        seen.distance,
        name,
    )
    return True


def is_gone(owner: int, ring: Ring) -> bool:
    """Return whether the process of an owner word is of this machine and no longer uses the ring.

    Either no such process exists, or the process with that id does not map the segment, so the id was reused.
    """
    pid = process.local_pid(owner)
    return pid is not None and (process.start_time(pid) == 0 or not _maps(pid, ring.memzone.segment.path))


def _maps(pid: int, path: str) -> bool:
    """Return whether a process maps a file, by device and inode; True if its mappings are not readable."""
    try:
        file = os.stat(path)
        device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}"
        with open(f"/proc/{pid}/maps") as maps:
            return any(fields[3:5] == [device, str(file.st_ino)] for fields in map(str.split, maps))
    except OSError:
        return process.start_time(pid) != 0
