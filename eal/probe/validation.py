# SPDX-License-Identifier: BSD-3-Clause
"""Validation of a metadata file against the devices and shares of this machine, before any of it is used."""

from __future__ import annotations

from collections.abc import Iterable

from eal.errors import Corrupt, Exists, NotFound
from eal.metadata.records import Entry, Table
from eal.metadata.table_file import TableFile
from eal.probe.segment_map import SegmentMap
from eal.probe.share import Share, by_name, place_of


class MissingSegment(NotFound):
    """A segment that a metadata file lists is not present, or not yet."""


def check_complete(name: str, table: Table, segments: SegmentMap) -> None:
    """Raise MissingSegment unless a device carries every segment that the table lists."""
    for record in table.segments:
        if not segments.is_there(record.uuid):
            raise MissingSegment(
                f"metadata {name!r} needs segment {record.uuid} of {record.size} bytes, but no device carries it: "
                "start the VM with all devices that `ivshmem cmdline` prints"
            )


def check_conflicts(file: TableFile, table: Table, others: Iterable[Share]) -> None:
    """Raise Exists if another share has the same metadata file, or another object of the same kind and name.

    Raise Corrupt if the table itself lists two objects with one kind and name. Objects of stale shares do not count.
    """
    name = file.info.name
    mine = by_name(table)
    if len(mine) != len(table.entries):
        raise Corrupt(f"metadata {name!r} lists two objects with one kind and name")
    for share in others:
        if share.uuid == file.info.uuid:
            raise Exists(f"metadata {name!r} is already used from device {share.address}; unplug one of the two")
        for key in () if share.stale else sorted(mine.keys() & share.index.keys()):
            if place_of(table, mine[key]) != place_of(share.table, share.index[key]):
                raise Exists(
                    f"metadata {name!r} and metadata {share.name!r} (device {share.address}) both have a "
                    f"{key[0].name.lower()} {key[1]!r}, and these are different objects: rename one"
                )


def check_unused(name: str, in_use: tuple[Entry, str] | None) -> None:
    """Raise Exists if `in_use`, an entry and its present holder, is given."""
    if in_use is not None:
        entry, holder = in_use
        raise Exists(
            f"metadata {name!r} has a {entry.kind.name.lower()} {entry.name!r}, and so has {holder}: rename one"
        )
