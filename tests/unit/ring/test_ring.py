# SPDX-License-Identifier: BSD-3-Clause
"""Rings: creation, single elements, arrays, bursts, waiting, freeing, stalled peers and damaged rings."""

from __future__ import annotations

import struct
import threading
import time
from typing import Any

import numpy as np
import pytest

import eal
from eal import RingFlag

ENDS = {
    "MT": (0, 0),
    "ST": (RingFlag.SP_ENQ, RingFlag.SC_DEQ),
    "RTS": (RingFlag.MP_RTS_ENQ, RingFlag.MC_RTS_DEQ),
    "HTS": (RingFlag.MP_HTS_ENQ, RingFlag.MC_HTS_DEQ),
}

# --- creation -----------------------------------------------------------------------------------------------


def test_flags_equal_dpdks() -> None:
    assert {flag.name: int(flag) for flag in RingFlag} == {
        "SP_ENQ": 0x01,
        "SC_DEQ": 0x02,
        "EXACT_SZ": 0x04,
        "MP_RTS_ENQ": 0x08,
        "MC_RTS_DEQ": 0x10,
        "MP_HTS_ENQ": 0x20,
        "MC_HTS_DEQ": 0x40,
    }


@pytest.mark.parametrize(
    ("count", "flags", "size", "capacity"),
    [
        (8, 0, 8, 7),
        (2, 0, 2, 1),
        (1024, 0, 1024, 1023),
        (8, RingFlag.EXACT_SZ, 16, 8),
        (7, RingFlag.EXACT_SZ, 8, 7),
        (1, RingFlag.EXACT_SZ, 2, 1),
        (1000, RingFlag.EXACT_SZ, 1024, 1000),
    ],
)
def test_count_determines_size_and_capacity(primary: eal.Eal, count: int, flags: int, size: int, capacity: int) -> None:
    ring = primary.ring_create("r", count, flags=flags)
    assert (ring.size, ring.capacity, ring.flags) == (size, capacity, flags)
    assert (ring.count, len(ring), ring.free_count, ring.empty, ring.full) == (0, 0, capacity, True, False)
    assert ring  # an empty ring is truthy
    assert all(ring.enqueue(value) for value in range(capacity))
    assert not ring.enqueue(0)
    assert (ring.count, ring.free_count, ring.full) == (capacity, 0, True)
    assert [ring.dequeue() for _ in range(capacity)] == list(range(capacity))
    assert ring.dequeue() is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"count": 0}, "count must be from 1 to .*, got count 0"),
        ({"count": 0, "flags": RingFlag.EXACT_SZ}, "count must be from 1 to .*, got count 0"),
        ({"count": 12}, "power of two"),
        ({"count": -8}, "must be from 0"),
        ({"count": 1 << 32}, "must be from 0"),
        ({"count": 1 << 31, "flags": RingFlag.EXACT_SZ}, "count must be from 1"),
        ({"elem_size": 0}, "multiple of 4"),
        ({"elem_size": 6}, "multiple of 4"),
        ({"elem_size": -4}, "must be from 0"),
        ({"flags": 0x80}, "flags must be .*, flags 0x80"),
        ({"flags": RingFlag.SP_ENQ | RingFlag.MP_RTS_ENQ}, "one of ST, RTS and HTS per side"),
        ({"flags": RingFlag.MC_HTS_DEQ | RingFlag.SC_DEQ}, "one of ST, RTS and HTS per side"),
        ({"flags": RingFlag.MP_HTS_ENQ | RingFlag.MP_RTS_ENQ}, "one of ST, RTS and HTS per side"),
        ({"count": 8.0}, "got float"),
        ({"elem_size": "8"}, "got str"),
        ({"group": ""}, "group"),
        ({"group": None}, "group"),
        ({"socket_id": -2}, "socket_id"),
    ],
)
def test_invalid_parameters_raise_invalid(primary: eal.Eal, arguments: dict[str, object], said: str) -> None:
    with pytest.raises(eal.Invalid, match=said):
        primary.ring_create("r", **{"count": 8, **arguments})  # type: ignore[arg-type]
    assert primary.rings() == []
    assert primary.segments() == []


def test_ring_larger_than_memory_raises_no_memory(primary: eal.Eal) -> None:
    with pytest.raises(eal.NoMemory, match="pages"):
        primary.ring_create("r", 1 << 30, elem_size=64)
    assert primary.segments() == []


# --- one element --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("elem_size", "most"), [(4, 2**32 - 1), (8, 2**64 - 1)])
def test_int_elements_round_trip(primary: eal.Eal, elem_size: int, most: int) -> None:
    ring = primary.ring_create("r", 8, elem_size=elem_size)
    for value in (0, 1, most - 1, most, True, np.uint64(7)):
        assert ring.enqueue(value)
    assert [ring.dequeue() for _ in range(6)] == [0, 1, most - 1, most, 1, 7]
    assert ring.dequeue() is None
    for wrong in (-1, most + 1):
        with pytest.raises(eal.Invalid, match=f"{wrong} does not fit in {elem_size} bytes"):
            ring.enqueue(wrong)
    assert ring.empty


def test_largest_number_is_not_taken_for_empty(primary: eal.Eal) -> None:
    ring = primary.ring_create("r", 8)
    ring.enqueue(2**64 - 1)
    assert ring.dequeue() == 2**64 - 1
    assert ring.dequeue() is None


@pytest.mark.parametrize("elem_size", [4, 8, 12, 16, 64, 4096])
def test_bytes_elements_round_trip(primary: eal.Eal, elem_size: int) -> None:
    ring = primary.ring_create("r", 8, elem_size=elem_size)
    content = bytes(range(256)) * (elem_size // 256 + 1)
    for kind in (bytes, bytearray, memoryview):
        assert ring.enqueue(kind(content[:elem_size]))
    expected = int.from_bytes(content[:elem_size], "little") if elem_size in (4, 8) else content[:elem_size]
    assert [ring.dequeue() for _ in range(3)] == [expected] * 3
    for length in (elem_size - 1, elem_size + 1, 0):
        with pytest.raises(eal.Invalid, match=f"an element must have {elem_size} bytes, got {length}"):
            ring.enqueue(bytes(length))


@pytest.mark.parametrize("wrong", [None, "text", 1.5, [1], object()])
@pytest.mark.parametrize("elem_size", [8, 12])
def test_enqueue_of_wrong_type_raises_invalid_type(primary: eal.Eal, elem_size: int, wrong: object) -> None:
    ring = primary.ring_create("r", 8, elem_size=elem_size)
    with pytest.raises(TypeError, match="an element must be"):
        ring.enqueue(wrong)
    assert ring.empty


def test_enqueue_of_int_to_12_byte_ring_raises_invalid_type(primary: eal.Eal) -> None:
    with pytest.raises(TypeError, match="bytes-like"):
        primary.ring_create("r", 8, elem_size=12).enqueue(5)


# --- arrays -------------------------------------------------------------------------------------------------


def test_bulk_is_all_or_nothing_and_burst_as_much_as_fits(primary: eal.Eal) -> None:
    ring = primary.ring_create("r", 8)
    assert ring.enqueue_bulk(np.arange(8, dtype=np.uint64)) == 0
    assert ring.enqueue_bulk(np.arange(5, dtype=np.uint64)) == 5
    assert ring.enqueue_bulk(np.arange(3, dtype=np.uint64)) == 0
    assert ring.enqueue_burst(np.arange(5, 9, dtype=np.uint64)) == 2
    assert ring.enqueue_burst(np.arange(1, dtype=np.uint64)) == 0
    out = np.full(8, 99, np.uint64)
    assert ring.dequeue_bulk(out) == 0
    assert (out == 99).all()
    assert ring.dequeue_bulk(out[:3]) == 3
    assert ring.dequeue_burst(out[3:]) == 4
    assert out.tolist() == [0, 1, 2, 3, 4, 5, 6, 99]
    assert ring.dequeue_burst(out) == 0


def test_arrays_of_any_dtype_count_elements_by_their_first_axis(primary: eal.Eal) -> None:
    ring = primary.ring_create("r", 16, elem_size=12)
    points = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert ring.enqueue_bulk(points) == 4
    records = np.zeros(4, np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4")]))
    assert ring.dequeue_bulk(records) == 4
    assert records["y"].tolist() == [1, 4, 7, 10]
    assert ring.enqueue_bulk(memoryview(points.tobytes()).cast("B", (4, 12))) == 4
    out = bytearray(12)
    with pytest.raises(eal.Invalid, match="12 elements of 12 bytes need 144"):
        ring.dequeue_bulk(out)  # the first axis counts bytes


def test_empty_array_enqueues_nothing(primary: eal.Eal) -> None:
    ring = primary.ring_create("r", 8)
    assert ring.enqueue_bulk(np.zeros(0, np.uint64)) == 0
    assert ring.dequeue_burst(np.zeros(0, np.uint64)) == 0


@pytest.mark.parametrize("operation", ["enqueue_bulk", "enqueue_burst", "dequeue_bulk", "dequeue_burst"])
def test_unsuitable_arrays_raise_invalid(primary: eal.Eal, operation: str) -> None:
    ring = primary.ring_create("r", 8)
    call = getattr(ring, operation)
    for wrong in ([1, 2], (1, 2), 5, None, "text", np.arange(8, dtype=np.uint64)[::2], np.array([None, None])):
        with pytest.raises(TypeError, match="ring 'r'"):
            call(wrong)
    for size in (np.zeros(4, np.uint32), np.zeros((2, 2), np.uint64)):
        with pytest.raises(eal.Invalid, match="the array has"):
            call(size)
    if operation.startswith("dequeue"):
        ring.enqueue(1)
        with pytest.raises(TypeError):
            call(bytes(8))
        frozen = np.zeros(1, np.uint64)
        frozen.flags.writeable = False
        with pytest.raises(TypeError):
            call(frozen)
        assert ring.count == 1
    else:
        assert ring.empty


# --- bursts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elem_size", "dtype", "shape"), [(4, np.uint32, (6,)), (8, np.uint64, (6,)), (12, np.uint8, (6, 12))]
)
def test_burst_array_matches_the_element_size(
    primary: eal.Eal, elem_size: int, dtype: type, shape: tuple[int, ...]
) -> None:
    ring = primary.ring_create("r", 8, elem_size=elem_size)
    burst = ring.burst(6)
    assert (burst.array.dtype, burst.array.shape) == (dtype, shape)
    burst.array[:] = np.arange(6).reshape(6, *[1] * (len(shape) - 1))
    assert burst.enqueue(2, start=3) == 2
    assert burst.enqueue(1) == 1
    assert burst.enqueue(0) == 0
    assert burst.enqueue(6) == 4  # as many as fit
    burst.array[:] = 0
    assert burst.dequeue() == 6
    assert burst.array.reshape(6, -1)[:, 0].tolist() == [3, 4, 0, 0, 1, 2]
    assert burst.dequeue() == 1
    assert burst.dequeue() == 0


def test_burst_range_is_checked(primary: eal.Eal) -> None:
    ring = primary.ring_create("r", 8)
    for n in (0, -1):
        with pytest.raises(eal.Invalid, match="at least 1"):
            ring.burst(n)
    burst = ring.burst(4)
    for n, start in [(5, 0), (-1, 0), (1, 4), (1, -1), (2, 3), (-1, 2)]:
        with pytest.raises(eal.Invalid, match="burst of 4"):
            burst.enqueue(n, start)
    assert burst.enqueue(0, 4) == 0
    assert ring.empty


# --- waiting and reset --------------------------------------------------------------------------------------


def test_wait_returns_false_after_its_timeout(primary: eal.Eal) -> None:
    ring = primary.ring_create("r", 8)
    for timeout in (0, 0.15):
        start = time.monotonic()
        assert ring.wait(timeout) is False
        assert timeout <= time.monotonic() - start < timeout + 1
    ring.enqueue(1)
    assert ring.wait(0)
    assert ring.wait()
    assert ring.count == 1


def test_wait_returns_when_an_element_arrives(primary: eal.Eal) -> None:
    ring = primary.ring_create("r", 8)
    timer = threading.Timer(0.1, ring.enqueue, (1,))
    timer.start()
    assert ring.wait(20)
    timer.join()


def test_wait_raises_closed_when_the_eal_is_closed(primary: eal.Eal) -> None:
    ring = primary.ring_create("r", 8)
    timer = threading.Timer(0.1, primary.close)
    timer.start()
    with pytest.raises(eal.Closed):
        ring.wait(20)
    timer.join()


@pytest.mark.parametrize("sync", ENDS)
def test_reset_empties_the_ring(primary: eal.Eal, sync: str) -> None:
    enq, deq = ENDS[sync]
    ring = primary.ring_create("r", 8, flags=enq | deq)
    for value in range(5):
        ring.enqueue(value)
    ring.dequeue()
    ring.reset()
    assert (ring.count, ring.dequeue()) == (0, None)
    for again in range(20):
        assert ring.enqueue(again)
        assert ring.dequeue() == again
    assert [ring.enqueue(value) for value in range(8)] == [True] * 7 + [False]


# --- lookup, free -------------------------------------------------------------------------------------------


def test_lookup_returns_the_same_object(primary: eal.Eal) -> None:
    ring = primary.ring_create("r", 8)
    assert primary.ring_lookup("r") is ring
    assert eal.ring_lookup("r") is ring
    assert primary.memzone_lookup("RG_r") is ring.memzone
    with pytest.raises(eal.NotFound, match=r"ring 'q' does not exist; existing rings: 'r'"):
        primary.ring_lookup("q")


def test_exist_ok_returns_the_existing_ring(primary: eal.Eal) -> None:
    ring = primary.ring_create("r", 8, elem_size=4, flags=RingFlag.SP_ENQ)
    assert primary.ring_create("r", 8, elem_size=4, flags=RingFlag.SP_ENQ, exist_ok=True) is ring
    assert primary.ring_create("new", 8, exist_ok=True).name == "new"
    others: list[dict[str, Any]] = [{"count": 16}, {"elem_size": 8}, {"flags": 0}]
    for other in others:
        with pytest.raises(eal.Exists, match=r"ring 'r' exists with \w+ .*, not "):
            primary.ring_create("r", **{"count": 8, "elem_size": 4, "flags": RingFlag.SP_ENQ, **other}, exist_ok=True)
    with pytest.raises(eal.Exists, match="ring 'r' already exists"):
        primary.ring_create("r", 8, elem_size=4, flags=RingFlag.SP_ENQ)


def test_exist_ok_distinguishes_counts_of_exact_size_rings(primary: eal.Eal) -> None:
    """Both have 16 slots, but one holds 9 elements and the other 10."""
    primary.ring_create("r", 9, flags=RingFlag.EXACT_SZ)
    with pytest.raises(eal.Exists, match="another"):
        primary.ring_create("r", 10, flags=RingFlag.EXACT_SZ, exist_ok=True)


def test_freed_ring_raises_closed(primary: eal.Eal) -> None:
    ring = primary.ring_create("r", 8)
    burst = ring.burst(2)
    eal.ring_free(ring)
    array = np.zeros(1, np.uint64)
    for call in (
        *(lambda: ring.enqueue(1), ring.dequeue, lambda: ring.count, lambda: len(ring), lambda: ring.wait(0)),
        *(lambda: ring.enqueue_bulk(array), lambda: ring.enqueue_burst(array), ring.reset),
        *(lambda: ring.dequeue_bulk(array), lambda: ring.dequeue_burst(array)),
        *(lambda: burst.enqueue(1), lambda: burst.enqueue(1, 1), burst.dequeue),
        lambda: ring.burst(1).dequeue(),
    ):
        with pytest.raises(eal.Closed, match="ring 'r'"):
            call()
    with pytest.raises(eal.NotFound):
        eal.ring_lookup("r")
    with pytest.raises(eal.NotFound, match="already freed"):
        eal.ring_free(ring)


def test_new_ring_of_the_same_name_is_another_object(primary: eal.Eal) -> None:
    old = primary.ring_create("r", 8)
    old.enqueue(5)
    primary.ring_free(old)
    new = primary.ring_create("r", 8)
    assert new is not old
    assert new.empty
    with pytest.raises(eal.Closed):
        old.enqueue(1)
    with pytest.raises(eal.NotFound):
        primary.ring_free(old)
    assert primary.ring_lookup("r") is new


def test_free_of_another_type_raises_invalid_type(primary: eal.Eal) -> None:
    pool = primary.mempool_create("p", 8, 8)
    for wrong in (None, "r", pool, pool.memzone):
        with pytest.raises(TypeError, match="ring must be a Ring"):
            primary.ring_free(wrong)  # type: ignore[arg-type]


# --- a peer that died during an operation -------------------------------------------------------------------


def stall(ring: eal.Ring, end: int, sync: str) -> None:
    """Move the head of one side by one, as a peer does that dies before it updates the tail."""
    if sync == "RTS":
        count, position = struct.unpack_from("<II", ring.memzone.buf, end + 16)
        # one below the maximum distance is not a stall
        struct.pack_into("<II", ring.memzone.buf, end + 16, count + 1, position + ring.capacity // 8 + 1)
    else:
        head = struct.unpack_from("<I", ring.memzone.buf, end)[0]
        struct.pack_into("<I", ring.memzone.buf, end, head + 1)


@pytest.mark.parametrize("sync", ["MT", "RTS", "HTS"])
@pytest.mark.parametrize(("end", "operation"), [(128, lambda r: r.enqueue(1)), (256, lambda r: r.dequeue())])
def test_side_of_a_dead_peer_raises_stalled(
    runtime_dir: object, prefix: str, sync: str, end: int, operation: object
) -> None:
    with eal.init(file_prefix=prefix, no_huge=True, stall_timeout=0.2):
        ring = eal.ring_create("r", 64, flags=ENDS[sync][0] | ENDS[sync][1])
        for value in range(20):
            ring.enqueue(value)
        stall(ring, end, sync)
        start = time.monotonic()
        with pytest.raises(eal.Stalled, match=r"ring 'r'.*stall_timeout"):
            operation(ring)  # type: ignore[operator]
        assert 0.2 <= time.monotonic() - start < 1.2
        # The other side continues.
        assert ring.dequeue() == 0 if end == 128 else ring.enqueue(5)


@pytest.mark.parametrize("timeout", [0, 0.5])
def test_stall_timeout_limits_the_wait(runtime_dir: object, prefix: str, timeout: float) -> None:
    with eal.init(file_prefix=prefix, no_huge=True, stall_timeout=timeout):
        ring = eal.ring_create("r", 64)
        stall(ring, 128, "MT")
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            ring.enqueue(1)
        assert timeout <= time.monotonic() - start < timeout + 1


# --- damaged rings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (0, "CRC"),  # name
        (32, "CRC"),  # flags
        (48, "CRC"),  # size
        (64, "magic"),
        (72, "version"),
        (76, "CRC"),  # elem_size
        (136, "sync type"),
        (132, "exceeds the capacity"),
    ],
)
def test_lookup_of_a_damaged_ring_raises_corrupt(primary: eal.Eal, peer: object, at: int, said: str) -> None:
    ring = primary.ring_create("r", 64)
    ring.memzone.buf[at + 1 if at == 132 else at] ^= 0x41
    second = peer(  # type: ignore[operator]
        """
        import sys, eal
        with eal.init(file_prefix=sys.argv[1], proc_type="secondary", no_huge=True):
            try:
                eal.ring_lookup("r")
            except eal.Corrupt as error:
                print(error)
        """
    )
    message = second.end()
    assert said in message
    assert "ring 'r'" in message
