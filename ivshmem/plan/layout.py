# SPDX-License-Identifier: BSD-3-Clause
"""Layout: compute the segments that a group needs for new objects, by the placement rules of the heap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from eal.memory.heap import GROWTH_LIMIT, find_room, smallest_segment
from eal.memory.segment import HEADER_SIZE
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.metadata.records import Entry, SegmentRecord, Table
from eal.text.sizes import align_up
from ivshmem.plan.items import Item
from ivshmem.plan.schema import Group


def missing_segments(table: Table, group: Group, items: Sequence[Item], page_size: int) -> list[int]:
    """Return the sizes in bytes of the segments to create before `items` are allocated in a group in this order.

    `table` has the existing segments; `page_size` is in bytes. Small items share one segment. A large item gets its
    own, since the size of a segment is a power of two and a common one would waste up to half of it.
    """
    sizes: list[int] = []

    def grow(size: int) -> Table:
        sizes.append(size)
        record = SegmentRecord(UUID(int=len(table.segments)), size, page_size, 0, group.socket_id, group.name, 0)
        return replace(table, segments=(*table.segments, record))

    if group.size is not None and not any(record.group == group.name for record in table.segments):
        table = grow(max(group.size, page_size))
    for number, item in enumerate(items):
        if _place(table, group, item) is None:
            table = grow(smallest_segment(_need(items[number:]), page_size))
        place = _place(table, group, item)
        if place is None:
            raise AssertionError(f"{item.where}: does not fit the segment computed for it")
        entry = Entry(item.key[1], item.key[0], *place, item.length, item.align)
        table = replace(table, entries=(*table.entries, entry))
    return sizes


def _need(items: Sequence[Item]) -> int:
    """Return the bytes for the segment header and the first item, and for the other items up to GROWTH_LIMIT."""
    first = align_up(HEADER_SIZE, items[0].align) + items[0].length
    together = HEADER_SIZE + sum(align_up(item.length, 64) + item.align for item in items)
    return max(first, min(together, GROWTH_LIMIT))


def _place(table: Table, group: Group, item: Item) -> tuple[int, int] | None:
    """Return the segment index and offset at which the heap would allocate an item; None if no segment has room."""
    for index, record in enumerate(table.segments):
        if record.group == group.name and group.socket_id in (SOCKET_ID_ANY, record.socket_id):
            offset = find_room(table, index, item.length, item.align)
            if offset is not None:
                return index, offset
    return None
