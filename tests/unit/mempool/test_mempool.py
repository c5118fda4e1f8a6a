# SPDX-License-Identifier: BSD-3-Clause
"""Mempools: create, get, put, rejected arguments, counts, audit, and objects as arrays."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import eal
from eal import Mempool, MempoolFlag

# --- create -------------------------------------------------------------------------------------------------


def test_create_pool_has_all_objects_free_and_zero(primary: eal.Eal) -> None:
    pool = primary.mempool_create("p", 100, 24, cache_size=8)
    assert (pool.n, pool.elt_size, pool.cache_size, len(pool), pool.flags) == (100, 24, 8, 100, 0)
    assert (pool.available, pool.in_use) == (100, 0)
    assert pool.array.shape == (100, 24)
    assert not pool.array.any()
    assert pool.memzone.name == "MP_p"
    assert repr(pool) == "<Mempool 'p' 100 objects of 24 bytes>"


@pytest.mark.parametrize(
    "arguments",
    [
        {"n": 0},
        {"n": -1},
        {"n": 1 << 31},
        {"n": 1 << 32},
        {"elt_size": 0},
        {"elt_size": -8},
        {"elt_size": (1 << 30) + 1},
        {"cache_size": 513, "n": 100_000},
        {"cache_size": -1},
        {"cache_size": 8, "n": 11},  # 1.5 * cache_size exceeds n
        {"flags": 0x100},
        {"group": "a/b"},
        {"socket_id": -5},
    ],
)
def test_create_out_of_range_argument_raises_invalid(primary: eal.Eal, arguments: dict[str, int]) -> None:
    with pytest.raises(eal.Invalid):
        primary.mempool_create("p", **{"n": 64, "elt_size": 64, **arguments})  # type: ignore[arg-type]
    assert primary.mempools() == []
    assert primary.segments() == []


@pytest.mark.parametrize("arguments", [{"n": 8.0}, {"elt_size": "8"}, {"cache_size": None}, {"flags": "x"}])
def test_create_wrong_type_raises_type_error(primary: eal.Eal, arguments: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        primary.mempool_create("p", **{"n": 64, "elt_size": 64, **arguments})  # type: ignore[arg-type]


def test_create_largest_cache_size_for_n_succeeds(primary: eal.Eal) -> None:
    assert primary.mempool_create("p", 12, 4, cache_size=8).cache_size == 8
    assert primary.mempool_create("q", 768, 4, cache_size=512).cache_size == 512


def test_create_exist_ok_returns_equal_pool_only(primary: eal.Eal) -> None:
    pool = primary.mempool_create("p", 64, 32, cache_size=8)
    assert primary.mempool_create("p", 64, 32, cache_size=8, exist_ok=True) is pool
    others: list[dict[str, Any]]
    others = [{"n": 65}, {"elt_size": 33}, {"cache_size": 9}, {"flags": MempoolFlag.NO_CACHE_ALIGN}]
    for other in others:
        with pytest.raises(eal.Exists, match=r"mempool 'p' exists with \w+ .*, not "):
            primary.mempool_create("p", **{"n": 64, "elt_size": 32, "cache_size": 8, **other}, exist_ok=True)
    with pytest.raises(eal.Exists, match="already exists"):
        primary.mempool_create("p", 64, 32, cache_size=8)


# --- get and put -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache_size", [0, 8])
def test_get_returns_each_object_once_then_none(primary: eal.Eal, cache_size: int) -> None:
    pool = primary.mempool_create("p", 70, 8, cache_size=cache_size)
    taken = [pool.get() for _ in range(70)]
    assert sorted(index for index in taken if index is not None) == list(range(70))
    assert pool.get() is None
    assert (pool.available, pool.in_use) == (0, 70)
    for index in taken:
        assert index is not None
        pool.put(index)
    assert (pool.available, pool.in_use) == (70, 0)
    assert sorted(pool.get() or 0 for _ in range(70)) == list(range(70))


@pytest.mark.parametrize("cache_size", [0, 8])
def test_get_bulk_takes_all_or_none(primary: eal.Eal, cache_size: int) -> None:
    pool = primary.mempool_create("p", 70, 8, cache_size=cache_size)
    out = np.full(71, 12345, np.uint32)
    assert pool.get_bulk(out) == 0
    assert (out == 12345).all()
    assert pool.get_bulk(out[:50]) == 50
    assert pool.get_bulk(out[50:]) == 0
    assert pool.get_bulk(out[50:70]) == 20
    assert sorted(out[:70].tolist()) == list(range(70))
    assert pool.get_bulk(out[70:]) == 0
    pool.put_bulk(out[:70])
    assert pool.available == 70
    assert pool.get_bulk(out[:0]) == 0
    pool.put_bulk(out[:0])
    assert pool.audit().ok


def test_put_accepts_numpy_integers(primary: eal.Eal) -> None:
    pool = primary.mempool_create("p", 8, 8)
    out = np.zeros(3, np.uint32)
    assert pool.get_bulk(out) == 3
    for index in out:
        pool.put(index)
    assert pool.in_use == 0


def test_bulk_accepts_any_uint32_buffer(primary: eal.Eal) -> None:
    from array import array

    pool = primary.mempool_create("p", 8, 8)
    out = array("I", [0] * 4)
    assert pool.get_bulk(out) == 4
    pool.put_bulk(memoryview(bytes(out)).cast("I"))
    assert pool.in_use == 0


@pytest.mark.parametrize(
    "wrong",
    [
        [1, 2],
        (1,),
        None,
        5,
        np.zeros(2, np.int32),
        np.zeros(2, np.uint64),
        np.zeros(2, ">u4"),
        np.zeros((2, 2), np.uint32),
        np.zeros(4, np.uint32)[::2],
        bytearray(8),
    ],
)
def test_bulk_wrong_array_raises_type_error(primary: eal.Eal, wrong: object) -> None:
    pool = primary.mempool_create("p", 8, 8)
    for call in (pool.get_bulk, pool.put_bulk):
        with pytest.raises(TypeError, match="mempool 'p'"):
            call(wrong)
    assert pool.available == 8


def test_get_bulk_read_only_array_raises_type_error(primary: eal.Eal) -> None:
    pool = primary.mempool_create("p", 8, 8)
    with pytest.raises(TypeError):
        pool.get_bulk(memoryview(bytes(8)).cast("I"))
    assert pool.available == 8


# --- rejected puts ------------------------------------------------------------------------------------------


def state(pool: Mempool) -> tuple[object, ...]:
    audit = pool.audit()
    return pool.available, pool.in_use, audit.free, audit.cached, audit.in_hand, audit.twice


@pytest.mark.parametrize("cache_size", [0, 8])
@pytest.mark.parametrize("wrong", [70, 71, 2**31, 2**32 - 1, 2**32, 2**64, -1])
def test_put_index_out_of_range_raises_and_changes_nothing(primary: eal.Eal, cache_size: int, wrong: int) -> None:
    pool = primary.mempool_create("p", 70, 8, cache_size=cache_size)
    taken = np.zeros(3, np.uint32)
    pool.get_bulk(taken)
    before = state(pool)
    with pytest.raises(eal.Invalid, match=f"index must be less than n \\(70\\), got {wrong}"):
        pool.put(wrong)
    assert state(pool) == before
    if 0 <= wrong < 2**32:
        with pytest.raises(eal.Invalid, match=r"index .*must be less than n"):
            pool.put_bulk(np.array([taken[0], wrong, taken[1]], np.uint32))
        assert state(pool) == before


@pytest.mark.parametrize("wrong", [None, "1", 1.5])
def test_put_non_integer_raises_type_error(primary: eal.Eal, wrong: object) -> None:
    pool = primary.mempool_create("p", 8, 8)
    pool.get()
    with pytest.raises(TypeError):
        pool.put(wrong)  # type: ignore[arg-type]
    assert pool.in_use == 1


@pytest.mark.parametrize("cache_size", [0, 8])
def test_put_more_than_in_use_raises(primary: eal.Eal, cache_size: int) -> None:
    pool = primary.mempool_create("p", 70, 8, cache_size=cache_size)
    before = state(pool)
    with pytest.raises(eal.Invalid, match="more objects are freed than are in use"):
        pool.put(3)
    assert state(pool) == before
    taken = pool.get()
    assert taken is not None
    before = state(pool)
    with pytest.raises(eal.Invalid, match="more objects are freed than are in use"):
        pool.put_bulk(np.array([taken, (taken + 1) % 70], np.uint32))
    assert state(pool) == before
    pool.put(taken)
    with pytest.raises(eal.Invalid):
        pool.put(taken)
    assert pool.available == 70


@pytest.mark.parametrize("cache_size", [0, 8])
def test_put_after_put_by_another_thread_raises(primary: eal.Eal, cache_size: int) -> None:
    """Another thread puts the objects: the credit of the thread that got them must be recounted."""
    pool = primary.mempool_create("p", 70, 8, cache_size=cache_size)
    taken = np.zeros(5, np.uint32)
    pool.get_bulk(taken)
    other = threading.Thread(target=pool.put_bulk, args=(taken,))
    other.start()
    other.join()
    before = state(pool)
    with pytest.raises(eal.Invalid):
        pool.put(int(taken[0]))
    assert state(pool) == before


def test_put_free_object_without_cache_raises(primary: eal.Eal) -> None:
    pool = primary.mempool_create("p", 70, 8)
    taken = np.zeros(5, np.uint32)
    pool.get_bulk(taken)
    pool.put(int(taken[0]))
    before = state(pool)
    with pytest.raises(eal.Invalid, match="already free"):
        pool.put(int(taken[0]))
    assert state(pool) == before
    with pytest.raises(eal.Invalid, match="already free"):
        pool.put_bulk(taken[:3])  # the first is already free; the other two are put
    assert (pool.available, pool.in_use) == (68, 2)
    assert pool.audit().in_hand == sorted(taken[3:].tolist())


def test_put_bulk_duplicate_in_array_raises(primary: eal.Eal) -> None:
    pool = primary.mempool_create("p", 70, 8)
    taken = np.zeros(3, np.uint32)
    pool.get_bulk(taken)
    with pytest.raises(eal.Invalid, match="already free"):
        pool.put_bulk(taken[[0, 1, 0]])
    assert pool.in_use == 1
    assert pool.audit().in_hand == [taken[2]]


def test_audit_object_in_two_places_is_not_ok(primary: eal.Eal) -> None:
    pool = primary.mempool_create("p", 70, 8, cache_size=8)
    first, second = pool.get(), pool.get()
    assert first is not None
    pool.put(first)
    pool.put(first)  # the cache does not detect a double put
    audit = pool.audit()
    assert (audit.ok, audit.twice, audit.in_hand) == (False, [first], [second])


# --- audit, free --------------------------------------------------------------------------------------------


def test_audit_locates_each_object(primary: eal.Eal) -> None:
    pool = primary.mempool_create("p", 70, 8, cache_size=8)
    taken = [pool.get() for _ in range(3)]
    audit = pool.audit()
    slot = pool.memzone.segment.slot()
    assert slot is not None
    assert audit.ok
    assert audit.in_hand == sorted(index for index in taken if index is not None)
    assert list(audit.cached) == [slot.index]
    assert sorted([*audit.free, *audit.cached[slot.index], *audit.in_hand]) == list(range(70))
    assert [(p.slot, p.dead) for p in audit.participants] == [(slot.index, False)]


def test_freed_pool_raises_closed(primary: eal.Eal) -> None:
    pool = primary.mempool_create("p", 70, 8, cache_size=8)
    out = np.zeros(2, np.uint32)
    pool.get()
    array = pool.array
    eal.mempool_free(pool)
    for call in (
        *(pool.get, lambda: pool.put(0), lambda: pool.get_bulk(out), lambda: pool.put_bulk(out)),
        *(lambda: pool.available, lambda: pool.in_use, pool.audit),
    ):
        with pytest.raises(eal.Closed, match="mempool 'p'"):
            call()
    assert not array.any()  # views remain valid
    with pytest.raises(eal.NotFound):
        eal.mempool_lookup("p")
    with pytest.raises(eal.NotFound, match="already freed"):
        eal.mempool_free(pool)


def test_create_with_reused_name_has_all_objects_free(primary: eal.Eal) -> None:
    old = primary.mempool_create("p", 70, 8, cache_size=8)
    for _ in range(20):
        old.get()
    old.array[:] = 7
    primary.mempool_free(old)
    new = primary.mempool_create("p", 70, 8, cache_size=8)
    assert new.available == 70
    assert not new.array.any()
    assert sorted(new.get() or 0 for _ in range(70)) == list(range(70))


def test_free_wrong_type_raises_type_error(primary: eal.Eal) -> None:
    ring = primary.ring_create("r", 8)
    for wrong in (None, "p", ring, ring.memzone):
        with pytest.raises(TypeError, match="pool must be a Mempool"):
            primary.mempool_free(wrong)  # type: ignore[arg-type]


# --- objects ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [0, MempoolFlag.NO_CACHE_ALIGN])
def test_array_view_and_object_share_memory(primary: eal.Eal, flags: int) -> None:
    pool = primary.mempool_create("p", 10, 20, flags=flags)
    pool.array[3] = np.arange(20)
    assert bytes(pool.object(3)) == bytes(range(20))
    numbers = pool.view("<u4", 5)
    assert numbers.shape == (10, 5)
    assert numbers[3].tolist() == [int.from_bytes(bytes(range(i, i + 4)), "little") for i in range(0, 20, 4)]
    numbers[9] = 0xFFFFFFFF
    pool.object(0)[:] = b"z" * 20
    assert pool.array[9].tolist() == [255] * 20
    assert not pool.array[[1, 2, 4, 5, 6, 7, 8]].any()
    assert pool.array[0].tobytes() == b"z" * 20


def test_view_dtype_and_shape_must_fit_the_object(primary: eal.Eal) -> None:
    pool = primary.mempool_create("p", 10, 24)
    assert pool.view("<u8").shape == (10,)
    assert pool.view("<u4", (2, 3)).shape == (10, 2, 3)
    record = pool.view([("id", "<u4"), ("at", "<f8", (2,))])
    record["at"] = np.arange(20).reshape(10, 2)
    record["id"][5] = 77
    assert pool.view([("id", "<u4"), ("at", "<f8", (2,))])[5] == record[5]
    assert pool.array[5][:4].tolist() == [77, 0, 0, 0]
    wrong: list[tuple[str, int | tuple[int, ...]]]
    wrong = [("u1", 25), ("<u8", 4), ("<u4", (2, 4)), ("O", ()), ("u1", (-1,)), ("u1", (-1, -1))]
    for dtype, shape in wrong:
        with pytest.raises(eal.Invalid):
            pool.view(dtype, shape)
    for index in (-1, 10):
        with pytest.raises(eal.Invalid, match=r"index .*must be less than n"):
            pool.object(index)


def test_objects_are_aligned_to_cache_lines(primary: eal.Eal) -> None:
    pool = primary.mempool_create("p", 10, 20)
    assert pool.elt_stride == 64
    assert pool.array.ctypes.data % 64 == 0
    assert pool.array.strides == (64, 1)
