# SPDX-License-Identifier: BSD-3-Clause
"""Metadata files of all prefixes of a runtime directory: find one by its name, without an EAL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from eal.errors import NotFound
from eal.lifecycle import cleanup
from eal.metadata.lookup import open_metadata
from eal.metadata.records import Table
from eal.metadata.table_file import TableFile
from eal.runtime import prefix_dir
from eal.runtime.lock_file import LockFile
from eal.runtime.prefix_dir import PrefixDir
from ivshmem.hotplug.share import HostShare
from ivshmem.metadata.exposure import Exposed, exposure_of
from ivshmem.vmm.device import Device, devices_of


@dataclass(frozen=True)
class FoundMetadata:
    """A mapped metadata file, its path and its prefix."""

    directory: PrefixDir
    path: str
    file: TableFile

    @property
    def uuid(self) -> UUID:
        return self.file.info.uuid

    def devices(self) -> list[Device]:
        """Return the files that a VM needs, the metadata file last. Raise NotFound if one does not exist."""
        return devices_of(self.file, self.path, _registry_table(self.directory))

    def exposure(self) -> list[Exposed]:
        """Return, for each segment, the zones and the free space that a VM can reach beyond the metadata.

        Raise NotFound if the prefix has no readable registry.
        """
        return exposure_of(self.file.read(), _registry_table(self.directory))


def _registry_table(directory: PrefixDir) -> Table:
    table = cleanup.last_table(directory)
    if table is None:
        raise NotFound(f"file_prefix {directory.prefix!r} has no readable registry: run its host application again")
    return table


def find_metadata(root: Path, name: str, prefix: str | None = None) -> FoundMetadata:
    """Return the metadata file of a name, optionally of one prefix only. Raise NotFound or Corrupt."""
    existing = list(_all_metadata(root, prefix))
    for directory, other in existing:
        if other == name:
            link = directory.metadata_link(name)
            return FoundMetadata(directory, os.readlink(link), open_metadata(link))
    names = ", ".join(repr(other) for _, other in existing) or "none"
    where = f"file_prefix {prefix!r} in {root}" if prefix is not None else str(root)
    raise NotFound(f"no metadata {name!r} in {where}; existing: {names}")


@contextmanager
def locked_share(root: Path, name: str, prefix: str | None = None) -> Iterator[HostShare]:
    """Hold the CHANGE lock of a metadata file's prefix in the block, which gets the file as a share to plug and unplug.

    Do not call it for the prefix of this process's own Eal: use `Metadata.shared`. Raise as `find_metadata`.
    """
    found = find_metadata(root, name, prefix)
    lock = LockFile(found.directory.lock)
    try:
        with lock.change():
            registry = _registry_table(found.directory)
            yield HostShare(found.directory, open_metadata(Path(found.path), writable=True), found.path, registry)
    finally:
        lock.close()


def metadata_names(root: Path, prefix: str | None = None) -> list[str]:
    """Return the names of all metadata files of a runtime directory, or of one prefix."""
    return [name for _, name in _all_metadata(root, prefix)]


def _all_metadata(root: Path, prefix: str | None) -> Iterator[tuple[PrefixDir, str]]:
    for directory in prefix_dir.prefixes(root):
        if prefix in (None, directory.prefix):
            yield from ((directory, name) for name in directory.metadata_names())
