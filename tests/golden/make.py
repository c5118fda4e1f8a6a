# SPDX-License-Identifier: BSD-3-Clause
"""Golden files: one example of each shared-memory format, written by the current code.

    python -P tests/golden/make.py [FOLDER]

writes all files to FOLDER (default: this folder), compressed. Their content depends neither on time nor on random
numbers nor on the machine. Never change an existing file: a changed format gets a new version number, and a new file
in addition to the old one.
"""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from uuid import UUID

from eal import RingFlag
from eal._native import ffi, lib
from eal.linux.mapping import Mapping
from eal.mbuf.format import format_mbuf_pool, mbuf_pool_memsize
from eal.memory.memzone import Memzone
from eal.memory.segment import Segment
from eal.mempool.format import format_mempool, mempool_memsize
from eal.metadata.records import Entry, Kind, SegmentRecord, Table
from eal.metadata.table_file import METADATA_MAGIC, REGISTRY_MAGIC, TableFile
from eal.ring.format import format_ring, ring_memsize
from eal.ring.ring import Ring
from eal.text import dtypes

HERE = Path(__file__).parent
PAGE = 4096
MIB = 1 << 20
SEGMENT_UUID = UUID("00112233-4455-6677-8899-aabbccddeeff")
FILE_UUID = UUID("f0e1d2c3-b4a5-9687-7869-5a4b3c2d1e0f")
ADDRESS = 0x2345_0000_0000
EPOCH = 1_700_000_000
MONITOR = 0x0C0C0C0C_00000003

SEGMENT = SegmentRecord(SEGMENT_UUID, MIB, PAGE, ADDRESS, 0, "cameras", EPOCH)
OWN_SEGMENT = SegmentRecord(
    SEGMENT_UUID, MIB, PAGE, ADDRESS, -1, "default", EPOCH, path="/dev/shm/ivshmem.0.01234567.vm.seg"
)
PIXEL = dtypes.describe([("rgb", "u1", (3,)), ("depth", ">f4")])
ENTRIES = (
    Entry("frame", Kind.MEMZONE, 0, 0x1000, 7 * 480, align=128, flags=1, dtype=PIXEL, shape=(24, 20), serial=2),
    Entry("scalar", Kind.MEMZONE, 0, 0x2000, 8, dtype=dtypes.describe("<i8"), shape=(), serial=3),
    Entry("größe", Kind.MEMZONE, 0, 0x3000, 1, serial=4),
    Entry("packets", Kind.RING, 0, 0x4000, 384 + 64 * 8, flags=1, serial=5),
    Entry("buffers", Kind.MEMPOOL, 0, 0x5000, 0x10000, serial=6),
)
RING_FLAGS = RingFlag.MP_RTS_ENQ | RingFlag.SC_DEQ


def zeroed(length: int) -> Mapping:
    """Return a zeroed shared mapping of an unnamed file."""
    with TemporaryFile() as file:
        file.truncate(length)
        return Mapping(file.fileno(), length)


def bytes_of(mapping: Mapping) -> bytes:
    return bytes(mapping.view())


def segment_header() -> bytes:
    """Return the header page of a segment, with a participant in slot 1 and a hotplug monitor in slot 2."""
    page = zeroed(PAGE)
    info = ffi.new("struct ivs_segment_info *")
    info.uuid, info.size, info.page_size = SEGMENT.uuid.bytes, SEGMENT.size, SEGMENT.page_size
    info.host_address, info.epoch, info.socket_id = SEGMENT.host_address, SEGMENT.epoch, SEGMENT.socket_id
    info.group = SEGMENT.group.encode()
    lib.ivs_segment_format(page.pointer(), info)
    for owner in (0x0A0A0A0A_00000001, 0x0B0B0B0B_00000002, MONITOR):
        lib.ivs_participant_claim(page.pointer(), owner, owner & 0xFFFF)
    lib.ivs_participant_guard(page.pointer(), 2, MONITOR, lib.ivs_share_word(SEGMENT.uuid.bytes))
    lib.ivs_participant_beat(page.pointer(), 2, MONITOR)
    lib.ivs_participant_acknowledge(page.pointer(), 2, MONITOR, 5)
    lib.ivs_participant_release(page.pointer(), 0, 0x0A0A0A0A_00000001)
    return bytes_of(page)


def metadata() -> bytes:
    """Return a metadata file with a read-only segment and an entry of each kind; slot 1 has the previous table."""
    file = TableFile.format(zeroed(4 * PAGE), METADATA_MAGIC, "vm0", FILE_UUID, epoch=EPOCH)
    read_only = SegmentRecord(FILE_UUID, 2 * MIB, 2 * MIB, 0, -1, "slides", EPOCH, readonly=True)
    file.publish(Table(segments=(SEGMENT, read_only), epoch=EPOCH))
    file.publish(Table(segments=(SEGMENT, read_only), entries=ENTRIES, epoch=EPOCH))
    return bytes_of(file.mapping)


def registry() -> bytes:
    """Return a registry that `detach` kept."""
    file = TableFile.format(zeroed(4 * PAGE), REGISTRY_MAGIC, "registry", FILE_UUID, epoch=EPOCH)
    file.publish(Table(segments=(OWN_SEGMENT,), entries=ENTRIES, epoch=EPOCH, kept=True))
    return bytes_of(file.mapping)


def zone_in(mapping: Mapping, name: str, kind: Kind) -> Memzone:
    """Return a whole mapping as the memzone of an object."""
    segment = Segment(SEGMENT, mapping, "", socket_id=-1)
    return Memzone(Entry(name, kind, 0, 0, mapping.length), segment)


def ring() -> bytes:
    """Return a ring of 7 elements of 12 bytes: 5 were enqueued and 2 dequeued."""
    zone = zone_in(zeroed(ring_memsize("packets", 7, 12, RING_FLAGS | RingFlag.EXACT_SZ)), "packets", Kind.RING)
    format_ring(zone, "packets", 7, 12, RING_FLAGS | RingFlag.EXACT_SZ)
    writer = Ring(zone, "packets", 1.0)
    for number in range(5):
        writer.enqueue(bytes(range(number, number + 12)))
    for _ in range(2):
        writer.dequeue()
    zone.buf[80:96] = bytes(16)  # owner words: they contain the thread id of this process
    return bytes(zone.buf)


def mempool() -> bytes:
    """Return a mempool of 70 objects of 20 bytes: slot 0 has cached some, and 3 are in use."""
    zone = zone_in(zeroed(mempool_memsize("buffers", 70, 20, 4, 0)), "buffers", Kind.MEMPOOL)
    format_mempool(zone, "buffers", 70, 20, 4, 0)
    info = ffi.new("struct ivs_mempool_info *")
    assert lib.ivs_mempool_check(zone.segment.mapping.pointer(), zone.length, info) == 0
    memory = ffi.new("uint64_t[]", lib.ivs_mempool_handle_size(4) // 8 + 1)
    handle = ffi.cast("struct ivs_mempool *", memory)
    lib.ivs_mempool_attach(handle, zone.segment.mapping.pointer(), info)
    lib.ivs_mempool_join(handle, 0)
    objects = ffi.new("uint32_t[3]")
    lib.ivs_call_get_bulk(handle, objects, 3)
    for index in objects:
        at = info.objects_offset + index * info.elt_stride
        zone.buf[at : at + 20] = bytes([index + 1]) * 20
    return bytes(zone.buf)


def mbufs() -> bytes:
    """Return a pool of 6 mbufs: 0 and 1 are a packet, 2 and 3 its clone, 4 was freed, 5 was never allocated."""
    sizes = (4, 200, 8, 0)  # cache_size, data_room, private_size, flags
    need, _ = mbuf_pool_memsize("packets", 6, *sizes)
    zone = zone_in(zeroed(need), "packets", Kind.MEMPOOL)
    format_mbuf_pool(zone, "packets", 6, *sizes)
    info = ffi.new("struct ivs_mempool_info *")
    assert lib.ivs_mempool_check(zone.segment.mapping.pointer(), zone.length, info) == 0
    memory = ffi.new("uint64_t[]", lib.ivs_mempool_handle_size(sizes[0]) // 8 + 1)
    pool = ffi.cast("struct ivs_mempool *", memory)
    lib.ivs_mempool_attach(pool, zone.segment.mapping.pointer(), info)
    for index, text in ((0, b"head"), (1, b"tail!")):
        assert lib.ivs_call_mbuf_alloc(pool) == index
        at = info.objects_offset + lib.ivs_call_mbuf_append(pool, index, len(text))
        zone.buf[at : at + len(text)] = text
    assert lib.ivs_mbuf_chain(pool, 0, 1) == 0
    header = zone.buf[info.objects_offset :]
    used = ("data_off", "refcnt", "nb_segs", "pkt_len", "data_len", "buf_len", "next", "buf", "priv_size")
    for value, (name, field) in enumerate(ffi.typeof("struct ivs_mbuf").fields, 0x11):
        if name not in used:
            size = ffi.sizeof(field.type)
            header[field.offset : field.offset + size] = bytes([value]) * size
    assert lib.ivs_mbuf_clone(pool, 0) == 2
    assert lib.ivs_call_mbuf_adj(pool, 2, 1) >= 0
    assert lib.ivs_call_mbuf_alloc(pool) == 4
    assert lib.ivs_call_mbuf_free(pool, 4) == 1
    return bytes(zone.buf)


MAKERS: dict[str, Callable[[], bytes]] = {
    f"segment-header-{lib.IVS_SEGMENT_VERSION}": segment_header,
    f"metadata-{lib.IVS_TABLE_VERSION}": metadata,
    f"registry-{lib.IVS_TABLE_VERSION}": registry,
    f"ring-{lib.IVS_RING_VERSION}": ring,
    f"mempool-{lib.IVS_MEMPOOL_VERSION}": mempool,
    f"mbuf-{lib.IVS_MBUF_VERSION}": mbufs,
}


def main(folder: Path) -> None:
    for name, make in MAKERS.items():
        path = folder / f"{name}.gz"
        path.write_bytes(gzip.compress(make(), mtime=0))
        print(f"{path}: {os.path.getsize(path)} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
