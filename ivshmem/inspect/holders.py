# SPDX-License-Identifier: BSD-3-Clause
"""Holders: the processes, including QEMU, that have shared files mapped or open."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from eal.errors import EalError
from eal.linux import process
from eal.memory.segment import open_segment
from eal.metadata.records import SegmentRecord, Table

_MAP = re.compile(rb"\S+ (?P<perms>\S+) \S+ (?P<major>[0-9a-f]+):(?P<minor>[0-9a-f]+) (?P<inode>\d+) +(?P<path>.*)")


@dataclass(frozen=True)
class Holder:
    """A process that holds some of the files; `name` is its command name (/proc/PID/comm)."""

    pid: int
    name: str
    paths: frozenset[str]

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


@dataclass(frozen=True)
class Holders:
    """The holders found; `hidden` is True if this user may not read /proc of some processes."""

    seen: list[Holder]
    hidden: bool

    def of(self, path: str) -> list[Holder]:
        return [holder for holder in self.seen if path in holder.paths]

    def __str__(self) -> str:
        return ", ".join(map(str, self.seen))


def find_holders(paths: Iterable[str], registry: str | None = None) -> Holders:
    """Return the processes, except this one, that have one of the files mapped or open.

    A process that has `registry` mapped writable is a holder too: it is a process of that prefix.
    """
    files = {found: path for path in paths if (found := _identity(path))}
    registry_identity = _identity(registry) if registry is not None else None
    seen = []
    hidden = False
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        if pid == os.getpid():
            continue
        try:
            held = frozenset(_held(Path(f"/proc/{pid}"), files, registry_identity, registry))
            name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
        except PermissionError:
            hidden = True
        except (FileNotFoundError, ProcessLookupError):
            pass  # the process has ended
        else:
            if held:
                seen.append(Holder(pid, name, held))
    return Holders(seen, hidden)


Identity = tuple[int, int]  # device and inode


def _identity(path: str) -> Identity | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _held(
    proc: Path, files: dict[Identity, str], registry_identity: Identity | None, registry: str | None
) -> Iterable[str]:
    for line in (proc / "maps").read_bytes().splitlines():
        match = _MAP.match(line)
        if match is None or match["inode"] == b"0":
            continue
        device = os.makedev(int(match["major"], 16), int(match["minor"], 16))
        found = (device, int(match["inode"]))
        path = os.fsdecode(match["path"].removesuffix(b" (deleted)"))
        if found in files:
            yield files[found]
        # On some file systems (btrfs, overlayfs) maps shows another device number than stat: then compare the paths.
        elif registry is not None and b"w" in match["perms"] and (found == registry_identity or path == registry):
            yield registry
    for link in (proc / "fd").iterdir():
        try:
            opened = link.stat()
        except OSError:
            continue
        if (opened.st_dev, opened.st_ino) in files:
            yield files[opened.st_dev, opened.st_ino]


def count_guest_threads(table: Table) -> int:
    """Return the number of participant slots in a prefix's segments that belong to threads of other machines.

    Slots of guests whose VM was killed are included.
    """
    return sum(_count_guest_threads(record) for record in table.segments)


def _count_guest_threads(record: SegmentRecord) -> int:
    try:
        segment = open_segment(record)
    except EalError:
        return 0
    try:
        return sum(process.local_pid(each.owner) is None for each in segment.participants())
    finally:
        segment.close()
