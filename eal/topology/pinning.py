# SPDX-License-Identifier: BSD-3-Clause
"""Pinned threads of QEMU processes and of processes that have loaded eal's compiled core."""

from __future__ import annotations

import re

from eal.topology.cpulist import parse_list
from eal.topology.facts import Cpu, PinnedThread
from eal.topology.tree import Tree

_QEMU = re.compile(r"qemu-(system|kvm)|kvm\Z")
_ALLOWED = re.compile(r"^Cpus_allowed_list:\s*(\S+)", re.MULTILINE)
_NAME = re.compile(r"^Name:\s*(.*)$", re.MULTILINE)
_EAL_CORE = "/eal/_native."


def read_pinned(tree: Tree, cpus: tuple[Cpu, ...]) -> tuple[PinnedThread, ...]:
    """Return the pinned threads of read_threads: those whose affinity lacks an online CPU."""
    online = {cpu.cpu for cpu in cpus if cpu.online}
    threads = read_threads(tree)
    return tuple(thread for thread in threads if not online <= set(thread.cpus))


def read_threads(tree: Tree) -> tuple[PinnedThread, ...]:
    """Return every thread of QEMU and eal processes, sorted by process and thread id.

    Eal processes of other users are found by root only, because /proc/PID/maps is private.
    """
    threads: list[PinnedThread] = []
    for pid in tree.numbered("proc", ""):
        kind = _kind(tree, pid)
        if kind is not None:
            threads += _threads(tree, pid, kind)
    return tuple(threads)


def _kind(tree: Tree, pid: int) -> str | None:
    """Return "qemu" for a QEMU process, "app" for a process that has loaded eal's core, else None."""
    program = _program(tree, pid)
    if _QEMU.match(program):
        return "qemu"
    return "app" if _EAL_CORE in (tree.text(f"proc/{pid}/maps") or "") else None


def _program(tree: Tree, pid: int) -> str:
    """Return the file name of argv[0], or of the script if argv[0] is Python. comm is cut to 15 characters."""
    argv = (tree.text(f"proc/{pid}/cmdline") or "").split("\0")
    names = [argument.rpartition("/")[2] for argument in argv]
    if names[0].startswith("python") and len(names) > 1 and not names[1].startswith("-"):
        return names[1]
    return names[0] or (tree.text(f"proc/{pid}/comm") or "")


def _threads(tree: Tree, pid: int, kind: str) -> list[PinnedThread]:
    threads = []
    for tid in tree.numbered(f"proc/{pid}/task", ""):
        status = tree.text(f"proc/{pid}/task/{tid}/status") or ""
        allowed, name = _ALLOWED.search(status), _NAME.search(status)
        if allowed and name:  # both are missing if the thread has just ended
            cpus = tuple(sorted(parse_list(allowed[1])))
            threads.append(PinnedThread(pid, tid, _program(tree, pid), name[1], kind, cpus))
    return threads
