# SPDX-License-Identifier: BSD-3-Clause
"""Stateful test of a mempool against a list of objects in use: each object is always in exactly one place."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

import eal

N = 100
THREADS = 3
SETTINGS = settings(
    deadline=None,
    max_examples=25,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

MAKE: Callable[[], eal.Mempool]


class PoolMachine(RuleBasedStateMachine):
    """One mempool, used by several threads in turn; each has a slot, and a cache if cache_size is not 0."""

    worker = st.integers(0, THREADS - 1)
    few = st.integers(0, 60)

    def __init__(self) -> None:
        super().__init__()
        self.pool = MAKE()
        self.out: list[int] = []
        self.threads = [ThreadPoolExecutor(1) for _ in range(THREADS)]

    def teardown(self) -> None:
        for thread in self.threads:
            thread.shutdown()
        assert self.pool.available == N - len(self.out)
        # The threads have exited and flushed their caches: this thread can get all free objects.
        rest = np.zeros(N - len(self.out), np.uint32)
        assert self.pool.get_bulk(rest) == len(rest)
        assert sorted([*rest.tolist(), *self.out]) == list(range(N))
        self.pool.put_bulk(rest)
        eal.mempool_free(self.pool)

    def run(self, worker: int, call: Callable[..., Any], *arguments: object) -> Any:
        return self.threads[worker].submit(call, *arguments).result(30)

    def reachable(self, worker: int) -> int:
        """Return how many objects a thread can get: those in the bitmap and in its own cache."""
        audit = self.pool.audit()
        slot = self.run(worker, lambda: self.pool.memzone.segment.slot().index)  # type: ignore[union-attr]
        return len(audit.free) + len(audit.cached.get(slot, []))

    @rule(worker=worker)
    def get(self, worker: int) -> None:
        reachable = self.reachable(worker)
        index = self.run(worker, self.pool.get)
        assert (index is None) == (reachable == 0)
        if index is not None:
            assert index not in self.out
            self.out.append(index)

    @rule(worker=worker, n=few)
    def get_bulk(self, worker: int, n: int) -> None:
        reachable = self.reachable(worker)
        out = np.zeros(n, np.uint32)
        got = self.run(worker, self.pool.get_bulk, out)
        assert got == (n if n <= reachable else 0)
        self.out += out[:got].tolist()

    @rule(worker=worker, data=st.data())
    def put(self, worker: int, data: st.DataObject) -> None:
        if self.out:
            self.run(worker, self.pool.put, self.out.pop(data.draw(st.integers(0, len(self.out) - 1))))

    @rule(worker=worker, n=few, shuffled=st.randoms(use_true_random=False))
    def put_bulk(self, worker: int, n: int, shuffled: Any) -> None:
        shuffled.shuffle(self.out)
        back, self.out = self.out[:n], self.out[n:]
        self.run(worker, self.pool.put_bulk, np.array(back, np.uint32))

    @rule(worker=worker, index=st.integers(N, 2**32 - 1), with_good=st.booleans())
    def put_out_of_range(self, worker: int, index: int, with_good: bool) -> None:
        array = np.array([*(self.out if with_good else []), index], np.uint32)
        with pytest.raises(eal.Invalid):
            self.run(worker, self.pool.put_bulk, array)
        with pytest.raises(eal.Invalid):
            self.run(worker, self.pool.put, index)

    @rule(index=st.integers(0, N - 1))
    def put_more_than_in_use(self, index: int) -> None:
        with ThreadPoolExecutor(1) as newcomer, pytest.raises(eal.Invalid):
            newcomer.submit(self.pool.put_bulk, np.array([*self.out, index], np.uint32)).result(30)

    @rule(worker=worker)
    def exit_thread(self, worker: int) -> None:
        slot = self.run(worker, lambda: self.pool.memzone.segment.slot().index)  # type: ignore[union-attr]
        self.threads[worker].shutdown()
        assert slot not in self.pool.audit().cached
        self.threads[worker] = ThreadPoolExecutor(1)

    @invariant()
    def check_each_object_is_in_one_place(self) -> None:
        audit = self.pool.audit()
        assert audit.ok
        assert audit.in_hand == sorted(self.out)
        assert (self.pool.available, self.pool.in_use) == (N - len(self.out), len(self.out))


@pytest.mark.parametrize("cache_size", [0, 8, 32])
def test_pool_behaves_as_model(primary: eal.Eal, cache_size: int) -> None:
    global MAKE
    numbers = itertools.count()

    def make() -> eal.Mempool:
        return primary.mempool_create(f"p{next(numbers)}", N, 16, cache_size=cache_size)

    MAKE = make
    run_state_machine_as_test(PoolMachine, settings=SETTINGS)


@pytest.fixture
def workers() -> Iterator[Callable[[Callable[[int], None], int], None]]:
    """Return a function that runs a callable in n threads at once and raises the first exception of any of them."""

    def run(work: Callable[[int], None], n: int) -> None:
        with ThreadPoolExecutor(n) as threads:
            for done in [threads.submit(work, number) for number in range(n)]:
                done.result(60)

    return run  # type: ignore[return-value]


@pytest.mark.parametrize("cache_size", [0, 8, 32])
def test_concurrent_threads_never_get_the_same_object(primary: eal.Eal, workers: Any, cache_size: int) -> None:
    pool = primary.mempool_create("p", 256, 8, cache_size=cache_size)
    owner = pool.view("<u8")
    start = threading.Barrier(4)

    def work(number: int) -> None:
        mine = np.zeros(16, np.uint32)
        start.wait()
        for round_ in range(4000):
            n = round_ % 16 + 1
            if pool.get_bulk(mine[:n]) == 0:
                continue
            assert not owner[mine[:n]].any()
            owner[mine[:n]] = number + 1
            assert (owner[mine[:n]] == number + 1).all()
            owner[mine[:n]] = 0
            pool.put_bulk(mine[:n])

    workers(work, 4)
    assert (pool.available, pool.audit().ok) == (256, True)
    everything = np.zeros(256, np.uint32)
    assert pool.get_bulk(everything) == 256
    assert sorted(everything.tolist()) == list(range(256))
