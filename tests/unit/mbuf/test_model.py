# SPDX-License-Identifier: BSD-3-Clause
"""Stateful test of packets against a Python model: bytes, chains and reference counts always agree."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

import eal
from eal.mbuf.format import HEADROOM

N = 24
ROOM = 192
SETTINGS = settings(
    deadline=None,
    max_examples=150,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

MAKE: Callable[[], eal.MbufPool]


@dataclass
class Segment:
    """The expected location of the data of one segment."""

    index: int
    buf: int
    off: int = HEADROOM
    length: int = 0


@dataclass
class Packet:
    """The segments of a packet, and how many times it must be freed."""

    segments: list[Segment]
    owners: int = 1


@dataclass
class Model:
    """A pool of mbufs: reference counts of allocated mbufs, and the bytes of all buffers."""

    refs: dict[int, int] = field(default_factory=dict)
    memory: dict[int, bytearray] = field(default_factory=lambda: {i: bytearray(ROOM) for i in range(N)})
    packets: list[Packet] = field(default_factory=list)

    @property
    def available(self) -> int:
        return N - len(self.refs)

    def take(self, index: int) -> Segment:
        assert index not in self.refs, "mbuf allocated twice"
        self.refs[index] = 1
        return Segment(index, index)

    def drop(self, index: int) -> bool:
        self.refs[index] -= 1
        if self.refs[index] == 0:
            del self.refs[index]
            return True
        return False

    def free(self, segment: Segment) -> None:
        if self.drop(segment.index) and segment.buf != segment.index:
            self.drop(segment.buf)

    def bytes_of(self, segment: Segment) -> bytes:
        return bytes(self.memory[segment.buf][segment.off : segment.off + segment.length])

    def data(self, packet: Packet) -> bytes:
        return b"".join(map(self.bytes_of, packet.segments))

    def write(self, segment: Segment, off: int, data: bytes) -> None:
        self.memory[segment.buf][off : off + len(data)] = data


class PacketMachine(RuleBasedStateMachine):
    """Packets of one pool. A rule that the state of a packet does not allow expects an error and no change."""

    packets = Bundle("packets")
    data = st.binary(max_size=80)
    length = st.integers(0, 80)

    def __init__(self) -> None:
        super().__init__()
        self.pool = MAKE()
        self.model = Model()

    def teardown(self) -> None:
        for packet in self.model.packets:
            for _ in range(packet.owners):
                self.pool.free(packet.segments[0].index)
        assert (self.pool.available, self.pool.audit().ok) == (N, True)
        assert not self.pool.mbufs["refcnt"].any()
        eal.mempool_free(self.pool)

    def add(self, segments: list[Segment]) -> Packet:
        packet = Packet(segments)
        self.model.packets.append(packet)
        return packet

    def remove(self, packet: Packet) -> None:
        # Compared by identity: different packets may be equal.
        self.model.packets = [other for other in self.model.packets if other is not packet]

    # --- alloc and free -----------------------------------------------------------------------------------

    @rule(target=packets, n=st.integers(1, 9))
    def alloc(self, n: int) -> object:
        out = np.zeros(n, np.uint32)
        fits = n <= self.model.available
        assert self.pool.alloc_bulk(out) == (n if fits else 0)
        return multiple(*[self.add([self.model.take(int(index))]) for index in out]) if fits else multiple()

    @rule(packet=consumes(packets))
    def free(self, packet: Packet) -> None:
        for _ in range(packet.owners):
            for segment in packet.segments:
                self.model.free(segment)
            self.pool.free(packet.segments[0].index)
        self.remove(packet)

    @rule(chosen=st.lists(consumes(packets), max_size=4))
    def free_bulk(self, chosen: list[Packet]) -> None:
        heads = [packet.segments[0].index for packet in chosen for _ in range(packet.owners)]
        for packet in chosen:
            for segment in packet.segments * packet.owners:
                self.model.free(segment)
            self.remove(packet)
        self.pool.free_bulk(np.array(heads, np.uint32))

    @rule(packet=packets)
    def share(self, packet: Packet) -> None:
        self.pool.pktmbuf_refcnt_update(packet.segments[0].index, 1)
        packet.owners += 1
        for segment in packet.segments:
            self.model.refs[segment.index] += 1

    # --- data ---------------------------------------------------------------------------------------------

    @rule(packet=packets, data=data)
    def append(self, packet: Packet, data: bytes) -> None:
        last = packet.segments[-1]
        end = last.off + last.length
        view = self.pool.append(packet.segments[0].index, len(data))
        assert (view is None) == (end + len(data) > ROOM)
        if view is not None:
            view[:] = data
            self.model.write(last, end, data)
            last.length += len(data)

    @rule(packet=packets, data=data)
    def prepend(self, packet: Packet, data: bytes) -> None:
        first = packet.segments[0]
        view = self.pool.prepend(first.index, len(data))
        assert (view is None) == (len(data) > first.off)
        if view is not None:
            view[:] = data
            first.off -= len(data)
            first.length += len(data)
            self.model.write(first, first.off, data)

    @rule(packet=packets, length=length)
    def adj(self, packet: Packet, length: int) -> None:
        first = packet.segments[0]
        rest = self.pool.adj(first.index, length)
        assert (rest is None) == (length > first.length)
        if rest is not None:
            first.off += length
            first.length -= length
            assert bytes(rest) == self.model.bytes_of(first)

    @rule(packet=packets, length=length)
    def trim(self, packet: Packet, length: int) -> None:
        last = packet.segments[-1]
        assert self.pool.trim(packet.segments[0].index, length) == (length <= last.length)
        if length <= last.length:
            last.length -= length

    @rule(packet=packets, offset=length, length=length)
    def read(self, packet: Packet, offset: int, length: int) -> None:
        whole = self.model.data(packet)
        expected = whole[offset : offset + length] if offset + length <= len(whole) else None
        assert self.pool.read(packet.segments[0].index, offset, length) == expected

    # --- chains and clones --------------------------------------------------------------------------------

    @rule(head=packets, tail=packets)
    def chain_to_itself(self, head: Packet, tail: Packet) -> None:
        if head is tail:
            with pytest.raises(eal.Invalid):
                self.pool.chain(head.segments[0].index, tail.segments[-1].index)

    @rule(target=packets, head=consumes(packets), tail=consumes(packets))
    def chain(self, head: Packet, tail: Packet) -> object:
        if head.owners > 1 or tail.owners > 1:  # DPDK forbids chaining of shared packets
            return multiple(head, tail)
        self.pool.chain(head.segments[0].index, tail.segments[0].index)
        head.segments += tail.segments
        self.remove(tail)
        return head

    @rule(packet=packets)
    def linearize(self, packet: Packet) -> None:
        if packet.owners > 1:
            return
        first, *others = packet.segments
        end = first.off + first.length
        fits = end + sum(segment.length for segment in others) <= ROOM
        assert self.pool.linearize(first.index) == (fits or not others)
        if fits:
            for segment in others:
                self.model.write(first, first.off + first.length, self.model.bytes_of(segment))
                first.length += segment.length
            for segment in others:
                self.model.free(segment)
            packet.segments = [first]

    @rule(target=packets, packet=packets)
    def clone(self, packet: Packet) -> object:
        fits = len(packet.segments) <= self.model.available
        index = self.pool.clone(packet.segments[0].index)
        assert (index is not None) == fits
        if index is None:
            return multiple()
        segments = []
        for new, old in zip(self.pool.segments(index), packet.segments, strict=True):
            self.model.take(int(new))
            self.model.refs[old.buf] += 1
            segments.append(Segment(int(new), old.buf, old.off, old.length))
        return self.add(segments)

    @rule(target=packets, packet=packets, offset=length, length=st.none() | length)
    def copy(self, packet: Packet, offset: int, length: int | None) -> object:
        data = self.model.data(packet)
        wanted = data[offset:] if length is None else data[offset : offset + length]
        room = ROOM - HEADROOM
        parts = [wanted[at : at + room] for at in range(0, max(len(wanted), 1), room)]
        index = self.pool.copy(packet.segments[0].index, offset, length)
        assert (index is not None) == (offset < len(data) and len(parts) <= self.model.available)
        if index is None:
            return multiple()
        segments = []
        for new, part in zip(self.pool.segments(index), parts, strict=True):
            segment = self.model.take(int(new))
            self.model.write(segment, HEADROOM, part)
            segment.length = len(part)
            segments.append(segment)
        return self.add(segments)

    @rule(packet=packets, source=packets, which=st.integers(0, 100))
    def attach(self, packet: Packet, source: Packet, which: int) -> None:
        to = source.segments[which % len(source.segments)]
        mine = packet.segments[0]
        attachable = len(packet.segments) == 1 and mine.buf == mine.index and self.model.refs[mine.index] == 1
        if not attachable or mine.index == to.buf:
            with pytest.raises(eal.Invalid):
                self.pool.attach(mine.index, to.index)
            return
        self.pool.attach(mine.index, to.index)
        self.model.refs[to.buf] += 1
        mine.buf, mine.off, mine.length = to.buf, to.off, to.length

    @rule(packet=packets)
    def detach(self, packet: Packet) -> None:
        first = packet.segments[0]
        if first.buf == first.index:
            with pytest.raises(eal.Invalid):
                self.pool.detach(first.index)
            return
        self.pool.detach(first.index)
        self.model.drop(first.buf)
        first.buf, first.off, first.length = first.index, HEADROOM, 0

    # --- invariants ---------------------------------------------------------------------------------------

    @invariant()
    def check_packets_equal_model(self) -> None:
        headers = self.pool.mbufs
        for packet in self.model.packets:
            head = packet.segments[0].index
            self.pool.sanity_check(head)
            indices = [segment.index for segment in packet.segments]
            assert self.pool.segments(head).tolist() == indices
            assert self.pool.read(head) == self.model.data(packet)
            expected = [(segment.buf, segment.off, segment.length) for segment in packet.segments]
            assert headers[["buf", "data_off", "data_len"]][indices].tolist() == expected

    @invariant()
    def check_references_equal_model(self) -> None:
        counts = self.pool.mbufs["refcnt"]
        assert {i: int(counts[i]) for i in range(N) if counts[i]} == self.model.refs
        assert self.pool.available == self.model.available


@pytest.mark.parametrize("cache_size", [0, 8])
def test_packets_behave_as_model(primary: eal.Eal, cache_size: int) -> None:
    global MAKE
    numbers = itertools.count()

    def make() -> eal.MbufPool:
        return primary.pktmbuf_pool_create(f"p{next(numbers)}", N, cache_size=cache_size, data_room=ROOM)

    MAKE = make
    run_state_machine_as_test(PacketMachine, settings=SETTINGS)
