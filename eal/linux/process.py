# SPDX-License-Identifier: BSD-3-Clause
"""What this process and its threads are called by peers, and whether such a peer of this machine still lives."""

from __future__ import annotations

import hashlib
import os
import threading
from functools import cache
from pathlib import Path

_TID_BITS = 32
_TICK_BITS = 40


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


def process_owner() -> int:
    """The word of this process as a whole, which is its main thread's: what stands at an ST end of a ring."""
    return machine_id() << _TID_BITS | os.getpid()


def local_pid(owner: int) -> int | None:
    """The thread or process id in an owner word of this machine; None for others, and for 0, which is nobody's."""
    return owner & ((1 << _TID_BITS) - 1) if owner >> _TID_BITS == machine_id() else None


def who(owner: int) -> str:
    """An owner word as text."""
    if owner == 0:
        return "nobody"
    pid = local_pid(owner)
    if pid is None:
        return f"machine {owner >> _TID_BITS:08x} thread {owner & ((1 << _TID_BITS) - 1)}"
    return f"thread {pid} of this machine"


def identity() -> int:
    """The word by which this process stands beside it: process id << 40 | start in clock ticks since boot."""
    pid = os.getpid()
    return pid << _TICK_BITS | started(pid)


def started(pid: int) -> int:
    """When a process of this machine started, in clock ticks since boot; 0 if there is none of that id."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def is_dead(owner: int, process: int) -> bool:
    """Whether a participant's thread and process are of this machine and gone. False for other machines: unknown here.

    Both: a thread that ended may have handles that are not given up yet, and a slot that is just being taken still
    shows the process that had it before.
    """
    if owner >> _TID_BITS != machine_id() or started(owner & ((1 << _TID_BITS) - 1)):
        return False
    return process == 0 or started(process >> _TICK_BITS) != process & ((1 << _TICK_BITS) - 1)


_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


def forks() -> int:
    """How often this process's line was forked: what was made at another count belongs to a parent."""
    return _forks
