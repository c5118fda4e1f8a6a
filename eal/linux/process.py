# SPDX-License-Identifier: BSD-3-Clause
"""Owner words and process words: identify threads and processes in shared memory, and detect dead ones.

Owner word: machine << 32 | thread id. Process word: process id << 40 | start time. Only this module uses these bits.

Fork handling of the whole project. Two modules call `os.register_at_fork`, both only with after_in_child:

1. This module increments the fork count (`fork_count`).
2. `eal.lifecycle.startup` abandons the Eal of the parent process: `Eal.abandon`.

Python runs them in the order of registration, which is the order of import, and `eal.lifecycle.startup` imports this
module. The order matters: `Eal.abandon` drops handles, and their finalizers (participant slots, mempool caches, monitor
slots) skip shared memory only if the fork count differs from the count at their creation. In the reverse order a child
would release the slots of its parent. No handler acquires a lock, because a thread of the parent may have held it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_TID_BITS = 32
_TICK_BITS = 40


@cache
def machine_id() -> int:
    """Return 32 bits, never 0, that differ between machines, boots and pid namespaces.

    Thread ids are comparable only within one machine id.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    namespace = os.readlink("/proc/self/ns/pid").encode()
    return int.from_bytes(hashlib.sha256(boot + namespace).digest()[:4], "little") or 1


def owner_word() -> int:
    """Return the owner word of the calling thread."""
    return machine_id() << _TID_BITS | threading.get_native_id()


def process_owner_word() -> int:
    """Return the owner word of this process's main thread, which is recorded at an ST side of a ring."""
    return machine_id() << _TID_BITS | os.getpid()


def process_word() -> int:
    """Return the process word of this process."""
    pid = os.getpid()
    return pid << _TICK_BITS | start_time(pid)


@dataclass(frozen=True, slots=True)
class Owner:
    """A decoded owner word. `pid` is 0 and `state` is "" if not known; a state is "alive", "dead" or "unknown"."""

    machine: int
    thread: int
    pid: int = 0
    state: str = ""

    def __str__(self) -> str:
        process = f" of process {self.pid}" if self.pid else ""
        state = f" ({self.state})" if self.state else ""
        return f"machine {self.machine:08x} thread {self.thread}{process}{state}"


def decode_owner(owner: int, process: int = 0, state: str = "") -> Owner:
    """Return the fields of an owner word and of the process word beside it (0: none)."""
    return Owner(owner >> _TID_BITS, owner & ((1 << _TID_BITS) - 1), process >> _TICK_BITS, state)


def format_owner(owner: int, process: int = 0, state: str = "") -> str:
    """Return an owner word and its process word as text: "machine 1a2b3c4d thread 77 of process 70 (dead)"."""
    return str(decode_owner(owner, process, state)) if owner else "none"


def local_pid(owner: int) -> int | None:
    """Return the thread or process id in an owner word of this machine; None for another machine and for 0."""
    return owner & ((1 << _TID_BITS) - 1) if owner >> _TID_BITS == machine_id() else None


def owner_state(owner: int) -> str:
    """Return "alive" or "dead" for the thread in an owner word of this machine, "unknown" for another machine."""
    pid = local_pid(owner)
    if pid is None:
        return "unknown"
    return "alive" if start_time(pid) else "dead"


def start_time(pid: int) -> int:
    """Return the start time of a process or thread of this machine in clock ticks since boot; 0 if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def is_dead(owner: int, process: int) -> bool:
    """Return whether a participant's thread and process belong to this machine and no longer exist.

    False for other machines, where this is unknown. Both words are necessary: handles of an ended thread may still
    exist, and a slot that is just being claimed still has the process word of its previous owner.
    """
    pid = local_pid(owner)
    if pid is None or start_time(pid):
        return False
    return process == 0 or start_time(process >> _TICK_BITS) != process & ((1 << _TICK_BITS) - 1)


_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


def fork_count() -> int:
    """Return the number of forks between the first process and this one.

    An object that was created at another count belongs to a parent process.
    """
    return _forks
