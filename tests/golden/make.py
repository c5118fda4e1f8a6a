# SPDX-License-Identifier: BSD-3-Clause
"""The golden files: one example of each format in shared memory, as today's code makes it.

    python -P tests/golden/make.py [FOLDER]

writes them anew (into this folder). They are compressed, since most of their bytes are 0. Nothing in them depends on
time, chance or the machine. A file here is never changed: a format that differs gets a new version number and a new
file beside the old one.
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
GUARD = 0x0C0C0C0C_00000003

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
    """Shared memory that has no name."""
    with TemporaryFile() as file:
        file.truncate(length)
        return Mapping(file.fileno(), length)


def bytes_of(mapping: Mapping) -> bytes:
    return bytes(mapping.view())


def segment_header() -> bytes:
    """A segment's header page, with a participant in slot 1 and a guard in slot 2."""
    page = zeroed(PAGE)
    info = ffi.new("struct ivs_segment_info *")
    info.uuid, info.size, info.page_size = SEGMENT.uuid.bytes, SEGMENT.size, SEGMENT.page_size
    info.host_address, info.epoch, info.socket_id = SEGMENT.host_address, SEGMENT.epoch, SEGMENT.socket_id
    info.group = SEGMENT.group.encode()
    lib.ivs_segment_format(page.pointer(), info)
    for owner in (0x0A0A0A0A_00000001, 0x0B0B0B0B_00000002, GUARD):
        lib.ivs_participant_claim(page.pointer(), owner, owner & 0xFFFF)
    lib.ivs_participant_guard(page.pointer(), 2, GUARD, lib.ivs_share_word(SEGMENT.uuid.bytes))
    lib.ivs_participant_beat(page.pointer(), 2, GUARD)
    lib.ivs_participant_acknowledge(page.pointer(), 2, GUARD, 5)
    lib.ivs_participant_release(page.pointer(), 0, 0x0A0A0A0A_00000001)
    return bytes_of(page)


def metadata() -> bytes:
    """A metadata file with a read-only segment and an entry of every kind; the former table is in the other slot."""
    file = TableFile.format(zeroed(4 * PAGE), METADATA_MAGIC, "vm0", FILE_UUID, epoch=EPOCH)
    read_only = SegmentRecord(FILE_UUID, 2 * MIB, 2 * MIB, 0, -1, "slides", EPOCH, readonly=True)
    file.publish(Table(segments=(SEGMENT, read_only), epoch=EPOCH))
    file.publish(Table(segments=(SEGMENT, read_only), entries=ENTRIES, epoch=EPOCH))
    return bytes_of(file.mapping)


def registry() -> bytes:
    """A registry that was kept by `detach`."""
    file = TableFile.format(zeroed(4 * PAGE), REGISTRY_MAGIC, "registry", FILE_UUID, epoch=EPOCH)
    file.publish(Table(segments=(OWN_SEGMENT,), entries=ENTRIES, epoch=EPOCH, kept=True))
    return bytes_of(file.mapping)


def zone_in(mapping: Mapping, name: str, kind: Kind) -> Memzone:
    """All of a mapping as an object's zone."""
    segment = Segment(SEGMENT, mapping, "", socket_id=-1)
    return Memzone(Entry(name, kind, 0, 0, mapping.length), segment)


def ring() -> bytes:
    """A ring of seven elements of 12 bytes, of which two were taken and three are in it."""
    zone = zone_in(zeroed(ring_memsize("packets", 7, 12, RING_FLAGS | RingFlag.EXACT_SZ)), "packets", Kind.RING)
    format_ring(zone, "packets", 7, 12, RING_FLAGS | RingFlag.EXACT_SZ)
    made = Ring(zone, "packets", 1.0)
    for number in range(5):
        made.enqueue(bytes(range(number, number + 12)))
    for _ in range(2):
        made.dequeue()
    zone.buf[80:96] = bytes(16)  # who worked the ends: this process, which is another one each time
    return bytes(zone.buf)


def mempool() -> bytes:
    """A pool of 70 objects of 20 bytes; slot 0 has cached some, and three are out."""
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


MAKERS: dict[str, Callable[[], bytes]] = {
    f"segment-header-{lib.IVS_SEGMENT_VERSION}": segment_header,
    f"metadata-{lib.IVS_TABLE_VERSION}": metadata,
    f"registry-{lib.IVS_TABLE_VERSION}": registry,
    f"ring-{lib.IVS_RING_VERSION}": ring,
    f"mempool-{lib.IVS_MEMPOOL_VERSION}": mempool,
}


def main(folder: Path) -> None:
    for name, make in MAKERS.items():
        path = folder / f"{name}.gz"
        path.write_bytes(gzip.compress(make(), mtime=0))
        print(f"{path}: {os.path.getsize(path)} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
