# SPDX-License-Identifier: BSD-3-Clause
"""Stale files: the files of dead prefixes, found and removed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eal.errors import InUse
from eal.lifecycle import cleanup
from eal.runtime.lock_file import Lock, LockFile
from eal.runtime.prefix_dir import PrefixDir
from ivshmem.inspect.prefixes import prefix_states


@dataclass(frozen=True)
class StaleFiles:
    """Files that nobody owns any more, and the prefix they are of."""

    directory: PrefixDir
    files: list[Path]


def find_stale_files(root: Path, only: str | None = None) -> list[StaleFiles]:
    """What dead prefixes left: those with a folder here, and those of whom only data files are left."""
    states = [state for state in prefix_states(root) if only in (None, state.prefix)]
    found = []
    for state in states:
        if state.status == "dead":
            home = state.directory.path
            own = sorted(path for path in home.rglob("*") if path.is_symlink() or not path.is_dir())
            found.append(StaleFiles(state.directory, [*cleanup.data_files(state.directory, state.table), *own]))
    homes = {state.prefix for state in prefix_states(root)}
    for prefix, files in cleanup.orphans(root).items():
        if prefix not in homes and only in (None, prefix):
            found.append(StaleFiles(PrefixDir(root, prefix), files))
    return found


def remove_stale_files(stale: StaleFiles) -> None:
    """Takes a dead prefix's files away. Raises InUse if it came alive, or was kept, meanwhile."""
    directory = stale.directory
    if not directory.path.is_dir():
        for path in stale.files:
            path.unlink(missing_ok=True)
        return
    lock = LockFile(directory.lock)
    try:
        with lock.change():
            if (pid := lock.holder(Lock.MEMBER)) is not None:
                raise InUse(f"file_prefix {directory.prefix!r} came alive (pid {pid}): nothing of it was removed")
            if (table := cleanup.last_table(directory)) is not None and table.kept:
                raise InUse(f"file_prefix {directory.prefix!r} was kept meanwhile: nothing of it was removed")
            cleanup.remove(directory)
    finally:
        lock.close()
