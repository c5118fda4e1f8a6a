# SPDX-License-Identifier: BSD-3-Clause
"""Table files, metadata and registry: read and publish the table of a mapped file, encode and decode its bytes.

The codec is in this module so that a publish goes from Python data to the C core in one file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any
from uuid import UUID

from eal._native import ffi, lib
from eal.errors import Corrupt, NoMemory
from eal.linux.mapping import Mapping
from eal.metadata.records import Entry, Kind, SegmentRecord, Table
from eal.native_handle import fault_text
from eal.text.names import pack_name, unpack_name

HEADER_SIZE: int = lib.IVS_HEADER_SIZE
METADATA_MAGIC: int = lib.IVS_METADATA_MAGIC
REGISTRY_MAGIC: int = lib.IVS_REGISTRY_MAGIC

_new_uncleared = ffi.new_allocator(should_clear_after_alloc=False)  # a table is small, but its slot may have 16 MiB


# --- the mapped file --------------------------------------------------------------------------------------------


def table_room(size: int) -> int:
    """Return the bytes available to one table in a table file of `size` bytes."""
    room: int = lib.ivs_table_room(size)
    return room


@dataclass(frozen=True, slots=True)
class TableInfo:
    """The identity in the header of a table file; `size` in bytes."""

    uuid: UUID
    size: int
    version: int
    name: str


class TableFile:
    """A mapped table file. `label` names it in messages, such as "metadata 'vm0'" or a device's address."""

    def __init__(self, mapping: Mapping, info: TableInfo, label: str) -> None:
        self.mapping = mapping
        self.info = info
        self.label = label
        self._cached = Table(selector=-1)

    @classmethod
    def format(cls, mapping: Mapping, magic: int, name: str, uuid: UUID, *, epoch: int = 0) -> TableFile:
        """Write the header and an empty table to a zeroed mapping, and return the table file."""
        raw = ffi.new("struct ivs_table_info *")
        raw.uuid, raw.size, raw.name = uuid.bytes, mapping.length, pack_name(name)
        lib.ivs_table_format(mapping.pointer(), magic, raw, epoch)
        return cls(mapping, TableInfo(uuid, mapping.length, lib.IVS_TABLE_VERSION, name), repr(name))

    @classmethod
    def open(cls, mapping: Mapping, magic: int, label: str) -> TableFile:
        """Validate the header of a mapped file. Raise Corrupt with the reason and, if readable, the name."""
        raw = ffi.new("struct ivs_table_info *")
        fault = lib.ivs_table_check_file(mapping.pointer(), mapping.length, magic, raw)
        name = ffi.string(raw.name).decode(errors="replace")
        if fault:
            raise Corrupt(f"{label}{f' ({name!r})' if name else ''}: {_explain(fault, raw.version)}")
        info = TableInfo(UUID(bytes=bytes(ffi.buffer(raw.uuid))), raw.size, raw.version, name)
        return cls(mapping, info, label)

    @staticmethod
    def readable_name(mapping: Mapping, magic: int) -> str:
        """Return the name in the header, even of a file that `open` refuses; "" if it is unreadable."""
        raw = ffi.new("struct ivs_table_info *")
        lib.ivs_table_check_file(mapping.pointer(), mapping.length, magic, raw)
        name: bytes = ffi.string(raw.name)
        return name.decode(errors="replace")

    @property
    def leaving(self) -> int:
        """The number of the unplug that the host has announced, or 0."""
        number: int = lib.ivs_table_leaving(self.mapping.pointer())
        return number

    def read(self) -> Table:
        """Return the current table, decoded once per change. Raise Corrupt with the reason."""
        if lib.ivs_table_selector(self.mapping.pointer()) == self._cached.selector:
            return self._cached
        copy = _new_uncleared("unsigned char[]", table_room(self.info.size))
        length = lib.ivs_table_read(self.mapping.pointer(), self.info.size, copy)
        if length < 0:
            raise Corrupt(f"{self.label} ({self.info.name!r}): {fault_text(-length)}")
        try:
            self._cached = decode(bytes(ffi.buffer(copy, length)))
        except Corrupt as error:
            raise Corrupt(f"{self.label} ({self.info.name!r}): {error}") from error
        return self._cached

    def publish(self, table: Table) -> Table:
        """Make a table the current one by a single store, and return it with its selector. One writer at a time.

        Raise NoMemory if the table does not fit into the file.
        """
        raw = bytearray(encode(table))
        result = lib.ivs_table_publish(self.mapping.pointer(), self.info.size, ffi.from_buffer(raw), len(raw))
        if result < 0:
            room = table_room(self.info.size)
            if len(raw) <= room:
                raise AssertionError(f"{self.label}: the C core refused the table {table}")
            raise NoMemory(
                f"{self.label} is full: a table of {len(raw)} bytes ({len(table.entries)} objects) exceeds "
                f"{room} bytes; create it with a larger capacity"
            )
        self._cached = replace(table, selector=lib.ivs_table_selector(self.mapping.pointer()))
        return self._cached


def _explain(fault: int, version: int) -> str:
    if fault == lib.IVS_FAULT_VERSION:
        supported = lib.IVS_TABLE_VERSION
        return f"format version must be {supported}, got {version}: install an ivshmem release that supports it"
    return fault_text(fault)


# --- encoding ---------------------------------------------------------------------------------------------------


@dataclass
class _Heap:
    """The variable-length part at the end of a table: paths, dtypes and shapes."""

    data: bytearray = field(default_factory=bytearray)

    def add(self, piece: bytes) -> tuple[int, int]:
        """Append bytes and return their offset and length."""
        at = len(self.data)
        self.data += piece
        return at, len(piece)


def encode(table: Table) -> bytes:
    """Return the bytes of a table as stored in a slot; the C core fills in length, selector and CRC."""
    heap = _Heap()
    parts = bytearray()
    for segment in table.segments:
        parts += _encode_segment(segment, heap)
    for entry in table.entries:
        parts += _encode_entry(entry, heap) if entry.dtype else _encode_plain(entry)
    heap.data += bytes(-len(heap.data) % 8)
    head = ffi.new("struct ivs_table *")
    head.flags = lib.IVS_TABLE_KEPT if table.kept else 0
    head.epoch = table.epoch
    head.n_segments = len(table.segments)
    head.n_entries = len(table.entries)
    head.heap = len(heap.data)
    return bytes(ffi.buffer(head)) + bytes(parts) + bytes(heap.data)


def _encode_segment(segment: SegmentRecord, heap: _Heap) -> bytes:
    raw = ffi.new("struct ivs_table_segment *")
    raw.uuid = segment.uuid.bytes
    raw.size = segment.size
    raw.page_size = segment.page_size
    raw.host_address = segment.host_address
    raw.socket_id = segment.socket_id
    raw.flags = lib.IVS_SEGMENT_READONLY if segment.readonly else 0
    raw.group = pack_name(segment.group)
    raw.path.offset, raw.path.length = heap.add(segment.path.encode("utf-8", "surrogateescape"))
    raw.epoch = segment.epoch
    return bytes(ffi.buffer(raw))


@lru_cache(maxsize=1 << 16)  # each change encodes the entire table, and most entries have not changed
def _encode_plain(entry: Entry) -> bytes:
    return _encode_entry(entry, _Heap())


def _encode_entry(entry: Entry, heap: _Heap) -> bytes:
    raw = ffi.new("struct ivs_table_entry *")
    raw.name = pack_name(entry.name)
    raw.kind = entry.kind
    raw.segment = entry.segment
    raw.offset = entry.offset
    raw.length = entry.length
    raw.align = entry.align
    raw.flags = entry.flags
    raw.serial = entry.serial
    if entry.dtype and entry.shape is not None:
        raw.dtype.offset, raw.dtype.length = heap.add(entry.dtype.encode())
        raw.shape.offset, raw.shape.length = heap.add(struct.pack(f"<{len(entry.shape)}Q", *entry.shape))
    return bytes(ffi.buffer(raw))


# --- decoding ---------------------------------------------------------------------------------------------------


def _codes(ctype: Any) -> str:
    """Return the format codes of Python's struct module for a C type.

    A struct decodes an entry five times faster than cffi, and a guest may receive thousands of entries. The layout
    still comes from the C declarations.
    """
    if ctype.kind == "struct":
        return "".join(_codes(field.type) for _, field in ctype.fields)
    if ctype.kind == "array":
        return f"{ffi.sizeof(ctype)}s"
    return {"uint32_t": "I", "int32_t": "i", "uint64_t": "Q"}[ctype.cname]


def _struct_of(name: str) -> struct.Struct:
    codes = f"<{_codes(ffi.typeof(name))}"
    return struct.Struct(f"{codes}{ffi.sizeof(name) - struct.calcsize(codes)}x")  # reserved bytes are at the end


_SEGMENT = _struct_of("struct ivs_table_segment")
_ENTRY = _struct_of("struct ivs_table_entry")
_KINDS = {int(kind): kind for kind in Kind}


def decode(raw: bytes) -> Table:
    """Return the table in bytes that the C core has validated: every index, range and heap reference is sound.

    Raise Corrupt for text that is not UTF-8.
    """
    head = ffi.cast("struct ivs_table *", ffi.from_buffer(raw))
    entries_at = ffi.sizeof("struct ivs_table") + head.n_segments * _SEGMENT.size
    heap_at = entries_at + head.n_entries * _ENTRY.size
    segments = raw[ffi.sizeof("struct ivs_table") : entries_at]
    heap = raw[heap_at:]
    try:
        return Table(
            segments=tuple([_decode_segment(fields, heap) for fields in _SEGMENT.iter_unpack(segments)]),
            entries=tuple([_decode_entry(fields, heap) for fields in _ENTRY.iter_unpack(raw[entries_at:heap_at])]),
            epoch=head.epoch,
            kept=bool(head.flags & lib.IVS_TABLE_KEPT),
            selector=head.selector,
        )
    except UnicodeDecodeError as error:
        raise Corrupt(f"a name that is not UTF-8: {error.object!r}") from error


def _decode_segment(fields: tuple[Any, ...], heap: bytes) -> SegmentRecord:
    uuid, size, page_size, host_address, socket_id, flags, group, path_at, path_length, epoch = fields
    return SegmentRecord(
        UUID(bytes=uuid),
        size,
        page_size,
        host_address,
        socket_id,
        unpack_name(group),
        epoch,
        heap[path_at : path_at + path_length].decode("utf-8", "surrogateescape"),
        bool(flags & lib.IVS_SEGMENT_READONLY),
    )


def _decode_entry(fields: tuple[Any, ...], heap: bytes) -> Entry:
    name, kind, segment, offset, length, align, flags, dtype_at, dtype_length, shape_at, shape_length, serial = fields
    text = name.partition(b"\0")[0].decode()  # unpack_name inlined: called for each of thousands of entries
    if not dtype_length:
        return Entry(text, _KINDS[kind], segment, offset, length, align, flags, "", None, serial)
    dtype = heap[dtype_at : dtype_at + dtype_length].decode()
    shape = struct.unpack(f"<{shape_length // 8}Q", heap[shape_at : shape_at + shape_length])
    return Entry(text, _KINDS[kind], segment, offset, length, align, flags, dtype, shape, serial)
