# SPDX-License-Identifier: BSD-3-Clause
"""Hostile mbuf headers: operations return values or raise EalErrors; they never crash or loop endlessly.

native/tests/test_mbuf.c tests the same in C under sanitizers.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import eal
from eal.mbuf.format import HEADROOM

N = 48
ROOM = 192
WRITER = """
    import random, sys, time
    import eal

    app = eal.init(["--no-pci"], file_prefix=sys.argv[1], proc_type="secondary", no_huge=True)
    rng = random.Random(int(sys.argv[2]))
    pool = eal.mempool_lookup("p")
    lines = pool.array[:, :64]
    print("writing", flush=True)
    end = time.monotonic() + float(sys.argv[3])
    writes = 0
    while time.monotonic() < end:
        for _ in range(1000):
            lines[rng.randrange(pool.n), rng.randrange(64)] = rng.choice((0, 1, pool.n - 1, pool.n, rng.randrange(256)))
        writes += 1000
    print(writes)
"""


@pytest.fixture(params=[0, 8], ids=["uncached", "cached"])
def pool(request: pytest.FixtureRequest, primary: eal.Eal) -> eal.MbufPool:
    return primary.pktmbuf_pool_create("p", N, cache_size=request.param, data_room=ROOM)


def operations(pool: eal.MbufPool, rng: random.Random) -> list[Callable[[], Any]]:
    one, two, length = rng.randrange(N), rng.randrange(N), rng.randrange(80)
    burst = np.zeros(4, np.uint32)
    return [
        pool.alloc,
        pool.alloc,
        lambda: pool.alloc_bulk(burst),
        lambda: pool.free(one),
        lambda: pool.free_bulk(np.array([one, two], np.uint32)),
        lambda: pool.free_seg(one),
        lambda: pool.append(one, length),
        lambda: pool.prepend(one, length),
        lambda: pool.adj(one, length),
        lambda: pool.trim(one, length),
        lambda: pool.chain(one, two),
        lambda: pool.clone(one),
        lambda: pool.copy(one, length),
        lambda: pool.attach(one, two),
        lambda: pool.detach(one),
        lambda: pool.linearize(one),
        lambda: pool.read(one),
        lambda: pool.segments(one),
        lambda: pool.sanity_check(one),
        lambda: pool.refcnt_update(one, length - 40),
        lambda: pool.pktmbuf_refcnt_update(one, 1),
        lambda: bytes(pool.mtod(one)),
        lambda: pool.headroom(one) + pool.tailroom(one),
    ]


def work(pool: eal.MbufPool, rng: random.Random) -> str:
    """Run a random operation; return "value" or the name of the error. Write to the returned views."""
    try:
        result = rng.choice(operations(pool, rng))()
    except eal.EalError as error:
        return type(error).__name__
    if isinstance(result, memoryview):
        assert len(result) <= ROOM
        result[:] = bytes(len(result))
    return "value"


def recover(pool: eal.MbufPool) -> None:
    """Put all objects that the counters allow, so that alloc can succeed again."""
    pool.mbufs["refcnt"] = 0
    for index in pool.audit().in_hand:
        try:
            pool.put(index)
        except eal.Invalid:  # the damaged reference counts led to wrong counters
            return


@pytest.mark.parametrize("seed", range(4))
def test_random_header_bytes_raise_eal_errors(pool: eal.MbufPool, seed: int) -> None:
    rng = random.Random(seed)
    headers = pool.mbufs
    lines = pool.array[:, :64]
    seen: Counter[str] = Counter()
    for step in range(4000):
        index = rng.randrange(N)
        field = rng.choice(["next", "buf", "refcnt", "data_off", "data_len", "nb_segs", "pkt_len", ""])
        if field:
            top = {"next": N + 1, "buf": N + 1, "refcnt": 4, "data_off": ROOM + 9, "data_len": ROOM + 9}.get(field, 9)
            headers[field][index] = rng.randrange(top)
        else:
            lines[index, rng.randrange(64)] = rng.randrange(256)
        seen[work(pool, rng)] += 1
        if step % 100 == 99:
            recover(pool)
    assert seen["value"] > 200, seen
    assert seen["Corrupt"] > 100, seen
    assert set(seen) <= {"value", "Corrupt", "Invalid"}


@pytest.mark.parametrize("seed", range(2))
def test_concurrent_header_writes_raise_eal_errors(pool: eal.MbufPool, peer: Callable[..., Any], seed: int) -> None:
    rng = random.Random(seed)
    writer = peer(WRITER, seed, 2)
    assert writer.hear() == "writing"
    seen: Counter[str] = Counter()
    end = time.monotonic() + 1.9
    while time.monotonic() < end:
        for _ in range(100):
            seen[work(pool, rng)] += 1
        recover(pool)
    assert int(writer.end()) > 10_000
    assert seen["value"] > 100, seen
    assert seen["Corrupt"] > 10, seen
    assert set(seen) <= {"value", "Corrupt", "Invalid"}


@pytest.mark.parametrize("length", [1, 2, N])
def test_chain_loop_raises_corrupt(pool: eal.MbufPool, length: int) -> None:
    indices = np.zeros(length, np.uint32)
    assert pool.alloc_bulk(indices) == length
    pool.mbufs["next"][indices] = np.roll(indices, -1)
    head, rest = int(indices[0]), pool.available
    for walk in (
        lambda: pool.append(head, 1),
        lambda: pool.trim(head, 0),
        lambda: pool.segments(head),
        lambda: pool.lastseg(head),
        lambda: pool.clone(head),
        lambda: pool.chain(head, head),
        lambda: pool.linearize(head),
        lambda: pool.pktmbuf_refcnt_update(head, 1),
        lambda: pool.sanity_check(head),
    ):
        with pytest.raises(eal.Corrupt):
            walk()
    assert (pool.mbufs["refcnt"][indices] == 1).all()
    assert pool.available == rest
    with pytest.raises(eal.Corrupt):
        pool.free(head)
    assert pool.available == N


@pytest.mark.parametrize(("field", "value"), [("next", N), ("buf", N), ("buf", 2**32 - 1), ("data_len", ROOM)])
def test_damaged_segment_raises_corrupt_and_changes_nothing(pool: eal.MbufPool, field: str, value: int) -> None:
    head, tail = pool.alloc(), pool.alloc()
    assert head is not None
    assert tail is not None
    pool.chain(head, tail)
    pool.mbufs["pkt_len"][head] = 5
    pool.mbufs[field][tail] = value
    before = pool.mbufs[[head, tail]].copy()
    for use in (
        lambda: pool.append(head, 1),
        lambda: pool.read(head),
        lambda: pool.clone(head),
        lambda: pool.copy(head),
        lambda: pool.linearize(head),
    ):
        with pytest.raises(eal.Corrupt, match="sanity_check"):
            use()
    assert (pool.mbufs[[head, tail]] == before).all()
    assert pool.available == N - 2


def test_read_impossible_pkt_len_raises_corrupt(pool: eal.MbufPool) -> None:
    index = pool.alloc()
    assert index is not None
    pool.mbufs["pkt_len"][index] = 2**32 - 1
    with pytest.raises(eal.Corrupt):
        pool.read(index)
    pool.mbufs["pkt_len"][index] = N * ROOM
    with pytest.raises(eal.Corrupt):
        pool.read(index)


def test_buffer_bounds_come_from_pool_not_header(pool: eal.MbufPool) -> None:
    index = pool.alloc()
    assert index is not None
    pool.mbufs["buf_len"][index] = 65535
    pool.mbufs["priv_size"][index] = 65535
    assert pool.append(index, ROOM - HEADROOM + 1) is None
    view = pool.append(index, ROOM - HEADROOM)
    assert view is not None
    view[:] = b"\xff" * len(view)
    assert pool.data[index, HEADROOM:].all()
    assert not np.delete(pool.data, index, axis=0).any()
    with pytest.raises(eal.Corrupt, match="equal those of the pool"):
        pool.sanity_check(index)


def test_attach_plain_pool_listed_as_mbufs_raises_corrupt(primary: eal.Eal) -> None:
    """The table entry of a plain mempool has the mbuf flag."""
    from dataclasses import replace

    from eal.mbuf.pool import attach_pool
    from eal.memory.memzone import Memzone

    plain = primary.mempool_create("plain", 8, 512)
    zone = plain.memzone
    mislabeled = Memzone(replace(zone.entry, flags=0x10000), zone.segment)
    with pytest.raises(eal.Corrupt, match="header has other flags"):
        attach_pool(mislabeled, "plain")
