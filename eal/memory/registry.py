# SPDX-License-Identifier: BSD-3-Clause
"""The registry: what a prefix has allocated, in a file that its processes share and no VM gets."""

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
    """The authority on what is allocated. A change becomes visible by one store of the table file's selector; one
    that was half done when its process died is not seen by anybody. Callers hold the prefix's CHANGE lock.
    """

    def __init__(self, file: TableFile) -> None:
        self._file = file
        self._index: dict[tuple[Kind, str], Entry] = {}
        self._indexed = -1

    @property
    def uuid(self) -> UUID:
        """Of this registry: another one when a primary has started afresh."""
        return self._file.info.uuid

    @property
    def table(self) -> Table:
        """The table in force."""
        return self._file.read()

    def find(self, kind: Kind, name: str) -> Entry | None:
        table = self.table
        if self._indexed != table.selector:
            self._index = {(entry.kind, entry.name): entry for entry in table.entries}
            self._indexed = table.selector
        return self._index.get((kind, name))

    def add_segment(self, record: SegmentRecord) -> None:
        table = self.table
        self._file.publish(replace(table, segments=(*table.segments, record)))

    def add(self, entry: Entry) -> Entry:
        """Adds an object; gives it back with its serial number. Raises Exists for a name that is taken."""
        if self.find(entry.kind, entry.name):
            raise Exists(f"{entry.kind.name.lower()} {entry.name!r} exists already: choose another name or free it")
        table = self.table
        entry = replace(entry, serial=table.selector + 1)
        self._file.publish(replace(table, entries=(*table.entries, entry)))
        return entry

    def remove(self, entry: Entry) -> None:
        table = self.table
        if entry not in table.entries:
            raise NotFound(f"{entry.kind.name.lower()} {entry.name!r} is gone already")
        self._file.publish(replace(table, entries=tuple(e for e in table.entries if e != entry)))

    def replace(self, table: Table) -> None:
        """Brings another table into force."""
        self._file.publish(table)

    def set_kept(self) -> None:
        """Marks everything to be left in place when the last process goes."""
        self._file.publish(replace(self.table, kept=True))

    def raise_epoch(self) -> None:
        self._file.publish(replace(self.table, epoch=next_epoch(self.table.epoch)))

    def close(self) -> None:
        self._file.mapping.release()


def next_epoch(last: int) -> int:
    """The epoch of a primary that starts now: above the last one that is known, and above those of primaries that
    closed properly and so left nothing to count from: milliseconds, which no primary starts faster than.
    """
    return max(last + 1, time.time_ns() // 1_000_000)


def create_registry(path: Path, *, last_epoch: int) -> Registry:
    """A new, empty registry; it replaces what is there in one step."""
    with atomic_file.replacing(path) as temporary:
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.ftruncate(fd, REGISTRY_SIZE)
            for at in (0, HEADER_SIZE + table_room(REGISTRY_SIZE)):
                os.pwrite(fd, bytes(HEADER_SIZE), at)  # on a disk a first write through the mapping takes milliseconds
            mapping = Mapping(fd, REGISTRY_SIZE, what=str(path))
        finally:
            os.close(fd)
        return Registry(TableFile.format(mapping, REGISTRY_MAGIC, _NAME, uuid4(), epoch=next_epoch(last_epoch)))


def open_registry(path: Path, *, writable: bool = True) -> Registry:
    """The registry at `path`. Raises NotFound, Denied, or Corrupt with the reason."""
    try:
        fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise NotFound(f"there is no registry {path}") from error
    except OSError as error:
        raise Denied(f"cannot open registry {path}: {error.strerror}") from error
    try:
        size = os.fstat(fd).st_size
        if size < 1:
            raise Corrupt(f"registry {path} is empty")
        mapping = Mapping(fd, size, writable=writable, what=str(path))
    finally:
        os.close(fd)
    file = TableFile.open(mapping, REGISTRY_MAGIC, f"registry {path}")
    return Registry(file)
