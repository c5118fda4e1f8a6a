# SPDX-License-Identifier: BSD-3-Clause
"""Golden file of mbufs: the current code writes and reads the recorded format."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest

import eal
from eal._native import ffi, lib
from eal.linux.mapping import Mapping
from eal.mbuf.format import HEADER_SIZE, NO_MBUF, header_dtype
from eal.memory.memzone import Memzone
from eal.metadata.records import Kind
from tests.golden.make import mbufs, zeroed, zone_in

FOLDER = Path(__file__).parents[2] / "golden"
GOLDEN = FOLDER / f"mbuf-{lib.IVS_MBUF_VERSION}.gz"

# Offset and size in bytes of each field, from native/include/layout.h.
LAYOUT = {
    "data_off": (0, 2),
    "refcnt": (2, 2),
    "nb_segs": (4, 2),
    "port": (6, 2),
    "ol_flags": (8, 8),
    "packet_type": (16, 4),
    "pkt_len": (20, 4),
    "data_len": (24, 2),
    "vlan_tci": (26, 2),
    "rss": (28, 4),
    "vlan_tci_outer": (32, 2),
    "buf_len": (34, 2),
    "next": (36, 4),
    "buf": (40, 4),
    "priv_size": (44, 2),
    "timesync": (46, 2),
    "tx_offload": (48, 8),
    "timestamp": (56, 8),
}


def zone_of(mapping: Mapping) -> Memzone:
    zone: Memzone = zone_in(mapping, "packets", Kind.MEMPOOL)
    return zone


def test_written_format_equals_golden_file() -> None:
    made, old = mbufs(), gzip.decompress(GOLDEN.read_bytes())
    first = next((at for at, (a, b) in enumerate(zip(made, old, strict=False)) if a != b), min(len(made), len(old)))
    assert made == old, (
        f"mbufs differ from their golden file at byte {first:#x}: increment IVS_MBUF_VERSION in layout.h, run "
        "tests/golden/make.py, and keep the old file"
    )


def test_header_fields_have_recorded_offsets() -> None:
    fields = header_dtype().fields
    assert fields is not None
    assert {name: (field[1], field[0].itemsize) for name, field in fields.items()} == LAYOUT
    assert {
        name: (field.offset, ffi.sizeof(field.type)) for name, field in ffi.typeof("struct ivs_mbuf").fields
    } == LAYOUT
    assert (HEADER_SIZE, header_dtype().itemsize, NO_MBUF) == (64, 64, 0xFFFF_FFFF)


def test_golden_file_is_readable() -> None:
    data = gzip.decompress(GOLDEN.read_bytes())
    mapping = zeroed(len(data))
    mapping.view()[:] = data
    pool = read_only_pool(mapping)
    assert (pool.n, pool.data_room, pool.private_size, pool.cache_size) == (6, 200, 8, 4)
    assert (pool.segments(0).tolist(), pool.segments(2).tolist()) == ([0, 1], [2, 3])
    assert (pool.read(0), pool.read(2)) == (b"headtail!", b"eadtail!")
    assert [pool.refcnt_read(index) for index in range(6)] == [2, 2, 1, 1, 0, 0]
    assert pool.mbufs["buf"].tolist() == [0, 1, 0, 1, 4, 5]
    assert pool.mbufs["timestamp"][2] == 0x2222222222222222
    for packet in (0, 2):
        pool.sanity_check(packet)


def read_only_pool(mapping: Mapping) -> eal.MbufPool:
    """A pool without participant slots, because no segment header precedes its memzone."""
    mapping.writable = False
    return eal.MbufPool(zone_of(mapping), "packets")


def test_pool_header_contains_mbuf_flag_and_version() -> None:
    data = mbufs()
    assert struct.unpack_from("<I", data, 28) == (0x10000,)  # flags
    assert struct.unpack_from("<II", data, 96) == (8, 1)  # private_size, mbuf_version


@pytest.mark.parametrize("version", [0, 2])
def test_unknown_mbuf_version_is_rejected(version: int) -> None:
    mapping = zeroed(len(data := bytearray(mbufs())))
    struct.pack_into("<I", data, 100, version)
    identity = bytearray(data[:128])
    identity[0:8], identity[60:64] = bytes(8), bytes(4)
    struct.pack_into("<I", data, 60, lib.ivs_crc32c(0, bytes(identity), 128))
    mapping.view()[:] = data
    with pytest.raises(eal.Corrupt, match="version"):
        read_only_pool(mapping)
