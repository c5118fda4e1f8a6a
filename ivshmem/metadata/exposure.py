# SPDX-License-Identifier: BSD-3-Clause
"""Exposure: the zones and free space that a VM can reach beyond its metadata, because it gets complete segments."""

from __future__ import annotations

import warnings
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, TextIO
from uuid import UUID

from eal.errors import Invalid
from eal.memory.memzone import Memzone
from eal.memory.segment import HEADER_SIZE
from eal.metadata.records import Entry, Kind, SegmentRecord, Table
from eal.objects.zones import zone_name
from eal.text.sizes import size_text
from ivshmem.hotplug.share import HostShare

MAX_NAMES = 5  # of exposed zones in one message


class ExposureWarning(UserWarning):
    """A VM can reach zones that are not in its metadata, because they are in a segment that the VM gets."""


@dataclass(frozen=True)
class ExposedZone:
    """A zone that a VM can reach although its metadata does not list it. Sizes in bytes.

    The zone of a ring is named RG_ and the ring's name, the zone of a mempool MP_ and the mempool's name.
    """

    name: str
    kind: Kind
    offset: int
    length: int


@dataclass(frozen=True)
class Exposed:
    """The parts of one segment that a VM can reach beyond its metadata: read with `readonly`, else read and write.

    `free` is the number of bytes that belong to no object; they may still contain data of freed objects.
    """

    segment: UUID
    path: str
    group: str
    size: int
    readonly: bool
    zones: tuple[ExposedZone, ...]
    free: int

    @property
    def access(self) -> str:
        return "read" if self.readonly else "read and write"

    def as_json(self) -> dict[str, Any]:
        zones = [{**vars(zone), "kind": zone.kind.name.lower()} for zone in self.zones]
        return {**vars(self), "segment": str(self.segment), "zones": zones}


def exposure_of(metadata: Table, registry: Table, only: Container[UUID] | None = None) -> list[Exposed]:
    """Return the exposure of each segment in a metadata table, or of the segments in `only`.

    `registry` is the registry's table of the prefix that created the metadata file.
    """
    records = (record for record in metadata.segments if only is None or record.uuid in only)
    return [_exposed(record, metadata, registry) for record in records]


def _exposed(record: SegmentRecord, metadata: Table, registry: Table) -> Exposed:
    index = metadata.segments.index(record)
    shared = {e.offset: e.end for e in metadata.entries if e.segment == index}
    registered = next((n for n, other in enumerate(registry.segments) if other.uuid == record.uuid), -1)
    entries = [e for e in registry.entries if e.segment == registered]
    exposed = sorted((e for e in entries if shared.get(e.offset, 0) < e.end), key=lambda entry: entry.offset)
    return Exposed(
        segment=record.uuid,
        path=registry.segments[registered].path if registered >= 0 else "",
        group=record.group,
        size=record.size,
        readonly=record.readonly,
        zones=tuple(ExposedZone(zone_name(e), e.kind, e.offset, e.length) for e in exposed),
        free=record.size - HEADER_SIZE - sum(e.length for e in entries),
    )


class ExposureCheck:
    """The check of a new table before it is published. It warns once for each exposed zone."""

    def __init__(self) -> None:
        self._warned: set[tuple[UUID, ExposedZone]] = set()

    def check(self, share: HostShare, table: Table, added: Sequence[Memzone], *, isolated: bool) -> None:
        """Warn of the zones that a VM can reach through the segments of `added`; raise Invalid if `isolated`.

        The warning refers to the caller of the `add_*` method, two calls above this one.
        """
        by_segment = {zone.segment.uuid: zone.entry for zone in added}
        for exposed in exposure_of(table, share.registry, by_segment):
            new = [zone for zone in exposed.zones if (exposed.segment, zone) not in self._warned]
            if new:
                text = _message(share.name, by_segment[exposed.segment], exposed, new)
                if isolated:
                    raise Invalid(text)
                warnings.warn(text, ExposureWarning, stacklevel=4)
                self._warned.update((exposed.segment, zone) for zone in new)


def _message(name: str, added: Entry, exposed: Exposed, zones: list[ExposedZone]) -> str:
    names = ", ".join(repr(zone.name) for zone in zones[:MAX_NAMES])
    more = f" and {len(zones) - MAX_NAMES} more" if len(zones) > MAX_NAMES else ""
    return (
        f"metadata {name!r}: a VM that gets {zone_name(added)!r} gets its complete segment, and can {exposed.access} "
        f"{names}{more}, not in the metadata: reserve private zones in another group, or add all by one add()"
    )


def write_exposure(exposure: list[Exposed], out: TextIO) -> None:
    """Write an exposure as text."""
    for segment in exposure:
        access = segment.access
        out.write(f"segment {segment.segment}, group {segment.group!r}, {size_text(segment.size)}: {segment.path}\n")
        out.write(f"  a VM can {access} {segment.free} free bytes\n")
        for zone in segment.zones:
            out.write(f"  a VM can {access} {zone.name!r}: {zone.length} bytes at {zone.offset:#x}\n")
    zones = sum(len(segment.zones) for segment in exposure)
    out.write(f"{zones} zones outside the metadata are exposed\n" if zones else "no other zone is exposed\n")
