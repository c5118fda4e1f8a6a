# SPDX-License-Identifier: BSD-3-Clause
"""Repeated SIGKILL at random times: the other processes lose no ring element and no mempool object."""

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


def kill_during(
    work: Callable[[], None], delay: float, in_parent: Callable[[], object] = lambda: time.sleep(0.001)
) -> None:
    """Run `work` in a forked child and call `in_parent` in a loop; kill the child after `delay` seconds."""
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
        in_parent()
    os.kill(child, signal.SIGKILL)
    assert (
        os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    )  # the child did not exit before the kill


@pytest.fixture
def chance() -> random.Random:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")  # pytest shows this line if the test fails
    return random.Random(seed)


def join(primary: eal.Eal) -> eal.Eal:
    return eal.init(["--no-pci"], file_prefix=primary.file_prefix, proc_type="secondary", no_huge=True)


def test_mempool_loses_no_object_when_users_are_killed(
    primary: eal.Eal, runtime_dir: Path, chance: random.Random
) -> None:
    """A killed process holds at most its allocated and cached objects; freeing them makes every object available."""
    pool = primary.mempool_create("pool", OBJECTS, 32, cache_size=16)

    for _ in range(KILLS):
        size = chance.choice((1, 5, 30))

        def worker() -> None:
            shared = join(primary).mempool_lookup("pool")
            taken = np.zeros(size, np.uint32)  # noqa: B023
            while True:
                if shared.get_bulk(taken):
                    shared.put_bulk(taken)

        kill_during(worker, chance.random() * 0.02)
        audit = pool.audit()
        assert (audit.twice, audit.foreign) == ([], 0)
        assert len(audit.in_hand) <= 2 * 16 + size
        for lost in audit.in_hand:
            pool.put(lost)
        assert pool.available == OBJECTS
    held = []
    while (index := pool.get()) is not None:
        held.append(index)
    # The cache of the last killed process keeps its objects until another participant claims the slot.
    cached = [index for cache in pool.audit().cached.values() for index in cache]
    assert sorted(held + cached) == list(range(OBJECTS))


@pytest.mark.parametrize("flags", [eal.RingFlag.SP_ENQ | eal.RingFlag.SC_DEQ, eal.RingFlag(0)])
def test_ring_delivers_elements_in_order_when_producers_are_killed(
    primary: eal.Eal, runtime_dir: Path, chance: random.Random, flags: eal.RingFlag
) -> None:
    """Each producer enqueues 1, 2, 3, ...; the consumer gets these numbers without a gap."""
    total = 0
    for number in range(KILLS // 2):
        ring = primary.ring_create(f"r{number}", 64, elem_size=16, flags=flags)
        name = ring.name

        def worker() -> None:
            shared = join(primary).ring_lookup(name)  # noqa: B023
            counted = np.arange(1, 1 << 16, dtype=np.uint64).repeat(2).reshape(-1, 2)
            done = 0
            while True:
                done += shared.enqueue_burst(counted[done : done + 3])

        out = np.zeros((64, 2), np.uint64)
        last = 0

        def consume() -> int:
            nonlocal last
            got = ring.dequeue_burst(out)  # noqa: B023
            assert (out[:got] == np.arange(last + 1, last + got + 1, dtype=np.uint64)[:, None]).all()  # noqa: B023
            last += got
            return got

        kill_during(worker, chance.random() * 0.02, consume)
        while consume():
            pass
        total += last
        assert ring.dequeue() is None
        begin = time.monotonic()
        try:
            assert ring.enqueue(bytes(16))
        except eal.Stalled:
            assert not flags  # an ST enqueue stores head and tail in one word, so a kill cannot separate them
        assert time.monotonic() - begin < 5
        primary.ring_free(ring)
    assert total > KILLS  # most producers enqueued before they were killed
