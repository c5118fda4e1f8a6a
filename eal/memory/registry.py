# SPDX-License-Identifier: BSD-3-Clause
"""Registry: the segments and objects of a prefix, in a file that no VM has access to (DPDK: rte_mem_config)."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

from eal.errors import Corrupt, Denied, Exists, NotFound
from eal.linux import atomic_file
from eal.linux.mapping import Mapping
from eal.metadata.records import Entry, Kind, SegmentRecord, Table
from eal.metadata.table_file import HEADER_SIZE, REGISTRY_MAGIC, TableFile, table_room

REGISTRY_SIZE = 32 << 20  # two tables of 16 MiB, about 170,000 objects; the file is sparse
_NAME = "registry"


class Registry:
    """The authority on the allocations of a prefix. Callers hold the prefix's CHANGE lock.

    A single store of the table file's selector publishes a change, so a writer that dies earlier changes nothing.
    """

    def __init__(self, file: TableFile) -> None:
        self._file = file
        self._index: dict[tuple[Kind, str], Entry] = {}
        self._indexed = -1

    @property
    def uuid(self) -> UUID:
        """The identity of this registry; a primary that makes a fresh start creates another one."""
        return self._file.info.uuid

    @property
    def table(self) -> Table:
        """The current table."""
        return self._file.read()

    def find(self, kind: Kind, name: str) -> Entry | None:
        """Return the entry of an object, or None."""
        table = self.table
        if self._indexed != table.selector:
            self._index = {(entry.kind, entry.name): entry for entry in table.entries}
            self._indexed = table.selector
        return self._index.get((kind, name))

    def add_segment(self, record: SegmentRecord) -> None:
        """Append a segment."""
        table = self.table
        self._file.publish(replace(table, segments=(*table.segments, record)))

    def add(self, entry: Entry) -> Entry:
        """Append an object and return its entry with a serial number. Raise Exists if the name is in use."""
        if self.find(entry.kind, entry.name):
            raise Exists(f"{entry.kind.name.lower()} {entry.name!r} exists already: choose another name or free it")
        table = self.table
        entry = replace(entry, serial=table.selector + 1)
        self._file.publish(replace(table, entries=(*table.entries, entry)))
        return entry

    def remove(self, entry: Entry) -> None:
        """Remove an object. Raise NotFound if it is not registered any more."""
        table = self.table
        if entry not in table.entries:
            raise NotFound(f"{entry.kind.name.lower()} {entry.name!r} does not exist any more")
        self._file.publish(replace(table, entries=tuple(e for e in table.entries if e != entry)))

    def replace(self, table: Table) -> None:
        """Publish another table."""
        self._file.publish(table)

    def set_kept(self) -> None:
        """Mark the prefix as kept: the last process leaves segments and objects in place."""
        self._file.publish(replace(self.table, kept=True))

    def raise_epoch(self) -> None:
        """Publish a higher epoch, for a primary that continues a former one."""
        self._file.publish(replace(self.table, epoch=next_epoch(self.table.epoch)))

    def close(self) -> None:
        """Release the mapping."""
        self._file.mapping.release()


def next_epoch(last: int) -> int:
    """Return an epoch for a primary that starts now, above `last` and above the epochs of all former primaries.

    A primary that closed left no record of its epoch. The clock in milliseconds is above it, because primaries do not
    start more often than once per millisecond.
    """
    return max(last + 1, time.time_ns() // 1_000_000)


def create_registry(path: Path, *, last_epoch: int) -> Registry:
    """Create an empty registry, which replaces an existing file in one step."""
    with atomic_file.replacing(path) as temporary:
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.ftruncate(fd, REGISTRY_SIZE)
            for at in (0, HEADER_SIZE + table_room(REGISTRY_SIZE)):
                os.pwrite(fd, bytes(HEADER_SIZE), at)  # on a disk, a first write through the mapping takes milliseconds
            mapping = Mapping(fd, REGISTRY_SIZE, label=str(path))
        finally:
            os.close(fd)
        return Registry(TableFile.format(mapping, REGISTRY_MAGIC, _NAME, uuid4(), epoch=next_epoch(last_epoch)))


def open_registry(path: Path, *, writable: bool = True) -> Registry:
    """Map and validate the registry at `path`. Raise NotFound, Denied, or Corrupt with the reason."""
    try:
        fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise NotFound(f"registry {path} does not exist: start a primary first") from error
    except OSError as error:
        raise Denied(f"cannot open registry {path}: {error.strerror}") from error
    try:
        size = os.fstat(fd).st_size
        if size < 1:
            raise Corrupt(f"registry {path} is empty")
        mapping = Mapping(fd, size, writable=writable, label=str(path))
    finally:
        os.close(fd)
    return Registry(TableFile.open(mapping, REGISTRY_MAGIC, f"registry {path}"))
