# SPDX-License-Identifier: BSD-3-Clause
"""Threads that are pinned: QEMU's, and those of apps that loaded this project's compiled core."""

from __future__ import annotations

import re

from eal.topology.cpulist import parse_list
from eal.topology.facts import Cpu, PinnedThread
from eal.topology.tree import Tree

_QEMU = re.compile(r"qemu-(system|kvm)|kvm\Z")
_ALLOWED = re.compile(r"^Cpus_allowed_list:\s*(\S+)", re.MULTILINE)
_NAME = re.compile(r"^Name:\s*(.*)$", re.MULTILINE)
_OUR_CORE = "/eal/_native."


def read_pinned(tree: Tree, cpus: tuple[Cpu, ...]) -> tuple[PinnedThread, ...]:
    """Every thread of QEMU or of ours that may not run on all online CPUs; other users' need root."""
    online = {cpu.cpu for cpu in cpus if cpu.online}
    threads = read_threads(tree)
    return tuple(thread for thread in threads if not online <= set(thread.cpus))


def read_threads(tree: Tree) -> tuple[PinnedThread, ...]:
    """Every thread of QEMU or of ours, pinned or not, by process and thread id."""
    found: list[PinnedThread] = []
    for pid in tree.numbered("proc", ""):
        kind = _kind(tree, pid)
        if kind is not None:
            found += _threads(tree, pid, kind)
    return tuple(found)


def _kind(tree: Tree, pid: int) -> str | None:
    """Is the process "qemu", "app" (ours), or none of the two?"""
    program = _program(tree, pid)
    if _QEMU.match(program):
        return "qemu"
    return "app" if _OUR_CORE in (tree.text(f"proc/{pid}/maps") or "") else None


def _program(tree: Tree, pid: int) -> str:
    """The file name of argv[0], of the script where that is Python; comm has only 15 letters."""
    argv = (tree.text(f"proc/{pid}/cmdline") or "").split("\0")
    names = [argument.rpartition("/")[2] for argument in argv]
    if names[0].startswith("python") and len(names) > 1 and not names[1].startswith("-"):
        return names[1]
    return names[0] or (tree.text(f"proc/{pid}/comm") or "")


def _threads(tree: Tree, pid: int, kind: str) -> list[PinnedThread]:
    found = []
    for tid in tree.numbered(f"proc/{pid}/task", ""):
        status = tree.text(f"proc/{pid}/task/{tid}/status") or ""
        allowed, name = _ALLOWED.search(status), _NAME.search(status)
        if allowed and name:  # it may have ended meanwhile
            cpus = tuple(sorted(parse_list(allowed[1])))
            found.append(PinnedThread(pid, tid, _program(tree, pid), name[1], kind, cpus))
    return found
