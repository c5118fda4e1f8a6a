# SPDX-License-Identifier: BSD-3-Clause
"""Prefixes of a runtime directory: their state, read from their files without an EAL."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eal.errors import Closed, NotFound
from eal.lifecycle import cleanup
from eal.lifecycle.startup import current
from eal.metadata.records import Table, table_as_json
from eal.runtime import prefix_dir
from eal.runtime.prefix_dir import PrefixDir
from ivshmem.inspect.files import Inspection, inspect_leniently


@dataclass(frozen=True)
class PrefixState:
    """A prefix, the pid of a live process in it (None: there is none), and the table of its registry, if readable."""

    directory: PrefixDir
    pid: int | None
    table: Table | None

    def inspections(self) -> list[Inspection]:
        """Return the inspections of the registry and the metadata files, also of damaged ones."""
        links = (self.directory.metadata_link(name) for name in self.directory.metadata_names())
        return [inspect_leniently(path) for path in (self.directory.registry, *links)]

    @property
    def prefix(self) -> str:
        return self.directory.prefix

    @property
    def kept(self) -> bool:
        return self.table is not None and self.table.kept

    @property
    def status(self) -> str:
        if self.pid is not None:
            return "alive"
        return "kept" if self.kept else "dead"

    def as_json(self) -> dict[str, Any]:
        return {
            "file_prefix": self.prefix,
            "status": self.status,
            "pid": self.pid,
            "registry": None if self.table is None else table_as_json(self.table),
            "metadata": self.directory.metadata_names(),
            "files": [inspection.as_json() for inspection in self.inspections()],
        }


def prefix_states(root: Path, only: str | None = None) -> list[PrefixState]:
    """Return the prefixes of a runtime directory, or only the selected one. Raise NotFound if that has no files."""
    found = [_state(directory) for directory in prefix_dir.prefixes(root) if only in (None, directory.prefix)]
    if only is not None and not found:
        raise NotFound(f"file_prefix {only!r} has no files in {root}")
    return found


def _state(directory: PrefixDir) -> PrefixState:
    return PrefixState(directory, _holder(directory), cleanup.last_table(directory))


def _holder(directory: PrefixDir) -> int | None:
    """Return the pid of a live process in a prefix, or None.

    `PrefixDir.holder` closes the lock file, and that would release the record locks of this process's own Eal.
    """
    try:
        if current().directory == directory:
            return os.getpid()
    except Closed:
        pass
    return directory.holder()
