# SPDX-License-Identifier: BSD-3-Clause
"""Down: takes a prefix away, segments, objects and metadata, unless somebody alive holds any of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eal.errors import InUse
from eal.lifecycle import cleanup as leftovers
from eal.metadata.records import Table
from eal.runtime import prefix_dir as runtime
from eal.runtime.lock_file import Lock, LockFile
from eal.runtime.prefix_dir import PrefixDir
from ivshmem.inspect.holders import find_holders, guests


@dataclass(frozen=True)
class Removed:
    """What `down` took away: files, and for the record who held them when it was forced."""

    file_prefix: str
    files: list[str]
    held_by: str = ""


def down(prefix: str, *, force: bool = False) -> Removed:
    """Takes away all that a file_prefix has, marking its segments retired. Nothing is removed where nothing is there.

    Raises InUse, and says who, while a living process or VM holds any of it, unless `force`.
    """
    directory = PrefixDir(runtime.runtime_dir().absolute(), runtime.check_prefix(prefix))
    if not directory.path.is_dir():
        return Removed(prefix, [])
    runtime.check_private(directory.root)
    lock = LockFile(directory.lock)
    try:
        with lock.change():
            table = leftovers.last_table(directory)
            files = [str(path) for path in leftovers.data_files(directory, table)]
            held = _held_by(directory, lock, table, files)
            if held and not force:
                raise InUse(
                    f"file_prefix {prefix!r} is in use, and nothing of it was removed: it is held by {held}. End them "
                    "first, or use --force: they keep what they have mapped"
                )
            leftovers.remove(directory)
    finally:
        lock.close()
    return Removed(prefix, files, held)


def _held_by(directory: PrefixDir, lock: LockFile, table: Table | None, files: list[str]) -> str:
    """Who holds a prefix, in words; "" if nobody does."""
    found = find_holders(files, str(directory.registry))
    held = [str(holder) for holder in found.seen]
    member = lock.holder(Lock.MEMBER)
    if member is not None and member not in {holder.pid for holder in found.seen}:
        held.append(f"{_name_of(member)} (pid {member})")
    inside = guests(table) if table is not None else 0
    if inside and (held or found.hidden):
        # Where every process can be seen and none holds anything, those guests went with their VM.
        where = "" if held else ", in a VM of another user, as it seems"
        held.append(f"{inside} thread{'s' if inside > 1 else ''} of guests{where}")
    return ", ".join(held)


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return "a process"
