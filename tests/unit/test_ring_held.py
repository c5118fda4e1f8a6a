"""Calls with held memory: one Ring object in several hands at once, and Burst's ranges."""

from __future__ import annotations

import signal
import threading
from itertools import count

import pytest

import eal

SIZE = 16


def element(number: int) -> bytes:
    return number.to_bytes(SIZE, "little")


def test_a_signal_handler_may_work_the_ring_that_it_interrupts(primary: eal.Eal) -> None:
    ring = primary.ring_create("ring", 4096, elem_size=SIZE)
    seen: list[bytes] = []
    sent = count()

    def handler(*_: object) -> None:
        ring.enqueue(element(next(sent)))
        taken = ring.dequeue()
        if taken is not None:
            seen.append(taken)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0002)
        while len(seen) < 20_000:
            assert ring.enqueue(element(next(sent)))
            taken = ring.dequeue()
            if taken is not None:
                seen.append(taken)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    while (taken := ring.dequeue()) is not None:
        seen.append(taken)
    assert sorted(map(int.from_bytes, seen)) == sorted(int.from_bytes(element(n)) for n in range(next(sent)))


def test_threads_share_one_ring_object(primary: eal.Eal) -> None:
    ring = primary.ring_create("ring", 64, elem_size=SIZE)
    each, seen = 5000, [set[bytes](), set[bytes]()]

    def produce(who: int) -> None:
        for number in range(who * each, who * each + each):
            while not ring.enqueue(element(number)):
                pass

    def consume(mine: set[bytes]) -> None:
        for _ in range(each):
            while (taken := ring.dequeue()) is None:
                pass
            assert taken not in mine
            mine.add(taken)

    threads = [threading.Thread(target=produce, args=(who,)) for who in (0, 1)]
    threads += [threading.Thread(target=consume, args=(mine,)) for mine in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen[0] | seen[1] == {element(number) for number in range(2 * each)}


def test_an_interrupted_call_leaves_the_ring_as_quick_as_it_was(primary: eal.Eal) -> None:
    ring = primary.ring_create("ring", 64, elem_size=SIZE)
    put, take = ring._put, ring._take
    with pytest.raises(eal.Invalid, match="16 bytes, not 3"):
        ring.enqueue(b"abc")
    assert ring.enqueue(memoryview(element(7)))
    assert ring.dequeue() == element(7)
    assert ring._put is put
    assert ring._take is take


def test_a_burst_refuses_what_its_array_does_not_have(primary: eal.Eal) -> None:
    burst = primary.ring_create("ring", 64).burst(8)
    burst.array[:] = range(8)
    for n, start in ((9, 0), (1, 8), (8, 1), (-1, 0), (1, -1), (0, 9), (1 << 40, 0), (1, 1 << 40)):
        with pytest.raises(eal.Invalid, match="burst of 8"):
            burst.enqueue(n, start)
    assert burst.enqueue(0, 8) == 0
    assert burst.enqueue(n=3, start=5) == 3
    assert burst.enqueue(8) == 8
    assert burst.dequeue() == 8
    assert burst.array.tolist() == [5, 6, 7, 0, 1, 2, 3, 4]
    primary.close()
    for call in (lambda: burst.enqueue(8), lambda: burst.enqueue(1), burst.dequeue):
        with pytest.raises(eal.Closed):
            call()
