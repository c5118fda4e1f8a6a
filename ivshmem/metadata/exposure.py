# SPDX-License-Identifier: BSD-3-Clause
"""Exposure: what a VM can reach beyond its metadata, because it gets whole segments."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any, TextIO
from uuid import UUID

from eal.memory.segment import HEADER_SIZE
from eal.metadata.records import Entry, Kind, SegmentRecord, Table
from eal.objects.zones import zone_name
from eal.text.sizes import size_text

NAMES_SHOWN = 5


class ExposureWarning(UserWarning):
    """A VM can reach zones that are not in its metadata: they lie in a segment that it gets."""


@dataclass(frozen=True)
class ExposedZone:
    """A zone that a VM reaches though it is not in its metadata; a ring's is called RG_ and its name, a pool's MP_."""

    name: str
    kind: Kind
    offset: int
    length: int


@dataclass(frozen=True)
class Exposed:
    """What a VM reaches in one segment beyond its metadata: `zones`, and `free` bytes, whose last user's data may still
    be there. With `readonly` it can read these, otherwise write too. `free` bytes belong to no object.
    """

    segment: UUID
    path: str
    group: str
    size: int
    readonly: bool
    zones: tuple[ExposedZone, ...]
    free: int

    def as_json(self) -> dict[str, Any]:
        zones = [{**vars(zone), "kind": zone.kind.name.lower()} for zone in self.zones]
        return {**vars(self), "segment": str(self.segment), "zones": zones}


def exposure_of(metadata: Table, registry: Table, only: Container[UUID] | None = None) -> list[Exposed]:
    """What a VM with a metadata reaches in each segment that it gets, or in `only` some of them, by the registry of the
    prefix that made it.
    """
    records = (record for record in metadata.segments if only is None or record.uuid in only)
    return [_exposed(record, metadata, registry) for record in records]


def _exposed(record: SegmentRecord, metadata: Table, registry: Table) -> Exposed:
    mine = metadata.segments.index(record)
    given = {e.offset: e.end for e in metadata.entries if e.segment == mine}
    known = next((n for n, other in enumerate(registry.segments) if other.uuid == record.uuid), -1)
    there = [e for e in registry.entries if e.segment == known]
    beyond = sorted((e for e in there if given.get(e.offset, 0) < e.end), key=lambda entry: entry.offset)
    return Exposed(
        segment=record.uuid,
        path=registry.segments[known].path if known >= 0 else "",
        group=record.group,
        size=record.size,
        readonly=record.readonly,
        zones=tuple(ExposedZone(zone_name(e), e.kind, e.offset, e.length) for e in beyond),
        free=record.size - HEADER_SIZE - sum(e.length for e in there),
    )


def complaint(name: str, added: Entry, exposed: Exposed, zones: list[ExposedZone]) -> str:
    """What to say of zones that a VM reaches from now on."""
    names = ", ".join(repr(zone.name) for zone in zones[:NAMES_SHOWN])
    more = f" and {len(zones) - NAMES_SHOWN} more" if len(zones) > NAMES_SHOWN else ""
    does = "read" if exposed.readonly else "read and write"
    return (
        f"metadata {name!r}: a VM that gets {zone_name(added)!r} gets its whole segment, and can {does} {names}{more}, "
        f"not in the metadata: reserve in a group of its own what the VM is not to reach, or add all by one add()"
    )


def write_exposure(exposure: list[Exposed], out: TextIO) -> None:
    """Writes an exposure as text."""
    for segment in exposure:
        does = "read" if segment.readonly else "read and write"
        out.write(f"segment {segment.segment}, group {segment.group!r}, {size_text(segment.size)}: {segment.path}\n")
        out.write(f"  a VM can {does} {segment.free} bytes of it that are free\n")
        for zone in segment.zones:
            out.write(f"  a VM can {does} {zone.name!r}: {zone.length} bytes at {zone.offset:#x}\n")
    zones = sum(len(segment.zones) for segment in exposure)
    out.write(f"{zones} zones can be reached that are not in the metadata\n" if zones else "no other zone is exposed\n")
