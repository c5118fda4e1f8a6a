# SPDX-License-Identifier: BSD-3-Clause
"""Packets with several segments: chains, references, clones, copies, attached mbufs, sanity_check."""

from __future__ import annotations

import numpy as np
import pytest

import eal
from eal.mbuf.format import HEADROOM, NO_MBUF
from tests.mbufs import alloc, clone_of, packet

N = 64
ROOM = 256


@pytest.fixture(params=[0, 8], ids=["uncached", "cached"])
def pool(request: pytest.FixtureRequest, primary: eal.Eal) -> eal.MbufPool:
    return primary.pktmbuf_pool_create("p", N, cache_size=request.param, data_room=ROOM, private_size=16)


# --- chains -------------------------------------------------------------------------------------------------


def test_chain_appends_segments_and_lengths(pool: eal.MbufPool) -> None:
    one, two = packet(pool, b"a", b"bb"), packet(pool, b"ccc", b"", b"dddd")
    segments = [*pool.segments(one), *pool.segments(two)]
    assert (pool.is_contiguous(one), pool.lastseg(one)) == (False, segments[1])
    pool.chain(one, two)
    assert pool.segments(one).tolist() == segments
    assert pool.segments(one).dtype == np.uint32
    assert (pool.mbufs["nb_segs"][one], pool.mbufs["pkt_len"][one], pool.mbufs["pkt_len"][two]) == (5, 10, 3)
    assert pool.read(one) == b"abbcccdddd"
    pool.sanity_check(one)
    pool.free(one)
    assert pool.available == N


def test_chain_of_all_mbufs_of_a_pool(pool: eal.MbufPool) -> None:
    head = packet(pool, *[bytes([i]) for i in range(N)])
    assert len(pool.segments(head)) == N
    assert pool.read(head) == bytes(range(N))
    assert (pool.append(head, 1) is not None, pool.mbufs["nb_segs"][head]) == (True, N)
    pool.sanity_check(head)
    pool.free(head)
    assert (pool.available, pool.audit().ok) == (N, True)


def test_chain_packet_to_its_own_segment_raises_invalid(pool: eal.MbufPool) -> None:
    head = packet(pool, b"a", b"b", b"c")
    for part in pool.segments(head):
        with pytest.raises(eal.Invalid, match="segment in common"):
            pool.chain(head, part)
        with pytest.raises(eal.Invalid, match="segment in common"):
            pool.chain(part, head)
    pool.sanity_check(head)
    pool.free(head)


def test_chain_more_than_65535_segments_raises_invalid(primary: eal.Eal) -> None:
    pool = primary.pktmbuf_pool_create("p", 4, data_room=0)
    one, two = alloc(pool), alloc(pool)
    pool.mbufs["nb_segs"][one] = 65535
    with pytest.raises(eal.Invalid, match="65535"):
        pool.chain(one, two)
    assert pool.mbufs["next"][one] == NO_MBUF


def test_free_seg_frees_one_segment_only(pool: eal.MbufPool) -> None:
    head, second, third = (int(i) for i in pool.segments(packet(pool, b"a", b"b", b"c")))
    pool.free_seg(head)
    assert [pool.refcnt_read(i) for i in (head, second, third)] == [0, 1, 1]
    pool.free(second)
    assert pool.available == N


def test_linearize_moves_data_into_first_segment(pool: eal.MbufPool) -> None:
    head = packet(pool, b"one ", b"two ", b"", b"three")
    assert pool.linearize(head)
    assert (pool.is_contiguous(head), bytes(pool.mtod(head)), pool.available) == (True, b"one two three", N - 1)
    assert pool.mbufs["next"][head] == NO_MBUF
    pool.sanity_check(head)
    assert pool.linearize(head)
    pool.free(head)


def test_linearize_without_tailroom_returns_false(pool: eal.MbufPool) -> None:
    head = packet(pool, b"x" * 100, b"y" * 28)
    assert pool.linearize(head)
    head = packet(pool, b"x" * 100, b"y" * 29)
    before = pool.mbufs[pool.segments(head)].copy()
    assert not pool.linearize(head)
    assert (pool.mbufs[pool.segments(head)] == before).all()


def test_linearize_packet_that_contains_its_own_clone(pool: eal.MbufPool) -> None:
    """The second segment is a clone of the first: source and target are the same buffer."""
    head = packet(pool, b"again ")
    clone = clone_of(pool, head)
    pool.chain(head, clone)
    assert pool.linearize(head)
    assert bytes(pool.mtod(head)) == b"again again "
    pool.free(head)
    assert pool.available == N


def test_read_returns_bytes_across_segments(pool: eal.MbufPool) -> None:
    head = packet(pool, b"one", b"", b"two", b"three")
    whole = b"onetwothree"
    for offset in range(13):
        for length in range(13):
            expected = whole[offset : offset + length] if offset + length <= 11 else None
            assert pool.read(head, offset, length) == expected
    assert pool.read(head, 4) == b"wothree"
    assert pool.read(head, 11) == b""
    assert pool.read(head, 12) is None
    for wrong in ((-1, 1), (0, -1)):
        with pytest.raises(eal.Invalid, match="negative"):
            pool.read(head, *wrong)


# --- references, clones, attaching --------------------------------------------------------------------------


def test_refcnt_update_is_limited_to_valid_counts(pool: eal.MbufPool) -> None:
    index = alloc(pool)
    assert (pool.refcnt_update(index, 2), pool.refcnt_read(index)) == (3, 3)
    assert pool.refcnt_update(index, -1) == 2
    for by in (-2, -3, 65533, 2**31 - 1, -(2**31)):
        with pytest.raises(eal.Invalid, match="65534"):
            pool.refcnt_update(index, by)
    with pytest.raises(eal.Invalid, match="out of range"):
        pool.refcnt_update(index, 2**31)
    assert pool.refcnt_update(index, 65532) == 65534
    assert pool.refcnt_update(index, -65532) == 2
    pool.free(index)
    assert (pool.refcnt_read(index), pool.available) == (1, N - 1)
    pool.free(index)
    assert pool.available == N


def test_pktmbuf_refcnt_update_changes_all_segments_or_none(pool: eal.MbufPool) -> None:
    head = packet(pool, b"a", b"b", b"c")
    segments = pool.segments(head)
    pool.pktmbuf_refcnt_update(head, 1)
    assert [pool.refcnt_read(i) for i in segments] == [2, 2, 2]
    pool.free(head)
    assert [pool.refcnt_read(i) for i in segments] == [1, 1, 1]
    assert pool.read(head) == b"abc"
    pool.refcnt_update(int(segments[2]), 65533)
    with pytest.raises(eal.Invalid, match="65534"):
        pool.pktmbuf_refcnt_update(head, 1)
    assert [pool.refcnt_read(i) for i in segments] == [1, 1, 65534]
    pool.refcnt_update(int(segments[2]), -65533)
    pool.free(head)
    assert pool.available == N


def test_clone_shares_data_and_has_its_own_header(pool: eal.MbufPool) -> None:
    head = packet(pool, b"one", b"two")
    fields = ["port", "ol_flags", "packet_type", "vlan_tci", "vlan_tci_outer", "rss", "timesync", "tx_offload"]
    for value, field in enumerate([*fields, "timestamp"], 5):
        pool.mbufs[field][head] = value
    clone = clone_of(pool, head)
    for value, field in enumerate([*fields, "timestamp"], 5):
        assert pool.mbufs[field][clone] == value
    assert (pool.is_direct(head), pool.is_direct(clone)) == (True, False)
    assert pool.mbufs["buf"][pool.segments(clone)].tolist() == pool.segments(head).tolist()
    assert [pool.refcnt_read(i) for i in pool.segments(head)] == [2, 2]
    assert [pool.refcnt_read(i) for i in pool.segments(clone)] == [1, 1]
    pool.mtod(clone)[:] = b"ONE"
    assert pool.read(head) == b"ONEtwo"
    assert pool.adj(clone, 1) is not None
    assert (pool.read(clone), pool.read(head)) == (b"NEtwo", b"ONEtwo")
    pool.free(head)
    assert (pool.available, pool.read(clone)) == (N - 4, b"NEtwo")  # the clone keeps the buffers allocated
    pool.free(clone)
    assert (pool.available, pool.audit().ok) == (N, True)


def test_clone_of_clone_is_attached_to_original(pool: eal.MbufPool) -> None:
    first = packet(pool, b"data")
    second = clone_of(pool, first)
    third = clone_of(pool, second)
    assert pool.mbufs["buf"][third] == first
    assert [pool.refcnt_read(i) for i in (first, second, third)] == [3, 1, 1]
    pool.free(second)
    pool.free(first)
    assert pool.read(third) == b"data"
    pool.free(third)
    assert pool.available == N


def test_clone_with_too_few_mbufs_allocates_none(pool: eal.MbufPool) -> None:
    head = packet(pool, *[b"x"] * 33)
    assert pool.clone(head) is None
    assert (pool.available, pool.audit().ok) == (N - 33, True)
    assert {pool.refcnt_read(i) for i in pool.segments(head)} == {1}


def test_attach_shares_data_and_detach_restores_buffer(pool: eal.MbufPool) -> None:
    source, target = packet(pool, b"shared"), alloc(pool)
    pool.mbufs["port"][source] = 3
    pool.attach(target, source)
    assert (pool.read(target), pool.refcnt_read(source), pool.is_direct(target)) == (b"shared", 2, False)
    assert (pool.mbufs["port"][target], pool.mbufs["nb_segs"][target]) == (3, 1)
    pool.sanity_check(target)
    pool.detach(target)
    assert (pool.read(target), pool.refcnt_read(source), pool.is_direct(target)) == (b"", 1, True)
    assert (pool.headroom(target), pool.tailroom(target)) == (HEADROOM, ROOM - HEADROOM)
    pool.sanity_check(target)
    pool.attach(target, source)
    pool.free(source)
    assert pool.available == N - 2
    pool.detach(target)
    assert pool.available == N - 1  # detach dropped the last reference to `source`
    pool.free(target)
    assert pool.available == N


def test_attach_names_the_unmet_condition(pool: eal.MbufPool) -> None:
    source, target = packet(pool, b"x"), alloc(pool)
    chained, shared, clone = packet(pool, b"y", b"z"), alloc(pool), clone_of(pool, source)
    pool.refcnt_update(shared, 1)
    for index, reason in (
        (chained, "more than one segment"),
        (shared, "more than one reference"),
        (clone, "already attached"),
        (source, "uses the buffer of this mbuf"),
    ):
        with pytest.raises(eal.Invalid, match=f"mbuf {index}: .*{reason}"):
            pool.attach(index, source)
    with pytest.raises(eal.Invalid, match="uses the buffer of this mbuf"):
        pool.attach(source, clone)  # `source` would be attached to itself
    with pytest.raises(eal.Invalid, match="not attached"):
        pool.detach(target)
    pool.attach(target, clone)
    assert pool.mbufs["buf"][target] == source


def test_copy_shares_no_buffers(pool: eal.MbufPool) -> None:
    head = packet(pool, b"a" * 100, b"b" * 100, b"c" * 100)
    whole = pool.read(head)
    assert whole is not None
    pool.mbufs["port"][head] = 9
    for offset, length in ((0, None), (1, 250), (150, 7), (99, 128), (99, 129), (299, 500), (0, 0)):
        copy = pool.copy(head, offset, length)
        assert copy is not None
        pool.sanity_check(copy)
        end = None if length is None else offset + length
        assert pool.read(copy) == whole[offset:end]
        assert {pool.is_direct(i) for i in pool.segments(copy)} == {True}
        assert pool.mbufs["port"][copy] == 9
        assert not set(pool.segments(copy)) & set(pool.segments(head))
        # All segments except the last are full.
        assert len(pool.segments(copy)) == max(1, -(-len(whole[offset:end]) // (ROOM - HEADROOM)))
        pool.free(copy)
    assert pool.copy(head, 300) is None
    rest = np.zeros(pool.available - 2, np.uint32)
    assert pool.alloc_bulk(rest) == len(rest)
    assert pool.copy(head) is None  # needs three mbufs
    assert pool.available == 2


def test_copy_without_data_room_returns_none(primary: eal.Eal) -> None:
    pool = primary.pktmbuf_pool_create("p", 8, data_room=HEADROOM)
    index = alloc(pool)
    assert pool.prepend(index, 5) is not None
    assert pool.copy(index) is None
    assert pool.available == 7


# --- sanity_check ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("refcnt", 65535, "refcnt must be"),
        ("buf", N, "buf must be"),
        ("next", N, "next must be"),
        ("data_off", ROOM + 1, "data_off must be"),
        ("data_off", ROOM - 3, "data_off . data_len must be"),
        ("data_len", ROOM - HEADROOM + 1, "data_off . data_len must be"),
        ("buf_len", ROOM - 1, "buf_len and priv_size"),
        ("priv_size", 8, "buf_len and priv_size"),
        ("nb_segs", 3, "nb_segs"),
        ("pkt_len", 7, "pkt_len"),
    ],
)
def test_sanity_check_reports_damaged_field(pool: eal.MbufPool, field: str, value: int, reason: str) -> None:
    head = packet(pool, b"abcd", b"ef")
    pool.mbufs[field][head] = value
    with pytest.raises(eal.Corrupt, match=reason):
        pool.sanity_check(head)
    if field in ("nb_segs", "pkt_len"):
        pool.sanity_check(head, is_header=False)  # only the first segment of a packet has these fields


def test_sanity_check_validates_all_segments(pool: eal.MbufPool) -> None:
    head = packet(pool, b"ab", b"cd", b"ef")
    last = pool.lastseg(head)
    pool.mbufs["next"][last] = head
    with pytest.raises(eal.Corrupt, match="loop"):
        pool.sanity_check(head)
    pool.mbufs["next"][last] = NO_MBUF
    free = alloc(pool)
    pool.mbufs["buf"][last] = free
    pool.sanity_check(head)
    pool.free(free)
    with pytest.raises(eal.Corrupt, match="buffer of a free mbuf"):
        pool.sanity_check(head)
    pool.mbufs["refcnt"][last] = 0
    with pytest.raises(eal.Corrupt, match="refcnt must be"):
        pool.sanity_check(head)
