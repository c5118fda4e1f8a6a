# SPDX-License-Identifier: BSD-3-Clause
"""Methods of Eal that list and create segments. The functions of `eal` have the full docstrings."""

from __future__ import annotations

import os

from eal.errors import InvalidType
from eal.memory import hugepages
from eal.memory.segment import Segment
from eal.memory.segment_file import Ownership, Progress, check_mode
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.objects.arguments import check_placement
from eal.objects.table import ObjectTable


class SegmentMethods:
    """Methods for segments. Thread-safe."""

    _objects: ObjectTable

    def segments(self) -> list[Segment]:
        """Return the segments of the file_prefix, then those of shares (DPDK: rte_memseg_list_walk)."""
        self._objects.check_open()
        heap = self._objects.heap
        own = {record.uuid: heap.segment(record) for record in heap.registry.table.segments}
        shared = {segment.uuid: segment for share in self._objects.zones.shares for segment in share.segments}
        return [*own.values(), *(segment for uuid, segment in shared.items() if uuid not in own)]

    def segment_create(
        self,
        size: int,
        *,
        group: str = "default",
        socket_id: int = SOCKET_ID_ANY,
        mode: int = 0o600,
        user: str | int | None = None,
        user_group: str | int | None = None,
        page_size: int | None = None,
        huge_dir: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> Segment:
        """Create a segment of `size` bytes for a group; see `eal.segment_create`."""
        self._objects.check_open()
        check_placement(group, socket_id)
        if not isinstance(size, int):
            raise InvalidType(f"segment size must be an int, got {type(size).__name__}")
        check_mode(mode, "segment")
        backend = hugepages.choose(huge_dir=huge_dir, page_size=page_size) if huge_dir or page_size else None
        return self._objects.heap.create_segment(
            size,
            group=group,
            socket_id=socket_id,
            ownership=Ownership(mode, user, user_group),
            backend=backend,
            progress=progress,
        )
