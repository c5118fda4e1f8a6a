# SPDX-License-Identifier: BSD-3-Clause
"""Heap of a prefix: reserve zones in the segments of a group, and create segments as needed (DPDK: malloc_heap)."""

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
GROWTH_LIMIT = 64 * MIB  # each new segment doubles its group, until segments have this size
ALIGN_LIMIT = 1 << 30

BASE_ADDRESS = 0x2000_0000_0000
_ROLE_STEP = 1 << 45  # keeps the heap of a guest away from the addresses at which it maps its host's segments
_PREFIX_STEP = 1 << 36


def base_address(prefix: str, *, guest: bool) -> int:
    """Return the default address of a prefix's first segment (DPDK: --base-virtaddr)."""
    slot = hashlib.sha256(prefix.encode("utf-8", "surrogateescape")).digest()[0]
    return BASE_ADDRESS + (_ROLE_STEP if guest else 0) + slot * _PREFIX_STEP


def smallest_segment(need: int, page_size: int) -> int:
    """Return the size of the smallest segment with `need` bytes including the header."""
    return max(power_of_two_above(need), SMALLEST_SEGMENT, page_size)


def find_room(table: Table, segment: int, length: int, align: int) -> int | None:
    """Return the lowest aligned offset of `length` free bytes in a segment of the table, or None."""
    at = align_up(HEADER_SIZE, align)
    used = sorted((e.offset, e.end) for e in table.entries if e.segment == segment)
    for start, end in used:
        if at + length <= start:
            return at
        at = max(at, align_up(align_up(end, CACHE_LINE), align))
    return at if at + length <= table.segments[segment].size else None


@dataclass
class Heap:
    """The memory allocator of an Eal. Each method that changes the registry holds the prefix's CHANGE lock."""

    directory: PrefixDir
    registry: Registry
    choose_backend: Callable[[], Backend]  # called once, for the first segment
    base: int  # address of the first segment
    lock: Callable[[], AbstractContextManager[None]]  # returns a context manager that holds the CHANGE lock
    pages_chosen: bool  # by options of eal.init; otherwise tmpfs replaces missing hugepages
    segments: dict[UUID, Segment] = field(default_factory=dict)  # mapped by this process

    @cached_property
    def backend(self) -> Backend:
        """The backend of segments whose group has none yet."""
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
        """Reserve a zeroed range of `length` bytes and add it to the registry; `fill` formats the object before that.

        Raise Invalid, Exists or NoMemory; the registry is unchanged then.
        """
        align = max(check_align(align), CACHE_LINE)
        _check_length(length)
        with self.lock():
            table = self.registry.table
            if self.registry.find(kind, name):
                raise Exists(
                    f"{kind.name.lower()} {name!r} exists already: choose another name, free it, or pass exist_ok=True"
                )
            index, offset, fresh = self._room(table, group, socket_id, length, align)
            segment = self.segment(self.registry.table.segments[index])
            entry = Entry(name, kind, index, offset, length, align, flags, dtype, shape)
            if not fresh:  # a VM that maps the segment may have written to free ranges
                segment.zero(offset, length)
            if fill is not None:
                fill(segment, entry)
            return self.registry.add(entry)

    def _room(self, table: Table, group: str, socket_id: int, length: int, align: int) -> tuple[int, int, bool]:
        """Return the index of a segment, the offset of a free range in it, and whether the segment is new."""
        for index, record in enumerate(table.segments):
            if record.group == group and socket_id in (SOCKET_ID_ANY, record.socket_id):
                offset = find_room(table, index, length, align)
                if offset is not None:
                    return index, offset, False
        self.grow(table, group, socket_id, align_up(HEADER_SIZE, align) + length)
        return len(table.segments), align_up(HEADER_SIZE, align), True

    def grow(self, table: Table, group: str, socket_id: int, need: int) -> Segment:
        """Create another segment of a group with the group's page kind and at least `need` bytes.

        The segment is as large as the group, up to GROWTH_LIMIT, or as small as possible if there are too few pages.
        """
        of_group = [record for record in table.segments if record.group == group]
        ownership = self._ownership(of_group)

        def create(backend: Backend) -> Segment:
            smallest = smallest_segment(need, backend.page_size)
            wanted = power_of_two_above(min(sum(r.size for r in of_group), GROWTH_LIMIT) or smallest)
            where = {"group": group, "socket_id": socket_id, "ownership": ownership, "backend": backend}
            if wanted > smallest:
                try:
                    return self.create_segment(wanted, **where)  # type: ignore[arg-type]
                except NoMemory:
                    pass  # retry with the smallest size, and report the error of that attempt
            return self.create_segment(smallest, **where)  # type: ignore[arg-type]

        return self._with_fallback(hugepages.backend_of(of_group[0]) if of_group else self.backend, create)

    def _with_fallback(self, backend: Backend, create: Callable[[Backend], Segment]) -> Segment:
        """Create a segment of a backend's pages, or of tmpfs if hugepages ran out and were not requested."""
        try:
            return create(backend)
        except NoMemory as error:
            if self.pages_chosen or not backend.huge:
                raise
            log.warning("falling back to tmpfs (%s), which costs TLB misses: %s", hugepages.SHM_DIR, error)
        return create(hugepages.tmpfs())

    @staticmethod
    def _ownership(of_group: list[SegmentRecord]) -> Ownership:
        """Return the ownership of the group's first segment: a process that may open one segment may open all."""
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
        """Create a segment of exactly `size` bytes, a power of two and a multiple of the page size.

        Raise Invalid for another size, NoMemory for too few pages.
        """
        if backend is None:
            return self._with_fallback(
                self.backend,
                lambda chosen: self.create_segment(
                    size, group=group, socket_id=socket_id, ownership=ownership, backend=chosen, progress=progress
                ),
            )
        least = max(2 * HEADER_SIZE, backend.page_size)
        if not is_power_of_two(size) or size < least:
            raise Invalid(f"segment size must be a power of two >= {least} (PCI BAR requirement), got {size}")
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
        # DPDK removes files that match *map_* from a hugetlbfs at startup.
        return backend.folder / (name.replace("map_", "map%5F") if backend.huge else name)

    def _next_address(self, table: Table, size: int) -> int:
        end = max((s.host_address + s.size for s in table.segments if s.host_address >= self.base), default=0)
        return align_up(max(end, self.base), min(size, ALIGN_LIMIT))

    def segment(self, record: SegmentRecord) -> Segment:
        """Return the segment of a record; map it on first use."""
        found = self.segments.get(record.uuid)
        if found is None:
            found = self.segments[record.uuid] = open_segment(record)
        return found

    def restore(self, before: Table) -> None:
        """Undo all reservations since the table `before`, and remove new segments. Nothing may have been released."""
        with self.lock():
            old = {record.uuid for record in before.segments}
            new = [record for record in self.registry.table.segments if record.uuid not in old]
            self.registry.replace(before)
            for record in new:
                self._remove_segment(record)

    def remove_empty_segments(self, wanted: Callable[[SegmentRecord], bool]) -> list[SegmentRecord]:
        """Remove the segments without objects for which `wanted` returns True, and return their records.

        Call it only while no other process of the prefix is alive, because the indices of segments change.
        """
        with self.lock():
            table = self.registry.table
            used = {entry.segment for entry in table.entries}
            removed = [r for index, r in enumerate(table.segments) if index not in used and wanted(r)]
            kept = [index for index, record in enumerate(table.segments) if record not in removed]
            if removed:
                new_index = {old: new for new, old in enumerate(kept)}
                entries = tuple(replace(entry, segment=new_index[entry.segment]) for entry in table.entries)
                self.registry.replace(replace(table, segments=tuple(table.segments[n] for n in kept), entries=entries))
            for record in removed:
                self._remove_segment(record)
            return removed

    def _remove_segment(self, record: SegmentRecord) -> None:
        segment = self.segment(record)
        segment.retire()
        segment.close()
        del self.segments[record.uuid]
        os.unlink(record.path)

    def release(self, entry: Entry) -> None:
        """Remove an object's range from the registry. Raise NotFound if it is not registered any more."""
        with self.lock():
            self.registry.remove(entry)


def check_align(align: object) -> int:
    """Return an alignment in bytes. Raise Invalid if it is not a power of two up to ALIGN_LIMIT."""
    if not isinstance(align, int) or not is_power_of_two(align) or align > ALIGN_LIMIT:
        raise Invalid(f"align must be a power of two up to {ALIGN_LIMIT}, got {align!r}")
    return align


def _check_length(length: object) -> None:
    if not isinstance(length, int) or isinstance(length, bool):
        raise InvalidType(f"length must be an int, got {type(length).__name__}")
    if not 1 <= length < 1 << 47:
        raise Invalid(f"length must be from 1 to 2**47 - 1 bytes, got {length}")
