# SPDX-License-Identifier: BSD-3-Clause
"""Zones: one Memzone per object in this process, and the shares that list the objects of other hosts."""

from __future__ import annotations

import errno
import weakref
from collections.abc import Iterator

from eal.errors import raise_for
from eal.memory.memzone import Memzone
from eal.memory.segment import Segment
from eal.metadata.records import Entry, Kind
from eal.probe.share import Share
from eal.text.names import POOL_PREFIX, RING_PREFIX

_ZONE_PREFIX = {Kind.MEMZONE: "", Kind.RING: RING_PREFIX, Kind.MEMPOOL: POOL_PREFIX}


def zone_name(entry: Entry) -> str:
    """Return the name of an object's zone: RG_ plus the name of a ring, MP_ plus the name of a mempool."""
    return _ZONE_PREFIX[entry.kind] + entry.name


class ZoneTable:
    """One Memzone per object, and the shares of other hosts.

    Thread-safe without a lock: `shares` is replaced as a whole, and a dictionary changes in single operations.
    """

    def __init__(self) -> None:
        self.shares: list[Share] = []  # those of live hosts first
        self._zones: dict[tuple[Kind, str], Memzone] = {}
        # Every Memzone that callers may hold, including those whose name now denotes another object.
        self._issued: weakref.WeakKeyDictionary[Segment, weakref.WeakSet[Memzone]] = weakref.WeakKeyDictionary()

    def publish(self, shares: list[Share]) -> None:
        """Replace the list of shares."""
        self.shares = shares

    def revoke(self, share: Share, code: int) -> None:
        """Refuse, with this errno, the zones of a share that no other usable share lists."""
        usable = [other for other in self.shares if not other.terminal_errno]
        for segment in share.segments:
            for zone in list(self._issued.get(segment, ())):
                if not any(other.has(zone.entry, segment) for other in usable):
                    zone.close(code)

    def issue(self, entry: Entry, segment: Segment) -> Memzone:
        """Return this process's Memzone of an object; a new one if the name denoted another object before."""
        key = (entry.kind, entry.name)
        cached = self._zones.get(key)
        if cached is not None and cached.entry == entry and cached.segment is segment and not cached.terminal_errno:
            return cached
        zone = Memzone(entry, segment, zone_name(entry))
        self._issued.setdefault(segment, weakref.WeakSet()).add(zone)
        if cached is None:
            return self._zones.setdefault(key, zone)  # another thread may have issued one in the meantime
        self._zones[key] = zone
        return zone

    def forget(self, entry: Entry) -> None:
        """Drop the Memzone of an object that was freed."""
        self._zones.pop((entry.kind, entry.name), None)

    def is_shared(self, kind: Kind, name: str) -> bool:
        """Return whether a share lists an object of this kind and name."""
        return any(share.find(kind, name) for share in self.shares)

    def shared_entries(self) -> Iterator[tuple[Entry, Segment]]:
        """Yield the objects of all usable shares with their segments; an object of several shares several times."""
        for share in self.shares:
            for entry in () if share.terminal_errno else share.table.entries:
                yield entry, share.segment_of(entry)

    def find_shared(self, kind: Kind, name: str) -> Memzone | None:
        """Return the zone of an object of a share; None if no share lists it. Raise Stale if its host has restarted."""
        stale = False
        for share in self.shares:
            entry = share.find(kind, name)
            if entry is None:
                continue
            if share.terminal_errno:
                stale = True
                continue
            zone = self.issue(entry, share.segment_of(entry))
            # If the share was released in the meantime, revoke() may have run before this zone was issued.
            return zone if not share.terminal_errno else self.find_shared(kind, name)
        if stale:
            raise_for(-errno.ESTALE, kind.name.lower(), name)
        return None
