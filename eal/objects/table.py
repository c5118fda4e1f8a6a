# SPDX-License-Identifier: BSD-3-Clause
"""Directory: the objects that an Eal knows by name, its own and those of shares, and the one handle of each."""

from __future__ import annotations

import errno
import logging
import weakref
from collections.abc import Iterator
from typing import Any

from eal.errors import (
    Closed,
    Corrupt,
    Denied,
    Detached,
    EalError,
    Exists,
    InUse,
    Invalid,
    InvalidType,
    NotFound,
    Stale,
    raise_for,
)
from eal.mbuf.pool import attach_pool
from eal.memory.heap import CACHE_LINE, Heap, check_align
from eal.memory.memzone import Memzone
from eal.memory.segment import Segment
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.metadata.lookup import metadata_with
from eal.metadata.records import Entry, Kind
from eal.probe.share import Share
from eal.ring import recovery as recover
from eal.ring.ring import Ring
from eal.text.names import POOL_PREFIX, RING_PREFIX, check_name

log = logging.getLogger(__name__)

_ZONE_PREFIX = {Kind.MEMZONE: "", Kind.RING: RING_PREFIX, Kind.MEMPOOL: POOL_PREFIX}


def zone_name(entry: Entry) -> str:
    """What the zone of an object is called: a ring's starts with RG_, a pool's with MP_."""
    return _ZONE_PREFIX[entry.kind] + entry.name


class Directory:
    """What objects are found, attached and freed by. Thread-safe."""

    _heap: Heap
    _shares: list[Share]
    _stall_timeout: float
    _closed: bool

    def __init__(self) -> None:
        self._zones: dict[tuple[Kind, str], tuple[Entry, Memzone]] = {}
        self._handles: dict[tuple[Kind, str], tuple[Memzone, Any]] = {}
        # Every Memzone that a caller may still hold, by segment: an unplug closes them.
        self._issued: weakref.WeakKeyDictionary[Segment, weakref.WeakSet[Memzone]] = weakref.WeakKeyDictionary()

    def _change(self) -> Any:
        """Alone among all processes of the prefix. Raises Closed."""
        return self._heap.lock()

    def _check(self) -> None:
        if self._closed:
            raise Closed("this Eal is closed, or belongs to the parent process: call eal.init() again")

    @staticmethod
    def _check_place(group: object = "default", socket_id: object = SOCKET_ID_ANY, **_: object) -> None:
        check_name(group, "group")
        if not isinstance(socket_id, int):
            raise InvalidType(f"socket_id is an int, not {type(socket_id).__name__}")
        if not SOCKET_ID_ANY <= socket_id < 1 << 31:
            raise Invalid(f"socket_id {socket_id}: a NUMA node, or SOCKET_ID_ANY")

    @staticmethod
    def _check_same(kind: str, name: str, pairs: dict[str, tuple[object, object]]) -> None:
        for what, (there, asked) in pairs.items():
            if there != asked:
                raise Exists(f"{kind} {name!r} exists with another {what}: {there} there, {asked} asked for")

    def _check_same_place(
        self, kind: str, zone: Memzone, *, group: str, socket_id: int, align: int = CACHE_LINE, flags: int | None = None
    ) -> None:
        """That a zone which is there lies where it was asked for; SOCKET_ID_ANY is anywhere. Where objects of shares
        lie is their host's choice. Raises Exists.
        """
        if zone.segment.uuid not in self._heap.segments:
            return
        pairs: dict[str, tuple[object, object]] = {
            "group": (zone.segment.group, group),
            "align": (zone.align, max(check_align(align), CACHE_LINE)),
            "flags": (zone.flags, zone.flags if flags is None else flags),
        }
        if socket_id != SOCKET_ID_ANY:
            pairs["socket_id"] = (zone.host_socket_id, socket_id)
        self._check_same(kind, zone.entry.name, pairs)

    def _registry_entry(self, kind: Kind, name: str) -> Entry | None:
        return self._heap.registry.find(kind, name)

    def _entries(self) -> Iterator[tuple[Entry, Segment]]:
        """Every object with its segment; an object that stands in several metadata once."""
        self._check()
        seen = set()
        table = self._heap.registry.table
        for entry in table.entries:
            seen.add((entry.kind, entry.name))
            yield entry, self._heap.segment(table.segments[entry.segment])
        for share in self._shares:
            for entry in () if share.over else share.table.entries:
                if (entry.kind, entry.name) not in seen:
                    seen.add((entry.kind, entry.name))
                    yield entry, share.segment_of(entry)

    def _all(self, kind: Kind) -> list[Any]:
        """Every sound object of a kind, sorted by name; one that a peer has damaged, or that goes this very moment, is
        left out, and logged.
        """
        found = []
        for entry, segment in self._entries():
            if entry.kind == kind:
                try:
                    found.append(self._handle(self._zone(entry, segment)))
                except (Corrupt, Detached, Stale) as error:
                    log.warning("%s", error)
        return sorted(found, key=lambda handle: handle.name)

    def _find_zone(self, kind: Kind, name: str) -> Memzone | None:
        """The zone of an object of the prefix, or else of a share."""
        entry = self._registry_entry(kind, name)
        if entry is not None:
            return self._own_zone(entry)
        stale = False
        for share in self._shares:
            entry = share.find(kind, name)
            if entry is not None and not share.over:
                zone = self._zone(entry, share.segment_of(entry))
                # if the share went meanwhile, who refuses its objects may not have seen this one
                return zone if not share.over else self._find_zone(kind, name)
            stale |= entry is not None
        if stale:
            raise_for(-errno.ESTALE, kind.name.lower(), name)
        return None

    def _revoke(self, share: Share, code: int) -> None:
        """From now on what is only in this share, or in it no more, is refused with an errno."""
        living = [other for other in self._shares if not other.over]
        for segment in share.segments:
            for zone in list(self._issued.get(segment, ())):
                if not any(other.has(zone.entry, segment) for other in living):
                    zone.close(code)

    def _existing(self, kind: Kind, name: str, exist_ok: bool) -> Memzone | None:
        """The zone of what has a name that is to be given; None where it is free. Raises Exists unless `exist_ok`."""
        zone = self._find_zone(kind, name)
        if zone is not None and not exist_ok:
            what = kind.name.lower()
            raise Exists(f"{what} {name!r} exists already: choose another name, free it, or exist_ok=True")
        return zone

    def _lookup_zone(self, kind: Kind, name: str) -> Memzone:
        self._check()
        if zone := self._find_zone(kind, name):
            return zone
        what = kind.name.lower()
        known = sorted(entry.name for entry, _ in self._entries() if entry.kind == kind)
        raise NotFound(f"there is no {what} {name!r}; there {_listed(known)}")

    def _own_zone(self, entry: Entry) -> Memzone:
        return self._zone(entry, self._heap.segment(self._heap.registry.table.segments[entry.segment]))

    def _zone(self, entry: Entry, segment: Segment) -> Memzone:
        """The one Memzone of an object in this process; a new one if the name means another object by now."""
        key = (entry.kind, entry.name)
        known = self._zones.get(key)
        if known is not None and known[0] == entry and known[1].segment is segment and not known[1].terminal_errno:
            return known[1]
        zone = Memzone(entry, segment, zone_name(entry))
        self._issued.setdefault(segment, weakref.WeakSet()).add(zone)
        if known is None:  # if another thread was faster, its zone is the one
            return self._zones.setdefault(key, (entry, zone))[1]
        self._zones[key] = (entry, zone)
        return zone

    def _handle(self, zone: Memzone) -> Any:
        """The one Ring or Mempool of a zone in this process. Raises Corrupt."""
        entry = zone.entry
        key = (entry.kind, entry.name)
        known = self._handles.get(key)
        if known is not None and known[0] is zone:
            self._mend(known[1])
            return known[1]
        handle: Any
        if entry.kind == Kind.RING:
            handle = Ring(zone, entry.name, self._stall_timeout)
        else:
            handle = attach_pool(zone, entry.name)
        zone.users.add(handle)
        if zone.terminal_errno:  # by now: who closed it may not have seen this handle
            raise_for(-zone.terminal_errno, entry.kind.name.lower(), entry.name)
        self._mend(handle)
        if known is None:
            return self._handles.setdefault(key, (zone, handle))[1]
        self._handles[key] = (zone, handle)
        return handle

    def _mend(self, handle: Any) -> None:
        """Undoes what a dead process of this machine left half done at a ring's ends."""
        if isinstance(handle, Ring) and recover.needs_mending(handle):
            with self._change():
                recover.mend(handle)

    def _mend_own_rings(self) -> None:
        """The same for all rings of the prefix. One that cannot be attached is left for who asks for it."""
        for entry in self._heap.registry.table.entries:
            if entry.kind == Kind.RING:
                try:
                    self._handle(self._own_zone(entry))
                except EalError as error:
                    log.warning("%s", error)

    def _free(self, entry: Entry, handle: Any) -> None:
        what = f"{entry.kind.name.lower()} {entry.name!r}"
        with self._change():
            table = self._heap.registry.table
            if entry not in table.entries:
                if any(share.find(entry.kind, entry.name) for share in self._shares):
                    raise Denied(f"{what} belongs to the host: only it can free it")
                raise NotFound(f"{what} is gone already")
            uuid = table.segments[entry.segment].uuid
            names = metadata_with(self._heap.directory, uuid, entry.offset, entry.length)
            if names:
                raise InUse(f"{what} stands in metadata {', '.join(map(repr, names))}: close that first")
            if not isinstance(handle, Memzone):
                handle.close()
            self._heap.release(entry)
            self._handles.pop((entry.kind, entry.name), None)
            self._zones.pop((entry.kind, entry.name), None)


def _listed(names: list[str]) -> str:
    if not names:
        return "are none"
    shown = ", ".join(map(repr, names[:10]))
    return f"are {shown}" + (f" and {len(names) - 10} more" if len(names) > 10 else "")
