# SPDX-License-Identifier: BSD-3-Clause
"""Threads of one process: participant slots, concurrent use of rings and mempools, close during use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import eal

Peers = Callable[..., Any]


def slots(segment: eal.Segment) -> dict[int, int]:
    """Return the thread id of each claimed slot."""
    return {p.slot: p.owner & 0xFFFFFFFF for p in segment.participants()}


def run_in_threads(n: int, work: Callable[[int], object]) -> list[Any]:
    with ThreadPoolExecutor(n) as pool:
        return [done.result(60) for done in [pool.submit(work, number) for number in range(n)]]


def test_each_thread_claims_and_releases_a_slot(primary: eal.Eal) -> None:
    pool = primary.mempool_create("p", 512, 8, cache_size=8)
    together = threading.Barrier(6)

    def work(_: int) -> tuple[int, int | None]:
        index = pool.get()
        together.wait(30)
        return threading.get_native_id(), index

    with ThreadPoolExecutor(5) as threads:
        running = [threads.submit(work, number) for number in range(5)]
        while len(slots(pool.memzone.segment)) < 5:
            pass
        found = slots(pool.memzone.segment)
        assert len(found) == len(set(found.values())) == 5
        assert threading.get_native_id() not in found.values()  # `available` and `audit` claim no slot
        together.wait(30)
        results = [done.result() for done in running]
    assert {thread for thread, _ in results} == set(found.values())
    assert slots(pool.memzone.segment) == {}
    for _, index in results:
        assert index is not None
        pool.put(index)
    assert list(slots(pool.memzone.segment).values()) == [threading.get_native_id()]


def test_caches_of_ended_threads_are_flushed(primary: eal.Eal) -> None:
    n = 200
    pool = primary.mempool_create("p", n, 8, cache_size=32)

    def work(_: int) -> None:
        indices = np.zeros(20, np.uint32)
        for _ in range(5):
            if pool.get_bulk(indices):
                pool.put_bulk(indices)

    for _ in range(5):
        run_in_threads(4, work)
    assert pool.available == n
    assert pool.audit().cached == {}
    taken = {pool.get() for _ in range(n)}
    assert taken == set(range(n))


@pytest.mark.parametrize("cache_size", [0, 8])
def test_threads_without_slot_use_pool_without_cache(primary: eal.Eal, cache_size: int) -> None:
    """64 threads claim a participant slot; the other threads allocate and free without a cache."""
    threads = 70
    pool = primary.mempool_create("p", 4096, 8, cache_size=cache_size)
    ring = primary.ring_create("r", 128)
    owner = pool.view("<u8")
    all_here = threading.Barrier(threads)

    def work(number: int) -> int:
        index = pool.get()
        assert index is not None
        all_here.wait(60)
        used = len(slots(pool.memzone.segment))
        assert ring.enqueue(number)
        all_here.wait(60)
        pool.put(index)
        for _ in range(50):
            index = pool.get()
            assert index is not None
            assert owner[index] == 0
            owner[index] = number + 1
            assert owner[index] == number + 1
            owner[index] = 0
            pool.put(index)
        return used

    assert set(run_in_threads(threads, work)) == {64}
    assert sorted(ring.dequeue() for _ in range(threads)) == list(range(threads))  # type: ignore[type-var]
    assert (slots(pool.memzone.segment), pool.available, pool.audit().ok) == ({}, 4096, True)
    all_objects = np.zeros(4096, np.uint32)
    assert pool.get_bulk(all_objects) == 4096


@pytest.mark.parametrize("flags", [0, 0x18, 0x60], ids=["MT", "RTS", "HTS"])
def test_ring_of_many_threads_loses_and_duplicates_nothing(primary: eal.Eal, flags: int) -> None:
    ring = primary.ring_create("r", 64, flags=flags)
    total, stop = 4 * 3000, threading.Event()

    def produce(number: int) -> list[int]:
        values = np.arange(number * 3000, (number + 1) * 3000, dtype=np.uint64)
        sent = 0
        while sent < len(values):
            sent += ring.enqueue_burst(values[sent : sent + 7])
        return []

    def consume(_: int) -> list[int]:
        out = np.zeros(11, np.uint64)
        got: list[int] = []
        while not stop.is_set() or not ring.empty:
            got += out[: ring.dequeue_burst(out)].tolist()
        return got

    with ThreadPoolExecutor(8) as pool:
        consumers = [pool.submit(consume, number) for number in range(4)]
        for done in [pool.submit(produce, number) for number in range(4)]:
            done.result(60)
        stop.set()
        got = [value for done in consumers for value in done.result(60)]
    assert len(got) == total
    assert sorted(got) == list(range(total))


def test_concurrent_create_and_free_leave_no_ring(primary: eal.Eal) -> None:
    def work(number: int) -> int:
        won = 0
        for i in range(60):
            name = f"r{i % 7}"
            try:
                ring = eal.ring_create(name, 8)
                won += 1
                assert ring.enqueue(number)
                eal.ring_free(ring)
                with pytest.raises(eal.Closed):
                    ring.enqueue(number)
            except (eal.Exists, eal.NotFound):
                pass
        return won

    assert sum(run_in_threads(4, work)) >= 60
    assert [ring.name for ring in primary.rings()] == []
    assert len(primary.segments()) == 1


def test_concurrent_lookups_return_the_same_handle(primary: eal.Eal) -> None:
    eal.ring_create("r", 8)
    primary._objects._handles.clear()  # as in a process that has not attached the ring
    start = threading.Barrier(8)

    def work(_: int) -> eal.Ring:
        start.wait()
        return eal.ring_lookup("r")

    assert len({id(ring) for ring in run_in_threads(8, work)}) == 1


CLOSE_AMONG_THREADS = """
import sys, threading, time
import numpy as np
import eal

def open_use_and_close(number):
    made = eal.init(["--no-pci"], file_prefix=sys.argv[1], no_huge=True, stall_timeout=5)
    ring = eal.ring_create("r", 32, flags=[0, 0x18, 0x60][number % 3])
    pool = eal.mempool_create("p", 64, 16, cache_size=8)
    outcomes = []

    def work():
        array, burst = np.zeros(5, np.uint32), ring.burst(3)
        try:
            while True:
                ring.enqueue(1); ring.dequeue(); burst.enqueue(3); burst.dequeue()
                index = pool.get()
                if index is not None:
                    pool.array[index] = 1
                    pool.put(index)
                if pool.get_bulk(array):
                    pool.put_bulk(array)
                pool.available, ring.count, eal.memzones()
                made.memzone_free(made.memzone_reserve(f"z{threading.get_ident()}", 64))
        except eal.Closed:
            outcomes.append("closed")
        except BaseException as error:
            outcomes.append(repr(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.002 * (number % 10))
    made.close()
    for thread in threads:
        thread.join()
    assert outcomes == ["closed"] * 4, outcomes

for number in range(50):
    open_use_and_close(number)
print("survived")
"""


def test_close_during_use_raises_closed_in_all_threads(peer: Peers) -> None:
    other = peer(CLOSE_AMONG_THREADS)
    assert other.end(120) == "survived\n"
    assert other.error() == ""
