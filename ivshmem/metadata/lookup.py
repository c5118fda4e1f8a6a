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
        table = cleanup.last_table(self.directory)
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
def locked_share(root: Path, name: str, prefix: str | None = None) -> Iterator[HostShare]:
    """A metadata of that name to be plugged or unplugged, with its prefix's CHANGE lock. Raises as `find_metadata`. Not
    for the prefix of this process's own Eal.
    """
    found = find_metadata(root, name, prefix)
    lock = LockFile(found.directory.lock)
    try:
        with lock.change():
            table = cleanup.last_table(found.directory)
            if table is None:
                raise NotFound(f"file_prefix {found.directory.prefix!r}, which made it, has no registry to be read")
            yield HostShare(found.directory, open_metadata(Path(found.path), writable=True), found.path, table)
    finally:
        lock.close()


def metadata_names(root: Path, prefix: str | None = None) -> list[str]:
    """The names of all metadata of a runtime directory, or of one prefix in it."""
    return [name for _, name in _all_metadata(root, prefix)]


def _all_metadata(root: Path, prefix: str | None) -> Iterator[tuple[PrefixDir, str]]:
    for directory in prefix_dir.prefixes(root):
        if prefix in (None, directory.prefix):
            yield from ((directory, name) for name in directory.metadata_names())
