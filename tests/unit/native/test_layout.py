# SPDX-License-Identifier: BSD-3-Clause
"""Shared-memory formats byte by byte: documented offsets compared with the compiler and with real objects."""

from __future__ import annotations

import struct
import threading
from pathlib import Path
from uuid import UUID, uuid4

import pytest

import eal
from eal._native import ffi, lib
from eal.linux import process
from eal.linux.mapping import Mapping
from eal.memory.participant import share_word
from eal.metadata.records import Entry, Kind, SegmentRecord, Table
from eal.metadata.table_file import METADATA_MAGIC, REGISTRY_MAGIC, TableFile, encode

# Field -> byte offset in layout.h, for the structures that Python encodes.
TABLE = {"crc": 0, "flags": 4, "selector": 8, "epoch": 16, "n_segments": 24, "n_entries": 28, "heap": 32, "length": 40}
TABLE_SEGMENT = {
    "uuid": 0,
    "size": 16,
    "page_size": 24,
    "host_address": 32,
    "socket_id": 40,
    "flags": 44,
    "group": 48,
    "path": 80,
    "epoch": 88,
}
TABLE_ENTRY = {
    "name": 0,
    "kind": 32,
    "segment": 36,
    "offset": 40,
    "length": 48,
    "align": 56,
    "flags": 60,
    "dtype": 64,
    "shape": 72,
    "serial": 80,
}


@pytest.mark.parametrize(
    ("type_name", "size", "fields"),
    [
        ("struct ivs_table", 64, TABLE),
        ("struct ivs_heap_ref", 8, {"offset": 0, "length": 4}),
        ("struct ivs_table_segment", 96, TABLE_SEGMENT),
        ("struct ivs_table_entry", 96, TABLE_ENTRY),
    ],
)
def test_table_structs_have_documented_offsets(type_name: str, size: int, fields: dict[str, int]) -> None:
    declared = dict(ffi.typeof(type_name).fields)
    assert {name: field.offset for name, field in declared.items()} == fields
    assert ffi.sizeof(type_name) == size


def test_constants_have_documented_values() -> None:
    assert lib.IVS_HEADER_SIZE == 4096
    assert lib.IVS_NAME_SIZE == 32
    assert lib.IVS_PARTICIPANTS == 64
    assert (lib.IVS_KIND_MEMZONE, lib.IVS_KIND_RING, lib.IVS_KIND_MEMPOOL) == (1, 2, 3)
    assert lib.IVS_TABLE_KEPT == 1
    assert lib.IVS_SEGMENT_READONLY == 1


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("SEGMENT", b"IVSHMSEG"),
        ("METADATA", b"IVSHMMET"),
        ("REGISTRY", b"IVSHMREG"),
        ("RING", b"IVSHMRNG"),
        ("MEMPOOL", b"IVSHMPOL"),
    ],
)
def test_magic_is_ascii_in_memory(number: str, text: bytes) -> None:
    assert struct.pack("<Q", getattr(lib, f"IVS_{number}_MAGIC")) == text


def crc_without(data: bytes, *holes: tuple[int, int]) -> int:
    """Return the CRC-32C of bytes with each (offset, length) set to 0; independent of the C code."""
    cleared = bytearray(data)
    for at, length in holes:
        cleared[at : at + length] = bytes(length)
    crc = 0xFFFFFFFF
    for byte in cleared:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_crc32c_equals_rfc_3720() -> None:
    assert crc_without(b"123456789") == 0xE3069283  # RFC 3720's check value
    assert lib.ivs_crc32c(0, b"123456789", 9) == 0xE3069283
    assert lib.ivs_crc32c(0, bytes(32), 32) == 0x8A9136AA
    assert lib.ivs_crc32c(lib.ivs_crc32c(0, b"1234", 4), b"56789", 5) == 0xE3069283


# --- segment ------------------------------------------------------------------------------------------------


def file_of(segment: eal.Segment) -> bytes:
    return Path(segment.path).read_bytes()


def test_segment_header_has_documented_layout(primary: eal.Eal) -> None:
    segment = primary.segment_create(4 << 20, group="cameras")
    head = file_of(segment)[:4096]
    assert struct.unpack_from("<8sII16sQQQiIQ32s", head) == (
        b"IVSHMSEG",
        2,
        4096,
        segment.uuid.bytes,
        4 << 20,
        segment.page_size,
        segment.address,
        -1,
        crc_without(head[:128], (0, 8), (60, 4)),
        primary.epoch,
        b"cameras".ljust(32, b"\0"),
    )
    assert head[104:] == bytes(4096 - 104)  # reserved, retired, scratch, participants


def test_segment_socket_id_is_at_byte_56(primary: eal.Eal) -> None:
    segment = primary.segment_create(2 << 20, group="bound", socket_id=0)
    assert struct.unpack_from("<i", file_of(segment), 56) == (0,)


def test_segment_retired_and_scratch_are_at_byte_128(primary: eal.Eal) -> None:
    segment = primary.segment_create(2 << 20)
    segment.retire()
    assert struct.unpack_from("<II", file_of(segment), 128) == (1, 0)
    assert lib.ivs_segment_takes_writes(segment.mapping.pointer()) == 1
    assert struct.unpack_from("<II", file_of(segment), 128) == (1, 1)


def test_participants_have_32_bytes_from_byte_2048(primary: eal.Eal) -> None:
    segment = primary.segment_create(2 << 20)
    base = segment.mapping.pointer()
    for number in range(64):
        assert lib.ivs_participant_claim(base, 1000 + number, 2000 + number) == number
    assert lib.ivs_participant_claim(base, 1, 1) < 0
    slots = [struct.unpack_from("<QQQII", file_of(segment), 2048 + 32 * i) for i in range(64)]
    assert slots == [(1000 + i, 2000 + i, 0, 0, 0) for i in range(64)]


def test_monitor_words_are_in_last_16_bytes_of_slot(primary: eal.Eal) -> None:
    segment = primary.segment_create(2 << 20)
    base = segment.mapping.pointer()
    lib.ivs_participant_claim(base, 1000, 2000)
    word = share_word(UUID("0df0adba-0000-0000-0000-000000000000"))
    lib.ivs_participant_guard(base, 0, 1000, word)
    lib.ivs_participant_acknowledge(base, 0, 1000, 7)
    assert struct.unpack_from("<QQQII", file_of(segment), 2048) == (1000, 2000, 1, 7, 0xBAADF00D)
    (seen,) = segment.participants()
    assert (seen.heartbeat, seen.ack, seen.share) == (1, 7, 0xBAADF00D)


def test_owner_word_is_machine_and_thread_id(primary: eal.Eal) -> None:
    segment = primary.segment_create(2 << 20)
    slot = segment.slot()
    assert slot is not None
    owner, started = struct.unpack_from("<QQ", file_of(segment), 2048 + 32 * slot.index)
    assert owner & 0xFFFFFFFF == threading.get_native_id()
    assert owner >> 32 == process.machine_id() != 0
    assert started == process.process_word() > 0


# --- table files --------------------------------------------------------------------------------------------


def table_file(tmp_path: Path, magic: int, size: int) -> tuple[TableFile, Path]:
    path = tmp_path / "table"
    with path.open("w+b") as file:
        file.truncate(size)
        mapping = Mapping(file.fileno(), size)
    return TableFile.format(mapping, magic, "vm0", uuid4(), epoch=7), path


@pytest.mark.parametrize(("magic", "text"), [(METADATA_MAGIC, b"IVSHMMET"), (REGISTRY_MAGIC, b"IVSHMREG")])
def test_table_file_header_has_documented_layout(tmp_path: Path, magic: int, text: bytes) -> None:
    file, path = table_file(tmp_path, magic, 16384)
    lib.ivs_table_set_leaving(file.mapping.pointer(), 9)
    head = path.read_bytes()[:4096]
    assert struct.unpack_from("<8sII16sQ32sI", head) == (
        text,
        1,
        4096,
        file.info.uuid.bytes,
        16384,
        b"vm0".ljust(32, b"\0"),
        crc_without(head[:128], (0, 8), (72, 4)),
    )
    assert head[76:128] == bytes(52)
    assert struct.unpack_from("<QI", head, 128) == (1, 9)  # selector (the empty table was the first change), leaving
    assert head[140:] == bytes(4096 - 140)


def test_current_table_is_in_slot_of_lowest_selector_bit(tmp_path: Path) -> None:
    file, path = table_file(tmp_path, METADATA_MAGIC, 16384)
    room = (16384 - 4096) // 2
    assert lib.ivs_table_room(16384) == room
    for change in range(2, 6):
        file.publish(Table(epoch=100 + change))
        raw = path.read_bytes()
        assert struct.unpack_from("<Q", raw, 128) == (change,)
        slot = raw[4096 + (change & 1) * room :]
        assert struct.unpack_from("<QQ", slot, 8) == (change, 100 + change)
        assert struct.unpack_from("<I", slot) == (crc_without(slot[:64], (0, 4)),)


def test_table_is_header_segments_entries_heap(tmp_path: Path) -> None:
    uuid = uuid4()
    table = Table(
        segments=(SegmentRecord(uuid, 1 << 21, 4096, 0x2000_0000_0000, -1, "g", 5, path="/x", readonly=True),),
        entries=(
            Entry("zone", Kind.MEMZONE, 0, 4096, 64, align=64, flags=3, dtype='"<f4"', shape=(4, 4), serial=11),
            Entry("ring", Kind.RING, 0, 8192, 448),
        ),
        epoch=5,
        kept=True,
    )
    file, path = table_file(tmp_path, METADATA_MAGIC, 16384)
    file.publish(table)
    raw = path.read_bytes()[4096:]
    crc, flags, selector, epoch, n_segments, n_entries, heap, length = struct.unpack_from("<IIQQIIQQ", raw)
    assert (flags, selector, epoch, n_segments, n_entries) == (1, 2, 5, 1, 2)
    assert length == 64 + 96 + 2 * 96 + heap
    assert crc == crc_without(raw[:length], (0, 4))
    strings = raw[length - heap : length]

    assert struct.unpack_from("<16sQQQiI32sIIQ", raw, 64) == (
        *(uuid.bytes, 1 << 21, 4096, 0x2000_0000_0000, -1, 1, b"g".ljust(32, b"\0")),
        *(0, 2, 5),
    )
    assert strings[:2] == b"/x"
    zone = struct.unpack_from("<32sIIQQIIIIIIQQ", raw, 160)
    assert zone[:7] == (b"zone".ljust(32, b"\0"), 1, 0, 4096, 64, 64, 3)
    (dtype_at, dtype_n, shape_at, shape_n), serial = zone[7:11], zone[11]
    assert strings[dtype_at : dtype_at + dtype_n] == b'"<f4"'
    assert struct.unpack("<2Q", strings[shape_at : shape_at + shape_n]) == (4, 4)
    assert serial == 11
    assert struct.unpack_from("<32sIIQQIIIIIIQQ", raw, 256) == (
        *(b"ring".ljust(32, b"\0"), 2, 0, 8192, 448, 64, 0),
        *(0, 0, 0, 0, 0, 0),
    )
    assert len(encode(table)) == length


# --- ring ---------------------------------------------------------------------------------------------------

MT, ST, RTS, HTS = 0, 1, 2, 3


def test_ring_is_rte_ring_with_extension_line(primary: eal.Eal) -> None:
    ring = primary.ring_create("packets", 16, elem_size=12)
    for number in range(5):
        assert ring.enqueue(bytes([number]) * 12)
    ring.dequeue()
    raw = bytes(ring.memzone.buf)
    assert raw[:32] == b"packets".ljust(32, b"\0")
    assert struct.unpack_from("<IIQIIII", raw, 32) == (0, 0, 0, 16, 15, 15, 0)  # flags, memzone, size, mask, capacity
    assert struct.unpack_from("<8sIIQQI", raw, 64) == (
        *(b"IVSHMRNG", 1, 12, 0, 0),
        crc_without(raw[:128], (64, 8), (80, 16), (96, 4)),
    )
    assert raw[100:128] == bytes(28)
    assert struct.unpack_from("<III", raw, 128) == (5, 5, MT)  # prod: head, tail, sync type
    assert struct.unpack_from("<III", raw, 256) == (1, 1, MT)  # cons
    assert raw[192:256] == raw[320:384] == bytes(64)  # guard lines
    assert raw[384 : 384 + 60] == b"".join(bytes([number]) * 12 for number in range(5))
    assert len(raw) == 384 + 16 * 12


@pytest.mark.parametrize(
    ("flag", "at", "sync"),
    [
        (eal.RingFlag.SP_ENQ, 128, ST),
        (eal.RingFlag.SC_DEQ, 256, ST),
        (eal.RingFlag.MP_RTS_ENQ, 128, RTS),
        (eal.RingFlag.MC_RTS_DEQ, 256, RTS),
        (eal.RingFlag.MP_HTS_ENQ, 128, HTS),
        (eal.RingFlag.MC_HTS_DEQ, 256, HTS),
    ],
)
def test_sync_type_is_at_byte_8_of_headtail(primary: eal.Eal, flag: eal.RingFlag, at: int, sync: int) -> None:
    ring = primary.ring_create("r", 64, flags=flag)
    raw = ring.memzone.buf
    other = 384 - at
    assert struct.unpack_from("<I", raw, 32) == (flag,)
    assert struct.unpack_from("<I", raw, at + 8) == (sync,)
    assert struct.unpack_from("<I", raw, other + 8) == (MT,)


def test_rts_headtail_has_count_position_htd_max_and_head(primary: eal.Eal) -> None:
    ring = primary.ring_create("r", 64, flags=eal.RingFlag.MP_RTS_ENQ | eal.RingFlag.MC_RTS_DEQ)
    for value in range(9):
        ring.enqueue(value)
    for _ in range(4):
        ring.dequeue()
    raw = ring.memzone.buf
    # tail.cnt, tail.pos, sync type, htd_max, head.cnt, head.pos
    assert struct.unpack_from("<6I", raw, 128) == (9, 9, RTS, 63 // 8, 9, 9)
    assert struct.unpack_from("<6I", raw, 256) == (4, 4, RTS, 63 // 8, 4, 4)


def test_hts_headtail_has_head_and_tail_in_one_word(primary: eal.Eal) -> None:
    ring = primary.ring_create("r", 64, flags=eal.RingFlag.MP_HTS_ENQ | eal.RingFlag.MC_HTS_DEQ)
    for value in range(9):
        ring.enqueue(value)
    ring.dequeue()
    assert struct.unpack_from("<III", ring.memzone.buf, 128) == (9, 9, HTS)
    assert struct.unpack_from("<III", ring.memzone.buf, 256) == (1, 1, HTS)


def test_exact_size_ring_has_count_as_capacity(primary: eal.Eal) -> None:
    ring = primary.ring_create("r", 1024, flags=eal.RingFlag.EXACT_SZ)
    assert struct.unpack_from("<III", ring.memzone.buf, 48) == (2048, 2047, 1024)
    ring = primary.ring_create("s", 1023, flags=eal.RingFlag.EXACT_SZ)
    assert struct.unpack_from("<III", ring.memzone.buf, 48) == (1024, 1023, 1023)


# --- mempool ------------------------------------------------------------------------------------------------


def test_mempool_is_header_bitmap_caches_objects(primary: eal.Eal) -> None:
    pool = primary.mempool_create("frames", 100, 100, cache_size=8)
    raw = bytes(pool.memzone.buf)
    stride, cache_stride = 128, 64 + 64  # 8 + 4 indices of 4 bytes, padded to cache lines
    bitmap, caches = 192, 192 + 64
    objects = caches + 64 * cache_stride
    assert struct.unpack_from("<8s6I3QII32s", raw) == (
        *(b"IVSHMPOL", 1, 100, 100, stride, 8, 0),
        *(bitmap, caches, objects, cache_stride),
        crc_without(raw[:128], (0, 8), (60, 4)),
        b"frames".ljust(32, b"\0"),
    )
    assert raw[96:192] == bytes(96)
    assert struct.unpack_from("<QQ", raw, bitmap) == (2**64 - 1, 2**36 - 1)  # all 100 objects are free
    assert raw[bitmap + 16 :] == bytes(len(raw) - bitmap - 16)
    assert len(raw) == objects + 100 * stride


def test_mempool_bit_is_set_if_object_is_free(primary: eal.Eal) -> None:
    pool = primary.mempool_create("p", 70, 4)
    index = pool.get()
    assert index is not None
    pool.array[index] = 0xA5
    raw = bytes(pool.memzone.buf)
    words = struct.unpack_from("<QQ", raw, 192)
    assert words[index // 64] >> index % 64 & 1 == 0
    assert sum(word.bit_count() for word in words) == 69
    at = struct.unpack_from("<Q", raw, 48)[0] + index * 64
    assert raw[at : at + 4] == b"\xa5" * 4


def test_mempool_cache_is_at_index_of_slot(primary: eal.Eal) -> None:
    pool = primary.mempool_create("p", 100, 4, cache_size=8)
    index = pool.get()
    assert index is not None
    slot = pool.memzone.segment.slot()
    assert slot is not None
    raw = bytes(pool.memzone.buf)
    at = 192 + 64 + slot.index * 128
    length, zero, taken, returned = struct.unpack_from("<IIQQ", raw, at)
    assert (length, zero, taken, returned) == (8, 0, 1, 0)
    cached = struct.unpack_from("<8I", raw, at + 64)
    assert sorted(cached) == pool.audit().cached[slot.index]
    pool.put(index)
    assert struct.unpack_from("<IIQQ", pool.memzone.buf, at) == (9, 0, 1, 1)


def test_mempool_counters_without_slot_are_in_line_2(primary: eal.Eal) -> None:
    pool = primary.mempool_create("p", 100, 4, cache_size=8)
    base = pool.memzone.segment.mapping.pointer()
    for number in range(64):
        lib.ivs_participant_claim(base, (1 << 40) + number, 1)  # another machine: never considered dead here
    indices = [pool.get() for _ in range(3)]
    assert indices[0] is not None
    pool.put(indices[0])
    assert struct.unpack_from("<QQ", pool.memzone.buf, 128) == (3, 1)


def test_mempool_no_cache_align_has_no_padding(primary: eal.Eal) -> None:
    pool = primary.mempool_create("p", 10, 20, flags=eal.MempoolFlag.NO_CACHE_ALIGN)
    assert struct.unpack_from("<II", pool.memzone.buf, 16) == (20, 20)
    assert pool.array.strides == (20, 1)


def test_mempool_slots_is_one_more_than_highest_joined_slot(primary: eal.Eal) -> None:
    pool = primary.mempool_create("p", 100, 4, cache_size=8)
    assert struct.unpack_from("<I", pool.memzone.buf, 144) == (0,)
    pool.get()
    slot = pool.memzone.segment.slot()
    assert slot is not None
    assert struct.unpack_from("<I", pool.memzone.buf, 144) == (slot.index + 1,)


def test_mempool_debug_cookies_surround_each_object(primary: eal.Eal) -> None:
    pool = primary.mempool_create("p", 10, 20, flags=eal.MempoolFlag.DEBUG)
    index = pool.get()
    assert index is not None
    objects = pool.array.ctypes.data - pool.memzone.address
    for number in range(10):
        at = objects + number * pool.elt_stride
        state, owner = struct.unpack_from("<QQ", pool.memzone.buf, at - 64)
        if number == index:
            assert (state, owner) == (0x7A4E7A4E7A4E7A4E, process.owner_word())
        else:
            assert (state, owner) == (0xF4EEF4EEF4EEF4EE, 0)
        assert struct.unpack_from("<Q", pool.memzone.buf, at + 20) == (0xE2D0E2D0E2D0E2D0,)


# --- mbuf ---------------------------------------------------------------------------------------------------


def test_mbuf_header_has_documented_layout(primary: eal.Eal) -> None:
    pool = primary.pktmbuf_pool_create("p", 4, data_room=256, private_size=8)
    assert struct.unpack_from("<II", pool.memzone.buf, 96) == (8, 1)  # private_size and mbuf_version of the pool
    expected = {
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
    fields = pool.mbufs.dtype.fields
    assert fields is not None
    assert {name: (at, dtype.itemsize) for name, (dtype, at, *_) in fields.items()} == expected
    assert pool.mbufs.dtype.itemsize == 64
    at = pool.mbufs.ctypes.data - pool.memzone.address
    pool.mbufs["pkt_len"][0] = 0x01020304
    assert bytes(pool.memzone.buf[at + 20 : at + 24]) == b"\4\3\2\1"
