# SPDX-License-Identifier: BSD-3-Clause
"""A ring compared with a plain list: any sequence of operations gives the same elements (hypothesis)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from tempfile import TemporaryFile
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import eal
from eal import RingFlag
from eal._native import lib
from eal.linux.mapping import Mapping
from eal.memory.memzone import Memzone
from eal.memory.segment import Segment
from eal.metadata.records import Entry, Kind, SegmentRecord
from eal.ring.format import format_ring, ring_memsize
from eal.ring.ring import Ring

PRODUCERS = {"MP": 0, "SP": RingFlag.SP_ENQ, "RTS": RingFlag.MP_RTS_ENQ, "HTS": RingFlag.MP_HTS_ENQ}
CONSUMERS = {"MC": 0, "SC": RingFlag.SC_DEQ, "RTS": RingFlag.MC_RTS_DEQ, "HTS": RingFlag.MC_HTS_DEQ}
SETTINGS = settings(
    deadline=None,
    max_examples=40,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@dataclass
class Kit:
    """Creates rings for a state machine: the parameters of one ring, and a segment for it."""

    segment: Segment
    flags: int
    elem_size: int


KIT: Kit


class RingMachine(RuleBasedStateMachine):
    """One ring through three handles, as in three processes, and the list that it must equal.

    Any of the handles may use an ST side, one at a time, so that their cached indices are tested, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.capacity = 7 if KIT.flags & RingFlag.EXACT_SZ else 15
        count = 7 if KIT.flags & RingFlag.EXACT_SZ else 16
        length = ring_memsize("r", count, KIT.elem_size, KIT.flags)
        KIT.segment.zero(4096, length)
        zone = Memzone(Entry("r", Kind.RING, 0, 4096, length), KIT.segment)
        format_ring(zone, "r", count, KIT.elem_size, KIT.flags)
        self.start_near_the_wrap(zone)
        self.handles = [Ring(zone, "r", 1.0) for _ in range(3)]
        self.bursts = [handle.burst(5) for handle in self.handles]
        self.model: list[bytes] = []
        self.next = 0

    def start_near_the_wrap(self, zone: Memzone) -> None:
        """Start the indices shortly before they wrap at 32 bits."""
        start = np.uint32(2**32 - 20)
        words = np.frombuffer(zone.buf[: len(zone.buf) // 4 * 4], np.uint32)
        for end, flag in ((32, RingFlag.MP_RTS_ENQ), (64, RingFlag.MC_RTS_DEQ)):
            if KIT.flags & flag:
                words[end + 1] = words[end + 5] = start  # positions; the operation counts stay 0
            else:
                words[end] = words[end + 1] = start

    def fresh(self, n: int) -> np.ndarray:
        """Return new elements whose bytes all differ from their neighbours'."""
        numbers = np.arange(self.next, self.next + n * KIT.elem_size // 4, dtype=np.uint32) * 2654435761
        self.next += n * KIT.elem_size // 4
        return numbers.view(np.uint8).reshape(n, KIT.elem_size)

    def take(self, n: int) -> list[bytes]:
        taken, self.model = self.model[:n], self.model[n:]
        return taken

    def put(self, elements: np.ndarray) -> None:
        self.model += [row.tobytes() for row in elements]

    handle = st.integers(0, 2)
    few = st.integers(0, 18)

    @rule(who=handle)
    def enqueue(self, who: int) -> None:
        element = self.fresh(1)
        done = self.handles[who].enqueue(element.tobytes())
        assert done is (len(self.model) < self.capacity)
        if done:
            self.put(element)

    @rule(who=handle)
    @precondition(lambda self: KIT.elem_size in (4, 8))
    def enqueue_number(self, who: int) -> None:
        element = self.fresh(1)
        if self.handles[who].enqueue(int.from_bytes(element.tobytes(), "little")):
            self.put(element)

    @rule(who=handle)
    def dequeue(self, who: int) -> None:
        value = self.handles[who].dequeue()
        raw = value.to_bytes(KIT.elem_size, "little") if isinstance(value, int) else value
        assert raw == next(iter(self.take(1)), None)

    @rule(who=handle, n=few)
    def enqueue_bulk(self, who: int, n: int) -> None:
        elements = self.fresh(n)
        expected = n if n <= self.capacity - len(self.model) else 0
        assert self.handles[who].enqueue_bulk(elements) == expected
        self.put(elements[:expected])

    @rule(who=handle, n=few)
    def enqueue_burst(self, who: int, n: int) -> None:
        elements = self.fresh(n)
        expected = min(n, self.capacity - len(self.model))
        assert self.handles[who].enqueue_burst(elements) == expected
        self.put(elements[:expected])

    @rule(who=handle, n=few, bulk=st.booleans())
    def dequeue_many(self, who: int, n: int, bulk: bool) -> None:
        out = np.full((n, KIT.elem_size), 0xEE, np.uint8)
        if bulk:
            got, expected = self.handles[who].dequeue_bulk(out), n if n <= len(self.model) else 0
        else:
            got, expected = self.handles[who].dequeue_burst(out), min(n, len(self.model))
        assert got == expected
        assert [row.tobytes() for row in out[:got]] == self.take(got)
        assert (out[got:] == 0xEE).all()

    @rule(who=handle, start=st.integers(0, 5), data=st.data())
    def burst_enqueue(self, who: int, start: int, data: st.DataObject) -> None:
        n = data.draw(st.integers(0, 5 - start))
        burst = self.bursts[who]
        elements = self.fresh(5)
        burst.array.view(np.uint8).reshape(5, KIT.elem_size)[:] = elements
        done = burst.enqueue(n, start)
        assert done == min(n, self.capacity - len(self.model))
        self.put(elements[start : start + done])

    @rule(who=handle)
    def burst_dequeue(self, who: int) -> None:
        got = self.bursts[who].dequeue()
        assert got == min(5, len(self.model))
        rows = self.bursts[who].array.view(np.uint8).reshape(5, KIT.elem_size)[:got]
        assert [row.tobytes() for row in rows] == self.take(got)

    @rule(who=handle)
    def reset(self, who: int) -> None:
        self.handles[who].reset()
        self.model.clear()

    @rule(who=handle)
    def attach_anew(self, who: int) -> None:
        self.handles[who] = Ring(self.handles[who].memzone, "r", 1.0)
        self.bursts[who] = self.handles[who].burst(5)

    @invariant()
    def counts(self) -> None:
        for handle in self.handles:
            assert handle.count == len(self.model)
            assert handle.free_count == self.capacity - len(self.model)


@pytest.fixture(scope="module")
def segment() -> Iterator[Segment]:
    """Shared memory for rings, without a file."""
    with TemporaryFile() as file:
        file.truncate(1 << 16)
        mapping = Mapping(file.fileno(), 1 << 16)
    record = SegmentRecord(uuid4(), 1 << 16, 4096, mapping.address, -1, "g", 1)
    yield Segment(record, mapping, "", socket_id=-1)
    assert lib.ivs_segment_retired(mapping.pointer()) == 0  # no ring wrote before its zone


@pytest.mark.parametrize("elem_size", [4, 8, 12, 64])
@pytest.mark.parametrize("exact", [0, RingFlag.EXACT_SZ], ids=["", "EXACT_SZ"])
@pytest.mark.parametrize(("producer", "consumer"), [("MP", "MC"), ("SP", "SC"), ("RTS", "RTS"), ("HTS", "HTS")])
def test_ring_equals_a_bounded_list(segment: Segment, producer: str, consumer: str, exact: int, elem_size: int) -> None:
    global KIT
    KIT = Kit(segment, int(PRODUCERS[producer] | CONSUMERS[consumer] | exact), elem_size)
    run_state_machine_as_test(RingMachine, settings=SETTINGS)


@pytest.mark.parametrize("producer", PRODUCERS)
@pytest.mark.parametrize("consumer", CONSUMERS)
def test_every_pair_of_sync_modes_keeps_order(primary: eal.Eal, producer: str, consumer: str) -> None:
    """Each producer mode with each consumer mode, over many wraps."""
    ring = primary.ring_create("r", 16, elem_size=12, flags=PRODUCERS[producer] | CONSUMERS[consumer])
    sent = received = 0
    out = np.zeros((4, 12), np.uint8)
    for step in range(400):
        n = step % 7
        elements = np.arange(sent, sent + n, dtype=np.uint32).repeat(3).reshape(n, 3)
        sent += ring.enqueue_burst(elements)
        got = ring.dequeue_burst(out)
        assert out[:got].view(np.uint32).reshape(got, 3)[:, 1].tolist() == list(range(received, received + got))
        received += got
    assert sent > 1000
    assert ring.count == sent - received
