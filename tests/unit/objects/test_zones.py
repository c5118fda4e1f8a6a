# SPDX-License-Identifier: BSD-3-Clause
"""eal.objects.zones: one Memzone per object, lookup in shares, and revocation of the zones of a share."""

from __future__ import annotations

import errno
import gc
import weakref
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import eal
from eal.memory.segment import Segment
from eal.metadata.records import Entry, Kind
from eal.objects.zones import ZoneTable, zone_name


@pytest.fixture
def segment(primary: eal.Eal) -> Segment:
    return primary.memzone_reserve("z", 64).segment


ENTRY = Entry("r", Kind.RING, 0, 4096, 640, 64, 0, "", None)


class FakeShare(SimpleNamespace):
    """Share with the given entries, all in one segment."""

    def __init__(self, segment: Segment, *entries: Entry, terminal_errno: int = 0) -> None:
        super().__init__(segments=[segment], table=SimpleNamespace(entries=entries), terminal_errno=terminal_errno)

    def find(self, kind: Kind, name: str) -> Entry | None:
        return next((e for e in self.table.entries if (e.kind, e.name) == (kind, name)), None)

    def segment_of(self, entry: Entry) -> Segment:
        found: Segment = self.segments[0]
        return found

    def has(self, entry: Entry, segment: Segment) -> bool:
        return entry in self.table.entries and segment is self.segments[0]


def table_of(*shares: Any) -> ZoneTable:
    table = ZoneTable()
    table.publish(list(shares))
    return table


@pytest.mark.parametrize(
    ("kind", "expected"), [(Kind.MEMZONE, "name"), (Kind.RING, "RG_name"), (Kind.MEMPOOL, "MP_name")]
)
def test_zone_name_has_prefix_of_kind(kind: Kind, expected: str) -> None:
    assert zone_name(replace(ENTRY, kind=kind, name="name")) == expected


def test_issue_of_same_object_returns_same_zone(segment: Segment) -> None:
    table = ZoneTable()
    zone = table.issue(ENTRY, segment)
    assert zone.name == "RG_r"
    assert table.issue(replace(ENTRY), segment) is zone
    table.forget(ENTRY)
    assert table.issue(ENTRY, segment) is not zone


@pytest.mark.parametrize("change", ["offset", "segment", "closed"])
def test_issue_of_other_object_with_same_name_returns_new_zone(primary: eal.Eal, segment: Segment, change: str) -> None:
    table = ZoneTable()
    zone = table.issue(ENTRY, segment)
    other, entry = segment, ENTRY
    if change == "offset":
        entry = replace(ENTRY, offset=8192)
    elif change == "segment":
        other = primary.memzone_reserve("y", 64, group="other").segment
    else:
        zone.close(errno.ENODEV)
    new = table.issue(entry, other)
    assert new is not zone
    assert table.issue(entry, other) is new


def test_find_shared_uses_first_usable_share(primary: eal.Eal, segment: Segment) -> None:
    other = primary.memzone_reserve("y", 64, group="other").segment
    table = table_of(FakeShare(other, ENTRY, terminal_errno=errno.ESTALE), FakeShare(segment, ENTRY))
    found = table.find_shared(Kind.RING, "r")
    assert found is not None
    assert found.segment is segment
    assert table.find_shared(Kind.MEMPOOL, "r") is None
    assert [entry for entry, _ in table.shared_entries()] == [ENTRY]
    assert table.is_shared(Kind.RING, "r")
    assert not table.is_shared(Kind.RING, "s")


def test_find_shared_of_restarted_host_raises_stale(segment: Segment) -> None:
    table = table_of(FakeShare(segment, ENTRY, terminal_errno=errno.ESTALE))
    with pytest.raises(eal.Stale, match="ring 'r'"):
        table.find_shared(Kind.RING, "r")


def test_find_shared_repeats_search_if_share_is_released(segment: Segment) -> None:
    """Simulate a monitor that releases the share after the zone was found in the share."""

    class ReleasedShare(FakeShare):
        def segment_of(self, entry: Entry) -> Segment:
            self.terminal_errno = errno.ENODEV
            table.publish([])
            return super().segment_of(entry)

    table = table_of(ReleasedShare(segment, ENTRY))
    assert table.find_shared(Kind.RING, "r") is None


@pytest.mark.parametrize(("code", "error"), [(errno.ENODEV, eal.Detached), (errno.ESTALE, eal.Stale)])
def test_revoke_closes_only_zones_without_other_usable_share(
    segment: Segment, code: int, error: type[eal.EalError]
) -> None:
    kept = replace(ENTRY, name="kept", kind=Kind.MEMZONE)
    lost = replace(ENTRY, name="lost", kind=Kind.MEMZONE, offset=8192)
    leaving, staying = FakeShare(segment, kept, lost, terminal_errno=code), FakeShare(segment, kept)
    table = table_of(leaving, staying, FakeShare(segment, lost, terminal_errno=errno.ESTALE))
    zones = [table.issue(entry, segment) for entry in (kept, lost)]
    table.revoke(leaving, code)  # type: ignore[arg-type]
    assert len(zones[0].buf) == 640
    with pytest.raises(error):
        _ = zones[1].buf


def test_revoke_closes_old_zone_after_name_is_reused(segment: Segment) -> None:
    share = FakeShare(segment, ENTRY, terminal_errno=errno.ENODEV)
    table = table_of(share)
    old = table.issue(ENTRY, segment)
    table.issue(replace(ENTRY, offset=8192), segment)
    table.revoke(share, errno.ENODEV)  # type: ignore[arg-type]
    with pytest.raises(eal.Detached):
        _ = old.buf


def test_forgotten_zone_is_collected(segment: Segment) -> None:
    table = ZoneTable()
    zone = weakref.ref(table.issue(ENTRY, segment))
    assert zone() is not None
    table.forget(ENTRY)
    gc.collect()
    assert zone() is None
