# SPDX-License-Identifier: BSD-3-Clause
"""eal.objects.table: one handle per object, lists without damaged objects, argument checks."""

from __future__ import annotations

import errno
import logging
from typing import Any

import pytest

import eal
from eal.metadata.records import Kind
from eal.objects.arguments import check_placement, check_same
from eal.objects.table import ObjectTable


@pytest.fixture
def table(primary: eal.Eal) -> ObjectTable:
    return primary._objects


def damage(ring: eal.Ring) -> None:
    ring.memzone.buf[64:72] = bytes(8)  # the magic of the extension header


def test_list_omits_and_logs_damaged_objects(
    primary: eal.Eal, table: ObjectTable, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("c", "a", "b"):
        primary.ring_create(name, 8)
    damage(primary.ring_lookup("b"))
    table._handles.clear()  # as in a process that has not attached the rings
    with caplog.at_level(logging.WARNING, "eal.objects.table"):
        assert [ring.name for ring in primary.rings()] == ["a", "c"]
    assert "ring 'b'" in caplog.text
    with pytest.raises(eal.Corrupt, match="ring 'b'"):
        primary.ring_lookup("b")


def test_repair_rings_logs_rings_that_fail_validation(
    primary: eal.Eal, table: ObjectTable, caplog: pytest.LogCaptureFixture
) -> None:
    damage(primary.ring_create("r", 8))
    primary.ring_create("s", 8)
    table._handles.clear()
    with caplog.at_level(logging.WARNING, "eal.objects.table"):
        table.repair_rings()
    assert "ring 'r'" in caplog.text
    assert [name for _, name in table._handles] == ["s"]


def test_ring_of_closed_zone_raises_error_of_zone(primary: eal.Eal, table: ObjectTable) -> None:
    zone = primary.ring_create("r", 8).memzone
    table._handles.clear()
    zone.close(errno.ENODEV)
    with pytest.raises(eal.Detached, match="ring 'r'"):
        table.ring(zone)
    assert table._handles == {}


def test_handle_is_attached_once_and_again_after_free(primary: eal.Eal, table: ObjectTable) -> None:
    ring = primary.ring_create("r", 8)
    assert table.ring(ring.memzone) is ring
    primary.ring_free(ring)
    assert (table._handles, table.find(Kind.RING, "r")) == ({}, None)
    assert primary.ring_create("r", 8) is not ring


def test_entries_list_each_object_of_file_prefix_once(primary: eal.Eal, table: ObjectTable) -> None:
    primary.memzone_reserve("x", 64)
    primary.ring_create("x", 8)
    assert [(entry.kind, entry.name) for entry, _ in table.entries()] == [(Kind.MEMZONE, "x"), (Kind.RING, "x")]
    primary.close()
    with pytest.raises(eal.Closed):
        list(table.entries())


@pytest.mark.parametrize(
    ("group", "socket_id", "error"),
    [
        ("", 0, eal.Invalid),
        (5, 0, eal.InvalidType),
        ("g", "0", eal.InvalidType),
        ("g", -2, eal.Invalid),
        ("g", 1 << 31, eal.Invalid),
    ],
)
def test_invalid_placement_raises_invalid(group: Any, socket_id: Any, error: type[eal.EalError]) -> None:
    with pytest.raises(error):
        check_placement(group, socket_id)
    check_placement("g", eal.SOCKET_ID_ANY)


def test_check_same_error_names_first_difference() -> None:
    check_same(Kind.RING, "r", {"count": (8, 8)})
    with pytest.raises(eal.Exists, match="ring 'r' exists with elem_size 4, not 8"):
        check_same(Kind.RING, "r", {"count": (8, 8), "elem_size": (4, 8), "flags": (0, 1)})


@pytest.mark.parametrize("kind", ["memzone", "ring", "mempool"])
def test_free_of_another_type_raises_invalid_type(primary: eal.Eal, kind: str) -> None:
    with pytest.raises(eal.InvalidType, match=f"{kind}_free: "):
        getattr(primary, f"{kind}_free")("name")
