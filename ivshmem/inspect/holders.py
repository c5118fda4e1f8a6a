# SPDX-License-Identifier: BSD-3-Clause
"""Holders: the processes, QEMUs among them, that have shared files mapped or open."""

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
    """A process that holds some files. `name` is what the kernel calls it."""

    pid: int
    name: str
    paths: frozenset[str]

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


@dataclass(frozen=True)
class Holders:
    """All that could be seen; `hidden` says whether there are processes of others, whom this user may not look at."""

    seen: list[Holder]
    hidden: bool

    def of(self, path: str) -> list[Holder]:
        return [holder for holder in self.seen if path in holder.paths]

    def __str__(self) -> str:
        return ", ".join(map(str, self.seen))


def find_holders(paths: Iterable[str], registry: str | None = None) -> Holders:
    """Who, but this process, has any of some files mapped or open, or a prefix's registry mapped to write (so lives in
    that prefix).
    """
    files = {found: path for path in paths if (found := _identity(path))}
    lived_in = _identity(registry) if registry is not None else None
    seen = []
    hidden = False
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        if pid == os.getpid():
            continue
        try:
            held = frozenset(_held(Path(f"/proc/{pid}"), files, lived_in, registry))
            name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
        except PermissionError:
            hidden = True
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has just ended
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


def _held(of: Path, files: dict[Identity, str], lived_in: Identity | None, registry: str | None) -> Iterable[str]:
    for line in (of / "maps").read_bytes().splitlines():
        match = _MAP.match(line)
        if match is None or match["inode"] == b"0":
            continue
        device = os.makedev(int(match["major"], 16), int(match["minor"], 16))
        found = (device, int(match["inode"]))
        path = os.fsdecode(match["path"].removesuffix(b" (deleted)"))
        if found in files:
            yield files[found]
        # A registry may lie on a file system that the kernel numbers otherwise here than in stat: then by its name.
        elif registry is not None and b"w" in match["perms"] and (found == lived_in or path == registry):
            yield registry
    for link in (of / "fd").iterdir():
        try:
            opened = link.stat()
        except OSError:
            continue
        if (opened.st_dev, opened.st_ino) in files:
            yield files[opened.st_dev, opened.st_ino]


def guests(table: Table) -> int:
    """How many threads of other machines stand in the segments of a prefix as participants: of guests that use them
    now, or that were killed with their VM.
    """
    return sum(_guests_of(record) for record in table.segments)


def _guests_of(record: SegmentRecord) -> int:
    try:
        segment = open_segment(record)
    except EalError:
        return 0
    try:
        return sum(process.local_pid(each.owner) is None for each in segment.participants())
    finally:
        segment.close()
