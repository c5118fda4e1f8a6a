# SPDX-License-Identifier: BSD-3-Clause
"""Hundreds of SIGKILLs at random moments: other processes continue, and every object is accounted for."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import eal

KILLS = 150
OBJECTS = 256


def killed(work: Callable[[], None], delay: float, meanwhile: Callable[[], object] = lambda: time.sleep(0.001)) -> None:
    """A forked child that is killed this many seconds after it has begun to work, while this process works, too."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, b"1")
            work()
        finally:
            os._exit(3)
    os.close(writer)
    assert os.read(reader, 1) == b"1"
    os.close(reader)
    end = time.monotonic() + delay
    while time.monotonic() < end:
        meanwhile()
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL  # it did not exit by itself


@pytest.fixture
def chance() -> random.Random:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")  # printed if the test fails
    return random.Random(seed)


def join(primary: eal.Eal) -> eal.Eal:
    return eal.init(["--no-pci"], file_prefix=primary.file_prefix, proc_type="secondary", no_huge=True)


def test_pool_accounts_for_the_objects_of_killed_processes(
    primary: eal.Eal, runtime_dir: Path, chance: random.Random
) -> None:
    """Each killed process holds at most its allocated objects; these are freed, and none is lost or duplicated."""
    pool = primary.mempool_create("pool", OBJECTS, 32, cache_size=16)

    for _ in range(KILLS):
        size = chance.choice((1, 5, 30))

        def worker() -> None:
            theirs = join(primary).mempool_lookup("pool")
            taken = np.zeros(size, np.uint32)  # noqa: B023
            while True:
                if theirs.get_bulk(taken):
                    theirs.put_bulk(taken)

        killed(worker, chance.random() * 0.02)
        audit = pool.audit()
        assert (audit.twice, audit.foreign) == ([], 0)
        assert len(audit.in_hand) <= 2 * 16 + size
        for lost in audit.in_hand:
            pool.put(lost)
        assert pool.available == OBJECTS
    mine = []
    while (index := pool.get()) is not None:
        mine.append(index)
    with_the_last = [index for cache in pool.audit().cached.values() for index in cache]  # for its successor
    assert sorted(mine + with_the_last) == list(range(OBJECTS))


@pytest.mark.parametrize("flags", [eal.RingFlag.SP_ENQ | eal.RingFlag.SC_DEQ, eal.RingFlag(0)])
def test_ring_keeps_the_elements_of_killed_producers(
    primary: eal.Eal, runtime_dir: Path, chance: random.Random, flags: eal.RingFlag
) -> None:
    """The elements of each producer arrive completely and in order: 1, 2, 3, ..."""
    total = 0
    for number in range(KILLS // 2):
        ring = primary.ring_create(f"r{number}", 64, elem_size=16, flags=flags)
        name = ring.name

        def worker() -> None:
            theirs = join(primary).ring_lookup(name)  # noqa: B023
            counted = np.arange(1, 1 << 16, dtype=np.uint64).repeat(2).reshape(-1, 2)
            done = 0
            while True:
                done += theirs.enqueue_burst(counted[done : done + 3])

        out = np.zeros((64, 2), np.uint64)
        last = 0

        def consume() -> int:
            nonlocal last
            got = ring.dequeue_burst(out)  # noqa: B023
            assert (out[:got] == np.arange(last + 1, last + got + 1, dtype=np.uint64)[:, None]).all()  # noqa: B023
            last += got
            return got

        killed(worker, chance.random() * 0.02, consume)
        while consume():
            pass
        total += last
        assert ring.dequeue() is None
        begin = time.monotonic()
        try:
            assert ring.enqueue(bytes(16))
        except eal.Stalled:
            assert not flags  # this project's operations never leave an ST side incomplete
        assert time.monotonic() - begin < 5
        primary.ring_free(ring)
    assert total > KILLS  # many of them got that far
