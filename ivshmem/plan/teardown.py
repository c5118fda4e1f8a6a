# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem down`: remove all files of a file_prefix unless a live process or VM holds one of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eal.errors import InUse
from eal.lifecycle import cleanup
from eal.metadata.records import Table
from eal.runtime import prefix_dir
from eal.runtime.lock_file import Lock, LockFile
from eal.runtime.prefix_dir import PrefixDir
from ivshmem.inspect.holders import count_guest_threads, find_holders


@dataclass(frozen=True)
class Removed:
    """Result of `down`: the removed files; `held_by` lists the processes that held them, if `force` overrode that."""

    file_prefix: str
    files: list[str]
    held_by: str = ""


def down(prefix: str, *, force: bool = False) -> Removed:
    """Remove all segments, objects and metadata files of a file_prefix, and mark the segments retired.

    Return an empty list of files if the file_prefix does not exist. Raises InUse with the names of the processes if a
    live process or VM holds one of the files, unless `force`.
    """
    directory = PrefixDir(prefix_dir.runtime_dir().absolute(), prefix_dir.check_prefix(prefix))
    if not directory.path.is_dir():
        return Removed(prefix, [])
    prefix_dir.check_private(directory.root)
    lock = LockFile(directory.lock)
    try:
        with lock.change():
            table = cleanup.last_table(directory)
            files = [str(path) for path in cleanup.data_files(directory, table)]
            held = _held_by(directory, lock, table, files)
            if held and not force:
                raise InUse(
                    f"file_prefix {prefix!r} is in use, nothing was removed: it is held by {held}. Stop these "
                    "processes first, or use --force (they keep their mappings of the removed files)"
                )
            cleanup.remove(directory)
    finally:
        lock.close()
    return Removed(prefix, files, held)


def _held_by(directory: PrefixDir, lock: LockFile, table: Table | None, files: list[str]) -> str:
    """Return a list of the processes and guests that hold a file_prefix, as text; "" if there are none."""
    found = find_holders(files, str(directory.registry))
    held = [str(holder) for holder in found.seen]
    member = lock.holder(Lock.MEMBER)
    if member is not None and member not in {holder.pid for holder in found.seen}:
        held.append(f"{_name_of(member)} (pid {member})")
    threads = count_guest_threads(table) if table is not None else 0
    if threads and (held or found.hidden):
        # If /proc shows every process and none holds a file, the VM of these participants has ended.
        where = "" if held else ", probably in a VM of another user"
        held.append(f"{threads} guest thread{'s' if threads > 1 else ''}{where}")
    return ", ".join(held)


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return "a process"
