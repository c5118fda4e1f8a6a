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
    """The files of one dead prefix."""

    directory: PrefixDir
    files: list[Path]


def find_stale_files(root: Path, only: str | None = None) -> list[StaleFiles]:
    """Return the files of dead prefixes, also of prefixes that have only data files left.

    `only` selects one prefix.
    """
    states = prefix_states(root)
    found = []
    for state in states:
        if state.status == "dead" and only in (None, state.prefix):
            own = sorted(path for path in state.directory.path.rglob("*") if path.is_symlink() or not path.is_dir())
            found.append(StaleFiles(state.directory, [*cleanup.data_files(state.directory, state.table), *own]))
    existing = {state.prefix for state in states}
    for prefix, files in cleanup.orphans(root).items():
        if prefix not in existing and only in (None, prefix):
            found.append(StaleFiles(PrefixDir(root, prefix), files))
    return found


def remove_stale_files(stale: StaleFiles) -> None:
    """Remove the files of a dead prefix. Raise InUse if a process joined or kept the prefix in the meantime."""
    directory = stale.directory
    if not directory.path.is_dir():
        for path in stale.files:
            path.unlink(missing_ok=True)
        return
    lock = LockFile(directory.lock)
    try:
        with lock.change():
            if (pid := lock.holder(Lock.MEMBER)) is not None:
                raise InUse(f"file_prefix {directory.prefix!r} is in use by pid {pid}; nothing was removed")
            if (table := cleanup.last_table(directory)) is not None and table.kept:
                raise InUse(f"file_prefix {directory.prefix!r} was kept in the meantime; nothing was removed")
            cleanup.remove(directory)
    finally:
        lock.close()
