# SPDX-License-Identifier: BSD-3-Clause
"""Add objects to metadata: the entries in the table, and errors, which change no byte of the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import eal
import ivshmem
from eal.metadata.lookup import open_metadata
from eal.metadata.records import Kind
from ivshmem.emulate.runner import guest_environment


@pytest.fixture
def metadata(primary: eal.Eal) -> ivshmem.Metadata:
    return ivshmem.metadata_create("vm0", capacity=16 << 10)


@contextmanager
def raises(metadata: ivshmem.Metadata, kind: type[eal.EalError], match: str) -> Iterator[None]:
    """Check that the block raises exactly this error with the name of the metadata, and does not change the file."""
    before = Path(metadata.path).read_bytes()
    with pytest.raises(kind, match=match) as caught:
        yield
    assert type(caught.value) is kind
    assert f"{metadata.name!r}" in str(caught.value)
    assert Path(metadata.path).read_bytes() == before
    assert "\n" not in str(caught.value)


def rows(metadata: ivshmem.Metadata) -> list[tuple[Kind, str, int, int]]:
    return [(e.kind, e.name, e.offset, e.length) for e in open_metadata(Path(metadata.path)).read().entries]


# --- entries ------------------------------------------------------------------------------------------------


def test_add_each_kind_of_object(metadata: ivshmem.Metadata) -> None:
    zone = eal.memzone_reserve("zone", 1000, align=4096)
    array = eal.array_reserve("frames", (3, 4), "<f4")
    ring = eal.ring_create("ring", 16, elem_size=12)
    pool = eal.mempool_create("pool", 10, 100)
    metadata.add_memzone(zone)
    metadata.add_memzone(array)
    metadata.add_ring(ring)
    metadata.add_mempool(pool)
    assert rows(metadata) == [
        (Kind.MEMZONE, "zone", zone.offset, 1000),
        (Kind.MEMZONE, "frames", array.offset, 48),
        (Kind.RING, "ring", ring.memzone.offset, ring.memzone.length),
        (Kind.MEMPOOL, "pool", pool.memzone.offset, pool.memzone.length),
    ]
    table = metadata.table
    (segment,) = table.segments
    (made,) = eal.segments()
    assert (segment.uuid, segment.size, segment.page_size) == (made.uuid, made.size, made.page_size)
    assert (segment.group, segment.host_address, segment.readonly) == ("default", made.address, False)
    assert segment.path == ""  # host paths are not visible to guests
    assert (table.entries[0].align, table.entries[1].dtype, table.entries[1].shape) == (4096, array.entry.dtype, (3, 4))


def test_objects_of_different_kinds_may_have_one_name(metadata: ivshmem.Metadata) -> None:
    metadata.add_memzone(eal.memzone_reserve("same", 64))
    metadata.add_ring(eal.ring_create("same", 8))
    metadata.add_mempool(eal.mempool_create("same", 8, 64))
    assert [row[:2] for row in rows(metadata)] == [(kind, "same") for kind in (Kind.MEMZONE, Kind.RING, Kind.MEMPOOL)]


def test_segment_with_many_objects_is_listed_once(metadata: ivshmem.Metadata) -> None:
    for number in range(6):
        metadata.add_memzone(eal.memzone_reserve(f"zone{number}", 64, group=f"group{number % 3}"))
    table = metadata.table
    assert [segment.group for segment in table.segments] == ["group0", "group1", "group2"]
    assert [entry.segment for entry in table.entries] == [0, 1, 2, 0, 1, 2]
    assert len(metadata.devices()) == 4


def test_zone_in_two_metadata_files(metadata: ivshmem.Metadata) -> None:
    zone = eal.memzone_reserve("zone", 64)
    other = ivshmem.metadata_create("vm1")
    metadata.add_memzone(zone)
    other.add_memzone(zone, readonly=True)
    assert rows(metadata) == rows(other)
    assert [m.table.segments[0].readonly for m in (metadata, other)] == [False, True]


@pytest.mark.parametrize("readonly", [False, True])
def test_readonly_is_stored_in_table(metadata: ivshmem.Metadata, readonly: bool) -> None:
    zone = eal.memzone_reserve("zone", 64)
    metadata.add_memzone(zone, readonly=readonly)
    metadata.add_memzone(eal.memzone_reserve("more", 64), readonly=readonly)
    assert [s.readonly for s in open_metadata(Path(metadata.path)).read().segments] == [readonly]
    assert [device.readonly for device in metadata.devices()] == [readonly, True]
    assert not zone.readonly  # unchanged for the host


def test_readonly_and_writable_segments_in_two_groups(metadata: ivshmem.Metadata) -> None:
    metadata.add_memzone(eal.memzone_reserve("seen", 64, group="seen"), readonly=True)
    metadata.add_memzone(eal.memzone_reserve("worked", 64, group="worked"))
    assert [segment.readonly for segment in metadata.table.segments] == [True, False]


def test_add_objects_created_by_secondary(metadata: ivshmem.Metadata, peer: Callable[..., Any]) -> None:
    peer(
        """
        import sys, eal
        with eal.init(file_prefix=sys.argv[1], proc_type="secondary", no_huge=True):
            eal.memzone_reserve("theirs", 64)
            eal.ring_create("theirs", 8, group="apart")
        """
    ).end()
    metadata.add_memzone(eal.memzone_lookup("theirs"))
    metadata.add_ring(eal.ring_lookup("theirs"))
    assert [segment.group for segment in metadata.table.segments] == ["default", "apart"]


# --- types --------------------------------------------------------------------------------------------------


def fake_zone(zone: eal.Memzone) -> SimpleNamespace:
    """Return an object of another type with the attributes of a zone."""
    return SimpleNamespace(**vars(zone), address=zone.address, buf=zone.buf)


WRONG: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "str": lambda: "zone",
    "bytes": lambda: b"zone",
    "int": lambda: 0x200000000000,
    "list": lambda: [eal.memzone_lookup("zone")],
    "numpy array": lambda: np.zeros(64, np.uint8),
    "numpy view of a zone": lambda: eal.memzone_lookup("zone").array("u1"),
    "memoryview of a zone": lambda: eal.memzone_lookup("zone").buf,
    "pool.array": lambda: eal.mempool_lookup("pool").array,
    "a segment": lambda: eal.segments()[0],
    "the Eal": eal.current,
    "metadata": lambda: ivshmem.metadata_lookup("vm0"),
    "a class": lambda: eal.Memzone,
    "a zone-like object": lambda: fake_zone(eal.memzone_lookup("zone")),
    "an object with a zone": lambda: SimpleNamespace(memzone=eal.memzone_lookup("zone"), name="zone"),
    "a zone": lambda: eal.memzone_lookup("zone"),
    "a ring": lambda: eal.ring_lookup("ring"),
    "a pool": lambda: eal.mempool_lookup("pool"),
}
FITS = {"add_memzone": ("Memzone", "a zone"), "add_ring": ("Ring", "a ring"), "add_mempool": ("Mempool", "a pool")}


@pytest.mark.parametrize("method", FITS)
@pytest.mark.parametrize("wrong", WRONG)
def test_add_of_other_type_raises_invalid_type(metadata: ivshmem.Metadata, method: str, wrong: str) -> None:
    eal.memzone_reserve("zone", 64)
    eal.ring_create("ring", 8)
    eal.mempool_create("pool", 8, 64)
    kind, right = FITS[method]
    if wrong == right:
        getattr(metadata, method)(WRONG[wrong]())
        assert len(rows(metadata)) == 1
        return
    given = WRONG[wrong]()
    with raises(metadata, eal.InvalidType, f"object must be a {kind}, got {type(given).__name__}"):
        getattr(metadata, method)(given)
    with pytest.raises(TypeError):
        getattr(metadata, method)(given)


# --- duplicates, overlaps -----------------------------------------------------------------------------------


def test_add_twice_raises_exists(metadata: ivshmem.Metadata) -> None:
    zone, ring, pool = eal.memzone_reserve("z", 64), eal.ring_create("r", 8), eal.mempool_create("p", 8, 64)
    metadata.add_memzone(zone)
    metadata.add_ring(ring)
    metadata.add_mempool(pool)
    with raises(metadata, eal.Exists, "already has memzone 'z'"):
        metadata.add_memzone(zone)
    with raises(metadata, eal.Exists, "already has memzone 'z'"):
        metadata.add_memzone(eal.memzone_lookup("z"), readonly=True)
    with raises(metadata, eal.Exists, "already has ring 'r'"):
        metadata.add_ring(ring)
    with raises(metadata, eal.Exists, "already has mempool 'p'"):
        metadata.add_mempool(pool)
    assert len(rows(metadata)) == 3


def test_zone_of_added_ring_overlaps(metadata: ivshmem.Metadata) -> None:
    ring, pool = eal.ring_create("r", 8), eal.mempool_create("p", 8, 64)
    metadata.add_ring(ring)
    metadata.add_mempool(pool)
    with raises(metadata, eal.Invalid, "memzone 'RG_r' overlaps ring 'r', which it already has"):
        metadata.add_memzone(ring.memzone)
    with raises(metadata, eal.Invalid, "memzone 'RG_r' overlaps ring 'r'"):
        metadata.add_memzone(eal.memzone_lookup("RG_r"))
    with raises(metadata, eal.Invalid, "memzone 'MP_p' overlaps mempool 'p'"):
        metadata.add_memzone(eal.memzone_lookup("MP_p"))


def test_ring_in_added_zone_overlaps(metadata: ivshmem.Metadata) -> None:
    ring, pool = eal.ring_create("r", 8), eal.mempool_create("p", 8, 64)
    metadata.add_memzone(ring.memzone)
    metadata.add_memzone(pool.memzone)
    with raises(metadata, eal.Invalid, "ring 'r' overlaps memzone 'RG_r'"):
        metadata.add_ring(ring)
    with raises(metadata, eal.Invalid, "mempool 'p' overlaps memzone 'MP_p'"):
        metadata.add_mempool(pool)
    with raises(metadata, eal.Exists, "already has memzone 'RG_r'"):
        metadata.add_memzone(ring.memzone)


def test_adjacent_zones_do_not_overlap(metadata: ivshmem.Metadata) -> None:
    first, second = eal.memzone_reserve("first", 64), eal.memzone_reserve("second", 64)
    assert first.offset + first.length == second.offset
    metadata.add_memzone(second)
    metadata.add_memzone(first)
    assert len(rows(metadata)) == 2


def test_equal_offsets_in_two_segments_do_not_overlap(metadata: ivshmem.Metadata) -> None:
    zones = [eal.memzone_reserve(name, 64, group=name) for name in ("a", "b")]
    assert zones[0].offset == zones[1].offset
    for zone in zones:
        metadata.add_memzone(zone)
    assert len(rows(metadata)) == 2


# --- objects outside this Eal -------------------------------------------------------------------------------


def test_add_freed_object_raises_invalid(metadata: ivshmem.Metadata) -> None:
    zone, ring, pool = eal.memzone_reserve("z", 64), eal.ring_create("r", 8), eal.mempool_create("p", 8, 64)
    eal.memzone_free(zone)
    eal.ring_free(ring)
    eal.mempool_free(pool)
    for _ in range(2):
        with raises(metadata, eal.Invalid, "'z' must be in a segment of .*, or was freed"):
            metadata.add_memzone(zone)
        with raises(metadata, eal.Invalid, "'RG_r' must be in a segment of .*, or was freed"):
            metadata.add_ring(ring)
        with raises(metadata, eal.Invalid, "'MP_p' must be in a segment of .*, or was freed"):
            metadata.add_mempool(pool)

        # New objects with the same names and offsets.
        eal.memzone_reserve("z", 64, exist_ok=True)
        eal.ring_create("r", 8, exist_ok=True)
        eal.mempool_create("p", 8, 64, exist_ok=True)
    metadata.add_memzone(eal.memzone_lookup("z"))


def test_add_object_of_closed_eal_raises_invalid(runtime_dir: Path, prefix: str) -> None:
    def make() -> tuple[eal.Memzone, eal.Ring, eal.Mempool]:
        return eal.memzone_reserve("z", 64), eal.ring_create("r", 8), eal.mempool_create("p", 8, 64)

    with eal.init(file_prefix=prefix, no_huge=True):
        zone, ring, pool = make()
    with eal.init(file_prefix=prefix, no_huge=True):
        metadata = ivshmem.metadata_create("vm0")
        for _ in range(2):
            with raises(metadata, eal.Invalid, f"must be in a segment of file_prefix '{prefix}'"):
                metadata.add_memzone(zone)
            with raises(metadata, eal.Invalid, f"must be in a segment of file_prefix '{prefix}'"):
                metadata.add_ring(ring)
            with raises(metadata, eal.Invalid, f"must be in a segment of file_prefix '{prefix}'"):
                metadata.add_mempool(pool)
            if not eal.memzones():
                make()  # new objects with the same names and offsets


def test_guest_cannot_add_objects_of_its_share(
    metadata: ivshmem.Metadata, peer: Callable[..., Any], prefix: str
) -> None:
    """A guest has no files of its host's segments, so its own metadata cannot list the host's objects."""
    metadata.add_memzone(eal.memzone_reserve("z", 64))
    metadata.add_ring(eal.ring_create("r", 8))
    metadata.add_mempool(eal.mempool_create("p", 8, 64))
    guest = """
    import sys, eal, ivshmem
    from pathlib import Path
    with eal.init(file_prefix=sys.argv[1] + "guest", no_huge=True):
        metadata = ivshmem.metadata_create("nested")
        before = Path(metadata.path).read_bytes()
        for add in (
            lambda: metadata.add_memzone(eal.memzone_lookup("z")),
            lambda: metadata.add_ring(eal.ring_lookup("r")),
            lambda: metadata.add_mempool(eal.mempool_lookup("p")),
        ):
            try:
                add()
            except eal.Invalid as error:
                print(error)
            assert Path(metadata.path).read_bytes() == before
    """
    with guest_environment(metadata.devices()) as env, pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        said = peer(guest).end().splitlines()
    names = [line.split(" ")[2] for line in said]
    assert names == ["'z'", "'RG_r'", "'MP_p'"]
    assert all(f"must be in a segment of file_prefix '{prefix}guest'" in line for line in said)


def test_forged_zone_raises_invalid(metadata: ivshmem.Metadata) -> None:
    """A handle with a range that is not in the registry would share bytes that are not reserved."""
    zone = eal.memzone_reserve("z", 64)
    for change in ({"length": 128}, {"offset": zone.offset + 64}, {"name": "y"}, {"kind": Kind.RING}, {"segment": 1}):
        forged = eal.Memzone(replace(zone.entry, **change), zone.segment)
        with raises(metadata, eal.Invalid, "must be in a segment"):
            metadata.add_memzone(forged)


# --- read-only and writable ---------------------------------------------------------------------------------


def test_writable_object_in_readonly_segment_raises_invalid(metadata: ivshmem.Metadata) -> None:
    first, second = eal.memzone_reserve("first", 64), eal.memzone_reserve("second", 64)
    metadata.add_memzone(first, readonly=True)
    with raises(metadata, eal.Invalid, "either read-only or writable in one VM.* in a group of their own"):
        metadata.add_memzone(second)
    with raises(metadata, eal.Invalid, "group of their own"):
        metadata.add_ring(eal.ring_create("r", 8))
    with raises(metadata, eal.Invalid, "group of their own"):
        metadata.add_mempool(eal.mempool_create("p", 8, 64))
    metadata.add_memzone(second, readonly=True)
    assert [row[1] for row in rows(metadata)] == ["first", "second"]


def test_readonly_object_in_writable_segment_raises_invalid(metadata: ivshmem.Metadata) -> None:
    metadata.add_ring(eal.ring_create("r", 8))
    zone = eal.memzone_reserve("z", 64)
    with raises(metadata, eal.Invalid, f"segment {zone.segment.uuid} must be either"):
        metadata.add_memzone(zone, readonly=True)
    metadata.add_memzone(eal.memzone_reserve("apart", 64, group="apart"), readonly=True)


# --- full table ---------------------------------------------------------------------------------------------


def test_full_table_raises_no_memory(metadata: ivshmem.Metadata) -> None:
    zones = [eal.memzone_reserve(f"z{number}", 64) for number in range(70)]
    for zone in zones[:62]:  # ((16 KiB - header) / 2 - table header - 1 segment) / 96 bytes
        metadata.add_memzone(zone)
    for zone in zones[62:]:
        with raises(metadata, eal.NoMemory, r"is full: .* larger capacity"):
            metadata.add_memzone(zone)
    assert [row[1] for row in rows(metadata)] == [zone.name for zone in zones[:62]]
    with raises(metadata, eal.NoMemory, "larger capacity"):
        metadata.add_ring(eal.ring_create("r", 8, group="apart"))
    larger = ivshmem.metadata_create("vm1", capacity=32 << 10)
    for zone in zones:
        larger.add_memzone(zone)
    assert len(rows(larger)) == 70


def test_long_dtype_needs_room_in_table(metadata: ivshmem.Metadata) -> None:
    """A long dtype does not fit; a shorter one still does."""
    wide = eal.array_reserve("wide", (2,), [(f"field_with_a_long_name_{n}", "<f8") for n in range(300)])
    with raises(metadata, eal.NoMemory, "larger capacity"):
        metadata.add_memzone(wide)
    metadata.add_memzone(eal.array_reserve("narrow", (2,), "<f8"))
    larger = ivshmem.metadata_create("vm1")
    larger.add_memzone(wide)
    assert larger.table.entries[0].dtype == wide.entry.dtype


def test_thousand_zones_in_64_segments(primary: eal.Eal) -> None:
    metadata = ivshmem.metadata_create("vm0")
    zones = [eal.memzone_reserve(f"zone-with-a-long-name-{n:09}", 64, group=f"group{n % 64}") for n in range(1000)]
    for zone in zones:
        metadata.add_memzone(zone)
    assert [row[1] for row in rows(metadata)] == [zone.name for zone in zones]
    assert len(metadata.devices()) == 65


# --- guest --------------------------------------------------------------------------------------------------


def test_guest_finds_zones_of_rings_and_mempools_added_as_memzones(
    metadata: ivshmem.Metadata, peer: Callable[..., Any]
) -> None:
    """For a guest with its own implementation of rings and mempools."""
    ring, pool = eal.ring_create("r", 8), eal.mempool_create("p", 8, 64)
    metadata.add_memzone(ring.memzone)
    metadata.add_memzone(pool.memzone)
    guest = """
    import eal
    with eal.init():
        print([zone.name for zone in eal.memzones()], eal.rings(), eal.mempools())
        print([eal.memzone_lookup(name).length for name in ("RG_r", "MP_p")])
    """
    with guest_environment(metadata.devices()) as env, pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        said = peer(guest).end().splitlines()
    assert said == ["['MP_p', 'RG_r'] [] []", str([ring.memzone.length, pool.memzone.length])]
