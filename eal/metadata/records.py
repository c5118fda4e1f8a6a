# SPDX-License-Identifier: BSD-3-Clause
"""The content of a table file as Python data: segments, objects and the table that lists them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any
from uuid import UUID

from eal._native import lib


class Kind(IntEnum):
    """The kind of object that an entry describes."""

    MEMZONE = lib.IVS_KIND_MEMZONE
    RING = lib.IVS_KIND_RING
    MEMPOOL = lib.IVS_KIND_MEMPOOL
    __hash__ = int.__hash__  # Enum.__hash__ is slow Python code, and each object's dictionary key contains a kind


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """A segment as listed in a table. Sizes in bytes; `path` is empty in a metadata file."""

    uuid: UUID
    size: int
    page_size: int
    host_address: int
    socket_id: int
    group: str
    epoch: int
    path: str = ""
    readonly: bool = False


@dataclass(unsafe_hash=True, slots=True)  # a frozen one takes three times as long to construct, thousands of times
class Entry:
    """An object as listed in a table; immutable by convention.

    `segment` is an index into the table's segments, `offset` is in bytes from the start of that segment's file.
    `dtype` is a description by `eal.text.dtypes`, or ""; `shape` is a shape, or None.
    """

    name: str
    kind: Kind
    segment: int
    offset: int
    length: int
    align: int = 64
    flags: int = 0
    dtype: str = ""
    shape: tuple[int, ...] | None = None
    serial: int = 0

    @property
    def end(self) -> int:
        """The offset of the first byte after the object."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Table:
    """A complete table. `selector` is the number of the change that published it."""

    segments: tuple[SegmentRecord, ...] = ()
    entries: tuple[Entry, ...] = ()
    epoch: int = 0
    kept: bool = False
    selector: int = 0

    def find(self, kind: Kind, name: str) -> Entry | None:
        """Return the entry of an object, or None."""
        return next((e for e in self.entries if e.kind == kind and e.name == name), None)


def table_as_json(table: Table) -> dict[str, Any]:
    """Return a table as data for `json.dumps`, as printed by `--json`."""
    return {
        "epoch": table.epoch,
        "kept": table.kept,
        "segments": [
            {
                "uuid": str(s.uuid),
                "size": s.size,
                "page_size": s.page_size,
                "host_address": s.host_address,
                "socket_id": s.socket_id,
                "group": s.group,
                "epoch": s.epoch,
                "path": s.path,
                "readonly": s.readonly,
            }
            for s in table.segments
        ],
        "entries": [
            {
                "name": e.name,
                "kind": e.kind.name.lower(),
                "segment": str(table.segments[e.segment].uuid),
                "offset": e.offset,
                "length": e.length,
                "align": e.align,
                "flags": e.flags,
                "dtype": e.dtype or None,
                "shape": e.shape,
            }
            for e in table.entries
        ],
    }
