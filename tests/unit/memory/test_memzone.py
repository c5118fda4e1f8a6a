# SPDX-License-Identifier: BSD-3-Clause
"""Memzones: reserve, zero, align, group, name, list and free them; arrays in memzones."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import eal

MIB = 1 << 20

# --- reserve ------------------------------------------------------------------------------------------------


def test_reserved_zone_is_zeroed_range_of_its_segment(primary: eal.Eal) -> None:
    zone = eal.memzone_reserve("frames", 1000, flags=5)
    assert (zone.name, zone.length, zone.flags, zone.align) == ("frames", 1000, 5, 64)
    assert (zone.buf.format, len(zone.buf), zone.buf.readonly, zone.buf.contiguous) == ("B", 1000, False, True)
    assert bytes(zone.buf) == bytes(1000)
    assert zone.address == zone.host_address == zone.segment.address + zone.offset
    assert (zone.relocated, zone.readonly, zone.socket_id, zone.host_socket_id) == (False, False, -1, -1)
    assert np.frombuffer(zone.buf, np.uint8).ctypes.data == zone.address
    zone.buf[0:4] = b"abcd"
    with open(zone.segment.path, "rb") as file:
        file.seek(zone.offset)
        assert file.read(4) == b"abcd"
    assert primary.memzone_lookup("frames") is zone


@pytest.mark.parametrize("length", [1, 63, 64, 65, 4096, 2 * MIB, 5 * MIB + 1])
def test_reserve_any_length_returns_exactly_that_length(primary: eal.Eal, length: int) -> None:
    zone = primary.memzone_reserve("z", length)
    assert (zone.length, len(zone.buf)) == (length, length)
    assert zone.segment.size == 1 << (zone.segment.size.bit_length() - 1)
    assert zone.offset + length <= zone.segment.size
    zone.buf[length - 1] = 1


@pytest.mark.parametrize("length", [0, -1, 1 << 47, 1 << 64])
def test_reserve_invalid_length_raises_invalid(primary: eal.Eal, length: int) -> None:
    with pytest.raises(eal.Invalid, match="length"):
        primary.memzone_reserve("z", length)
    assert (primary.memzones(), primary.segments()) == ([], [])


@pytest.mark.parametrize("length", [None, "64", 64.0, True])
def test_reserve_length_of_wrong_type_raises_type_error(primary: eal.Eal, length: object) -> None:
    with pytest.raises(TypeError, match="length must be an int"):
        primary.memzone_reserve("z", length)  # type: ignore[arg-type]


def test_reserve_more_than_available_raises_no_memory(primary: eal.Eal) -> None:
    with pytest.raises(eal.NoMemory, match=r"pages of 4 KiB required in /dev/shm, \d+ available"):
        primary.memzone_reserve("z", 1 << 45)
    assert (primary.memzones(), primary.segments()) == ([], [])
    primary.memzone_reserve("z", 64)


@pytest.mark.parametrize("align", [1, 2, 64, 128, 4096, MIB, 4 * MIB])
def test_reserve_with_align_returns_aligned_offset_and_address(primary: eal.Eal, align: int) -> None:
    primary.memzone_reserve("before", 1)
    zone = primary.memzone_reserve("z", 100, align=align)
    assert zone.offset % max(align, 64) == 0
    assert zone.address % max(align, 64) == 0
    assert zone.align == max(align, 64)


@pytest.mark.parametrize("align", [0, -64, 3, 96, 1 << 31, None, 64.0, "64"])
def test_reserve_invalid_align_raises_invalid(primary: eal.Eal, align: object) -> None:
    with pytest.raises(eal.Invalid, match="align"):
        primary.memzone_reserve("z", 64, align=align)  # type: ignore[arg-type]


def test_reserved_range_is_zero_after_free_of_used_range(primary: eal.Eal) -> None:
    dirty = primary.memzone_reserve("dirty", 100_000)
    place = (dirty.segment, dirty.offset)
    dirty.buf[:] = b"\xff" * 100_000
    primary.memzone_free(dirty)
    clean = primary.memzone_reserve("clean", 99_999)
    assert (clean.segment, clean.offset) == place
    assert bytes(clean.buf) == bytes(99_999)


def test_reserved_range_is_zero_after_peer_wrote_to_free_range(primary: eal.Eal) -> None:
    segment = primary.memzone_reserve("first", 64).segment
    with open(segment.path, "r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 65536)
    zone = primary.memzone_reserve("z", 65536, align=8192)
    assert (zone.segment, zone.offset) == (segment, 8192)
    assert bytes(zone.buf) == bytes(65536)


def test_ranges_do_not_overlap_and_freed_ranges_are_reused(primary: eal.Eal) -> None:
    zones = [primary.memzone_reserve(f"z{i}", 1000 + i, align=64 << i % 5) for i in range(50)]
    for zone in zones[::2]:
        primary.memzone_free(zone)
    more = [primary.memzone_reserve(f"y{i}", 900, align=64) for i in range(25)]
    alive = sorted((z.offset, z.offset + z.length) for z in [*zones[1::2], *more])
    assert all(end <= start for (_, end), (start, _) in pairwise(alive))
    assert alive[0][0] >= 4096
    assert len(primary.segments()) == 1


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 300_000), st.integers(0, 14), st.sampled_from("ab"), st.booleans())))
def test_random_zones_do_not_overlap_and_are_in_their_group(
    primary: eal.Eal, requests: list[tuple[int, int, str, bool]]
) -> None:
    zones: list[eal.Memzone] = []
    for number, (length, shift, group, free) in enumerate(requests):
        zone = primary.memzone_reserve(f"z{number}", length, align=1 << shift, group=group)
        assert zone.segment.group == group
        assert zone.offset % (1 << shift) == 0
        assert not any(bytes(zone.buf))
        zone.buf[:] = b"\xa5" * length
        zones.append(zone)
        if free:
            primary.memzone_free(zones.pop(number % len(zones)))
    for zone in zones:
        assert bytes(zone.buf) == b"\xa5" * zone.length
        primary.memzone_free(zone)


# --- groups -------------------------------------------------------------------------------------------------


def test_groups_do_not_share_segments(primary: eal.Eal) -> None:
    for group in ("default", "secret", "größe"):
        for number in range(3):
            primary.memzone_reserve(f"{group}{number}", 100, group=group)
            primary.ring_create(f"{group}{number}", 8, group=group)
    by_group = {zone.name: zone.segment.group for zone in primary.memzones()}
    assert all(name.removeprefix("RG_").startswith(group) for name, group in by_group.items())
    assert sorted(s.group for s in primary.segments()) == ["default", "größe", "secret"]
    assert len({s.path for s in primary.segments()}) == 3


def test_group_doubles_when_full(primary: eal.Eal) -> None:
    for number in range(5):
        primary.memzone_reserve(f"z{number}", 2 * MIB - 4096)
    sizes = [segment.size for segment in primary.segments()]
    assert sizes == [2 * MIB, 2 * MIB, 4 * MIB, 8 * MIB][: len(sizes)]
    assert all(size & (size - 1) == 0 for size in sizes)


@pytest.mark.parametrize("group", ["", "a/b", "x" * 32, "\n", None, 5, b"g"])
def test_invalid_group_name_raises_invalid(primary: eal.Eal, group: object) -> None:
    with pytest.raises(eal.Invalid, match="group"):
        primary.memzone_reserve("z", 64, group=group)  # type: ignore[arg-type]
    assert primary.segments() == []


# --- names --------------------------------------------------------------------------------------------------

BAD_NAMES = ["", "a/b", "nul\0", "tab\t", "\x7f", "\ud800", None, b"bytes", 5, ("a",)]


def make(primary: eal.Eal, kind: str, name: object) -> object:
    makers: dict[str, Callable[[], object]] = {
        "memzone": lambda: primary.memzone_reserve(name, 64),  # type: ignore[arg-type]
        "array": lambda: primary.array_reserve(name, 8, "f4"),  # type: ignore[arg-type]
        "ring": lambda: primary.ring_create(name, 8),  # type: ignore[arg-type]
        "mempool": lambda: primary.mempool_create(name, 8, 8),  # type: ignore[arg-type]
    }
    return makers[kind]()


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", ["memzone", "array", "ring", "mempool"])
def test_invalid_name_raises_invalid(primary: eal.Eal, kind: str, name: object) -> None:
    with pytest.raises(eal.Invalid, match="name must") as caught:
        make(primary, kind, name)
    assert isinstance(caught.value, TypeError) == (not isinstance(name, str))
    assert primary.segments() == []


@pytest.mark.parametrize(("kind", "limit"), [("memzone", 31), ("array", 31), ("ring", 28), ("mempool", 25)])
@pytest.mark.parametrize("letter", ["x", "ä", "語"])
def test_name_above_limit_in_bytes_raises_invalid(primary: eal.Eal, kind: str, limit: int, letter: str) -> None:
    size = len(letter.encode())
    longest = letter * (limit // size) + "y" * (limit % size)
    assert make(primary, kind, longest).name == longest  # type: ignore[attr-defined]
    with pytest.raises(eal.Invalid, match=f"must have 1 to {limit} bytes, got {limit + 1}"):
        make(primary, kind, longest + "y")


@pytest.mark.parametrize("name", ["RG_x", "MP_x", "RG_", "MP_"])
def test_zone_name_with_ring_or_mempool_prefix_raises_invalid(primary: eal.Eal, name: str) -> None:
    for kind in ("memzone", "array"):
        with pytest.raises(eal.Invalid, match="must not start with RG_ or MP_"):
            make(primary, kind, name)


@pytest.mark.parametrize("name", [".", "..", " ", "RG", "MP-", "rg_x", "%s", "a.b", "-rf", "é\u0301"])
def test_unusual_valid_names_are_found(primary: eal.Eal, name: str) -> None:
    for kind, lookup in (
        ("memzone", primary.memzone_lookup),
        ("ring", primary.ring_lookup),
        ("mempool", primary.mempool_lookup),
    ):
        made = make(primary, kind, name)
        assert lookup(name) is made


def test_name_is_unique_per_kind(primary: eal.Eal) -> None:
    for kind in ("memzone", "ring", "mempool"):
        make(primary, kind, "same")
        with pytest.raises(eal.Exists, match=rf"{kind} 'same' already exists"):
            make(primary, kind, "same")
    assert [zone.name for zone in primary.memzones()] == ["MP_same", "RG_same", "same"]


@pytest.mark.parametrize("name", [None, 5, b"z"])
def test_lookup_of_wrong_type_raises_type_error(primary: eal.Eal, name: object) -> None:
    for lookup in (primary.memzone_lookup, primary.ring_lookup, primary.mempool_lookup):
        with pytest.raises(TypeError, match="name must be a str"):
            lookup(name)  # type: ignore[arg-type]


def test_lookup_of_missing_name_lists_existing_names(primary: eal.Eal) -> None:
    with pytest.raises(eal.NotFound, match="memzone 'q' does not exist; no memzone exists"):
        primary.memzone_lookup("q")
    for number in range(12):
        primary.memzone_reserve(f"z{number:02}", 64)
    with pytest.raises(LookupError, match=r"existing memzones: 'z00', 'z01', .*'z09' and 2 more"):
        primary.memzone_lookup("q")
    with pytest.raises(eal.NotFound, match="ring 'q' does not exist; no ring exists"):
        primary.memzone_lookup("RG_q")


# --- exist_ok -----------------------------------------------------------------------------------------------


def test_exist_ok_returns_existing_zone_or_raises_on_mismatch(primary: eal.Eal) -> None:
    zone = primary.memzone_reserve("z", 100, exist_ok=True)
    zone.buf[0] = 9
    assert primary.memzone_reserve("z", 100, exist_ok=True) is zone
    assert zone.buf[0] == 9
    with pytest.raises(eal.Exists, match="memzone 'z' exists with length 100, not 101"):
        primary.memzone_reserve("z", 101, exist_ok=True)
    with pytest.raises(FileExistsError):
        primary.memzone_reserve("z", 100)


def test_exist_ok_returns_existing_array_or_raises_on_mismatch(primary: eal.Eal) -> None:
    zone = primary.array_reserve("a", (2, 3), "<f4", exist_ok=True)
    assert primary.array_reserve("a", (2, 3), np.float32, exist_ok=True) is zone
    others: list[tuple[int | tuple[int, ...], str, str]]
    others = [((3, 2), "<f4", "shape"), (6, "<f4", "shape"), ((2, 3), "<i4", "dtype")]
    for shape, dtype, field in others:
        with pytest.raises(eal.Exists, match=f"exists with {field} "):
            primary.array_reserve("a", shape, dtype, exist_ok=True)
    primary.memzone_reserve("plain", 24)
    with pytest.raises(eal.Exists, match="exists with dtype "):
        primary.array_reserve("plain", (2, 3), "<f4", exist_ok=True)


# --- arrays -------------------------------------------------------------------------------------------------

DTYPES = [
    "u1",
    "<f8",
    ">i4",
    "?",
    "<c16",
    "S5",
    "<U3",
    ">U3",
    "V7",
    "<M8[ns]",
    "<m8[25s]",
    "<f2",
    [("a", "u1"), ("b", ">f4")],
    [("rgb", "u1", (3,)), ("pose", "<f8", (4, 4))],
    [("outer", [("inner", "<i2"), ("text", "S3")]), ("when", "<M8[us]")],
    [("many", [("x", "<f4")], (2, 2))],
    [(("a title", "name"), "<i4")],
    np.dtype({"names": ["late"], "formats": ["<u4"], "offsets": [12], "itemsize": 20}),
    np.dtype([("a", "u1"), ("b", "<f8")], align=True),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (7,), (2, 3, 4), 5, (1, 1)], ids=str)
def test_array_without_arguments_has_reserved_dtype_and_shape(primary: eal.Eal, dtype: object, shape: object) -> None:
    zone = primary.array_reserve("a", shape, dtype)  # type: ignore[arg-type]
    array = zone.array()
    assert array.dtype == np.dtype(dtype)  # type: ignore[call-overload]
    assert array.shape == ((shape,) if isinstance(shape, int) else shape)
    assert zone.length == array.nbytes
    assert array.flags.writeable
    assert not any(array.tobytes())
    pattern = np.frombuffer(np.random.default_rng(1).bytes(array.nbytes), np.uint8)
    zone.buf[:] = pattern.tobytes()
    assert array.tobytes() == pattern.tobytes()
    assert np.shares_memory(array, zone.array())


@pytest.mark.parametrize("dtype", ["O", [("a", "O")], [("a", [("b", "O")], (2,))], object])
def test_dtype_with_python_objects_raises_invalid(primary: eal.Eal, dtype: object) -> None:
    with pytest.raises(eal.Invalid, match="Python objects"):
        primary.array_reserve("a", 3, dtype)
    zone = primary.memzone_reserve("z", 64)
    with pytest.raises(eal.Invalid, match="dtype must have a size and no Python objects"):
        zone.array(dtype)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((0,), "f4"), ((3, 0), "f4"), ((-1,), "f4"), ((-2, -2), "f4"), (3, "V0"), (3, "S0"), (-3, "u1")],
)
def test_array_reserve_without_bytes_raises_invalid(primary: eal.Eal, shape: object, dtype: str) -> None:
    with pytest.raises(eal.Invalid, match="at least one byte"):
        primary.array_reserve("a", shape, dtype)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "dtype"), [("3", "f4"), (None, "f4"), (2.5, "f4"), (3, "no such dtype"), (("2",), "f4")]
)
def test_array_reserve_with_shape_or_dtype_of_wrong_type_raises_type_error(
    primary: eal.Eal, shape: object, dtype: str
) -> None:
    with pytest.raises(TypeError):
        primary.array_reserve("a", shape, dtype)  # type: ignore[arg-type]
    assert primary.memzones() == []


def test_array_of_plain_zone_without_dtype_or_above_length_raises_invalid(primary: eal.Eal) -> None:
    zone = primary.memzone_reserve("z", 100)
    assert (zone.dtype, zone.shape) == (None, None)
    with pytest.raises(eal.Invalid, match="has no dtype"):
        zone.array()
    assert zone.array("<f8").shape == (12,)
    assert zone.array("<u2", (5, 10)).shape == (5, 10)
    assert zone.array("u1", 0).shape == (0,)
    wrong: list[tuple[str, int | tuple[int, ...] | None]] = [
        ("<f8", 13),
        ("u1", 101),
        ("u1", (-1,)),
        ("u1", (-1, -1)),
        ("S0", None),
        ("<f8", (1 << 62, 4)),
    ]
    for dtype, shape in wrong:
        with pytest.raises(eal.Invalid):
            zone.array(dtype, shape)


def test_array_with_other_dtype_views_same_bytes(primary: eal.Eal) -> None:
    zone = primary.array_reserve("a", (2, 4), "<u4")
    zone.array()[:] = 0x01020304
    assert zone.array("u1", (2, 4, 4))[0, 0].tolist() == [4, 3, 2, 1]
    assert zone.array(shape=(8,)).tolist() == [0x01020304] * 8


def test_array_is_usable_after_close(primary: eal.Eal) -> None:
    array = primary.array_reserve("a", 1000, "<u4").array()
    array[:] = np.arange(1000)
    primary.close()
    assert array.sum() == 499_500
    array[0] = 1


# --- lists, dump, free --------------------------------------------------------------------------------------


def test_lists_of_objects_are_sorted_by_name(primary: eal.Eal) -> None:
    for name in ("b", "a", "ä", "C", "c10", "c9"):
        for kind in ("memzone", "ring", "mempool"):
            make(primary, kind, name)
    expected = ["C", "a", "b", "c10", "c9", "ä"]
    assert [ring.name for ring in eal.rings()] == expected
    assert [pool.name for pool in eal.mempools()] == expected
    names = [zone.name for zone in eal.memzones()]
    assert names == sorted(expected + [f"RG_{n}" for n in expected] + [f"MP_{n}" for n in expected])


def test_dump_writes_line_per_zone(primary: eal.Eal) -> None:
    primary.memzone_reserve("zone", 4660, flags=3)
    primary.ring_create("ring", 8)
    out = io.StringIO()
    eal.memzone_dump(out)
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert re.fullmatch(
        r"Zone 0: name:<RG_ring>, len:0x1c0, virt:0x[0-9a-f]+, socket_id:-1, flags:0x0, segment:[0-9a-f-]{36}, "
        r"offset:0x[0-9a-f]+",
        lines[0],
    )
    assert "name:<zone>, len:0x1234, " in lines[1]
    assert f"virt:{primary.memzone_lookup('zone').address:#x}" in lines[1]
    assert "flags:0x3" in lines[1]


def test_free_removes_zone_once(primary: eal.Eal) -> None:
    zone = primary.memzone_reserve("z", 64)
    eal.memzone_free(zone)
    assert primary.memzones() == []
    with pytest.raises(eal.NotFound):
        primary.memzone_lookup("z")
    with pytest.raises(eal.NotFound, match="memzone 'z' was already freed"):
        eal.memzone_free(zone)
    new = primary.memzone_reserve("z", 64)
    with pytest.raises(eal.NotFound):
        primary.memzone_free(zone)  # `zone` was freed; the new zone has its name and offset
    assert primary.memzone_lookup("z") is new


def test_free_of_ring_or_mempool_zone_raises_invalid(primary: eal.Eal) -> None:
    for made in (primary.ring_create("x", 8), primary.mempool_create("x", 8, 8)):
        with pytest.raises(eal.Invalid, match=r"belongs to a (ring|mempool); free the"):
            primary.memzone_free(made.memzone)
    for wrong in (None, "x", primary.ring_lookup("x")):
        with pytest.raises(TypeError):
            primary.memzone_free(wrong)  # type: ignore[arg-type]
    assert primary.ring_lookup("x").enqueue(1)
