# SPDX-License-Identifier: BSD-3-Clause
"""eal.metadata.table_file: a reader gets a complete valid table or an error."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eal
from eal._native import ffi, lib
from eal.linux.mapping import Mapping
from eal.memory.memzone import Memzone
from eal.memory.segment import Segment
from eal.metadata.records import Entry, Kind, SegmentRecord, Table, table_as_json
from eal.metadata.table_file import METADATA_MAGIC, REGISTRY_MAGIC, TableFile, decode, encode

SIZE = 16384
SEGMENT = SegmentRecord(UUID(int=7), 1 << 21, 4096, 1 << 45, 0, "default", 3)
TABLE = Table(
    (SEGMENT,),
    (
        Entry("zone", Kind.MEMZONE, 0, 4096, 512, dtype='"<f8"', shape=(8, 8)),
        Entry("ring", Kind.RING, 0, 8192, 448),
    ),
    epoch=3,
)


def new_file(size: int = SIZE, magic: int = METADATA_MAGIC) -> TableFile:
    with TemporaryFile() as file:
        file.truncate(size)
        return TableFile.format(Mapping(file.fileno(), size), magic, "vm0", uuid4(), epoch=1)


def opened(file: TableFile) -> TableFile:
    """Open the same mapping without the cached table, as another process does."""
    return TableFile.open(file.mapping, METADATA_MAGIC, "test")


# --- encoding -----------------------------------------------------------------------------------------------

names = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="/\x7f", min_codepoint=0x20), min_size=1
).filter(lambda name: len(name.encode()) <= 31)
segments = st.builds(
    SegmentRecord,
    uuid=st.uuids(),
    size=st.integers(13, 46).map(lambda bits: 1 << bits),
    page_size=st.sampled_from([4096, 8192]),
    host_address=st.integers(0, 2**64 - 1),
    socket_id=st.integers(-1, 63),
    group=names,
    epoch=st.integers(0, 2**64 - 1),
    path=st.text(st.characters(blacklist_categories=["Cs"]), max_size=40),
    readonly=st.booleans(),
)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    listed = tuple(draw(st.lists(segments, min_size=1, max_size=4)))
    entries = []
    for serial, name in enumerate(draw(st.lists(names, max_size=6))):
        number = draw(st.integers(0, len(listed) - 1))
        offset = draw(st.integers(4096, listed[number].size - 1))
        length = draw(st.integers(1, listed[number].size - offset))
        shape = draw(st.none() | st.lists(st.integers(0, 2**40), max_size=4).map(tuple))
        dtype = "" if shape is None else draw(st.sampled_from(['"<f4"', '[["größe","<u2"]]']))
        flags = draw(st.integers(0, 2**32 - 1))
        kind = draw(st.sampled_from(Kind))
        entries.append(Entry(name, kind, number, offset, length, 64, flags, dtype, shape, serial))
    return Table(listed, tuple(entries), draw(st.integers(0, 2**64 - 1)), draw(st.booleans()))


@settings(deadline=None, max_examples=80)
@given(tables())
def test_published_table_is_read_back(table: Table) -> None:
    file = new_file()
    published = file.publish(table)
    assert published == replace(table, selector=2)
    assert opened(file).read() == published
    assert replace(decode(encode(table)), selector=0) == table


def test_table_as_json_refers_to_segments_by_uuid() -> None:
    data = json.loads(json.dumps(table_as_json(TABLE)))
    assert data["segments"][0]["uuid"] == str(SEGMENT.uuid)
    assert [entry["segment"] for entry in data["entries"]] == [str(SEGMENT.uuid)] * 2
    assert data["entries"][0] | {} == {
        "name": "zone",
        "kind": "memzone",
        "segment": str(SEGMENT.uuid),
        "offset": 4096,
        "length": 512,
        "align": 64,
        "flags": 0,
        "dtype": '"<f8"',
        "shape": [8, 8],
    }
    assert (data["entries"][1]["dtype"], data["entries"][1]["shape"]) == (None, None)


def test_publish_of_too_large_table_raises_no_memory_and_keeps_old_table() -> None:
    file = new_file()
    file.publish(TABLE)
    large = replace(TABLE, entries=tuple(Entry(f"z{i}", Kind.MEMZONE, 0, 4096, 64) for i in range(200)))
    with pytest.raises(eal.NoMemory, match=r"'vm0' is full: .*200 objects.* larger capacity"):
        file.publish(large)
    assert opened(file).read() == file.read() == replace(TABLE, selector=2)


def test_publish_of_largest_table_succeeds() -> None:
    file = new_file()
    room = lib.ivs_table_room(SIZE)
    n = (room - 64 - 96) // 96
    fits = replace(TABLE, entries=tuple(Entry(f"z{i}", Kind.MEMZONE, 0, 4096, 64) for i in range(n)))
    assert len(opened(file).read().entries) == 0
    file.publish(fits)
    assert len(opened(file).read().entries) == n
    assert file.mapping.length == SIZE


# --- incomplete and concurrent changes --------------------------------------------------------------------------


def test_incomplete_change_is_not_read() -> None:
    """Simulate a writer that dies after filling the unused slot, before the store of the selector."""
    file = new_file()
    before = file.publish(TABLE)
    room = lib.ivs_table_room(SIZE)
    inactive = 4096 + (before.selector + 1 & 1) * room
    for content in (b"\xff" * room, encode(replace(TABLE, epoch=99)).ljust(room, b"\0"), bytes(room)):
        file.mapping.view()[inactive : inactive + room] = content
        assert opened(file).read() == before
    after = opened(file).publish(replace(TABLE, epoch=4))
    assert opened(file).read() == after == replace(TABLE, epoch=4, selector=before.selector + 1)


WRITER = """
import ctypes, sys
from pathlib import Path
from eal.metadata.lookup import open_metadata
from eal.metadata.records import Table
file = open_metadata(Path(sys.argv[1]), writable=True)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mprotect(ctypes.c_void_p(file.mapping.address + 4096), ctypes.c_size_t(4096), 1) == 0  # slot 0, PROT_READ
file.publish(Table(epoch=99))
"""


def test_selector_is_stored_after_the_table(tmp_path: Path) -> None:
    """Kill a writer at its first store to the unused slot; a selector stored earlier would select that slot."""
    path = tmp_path / "table"
    with path.open("w+b") as raw:
        raw.truncate(SIZE)
        file = TableFile.format(Mapping(raw.fileno(), SIZE), METADATA_MAGIC, "vm0", uuid4(), epoch=1)
    before = opened(file).read()
    assert before.selector & 1  # the unused slot is slot 0
    done = subprocess.run([sys.executable, "-P", "-c", WRITER, path], stderr=subprocess.DEVNULL)
    assert done.returncode == -signal.SIGSEGV
    assert opened(file).read() == before


def test_concurrent_readers_get_complete_tables() -> None:
    """Every field of a table contains the same number, so a mixture of two tables is detected."""
    file = new_file()

    def table(number: int) -> Table:
        n = number % 5 + 1
        return Table((SEGMENT,), tuple(Entry(f"z{number}", Kind.RING, 0, 4096, number) for _ in range(n)), number)

    file.publish(table(1))
    stop = threading.Event()
    seen: set[int] = set()
    faults: list[object] = []

    def read() -> None:
        reader_file = opened(file)
        while not stop.is_set():
            try:
                found = reader_file.read()
            except eal.EalError as error:
                faults.append(error)
                return
            if found != replace(table(found.epoch), selector=found.selector):
                faults.append(found)
            seen.add(found.epoch)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, 3000):
        file.publish(table(number))
    stop.set()
    for reader in readers:
        reader.join()
    assert faults == []
    assert len(seen) > 10


# --- damage -------------------------------------------------------------------------------------------------


def test_flipped_bit_in_current_table_raises_corrupt() -> None:
    file = new_file()
    length = len(encode(TABLE))
    file.publish(TABLE)
    start = 4096  # the second table is in slot 0
    raw = file.mapping.view()
    for at in range(start, start + length):
        for bit in range(8):
            raw[at] ^= 1 << bit
            with pytest.raises(eal.Corrupt, match="'vm0'"):
                opened(file).read()
            raw[at] ^= 1 << bit
    assert opened(file).read().entries == TABLE.entries


def test_flipped_bit_in_header_raises_corrupt() -> None:
    """Flip each bit of the 128 identity bytes and of the selector; no flipped selector selects a valid table."""
    file = new_file()
    file.publish(TABLE)
    raw = file.mapping.view()
    for at in range(136):
        for bit in range(8):
            raw[at] ^= 1 << bit
            with pytest.raises(eal.Corrupt):
                opened(file).read()
            raw[at] ^= 1 << bit
    assert opened(file).read().entries == TABLE.entries


def test_flipped_bits_outside_header_and_current_table_are_ignored() -> None:
    file = new_file()
    good = file.publish(TABLE)
    raw = file.mapping.view()
    for at in [*range(140, 4096, 17), *range(4096 + lib.ivs_table_room(SIZE), SIZE, 17)]:
        raw[at] ^= 0xFF
        assert opened(file).read() == good


def with_crc(file: TableFile, at: int, value: bytes) -> None:
    """Overwrite bytes of the current table (slot 0) and update its CRC, as a hostile peer can."""
    raw = file.mapping.view()
    raw[4096 + at : 4096 + at + len(value)] = value
    length = struct.unpack_from("<Q", raw, 4096 + 40)[0]
    raw[4096:4100] = bytes(4)
    table = bytes(raw[4096 : 4096 + min(length, SIZE)])
    struct.pack_into("<I", raw, 4096, lib.ivs_crc32c(0, table, len(table)))


HEAD, ENTRY = 64, 64 + 96
U32, U64 = "<I", "<Q"


@pytest.mark.parametrize(
    ("at", "kind", "value", "message"),
    [
        (24, U32, 1000, "inconsistent table sizes"),  # n_segments
        (24, U32, 0xFFFFFFFF, "inconsistent table sizes"),
        (28, U32, 0xFFFFFFFF, "inconsistent table sizes"),  # n_entries
        (28, U32, 1, "inconsistent table sizes"),
        (32, U64, 2**64 - 1, "inconsistent table sizes"),  # heap
        (HEAD + 16, U64, 3 << 20, "invalid segment size"),  # size: not a power of two
        (HEAD + 16, U64, 4096, "invalid segment size"),
        (HEAD + 24, U64, 5000, "invalid segment size"),  # page size
        (HEAD + 24, U64, 1 << 30, "invalid segment size"),
        (HEAD + 48, "32s", b"x" * 32, "invalid name"),  # group without a terminating 0
        (HEAD + 48, "32s", b"a/b", "invalid name"),
        (HEAD + 48, "32s", b"", "invalid name"),
        (HEAD + 80, U32, 0xFFFFFFFF, "inconsistent table sizes"),  # path beyond the heap
        (ENTRY, "32s", b"", "invalid name"),
        (ENTRY, "32s", b"x\0y", "invalid name"),
        (ENTRY, "32s", b"\xff\xfe", "UTF-8"),
        (HEAD + 48, "32s", b"\xff\xfe", "UTF-8"),
        (ENTRY + 32, U32, 0, "unknown kind"),
        (ENTRY + 32, U32, 4, "unknown kind"),
        (ENTRY + 36, U32, 1, "segment that is not listed"),
        (ENTRY + 40, U64, 0, "outside its segment"),  # overlaps the segment's header
        (ENTRY + 40, U64, 4095, "outside its segment"),
        (ENTRY + 40, U64, 1 << 21, "outside its segment"),
        (ENTRY + 40, U64, 2**64 - 64, "outside its segment"),
        (ENTRY + 48, U64, 0, "outside its segment"),
        (ENTRY + 48, U64, (1 << 21) - 4095, "outside its segment"),
        (ENTRY + 48, U64, 2**64 - 1, "outside its segment"),
        (ENTRY + 64, U32, 0xFFFFFFFF, "dtype or shape"),
        (ENTRY + 68, U32, 0xFFFFFFFF, "dtype or shape"),
        (ENTRY + 76, U32, 7, "dtype or shape"),
    ],
)
def test_invalid_field_with_valid_crc_raises_corrupt(at: int, kind: str, value: int | bytes, message: str) -> None:
    file = new_file()
    file.publish(TABLE)
    with_crc(file, at, struct.pack(kind, value))
    with pytest.raises(eal.Corrupt, match=message):
        opened(file).read()


def test_invalid_dtype_or_shape_raises_corrupt_when_used() -> None:
    file = new_file()
    file.publish(replace(TABLE, entries=(replace(TABLE.entries[0], dtype='"|O"', shape=(2,)),)))
    (entry,) = opened(file).read().entries
    with TemporaryFile() as memory:
        memory.truncate(SEGMENT.size)
        segment = Segment(SEGMENT, Mapping(memory.fileno(), SEGMENT.size), "", socket_id=-1)
    with pytest.raises(eal.Corrupt, match="pointers"):
        Memzone(entry, segment).array()
    with pytest.raises(eal.Corrupt, match="requires 4096"):
        Memzone(replace(entry, dtype='"<f8"', shape=(512,)), segment).array()
    with pytest.raises(eal.Corrupt):
        Memzone(replace(entry, dtype='"<f8"', shape=(2**63, 2**63)), segment).array()
    assert Memzone(entry, segment).array("<f8").shape == (64,)


@pytest.mark.parametrize("length", [0, 1, 4095])
def test_check_of_file_shorter_than_header_returns_fault_length(length: int) -> None:
    file = new_file()
    info = ffi.new("struct ivs_table_info *")
    assert lib.ivs_table_check_file(file.mapping.pointer(), length, METADATA_MAGIC, info) == lib.IVS_FAULT_LENGTH


def test_open_truncated_file_raises_corrupt_with_name(tmp_path: Path) -> None:
    path = tmp_path / "table"
    file = new_file()
    path.write_bytes(bytes(file.mapping.view())[: SIZE - 4096])
    with path.open("r+b") as short, pytest.raises(eal.Corrupt, match=r"here \('vm0'\).*truncated"):
        TableFile.open(Mapping(short.fileno(), SIZE - 4096), METADATA_MAGIC, "here")


def test_open_newer_version_raises_corrupt_with_name() -> None:
    file = new_file()
    struct.pack_into("<I", file.mapping.view(), 8, 2)
    with pytest.raises(
        eal.Corrupt, match=r"test \('vm0'\): format version must be 1, got 2: install an ivshmem release"
    ):
        opened(file)


def test_open_with_magic_of_other_file_type_raises_corrupt() -> None:
    with pytest.raises(eal.Corrupt, match="bad magic"):
        opened(new_file(magic=REGISTRY_MAGIC))
    with pytest.raises(eal.Corrupt, match="bad magic"):
        TableFile.open(new_file().mapping, REGISTRY_MAGIC, "test")
