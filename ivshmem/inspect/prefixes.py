# SPDX-License-Identifier: BSD-3-Clause
"""State: what the files of a runtime directory say, read without an Eal, whoever is alive."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from eal.errors import Closed, InUse, NotFound
from eal.lifecycle import cleanup as leftovers
from eal.lifecycle.startup import current
from eal.metadata.lookup import open_metadata
from eal.metadata.records import Table, table_as_json
from eal.metadata.table_file import TableFile
from eal.runtime import prefix_dir as runtime
from eal.runtime.lock_file import Lock, LockFile
from eal.runtime.prefix_dir import PrefixDir
from ivshmem.inspect.files import Inspection, inspect_leniently
from ivshmem.metadata.exposure import Exposed, exposure_of
from ivshmem.vmm.device import Device, devices_of

if TYPE_CHECKING:
    from ivshmem.hotplug.share import HostShare


@dataclass(frozen=True)
class PrefixState:
    """A prefix: who is alive in it (a pid, or None), whether it is kept, and its registry's table, if readable."""

    directory: PrefixDir
    pid: int | None
    table: Table | None

    def inspections(self) -> list[Inspection]:
        """What the files of its registry and metadata say, damaged ones too."""
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
    """The prefixes of a runtime directory, or the one that is named. Raises NotFound where that has no files."""
    found = [_state(directory) for directory in runtime.prefixes(root) if only in (None, directory.prefix)]
    if only is not None and not found:
        raise NotFound(f"file_prefix {only!r} has no files in {root}")
    return found


def _state(directory: PrefixDir) -> PrefixState:
    return PrefixState(directory, _holder(directory), leftovers.last_table(directory))


def _holder(directory: PrefixDir) -> int | None:
    """As `PrefixDir.holder`, which must not touch the lock file of this process's own Eal."""
    try:
        if current().directory == directory:
            return os.getpid()
    except Closed:
        pass
    return directory.holder()


@dataclass(frozen=True)
class FoundMetadata:
    """A metadata found by its name: its prefix, its file's path, and the file, open."""

    directory: PrefixDir
    path: str
    file: TableFile

    @property
    def uuid(self) -> UUID:
        return self.file.info.uuid

    def devices(self) -> list[Device]:
        """The files that a VM has to be given. Raises NotFound where one is gone."""
        return devices_of(self.file, self.path, self._registry())

    def exposure(self) -> list[Exposed]:
        """What a VM reaches beyond it, segment by segment. Raises NotFound where the prefix's registry is gone."""
        return exposure_of(self.file.read(), self._registry())

    def _registry(self) -> Table:
        table = leftovers.last_table(self.directory)
        if table is None:
            raise NotFound(f"file_prefix {self.directory.prefix!r}, which made it, has no registry that can be read")
        return table


def find_metadata(root: Path, name: str, prefix: str | None = None) -> FoundMetadata:
    """The metadata of that name, which is unique in a runtime directory. Raises NotFound or Corrupt."""
    known = list(_all_metadata(root, prefix))
    for directory, there in known:
        if there == name:
            link = directory.metadata_link(name)
            return FoundMetadata(directory, os.readlink(link), open_metadata(link))
    names = ", ".join(repr(there) for _, there in known) or "none"
    of = f" of file_prefix {prefix!r}" if prefix is not None else ""
    raise NotFound(f"there is no metadata {name!r}{of} in {root}; there are: {names}")


@contextmanager
def changing(root: Path, name: str, prefix: str | None = None) -> Iterator[HostShare]:
    """A metadata of that name to be plugged or unplugged, with its prefix's CHANGE lock. Raises as `find_metadata`. Not
    for the prefix of this process's own Eal.
    """
    from ivshmem.hotplug.share import HostShare

    found = find_metadata(root, name, prefix)
    lock = LockFile(found.directory.lock)
    try:
        with lock.change():
            table = leftovers.last_table(found.directory)
            if table is None:
                raise NotFound(f"file_prefix {found.directory.prefix!r}, which made it, has no registry to be read")
            yield HostShare(found.directory, open_metadata(Path(found.path), writable=True), found.path, table)
    finally:
        lock.close()


def metadata_names(root: Path, prefix: str | None = None) -> list[str]:
    """The names of all metadata of a runtime directory, or of one prefix in it."""
    return [name for _, name in _all_metadata(root, prefix)]


def _all_metadata(root: Path, prefix: str | None) -> Iterator[tuple[PrefixDir, str]]:
    for directory in runtime.prefixes(root):
        if prefix in (None, directory.prefix):
            yield from ((directory, name) for name in directory.metadata_names())


@dataclass(frozen=True)
class Garbage:
    """Files that nobody owns any more, and the prefix they are of."""

    directory: PrefixDir
    files: list[Path]


def garbage(root: Path, only: str | None = None) -> list[Garbage]:
    """What dead prefixes left: those with a folder here, and those of whom only data files are left."""
    states = [state for state in prefix_states(root) if only in (None, state.prefix)]
    found = []
    for state in states:
        if state.status == "dead":
            home = state.directory.path
            own = sorted(path for path in home.rglob("*") if path.is_symlink() or not path.is_dir())
            found.append(Garbage(state.directory, [*leftovers.data_files(state.directory, state.table), *own]))
    homes = {state.prefix for state in prefix_states(root)}
    for prefix, files in leftovers.orphans(root).items():
        if prefix not in homes and only in (None, prefix):
            found.append(Garbage(PrefixDir(root, prefix), files))
    return found


def remove_garbage(piece: Garbage) -> None:
    """Takes a dead prefix's files away. Raises InUse if it came alive, or was kept, meanwhile."""
    directory = piece.directory
    if not directory.path.is_dir():
        for path in piece.files:
            path.unlink(missing_ok=True)
        return
    lock = LockFile(directory.lock)
    try:
        with lock.change():
            if (pid := lock.holder(Lock.MEMBER)) is not None:
                raise InUse(f"file_prefix {directory.prefix!r} came alive (pid {pid}): nothing of it was removed")
            if (table := leftovers.last_table(directory)) is not None and table.kept:
                raise InUse(f"file_prefix {directory.prefix!r} was kept meanwhile: nothing of it was removed")
            leftovers.remove(directory)
    finally:
        lock.close()
