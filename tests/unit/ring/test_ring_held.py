# SPDX-License-Identifier: BSD-3-Clause
"""The C methods of Ring and Burst: one object used by several threads, held memory, and references."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import pytest

import eal
from eal import _methods

SIZE = 16


def element(number: int) -> bytes:
    return number.to_bytes(SIZE, "little")


def test_signal_handler_may_use_the_ring_that_it_interrupts(primary: eal.Eal) -> None:
    ring = primary.ring_create("ring", 4096, elem_size=SIZE)
    seen: list[int | bytes] = []
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
    assert sorted(int.from_bytes(value) for value in seen if isinstance(value, bytes)) == sorted(
        int.from_bytes(element(n)) for n in range(next(sent))
    )


def test_threads_share_one_ring_object(primary: eal.Eal) -> None:
    ring = primary.ring_create("ring", 64, elem_size=SIZE)
    each, seen = 5000, [set[int | bytes](), set[int | bytes]()]

    def produce(who: int) -> None:
        for number in range(who * each, who * each + each):
            while not ring.enqueue(element(number)):
                pass

    def consume(mine: set[int | bytes]) -> None:
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


def test_refused_element_leaves_the_ring_unchanged(primary: eal.Eal) -> None:
    ring = primary.ring_create("ring", 64, elem_size=SIZE)
    with pytest.raises(eal.Invalid, match="16 bytes, got 3"):
        ring.enqueue(b"abc")
    with pytest.raises(eal.Invalid, match="bytes-like, got int"):
        ring.enqueue(7)
    with pytest.raises(eal.Invalid, match="C-contiguous"):
        ring.enqueue(np.zeros(2 * SIZE, np.uint8)[::2])
    assert ring.empty
    assert ring.enqueue(memoryview(element(7)))
    assert ring.dequeue() == element(7)


def test_dequeued_bytes_never_change(primary: eal.Eal) -> None:
    """The buffer of the next element is kept after an empty dequeue; no two elements share it."""
    ring = primary.ring_create("ring", 64, elem_size=SIZE, flags=eal.RingFlag.SP_ENQ | eal.RingFlag.SC_DEQ)
    seen = []
    for number in range(50):
        assert ring.dequeue() is None
        assert ring.enqueue(element(number))
        seen.append(ring.dequeue())
    assert seen == [element(number) for number in range(50)]


class Integer:
    """An object that is an int to Python and runs code when it is converted."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def __index__(self) -> int:
        if self.error:
            raise self.error
        return 5


def test_every_kind_of_int_is_accepted(primary: eal.Eal) -> None:
    for size, most in ((4, 1 << 32), (8, 1 << 64)):
        ring = primary.ring_create(f"ring{size}", 64, elem_size=size)
        for value in (0, most - 1, np.uint16(7), Integer(), True, (9).to_bytes(size, "little")):
            assert ring.enqueue(value)
        assert [ring.dequeue() for _ in range(7)] == [0, most - 1, 7, 5, 1, 9, None]
        for value in (-1, most, 1 << 70):
            with pytest.raises(eal.Invalid, match=f"{value} does not fit in {size} bytes"):
                ring.enqueue(value)
        with pytest.raises(eal.Invalid, match="an int, got float"):
            ring.enqueue(1.5)
        with pytest.raises(ZeroDivisionError):
            ring.enqueue(Integer(ZeroDivisionError()))
        assert ring.empty


def test_calls_leak_no_references(primary: eal.Eal) -> None:
    both = eal.RingFlag.SP_ENQ | eal.RingFlag.SC_DEQ
    value, number = element(1), 1 << 40
    text = str(object())  # strings of this test only: literals are shared by all modules

    def use(round_: int) -> None:
        for flags in (both, eal.RingFlag(0)):
            ring = primary.ring_create(f"bytes{flags:d}{round_}", 8, elem_size=SIZE, flags=flags)
            numbers = primary.ring_create(f"ints{flags:d}{round_}", 8, flags=flags)
            burst = ring.burst(4)
            refused: list[tuple[Any, object]]
            refused = [(ring, b"abc"), (ring, text), (numbers, -1), (burst, 9), (burst, text)]
            for _ in range(200):
                ring.enqueue(value), ring.dequeue(), ring.dequeue()
                numbers.enqueue(number), numbers.dequeue(), numbers.dequeue()
                burst.enqueue(2, start=1), burst.enqueue(4), burst.dequeue(), burst.dequeue()
                for target, wrong in refused:
                    with pytest.raises((TypeError, eal.Invalid)):
                        target.enqueue(wrong)
                with pytest.raises(TypeError, match="enqueue"):
                    burst.enqueue(1, begin=2)  # type: ignore[call-arg]
            array = weakref.ref(burst.array)
            for each in (ring, numbers):
                primary.ring_free(each)
            with pytest.raises(eal.Closed):
                burst.enqueue(1)
            del burst, target, refused
            assert array() is None, "a burst's array goes with it"

    use(0)
    gc.collect()
    counts, blocks = [sys.getrefcount(each) for each in (value, number, text, None)], sys.getallocatedblocks()
    for round_ in range(1, 6):
        use(round_)
    gc.collect()
    assert [sys.getrefcount(each) for each in (value, number, text)] == counts[:3]
    assert abs(sys.getrefcount(None) - counts[3]) < 500
    assert sys.getallocatedblocks() - blocks < 500  # 12,000 failures, 8,000 elements


def test_base_classes_refuse_operations_until_attached() -> None:
    for call in (
        _methods.RingCalls().dequeue,
        lambda: _methods.RingCalls().enqueue(b""),
        _methods.BurstCalls().dequeue,
    ):
        with pytest.raises(RuntimeError, match="not attached"):
            call()


@pytest.mark.parametrize("flags", [0, eal.RingFlag.SP_ENQ | eal.RingFlag.SC_DEQ])
def test_ring_is_freed_while_threads_use_it(primary: eal.Eal, flags: int) -> None:
    for round_ in range(20):
        ring = primary.ring_create(f"ring{round_}", 64, elem_size=SIZE, flags=flags)
        burst = ring.burst(8)
        closed: list[bool] = []

        def work(call: Callable[[], object], closed: list[bool] = closed) -> None:
            try:
                while True:
                    call()
            except eal.Closed:
                closed.append(True)

        threads = [
            threading.Thread(target=work, args=(call,))
            for call in (partial(ring.enqueue, element(3)), ring.dequeue, partial(burst.enqueue, 8), burst.dequeue)
        ]
        for thread in threads[: 2 if flags else 4]:  # one per side
            thread.start()
        time.sleep(0.002)
        primary.ring_free(ring)
        for thread in threads[: 2 if flags else 4]:
            thread.join(10)
        assert len(closed) == (2 if flags else 4)


@pytest.fixture
def long_turns() -> Iterator[float]:
    """Set the interval in seconds after which a thread must release the GIL, longer than any wait on a busy machine."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.25)
    yield 0.25
    sys.setswitchinterval(usual)


@pytest.mark.parametrize("flags", [0, eal.RingFlag.SP_ENQ | eal.RingFlag.SC_DEQ])
def test_polling_threads_let_each_other_run(primary: eal.Eal, flags: int, long_turns: float) -> None:
    """Without releasing the GIL, each turn would take Python's switch interval twice."""
    there, back = (primary.ring_create(name, 64, flags=flags) for name in ("there", "back"))
    turns = 20

    def answer() -> None:
        for _ in range(turns):
            while (value := there.dequeue()) is None:
                pass
            assert back.enqueue(value)

    thread = threading.Thread(target=answer)
    thread.start()
    begin = time.monotonic()
    for turn in range(turns):
        assert there.enqueue(turn)
        while (value := back.dequeue()) is None:
            pass
        assert value == turn
    thread.join()
    assert time.monotonic() - begin < turns * long_turns


def test_wait_for_a_peer_lets_other_threads_run(primary: eal.Eal) -> None:
    """On an incomplete MT side the call waits for stall_timeout without the GIL."""
    ring = primary.ring_create("ring", 64)
    head = ring.memzone.buf[128:132].cast("I")
    head[0] += 1  # a peer reserved a slot and died
    failed = []

    def enqueue() -> None:
        with pytest.raises(eal.Stalled):
            ring.enqueue(1)
        failed.append(True)

    thread = threading.Thread(target=enqueue)
    begin = before = time.monotonic()
    longest = 0.0
    thread.start()
    while not failed and before - begin < 20:
        now = time.monotonic()
        longest, before = max(longest, now - before), now
    thread.join()
    assert failed
    assert longest < (before - begin) / 2


def test_burst_refuses_elements_outside_its_array(primary: eal.Eal) -> None:
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
    calls: list[Callable[[], int]] = [lambda: burst.enqueue(8), lambda: burst.enqueue(1), burst.dequeue]
    for call in calls:
        with pytest.raises(eal.Closed):
            call()
