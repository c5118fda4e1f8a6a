"""What this process and its threads are called by peers, and whether such a peer of this machine still lives."""

from __future__ import annotations

import hashlib
import os
import threading
from functools import cache
from pathlib import Path

_TID_BITS = 32


@cache
def machine_id() -> int:
    """32 bits, not 0, that differ between machines, boots and pid namespaces: thread ids mean the same only where
    these are equal.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    namespace = os.readlink("/proc/self/ns/pid").encode()
    return int.from_bytes(hashlib.sha256(boot + namespace).digest()[:4], "little") or 1


def owner() -> int:
    """The word by which the calling thread stands in shared memory: machine << 32 | thread id."""
    return machine_id() << _TID_BITS | threading.get_native_id()


def started(tid: int) -> int:
    """When a thread of this machine started, in clock ticks since boot; 0 if there is none of that id."""
    try:
        stat = Path(f"/proc/{tid}/stat").read_bytes()
    except OSError:
        return 0
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def is_dead(word: int, start: int) -> bool:
    """Whether an owner word names a thread of this machine that is gone. False for other machines: unknown here."""
    if word >> _TID_BITS != machine_id():
        return False
    now = started(word & ((1 << _TID_BITS) - 1))
    return now == 0 or (start != 0 and now != start)


_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


def forks() -> int:
    """How often this process's line was forked: what was made at another count belongs to a parent."""
    return _forks
