# SPDX-License-Identifier: BSD-3-Clause
"""The object table: finds, attaches and frees the objects of a file_prefix and of its shares, one handle per object."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any, TypeVar

from eal.errors import Corrupt, Denied, Detached, EalError, Exists, InUse, NotFound, Stale, raise_for
from eal.mbuf.pool import attach_pool
from eal.memory.heap import CACHE_LINE, Heap, check_align
from eal.memory.memzone import Memzone
from eal.memory.segment import Segment
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.mempool.mempool import Mempool
from eal.metadata.lookup import metadata_with
from eal.metadata.records import Entry, Kind
from eal.objects.arguments import check_same
from eal.objects.zones import ZoneTable
from eal.ring import recovery
from eal.ring.ring import Ring

log = logging.getLogger(__name__)

_HandleT = TypeVar("_HandleT", Ring, Mempool)


class ObjectTable:
    """The objects that one Eal can use. Thread-safe.

    `heap` has the objects of the file_prefix, `zones` those of shares. `check_open` raises Closed once the Eal is
    closed; `stall_timeout` is the time limit of ring operations in seconds.
    """

    def __init__(self, heap: Heap, zones: ZoneTable, stall_timeout: float, check_open: Callable[[], None]) -> None:
        self.heap = heap
        self.zones = zones
        self.check_open = check_open
        self._stall_timeout = stall_timeout
        self._handles: dict[tuple[Kind, str], tuple[Memzone, Any]] = {}

    def change(self) -> AbstractContextManager[None]:
        """Return a context manager that holds the CHANGE lock of the file_prefix. Raise Closed."""
        return self.heap.lock()

    # --- finding ------------------------------------------------------------------------------------------

    def entries(self) -> Iterator[tuple[Entry, Segment]]:
        """Yield every object once with its segment: those of the file_prefix first. Raise Closed."""
        self.check_open()
        seen = set()
        for entry, segment in chain(self._own_entries(), self.zones.shared_entries()):
            if (entry.kind, entry.name) not in seen:
                seen.add((entry.kind, entry.name))
                yield entry, segment

    def _own_entries(self) -> Iterator[tuple[Entry, Segment]]:
        table = self.heap.registry.table
        for entry in table.entries:
            yield entry, self.heap.segment(table.segments[entry.segment])

    def find(self, kind: Kind, name: str) -> Memzone | None:
        """Return the zone of an object of the file_prefix, else of a share; None without one. Raise Stale."""
        entry = self.heap.registry.find(kind, name)
        return self.zones.find_shared(kind, name) if entry is None else self._own_zone(entry)

    def find_existing(self, kind: Kind, name: str, exist_ok: bool) -> Memzone | None:
        """Return the zone of an existing object; None if the name is free. Raise Exists unless `exist_ok`."""
        zone = self.find(kind, name)
        if zone is not None and not exist_ok:
            raise Exists(
                f"{kind.name.lower()} {name!r} already exists; choose another name, free it, or pass exist_ok=True"
            )
        return zone

    def lookup(self, kind: Kind, name: str) -> Memzone:
        """Return the zone of an object. Raise Closed, NotFound or Stale."""
        self.check_open()
        if zone := self.find(kind, name):
            return zone
        names = sorted(entry.name for entry, _ in self.entries() if entry.kind == kind)
        raise NotFound(f"{kind.name.lower()} {name!r} does not exist; {_list_existing(kind, names)}")

    def _own_zone(self, entry: Entry) -> Memzone:
        return self.zones.issue(entry, self.heap.segment(self.heap.registry.table.segments[entry.segment]))

    # --- attaching ----------------------------------------------------------------------------------------

    def ring(self, zone: Memzone) -> Ring:
        """Return this process's only handle of the ring in a zone. Raise Corrupt."""
        return self._handle(zone, self._attach_ring)

    def mempool(self, zone: Memzone) -> Mempool:
        """Return this process's only handle of the mempool in a zone, an MbufPool for mbufs. Raise Corrupt."""
        return self._handle(zone, attach_pool)

    def all(self, kind: Kind, attach: Callable[[Memzone], _HandleT]) -> list[_HandleT]:
        """Return the handles of all intact objects of a kind, sorted by name.

        Objects that a peer has damaged, or that are being unplugged, are logged and left out.
        """
        found = []
        for entry, segment in self.entries():
            if entry.kind == kind:
                try:
                    found.append(attach(self.zones.issue(entry, segment)))
                except (Corrupt, Detached, Stale) as error:
                    log.warning("%s", error)
        return sorted(found, key=lambda handle: handle.name)

    def _attach_ring(self, zone: Memzone, name: str) -> Ring:
        return Ring(zone, name, self._stall_timeout)

    def _handle(self, zone: Memzone, attach: Callable[[Memzone, str], _HandleT]) -> _HandleT:
        entry = zone.entry
        key = (entry.kind, entry.name)
        cached = self._handles.get(key)
        handle: _HandleT
        if cached is not None and cached[0] is zone:
            handle = cached[1]
            self._repair(handle)
            return handle
        handle = attach(zone, entry.name)
        zone.users.add(handle)
        if zone.terminal_errno:  # the zone may have been closed before it listed this handle
            raise_for(-zone.terminal_errno, entry.kind.name.lower(), entry.name)
        self._repair(handle)
        if cached is None:  # another thread may have attached one in the meantime
            handle = self._handles.setdefault(key, (zone, handle))[1]
        else:
            self._handles[key] = (zone, handle)
        return handle

    def _repair(self, handle: Ring | Mempool) -> None:
        """Roll back a reservation that a dead process of this machine has not published on an ST side of a ring."""
        if isinstance(handle, Ring) and recovery.needs_repair(handle):
            with self.change():
                recovery.repair(handle)

    def repair_rings(self) -> None:
        """Roll back such reservations on all rings of the file_prefix; log each ring that fails validation."""
        for entry in self.heap.registry.table.entries:
            if entry.kind == Kind.RING:
                try:
                    self.ring(self._own_zone(entry))
                except EalError as error:
                    log.warning("%s", error)

    # --- reserving and freeing ----------------------------------------------------------------------------

    def reserve(self, kind: Kind, name: str, length: int, **arguments: Any) -> Memzone:
        """Reserve the zone of a new object; arguments as in Heap.reserve. Raise Exists, Invalid, NoMemory."""
        return self._own_zone(self.heap.reserve(name, kind, length, **arguments))

    def check_same_placement(
        self, zone: Memzone, *, group: str, socket_id: int, align: int = CACHE_LINE, flags: int | None = None
    ) -> None:
        """Raise Exists if an existing zone differs from the requested placement.

        SOCKET_ID_ANY matches every node. The placement of an object of a share is the choice of its host.
        """
        if zone.segment.uuid not in self.heap.segments:
            return
        pairs: dict[str, tuple[object, object]] = {
            "group": (zone.segment.group, group),
            "align": (zone.align, max(check_align(align), CACHE_LINE)),
            "flags": (zone.flags, zone.flags if flags is None else flags),
        }
        if socket_id != SOCKET_ID_ANY:
            pairs["socket_id"] = (zone.host_socket_id, socket_id)
        check_same(zone.entry.kind, zone.entry.name, pairs)

    def free(self, entry: Entry, handle: Ring | Mempool | None = None) -> None:
        """Free an object and close its handle. Raise Denied, NotFound, or InUse while a metadata file lists it."""
        subject = f"{entry.kind.name.lower()} {entry.name!r}"
        with self.change():
            table = self.heap.registry.table
            if entry not in table.entries:
                if self.zones.is_shared(entry.kind, entry.name):
                    raise Denied(f"{subject} belongs to the host of a share; only that host can free it")
                raise NotFound(f"{subject} was already freed")
            uuid = table.segments[entry.segment].uuid
            names = metadata_with(self.heap.directory, uuid, entry.offset, entry.length)
            if names:
                raise InUse(f"{subject} is listed in metadata {', '.join(map(repr, names))}; close the metadata first")
            if handle is not None:
                handle.close()
            self.heap.release(entry)
            self._handles.pop((entry.kind, entry.name), None)
            self.zones.forget(entry)

    def close(self) -> None:
        """Close every handle, then the segments of the file_prefix."""
        for _, handle in self._handles.values():
            handle.close()
        self._handles.clear()
        for segment in self.heap.segments.values():
            segment.close()


def _list_existing(kind: Kind, names: list[str]) -> str:
    if not names:
        return f"no {kind.name.lower()} exists"
    shown = ", ".join(map(repr, names[:10]))
    return f"existing {kind.name.lower()}s: {shown}" + (f" and {len(names) - 10} more" if len(names) > 10 else "")
