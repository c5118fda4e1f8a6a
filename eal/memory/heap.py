# SPDX-License-Identifier: BSD-3-Clause
"""The heap of a prefix: zones reserved from the segments of their group, and segments made when there are too few."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from uuid import UUID, uuid4

from eal.errors import Exists, Invalid, InvalidType, NoMemory
from eal.memory import hugepages
from eal.memory.hugepages import Backend
from eal.memory.registry import Registry
from eal.memory.segment import HEADER_SIZE, Segment, create_segment, open_segment
from eal.memory.segment_file import Ownership, Progress
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.metadata.records import Entry, Kind, SegmentRecord, Table
from eal.runtime.prefix_dir import PrefixDir
from eal.text.sizes import MIB, align_up, is_power_of_two, power_of_two_above

log = logging.getLogger(__name__)

CACHE_LINE = 64
SMALLEST_SEGMENT = 2 * MIB
GROWTH_LIMIT = 64 * MIB  # a group's new segment is as large as the group so far, up to this
ALIGN_LIMIT = 1 << 30

BASE_ADDRESS = 0x2000_0000_0000
_ROLE_STEP = 1 << 45  # host and guest apart: a guest's own heap does not lie where its host's segments want to be
_PREFIX_STEP = 1 << 36


def base_address(prefix: str, *, guest: bool) -> int:
    """Where the segments of a prefix start, unless base_virtaddr says otherwise."""
    share = hashlib.sha256(prefix.encode("utf-8", "surrogateescape")).digest()[0]
    return BASE_ADDRESS + (_ROLE_STEP if guest else 0) + share * _PREFIX_STEP


def smallest_segment(need: int, page_size: int) -> int:
    """The size of the smallest segment that is made for `need` bytes, header and all."""
    return max(power_of_two_above(need), SMALLEST_SEGMENT, page_size)


def find_room(table: Table, segment: int, length: int, align: int) -> int | None:
    """The lowest offset in a segment of the table where `length` bytes are free, or None."""
    at = align_up(HEADER_SIZE, align)
    taken = sorted((e.offset, e.end) for e in table.entries if e.segment == segment)
    for start, end in taken:
        if at + length <= start:
            return at
        at = max(at, align_up(align_up(end, CACHE_LINE), align))
    return at if at + length <= table.segments[segment].size else None


@dataclass
class Heap:
    """What reserves memory for one Eal. Methods that change anything hold the prefix's CHANGE lock themselves."""

    directory: PrefixDir
    registry: Registry
    choose_backend: Callable[[], Backend]  # called once, when the first segment is made
    base: int
    lock: Callable[[], AbstractContextManager[None]]  # gives the context manager that holds the CHANGE lock
    insists: bool  # whether the page kind was requested; otherwise the heap falls back to tmpfs without hugepages
    segments: dict[UUID, Segment] = field(default_factory=dict)  # those that this process has mapped

    @cached_property
    def backend(self) -> Backend:
        return self.choose_backend()

    def reserve(
        self,
        name: str,
        kind: Kind,
        length: int,
        *,
        align: int = CACHE_LINE,
        socket_id: int = SOCKET_ID_ANY,
        group: str = "default",
        flags: int = 0,
        dtype: str = "",
        shape: tuple[int, ...] | None = None,
        fill: Callable[[Segment, Entry], None] | None = None,
    ) -> Entry:
        """Reserves a zeroed range and adds it to the registry; `fill` writes the object before it can be seen.

        Raises Invalid, Exists, or NoMemory (nothing is changed then).
        """
        align = max(check_align(align), CACHE_LINE)
        _check_length(length)
        with self.lock():
            table = self.registry.table
            if self.registry.find(kind, name):
                raise Exists(
                    f"{kind.name.lower()} {name!r} exists already: choose another name, free it, or exist_ok=True"
                )
            index, offset, fresh = self._room(table, group, socket_id, length, align)
            segment = self.segment(self.registry.table.segments[index])
            entry = Entry(name, kind, index, offset, length, align, flags, dtype, shape)
            if not fresh:  # a VM that has the segment may have written to it even where nothing was reserved
                segment.zero(offset, length)
            if fill is not None:
                fill(segment, entry)
            return self.registry.add(entry)

    def _room(self, table: Table, group: str, socket_id: int, length: int, align: int) -> tuple[int, int, bool]:
        for index, record in enumerate(table.segments):
            if record.group == group and socket_id in (SOCKET_ID_ANY, record.socket_id):
                offset = find_room(table, index, length, align)
                if offset is not None:
                    return index, offset, False
        self.grow(table, group, socket_id, align_up(HEADER_SIZE, align) + length)
        return len(table.segments), align_up(HEADER_SIZE, align), True

    def grow(self, table: Table, group: str, socket_id: int, need: int) -> Segment:
        """A new segment for a group, of the same pages: as large as the group so far where these suffice, else as
        needed.
        """
        of_group = [record for record in table.segments if record.group == group]
        ownership = self._ownership(of_group)

        def make(backend: Backend) -> Segment:
            smallest = smallest_segment(need, backend.page_size)
            wanted = power_of_two_above(min(sum(r.size for r in of_group), GROWTH_LIMIT) or smallest)
            where = {"group": group, "socket_id": socket_id, "ownership": ownership, "backend": backend}
            if wanted > smallest:
                try:
                    return self.create_segment(wanted, **where)  # type: ignore[arg-type]
                except NoMemory:
                    pass  # then a smaller one, or its error
            return self.create_segment(smallest, **where)  # type: ignore[arg-type]

        return self._with_pages(hugepages.backend_of(of_group[0]) if of_group else self.backend, make)

    def _with_pages(self, backend: Backend, make: Callable[[Backend], Segment]) -> Segment:
        """Makes a segment of a backend's pages. Hugepages that nobody insisted on may have gone since they were chosen:
        then of tmpfs.
        """
        try:
            return make(backend)
        except NoMemory as error:
            if self.insists or not backend.huge:
                raise
            log.warning("falling back to tmpfs (%s), which costs TLB misses: %s", hugepages.SHM_DIR, error)
        return make(hugepages.tmpfs())

    @staticmethod
    def _ownership(of_group: list[SegmentRecord]) -> Ownership:
        """As the group's first segment: whoever may use the group may use all of it."""
        if not of_group:
            return Ownership()
        found = os.stat(of_group[0].path)
        return Ownership(found.st_mode & 0o777, found.st_uid, found.st_gid)

    def create_segment(
        self,
        size: int,
        *,
        group: str,
        socket_id: int,
        ownership: Ownership,
        backend: Backend | None = None,
        progress: Progress | None = None,
    ) -> Segment:
        """A new segment of exactly `size` bytes (a power of two, whole pages). Raises Invalid or NoMemory."""
        if backend is None:
            return self._with_pages(
                self.backend,
                lambda chosen: self.create_segment(
                    size, group=group, socket_id=socket_id, ownership=ownership, backend=chosen, progress=progress
                ),
            )
        if not is_power_of_two(size) or size < max(2 * HEADER_SIZE, backend.page_size):
            raise Invalid(
                f"a segment of {size} bytes cannot be: a power of two of at least {backend.page_size} is "
                "needed, because a PCI BAR must be one"
            )
        with self.lock():
            table = self.registry.table
            uuid = uuid4()
            segment = create_segment(
                backend,
                self._path(backend, uuid),
                uuid,
                size,
                group=group,
                socket_id=socket_id,
                epoch=table.epoch,
                hint=self._next_address(table, size),
                ownership=ownership,
                progress=progress,
            )
            self.registry.add_segment(segment.record)
            self.segments[uuid] = segment
            return segment

    def _path(self, backend: Backend, uuid: UUID) -> Path:
        name = self.directory.file_name(uuid.hex, "seg")
        # A starting DPDK removes what matches *map_* from hugetlbfs.
        return backend.folder / (name.replace("map_", "map%5F") if backend.huge else name)

    def _next_address(self, table: Table, size: int) -> int:
        end = max((s.host_address + s.size for s in table.segments if s.host_address >= self.base), default=0)
        return align_up(max(end, self.base), min(size, ALIGN_LIMIT))

    def segment(self, record: SegmentRecord) -> Segment:
        """The segment of a record, mapped by this process from now on."""
        found = self.segments.get(record.uuid)
        if found is None:
            found = self.segments[record.uuid] = open_segment(record)
        return found

    def restore(self, before: Table) -> None:
        """Takes back what was reserved since a table was in force, segments and all. Nothing may have been released."""
        with self.lock():
            known = {record.uuid for record in before.segments}
            fresh = [record for record in self.registry.table.segments if record.uuid not in known]
            self.registry.replace(before)
            for record in fresh:
                self._remove_segment(record)

    def remove_empty_segments(self, wanted: Callable[[SegmentRecord], bool]) -> list[SegmentRecord]:
        """Gives the pages of segments back that nothing lies in, as far as `wanted`; only while no other process of the
        prefix lives, since the numbers of segments change. Gives back what is gone.
        """
        with self.lock():
            table = self.registry.table
            used = {entry.segment for entry in table.entries}
            gone = [r for number, r in enumerate(table.segments) if number not in used and wanted(r)]
            kept = [number for number, record in enumerate(table.segments) if record not in gone]
            if gone:
                number = {old: new for new, old in enumerate(kept)}
                entries = tuple(replace(entry, segment=number[entry.segment]) for entry in table.entries)
                self.registry.replace(replace(table, segments=tuple(table.segments[n] for n in kept), entries=entries))
            for record in gone:
                self._remove_segment(record)
            return gone

    def _remove_segment(self, record: SegmentRecord) -> None:
        segment = self.segment(record)
        segment.retire()
        segment.close()
        del self.segments[record.uuid]
        os.unlink(record.path)

    def release(self, entry: Entry) -> None:
        """Gives a range back. Raises NotFound for one that is gone."""
        with self.lock():
            self.registry.remove(entry)


def check_align(align: object) -> int:
    """Gives an alignment in bytes back. Raises Invalid for what is no power of two, or too large."""
    if not isinstance(align, int) or not is_power_of_two(align) or align > ALIGN_LIMIT:
        raise Invalid(f"align {align!r}: a power of two up to {ALIGN_LIMIT} is needed")
    return align


def _check_length(length: object) -> None:
    if not isinstance(length, int) or isinstance(length, bool):
        raise InvalidType(f"a length is an int, not {type(length).__name__}")
    if not 1 <= length < 1 << 47:
        raise Invalid(f"a length of {length} bytes cannot be reserved: at least 1 and less than 2**47")
