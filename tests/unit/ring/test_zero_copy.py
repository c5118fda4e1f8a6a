# SPDX-License-Identifier: BSD-3-Clause
"""Zero-copy and peek, the htd_max of RTS sides, and dumps."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest

import eal
from eal import RingFlag

ST = RingFlag.SP_ENQ | RingFlag.SC_DEQ
HTS = RingFlag.MP_HTS_ENQ | RingFlag.MC_HTS_DEQ
RTS = RingFlag.MP_RTS_ENQ | RingFlag.MC_RTS_DEQ


@pytest.fixture(autouse=True)
def app(prefix: str, runtime_dir: object) -> Iterator[eal.Eal]:
    with eal.init(file_prefix=prefix, no_huge=True, stall_timeout=0.05) as made:
        yield made


@pytest.fixture(params=[ST, HTS], ids=["ST", "HTS"])
def flags(request: pytest.FixtureRequest) -> RingFlag:
    flags: RingFlag = request.param
    return flags


def fill(ring: eal.Ring, numbers: range) -> None:
    for number in numbers:
        assert ring.enqueue(number)


@pytest.mark.parametrize("elem_size", [4, 8])
def test_numbers_are_written_and_read_in_place(flags: RingFlag, elem_size: int) -> None:
    ring = eal.ring_create("r", 16, elem_size=elem_size, flags=flags)
    with ring.enqueue_zc(5) as slots:
        assert slots.n == 5
        assert slots.first.dtype.itemsize == elem_size
        slots.first[:] = range(10, 15)
        assert ring.count == 0, "nothing can be seen before the block ends"
    assert ring.count == 5
    with ring.dequeue_zc(9) as elements:
        assert (elements.n, elements.first.tolist(), len(elements.second)) == (5, [10, 11, 12, 13, 14], 0)
    assert ring.empty


def test_views_are_the_rings_memory(flags: RingFlag) -> None:
    ring = eal.ring_create("r", 16, elem_size=12, flags=flags)
    with ring.enqueue_zc(2) as slots:
        assert slots.first.shape == (2, 12)
        slots.first[1] = 7
        elements = np.frombuffer(ring.memzone.buf, np.uint8)[384:]
        assert np.shares_memory(elements, slots.first)
        assert elements[12:24].tolist() == [7] * 12
    assert ring.dequeue() == bytes(12)
    assert ring.dequeue() == b"\7" * 12


def test_reservation_over_the_wrap_has_two_parts(flags: RingFlag) -> None:
    ring = eal.ring_create("r", 8, flags=flags)
    fill(ring, range(6))
    for _ in range(6):
        ring.dequeue()
    with ring.enqueue_zc(5) as slots:
        assert (len(slots.first), len(slots.second)) == (2, 3)
        slots.first[:] = [1, 2]
        slots.second[:] = [3, 4, 5]
    with ring.dequeue_zc(5) as elements:
        assert [*elements.first.tolist(), *elements.second.tolist()] == [1, 2, 3, 4, 5]


def test_commit_of_fewer_is_a_peek(flags: RingFlag) -> None:
    ring = eal.ring_create("r", 8, flags=flags)
    fill(ring, range(5))
    with ring.dequeue_zc(5) as elements:
        assert elements.first.tolist() == [0, 1, 2, 3, 4]
        elements.commit(2)
    assert ring.count == 3
    with ring.dequeue_zc(5) as elements:
        elements.commit(0)
    assert ring.dequeue() == 2
    with ring.enqueue_zc(4) as slots:
        slots.first[:1] = 77
        slots.commit(1)
    assert [ring.dequeue() for _ in range(4)] == [3, 4, 77, None]


def test_exception_commits_nothing(flags: RingFlag) -> None:
    ring = eal.ring_create("r", 8, flags=flags)
    fill(ring, range(3))
    with pytest.raises(KeyError), ring.dequeue_zc(2):
        raise KeyError
    with pytest.raises(KeyError), ring.enqueue_zc(2):
        raise KeyError
    assert [ring.dequeue() for _ in range(4)] == [0, 1, 2, None]


def test_full_and_empty_reserve_none(flags: RingFlag) -> None:
    ring = eal.ring_create("r", 4, flags=flags)
    with ring.dequeue_zc(2) as elements:
        assert (elements.n, len(elements.first), len(elements.second)) == (0, 0, 0)
    fill(ring, range(3))
    with ring.enqueue_zc(2) as slots:
        assert slots.n == 0
    assert ring.count == 3


def test_st_side_in_zero_copy_raises_in_use() -> None:
    ring = eal.ring_create("r", 8, flags=ST)
    with ring.enqueue_zc(2):
        with pytest.raises(eal.InUse, match="not finished"):
            ring.enqueue(1)
        with pytest.raises(eal.InUse), ring.enqueue_zc(1):
            pass
        assert ring.dequeue() is None, "the other end goes on"
    assert ring.enqueue(1)


def test_hts_side_in_zero_copy_raises_stalled() -> None:
    ring = eal.ring_create("r", 8, flags=HTS)
    with ring.enqueue_zc(2), pytest.raises(eal.Stalled):
        ring.enqueue(1)
    assert ring.count == 2
    assert ring.enqueue(1)


@pytest.mark.parametrize("kind", [RingFlag(0), RTS], ids=["MT", "RTS"])
def test_other_sync_types_raise_invalid(kind: RingFlag) -> None:
    ring = eal.ring_create("r", 8, flags=kind)
    for end in (ring.enqueue_zc, ring.dequeue_zc):
        with pytest.raises(eal.Invalid, match="zero-copy needs a side of sync type ST"), end(1):
            pass


def test_invalid_commit_raises_invalid(flags: RingFlag) -> None:
    ring = eal.ring_create("r", 8, flags=flags)
    fill(ring, range(3))
    with ring.dequeue_zc(2) as elements:
        for wrong in (3, -1, 1.0, None):
            with pytest.raises(eal.Invalid):
                elements.commit(wrong)  # type: ignore[arg-type]
        elements.commit(2)
        with pytest.raises(eal.Invalid, match="ended"):
            elements.commit(0)
    for wrong in (-1, 1 << 32, None):
        with pytest.raises(eal.Invalid):
            ring.dequeue_zc(wrong)  # type: ignore[arg-type]
    assert ring.count == 1


def test_close_inside_the_block_raises_closed(app: eal.Eal, flags: RingFlag) -> None:
    ring = eal.ring_create("r", 8, flags=flags)
    with pytest.raises(eal.Closed), ring.enqueue_zc(2):
        app.close()
    with pytest.raises(eal.Closed), ring.enqueue_zc(1):
        pass


def test_htd_max_of_rts_sides_is_settable() -> None:
    ring = eal.ring_create("r", 64, flags=RTS)
    assert (ring.prod_htd_max, ring.cons_htd_max) == (63 // 8, 63 // 8)
    ring.prod_htd_max = 3
    assert (ring.prod_htd_max, ring.cons_htd_max) == (3, 7)
    assert int.from_bytes(ring.memzone.buf[140:144], "little") == 3, "where DPDK looks for it"
    for wrong in (-1, 64, None):
        with pytest.raises(eal.Invalid):
            ring.cons_htd_max = wrong  # type: ignore[assignment]


def test_htd_max_of_other_sides_raises_invalid(flags: RingFlag) -> None:
    ring = eal.ring_create("r", 64, flags=flags)
    assert ring.prod_htd_max is None
    with pytest.raises(eal.Invalid, match="RTS"):
        ring.prod_htd_max = 3


def test_dump_contains_the_state() -> None:
    ring = eal.ring_create("r", 8, flags=ST)
    fill(ring, range(3))
    ring.dequeue()
    text = io.StringIO()
    ring.dump(text)
    assert text.getvalue().splitlines() == [
        "ring <r>",
        "  flags=3",
        "  size=8",
        "  capacity=7",
        "  elem_size=8",
        "  prod=ST ph=3 pt=3",
        "  cons=ST ch=1 ct=1",
        "  used=2",
        "  avail=5",
    ]


# --- remaining count, bulk ----------------------------------------------------------------------------------


def test_bulk_reserves_all_or_none(flags: RingFlag) -> None:
    ring = eal.ring_create("r", 8, flags=flags)
    with ring.enqueue_zc(8, bulk=True) as slots:
        assert (slots.n, slots.left, len(slots.first)) == (0, 7, 0)
    with ring.enqueue_zc(4, bulk=True) as slots:
        assert (slots.n, slots.left) == (4, 3)
        slots.first[:] = [1, 2, 3, 4]
    with ring.dequeue_zc(5, bulk=True) as elements:
        assert (elements.n, elements.left) == (0, 4)
    with ring.dequeue_zc(3, bulk=True) as elements:
        assert (elements.first.tolist(), elements.left) == ([1, 2, 3], 1)
    assert ring.dequeue() == 4


@pytest.mark.parametrize("sync", [ST, HTS, RTS, RingFlag(0)], ids=["ST", "HTS", "RTS", "MT"])
def test_operations_return_the_remaining_count(sync: RingFlag) -> None:
    ring = eal.ring_create("r", 8, flags=sync)
    numbers = np.arange(5, dtype=np.uint64)
    assert ring.enqueue_bulk_left(numbers) == (5, 2)
    assert ring.enqueue_bulk_left(numbers) == (0, 2)
    assert ring.enqueue_burst_left(numbers) == (2, 0)
    out = np.zeros(3, np.uint64)
    assert ring.dequeue_bulk_left(out) == (3, 4)
    assert out.tolist() == [0, 1, 2]
    assert ring.dequeue_bulk_left(np.zeros(5, np.uint64)) == (0, 4)
    assert ring.dequeue_burst_left(np.zeros(6, np.uint64)) == (4, 0)
    assert ring.dequeue_burst_left(out) == (0, 0)
