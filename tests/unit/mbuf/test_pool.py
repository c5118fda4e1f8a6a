# SPDX-License-Identifier: BSD-3-Clause
"""Pools of mbufs: create, alloc and free, headroom and tailroom, bursts."""

from __future__ import annotations

import numpy as np
import pytest

import eal
from eal.mbuf.format import DEFAULT_DATA_ROOM, HEADROOM, NO_MBUF
from tests.mbufs import alloc, clone_of, packet

N = 64
ROOM = 256


@pytest.fixture(params=[0, 8], ids=["uncached", "cached"])
def pool(request: pytest.FixtureRequest, primary: eal.Eal) -> eal.MbufPool:
    return primary.pktmbuf_pool_create("p", N, cache_size=request.param, data_room=ROOM, private_size=16)


# --- making -------------------------------------------------------------------------------------------------


def test_create_pool_has_all_mbufs_free(primary: eal.Eal) -> None:
    pool = primary.pktmbuf_pool_create("p", 100)
    assert (pool.n, pool.data_room, pool.private_size, pool.available) == (100, 2176, 0, 100)
    assert pool.elt_size == 64 + 2176 == 64 + DEFAULT_DATA_ROOM
    assert repr(pool) == "<MbufPool 'p' 100 mbufs of 2176 bytes>"
    headers = pool.mbufs
    assert (headers.shape, headers.dtype.itemsize) == ((100,), 64)
    assert (headers["buf"] == np.arange(100)).all()
    assert set(headers["refcnt"]) == {0}
    assert (headers["next"] == NO_MBUF).all()
    assert (pool.data.shape, pool.private.shape) == ((100, 2176), (100, 0))
    assert not pool.data.any()


def test_headers_are_aligned_to_cache_lines(pool: eal.MbufPool) -> None:
    assert pool.mbufs.ctypes.data % 64 == 0
    assert pool.mbufs.strides[0] % 64 == 0


def test_headers_private_areas_and_buffers_do_not_overlap(pool: eal.MbufPool) -> None:
    before = pool.mbufs.copy()
    pool.private[:] = 1
    pool.data[:] = 2
    assert (pool.mbufs == before).all()
    assert (pool.private == 1).all()
    pool.mbufs["timestamp"] = 2**64 - 1
    pool.mbufs["data_off"] = 0xFFFF
    assert (pool.private == 1).all()
    assert (pool.data == 2).all()
    assert (pool.array[:, 64:80] == 1).all()
    assert (pool.array[:, 80:] == 2).all()


@pytest.mark.parametrize(
    "sizes",
    [
        {"data_room": -1},
        {"data_room": 65536},
        {"private_size": 4},
        {"private_size": -8},
        {"private_size": 65536},
        {"n": 0},
        {"cache_size": 600},
        {"flags": eal.MempoolFlag.NO_CACHE_ALIGN},
        {"flags": 0x100},
        {"flags": -1},
    ],
)
def test_create_out_of_range_argument_raises_invalid(primary: eal.Eal, sizes: dict[str, int]) -> None:
    with pytest.raises(eal.Invalid, match="mempool 'p'"):
        primary.pktmbuf_pool_create("p", **{"n": 64, **sizes})  # type: ignore[arg-type]
    assert primary.mempools() == []


@pytest.mark.parametrize("sizes", [{"data_room": 1.5}, {"private_size": None}, {"flags": "x"}, {"n": "64"}])
def test_create_wrong_type_raises_type_error(primary: eal.Eal, sizes: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        primary.pktmbuf_pool_create("p", **{"n": 64, **sizes})  # type: ignore[arg-type]


@pytest.mark.parametrize(("data_room", "private_size"), [(0, 0), (1, 8), (128, 0), (65535, 65528)])
def test_create_smallest_and_largest_buffers_succeed(primary: eal.Eal, data_room: int, private_size: int) -> None:
    pool = primary.pktmbuf_pool_create("p", 4, data_room=data_room, private_size=private_size)
    index = alloc(pool)
    head = min(128, data_room)
    assert (pool.headroom(index), pool.tailroom(index)) == (head, data_room - head)
    assert (pool.data.shape, pool.private.shape) == ((4, data_room), (4, private_size))
    whole = pool.append(index, data_room - head)
    assert whole is not None
    assert pool.prepend(index, head) is not None
    assert len(pool.mtod(index)) == data_room
    pool.sanity_check(index)
    pool.free(index)
    assert pool.available == 4


def test_create_exist_ok_returns_equal_pool_only(primary: eal.Eal) -> None:
    pool = primary.pktmbuf_pool_create("p", 64, data_room=256, private_size=8, cache_size=8)
    same = {"n": 64, "data_room": 256, "private_size": 8, "cache_size": 8, "exist_ok": True}
    assert primary.pktmbuf_pool_create("p", **same) is pool  # type: ignore[arg-type]
    for other in ({"n": 65}, {"data_room": 264}, {"private_size": 16}, {"cache_size": 9}, {"flags": 0x20000}):
        with pytest.raises(eal.Exists, match=r"exists with \w+ .*, not "):
            primary.pktmbuf_pool_create("p", **{**same, **other})  # type: ignore[arg-type]
    # Same elt_size, with another division between private area and buffer.
    with pytest.raises(eal.Exists, match="exists with private_size 8, not 16"):
        primary.pktmbuf_pool_create("p", **{**same, "data_room": 248, "private_size": 16})  # type: ignore[arg-type]
    with pytest.raises(eal.Exists):
        primary.mempool_create("p", 64, 64 + 8 + 256, cache_size=8, exist_ok=True)
    primary.mempool_create("plain", 64, 64 + 256)
    with pytest.raises(eal.Exists, match="exists with flags "):
        primary.pktmbuf_pool_create("plain", 64, data_room=256, exist_ok=True)


def test_mempool_create_mbuf_flag_raises_invalid(primary: eal.Eal) -> None:
    with pytest.raises(eal.Invalid, match="pktmbuf_pool_create"):
        primary.mempool_create("p", 64, 512, flags=0x10000)


def test_lookup_returns_mbuf_pool(primary: eal.Eal) -> None:
    pool = primary.pktmbuf_pool_create("p", 8)
    plain = primary.mempool_create("plain", 8, 512)
    assert primary.mempool_lookup("p") is pool
    assert [type(p).__name__ for p in primary.mempools()] == ["MbufPool", "Mempool"]
    assert not isinstance(plain, eal.MbufPool)
    primary.mempool_free(pool)
    with pytest.raises(eal.Closed):
        pool.alloc()
    with pytest.raises(eal.Closed):
        pool.refcnt_read(0)


def test_get_and_put_work_as_on_a_mempool(pool: eal.MbufPool) -> None:
    index = pool.get()
    assert index is not None
    out = np.zeros(N - 1, np.uint32)
    assert pool.get_bulk(out) == N - 1
    assert pool.alloc() is None
    pool.put(index)
    pool.put_bulk(out)
    assert (pool.available, pool.audit().ok) == (N, True)
    index = alloc(pool)
    pool.put(index)  # allowed for a direct single-segment mbuf, as in DPDK
    assert pool.available == N


# --- alloc and free -----------------------------------------------------------------------------------------


def test_alloc_initializes_all_header_fields(pool: eal.MbufPool) -> None:
    pool.mbufs[:] = np.frombuffer(bytes(range(64)), pool.mbufs.dtype)
    pool.mbufs["refcnt"] = 0
    index = alloc(pool)
    assert dict(zip(pool.mbufs.dtype.names or (), pool.mbufs[index].tolist(), strict=True)) == {
        "data_off": HEADROOM,
        "refcnt": 1,
        "nb_segs": 1,
        "port": 65535,
        "ol_flags": 0,
        "packet_type": 0,
        "pkt_len": 0,
        "data_len": 0,
        "vlan_tci": 0,
        "rss": 0,
        "vlan_tci_outer": 0,
        "buf_len": ROOM,
        "next": NO_MBUF,
        "buf": index,
        "priv_size": 16,
        "timesync": 0,
        "tx_offload": 0,
        "timestamp": 0,
    }
    pool.sanity_check(index)


def test_alloc_returns_each_mbuf_once_then_none(pool: eal.MbufPool) -> None:
    indices = [alloc(pool) for _ in range(N)]
    assert sorted(indices) == list(range(N))
    assert pool.alloc() is None
    assert pool.clone(indices[0]) is None
    for index in indices:
        pool.free(index)
    assert pool.available == N


def test_alloc_bulk_allocates_all_or_none(pool: eal.MbufPool) -> None:
    out = np.full(N + 1, 12345, np.uint32)
    assert pool.alloc_bulk(out) == 0
    assert (out == 12345).all()
    assert pool.alloc_bulk(out[:40]) == 40
    assert (pool.mbufs["refcnt"][out[:40]] == 1).all()
    assert pool.alloc_bulk(np.zeros(25, np.uint32)) == 0
    assert pool.available == N - 40
    pool.free_bulk(out[:40])
    assert pool.available == N
    assert pool.alloc_bulk(out[:0]) == 0
    pool.free_bulk(out[:0])


@pytest.mark.parametrize("wrong", [[1, 2], None, np.zeros(2, np.int64), np.zeros(4, np.uint32)[::2]])
def test_bulk_wrong_array_raises_type_error(pool: eal.MbufPool, wrong: object) -> None:
    for call in (pool.alloc_bulk, pool.free_bulk):
        with pytest.raises(TypeError):
            call(wrong)
    assert pool.available == N


def test_free_bulk_index_out_of_range_frees_none(pool: eal.MbufPool) -> None:
    index = alloc(pool)
    with pytest.raises(eal.Invalid, match=r"index .*must be less than n"):
        pool.free_bulk(np.array([index, N], np.uint32))
    assert pool.refcnt_read(index) == 1
    pool.free(index)


def test_use_of_free_mbuf_raises_invalid(pool: eal.MbufPool) -> None:
    one, two = alloc(pool), alloc(pool)
    pool.free(one)
    assert pool.refcnt_read(one) == 0
    for use in (
        lambda: pool.free(one),
        lambda: pool.free_seg(one),
        lambda: pool.append(one, 1),
        lambda: pool.mtod(one),
        lambda: pool.clone(one),
        lambda: pool.attach(two, one),
        lambda: pool.chain(two, one),
        lambda: pool.refcnt_update(one, 1),
        lambda: pool.reset(one),
        lambda: pool.sanity_check(one),
    ):
        with pytest.raises(eal.Invalid, match=r"is free|mbuf \d+"):
            use()
    with pytest.raises(eal.Invalid, match="is free"):
        pool.free_bulk(np.array([two, one], np.uint32))
    assert (pool.available, pool.refcnt_read(two)) == (N, 0)  # `two` was freed
    assert pool.audit().ok


@pytest.mark.parametrize("index", [N, 2**31, 2**32 - 1, 2**32, -1])
def test_index_out_of_range_raises_invalid(pool: eal.MbufPool, index: int) -> None:
    good = alloc(pool)
    for use in (
        lambda: pool.free(index),
        lambda: pool.append(index, 1),
        lambda: pool.mtod(index),
        lambda: pool.read(index),
        lambda: pool.segments(index),
        lambda: pool.refcnt_read(index),
        lambda: pool.clone(index),
        lambda: pool.chain(good, index),
        lambda: pool.attach(good, index),
        lambda: pool.detach(index),
        lambda: pool.linearize(index),
        lambda: pool.sanity_check(index),
    ):
        with pytest.raises(eal.Invalid, match="mempool 'p'"):
            use()


def test_reset_keeps_references_and_attachment(pool: eal.MbufPool) -> None:
    index = packet(pool, b"abc")
    clone = clone_of(pool, index)
    pool.mbufs["port"][index] = 7
    pool.mbufs["ol_flags"][index] = 3
    pool.reset(index)
    assert (pool.mbufs["port"][index], pool.mbufs["ol_flags"][index], pool.headroom(index)) == (65535, 0, HEADROOM)
    assert (len(pool.mtod(index)), pool.refcnt_read(index)) == (0, 2)
    pool.reset(clone)
    assert not pool.is_direct(clone)
    pool.free_bulk(np.array([index, clone], np.uint32))
    assert pool.available == N


# --- headroom and tailroom-----------------------------------------------------------------------------------


def test_append_prepend_adj_trim_move_data_bounds(pool: eal.MbufPool) -> None:
    index = packet(pool, b"payload")
    header = pool.prepend(index, 4)
    assert header is not None
    header[:] = b"head"
    assert pool.read(index) == b"headpayload"
    assert (pool.headroom(index), pool.tailroom(index)) == (HEADROOM - 4, ROOM - HEADROOM - 7)
    rest = pool.adj(index, 6)
    assert rest is not None
    assert bytes(rest) == b"yload"
    assert pool.trim(index, 2)
    assert bytes(pool.mtod(index)) == b"ylo"
    assert (pool.mbufs["pkt_len"][index], pool.mbufs["data_len"][index]) == (3, 3)
    assert pool.headroom(index) == HEADROOM + 2
    pool.sanity_check(index)


def test_append_and_prepend_are_limited_by_room(pool: eal.MbufPool) -> None:
    index = alloc(pool)
    for call, room in ((pool.append, ROOM - HEADROOM), (pool.prepend, HEADROOM)):
        for more in (room + 1, 65535, 65536, 2**32 - 1):
            assert call(index, more) is None
        view = call(index, room)
        assert view is not None
        assert len(view) == room
        assert call(index, 1) is None
        assert call(index, 0) is not None
    for less in (pool.adj, pool.trim):
        assert not less(index, ROOM + 1)
        assert not less(index, 2**32 - 1)
    assert len(pool.mtod(index)) == ROOM
    empty = pool.adj(index, ROOM)
    assert empty is not None
    assert (len(empty), pool.headroom(index), pool.tailroom(index)) == (0, ROOM, 0)
    assert pool.trim(index, 0)
    assert not pool.trim(index, 1)
    assert pool.mbufs["pkt_len"][index] == 0
    pool.sanity_check(index)


@pytest.mark.parametrize("length", [-1, 2**32])
def test_length_out_of_range_raises_invalid(pool: eal.MbufPool, length: int) -> None:
    index = packet(pool, b"abc")
    for call in (pool.append, pool.prepend, pool.adj, pool.trim):
        with pytest.raises(eal.Invalid, match="out of range"):
            call(index, length)
    assert pool.read(index) == b"abc"


def test_chain_append_and_trim_use_last_segment_prepend_and_adj_first(pool: eal.MbufPool) -> None:
    head = packet(pool, b"one", b"two")
    tail = pool.lastseg(head)
    more = pool.append(head, 1)
    assert more is not None
    more[:] = b"!"
    assert bytes(pool.mtod(tail)) == b"two!"
    assert not pool.trim(head, 5)  # the last segment has 4 bytes
    assert pool.trim(head, 4)
    assert pool.read(head) == b"one"
    assert pool.adj(head, 4) is None
    assert pool.adj(head, 1) is not None
    assert pool.prepend(head, 2) is not None
    assert (pool.mbufs["data_len"][head], pool.mbufs["data_len"][tail], pool.mbufs["pkt_len"][head]) == (4, 0, 4)
    pool.sanity_check(head)
    pool.free(head)
    assert pool.available == N


# --- bursts -------------------------------------------------------------------------------------------------


def test_burst_headers_and_data_are_written_by_numpy(pool: eal.MbufPool) -> None:
    burst = np.zeros(32, np.uint32)
    assert pool.alloc_bulk(burst) == 32
    headers, data = pool.mbufs, pool.data
    headers["data_len"][burst] = headers["pkt_len"][burst] = 60
    data[burst, HEADROOM : HEADROOM + 60] = np.arange(60)
    headers["vlan_tci"][burst] = np.arange(32)
    for number, index in enumerate(burst.tolist()):
        pool.sanity_check(index)
        assert bytes(pool.mtod(index)) == bytes(range(60))
        assert headers[index]["vlan_tci"] == number
    pool.free_bulk(burst)
    assert pool.available == N


def test_debug_flag_detects_overrun_of_mbuf(primary: eal.Eal) -> None:
    pool = primary.pktmbuf_pool_create("p", 8, data_room=256, flags=eal.MempoolFlag.DEBUG)
    head = packet(pool, b"one", b"two")
    clone = clone_of(pool, head)
    assert pool.mbufs.ctypes.data % 64 == 0
    pool.free(head)
    pool.free(clone)
    assert pool.available == 8
    index = alloc(pool)
    at = pool._info.objects_offset + index * pool.elt_stride + pool.elt_size
    pool.memzone.buf[at] ^= 1  # first byte after the buffer
    with pytest.raises(eal.Corrupt, match="overwritten"):
        pool.free(index)
