# SPDX-License-Identifier: BSD-3-Clause
"""Table files: what a metadata gives to a VM and a registry keeps on the host, as Python data and back."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import lru_cache
from typing import Any
from uuid import UUID

from eal._native import ffi, lib
from eal.errors import Corrupt, NoMemory
from eal.linux.mapping import Mapping
from eal.native_handle import fault_text
from eal.text.names import pack_name, unpack_name

METADATA_MAGIC: int = lib.IVS_METADATA_MAGIC
REGISTRY_MAGIC: int = lib.IVS_REGISTRY_MAGIC


class Kind(IntEnum):
    """What an entry of a table is."""

    MEMZONE = lib.IVS_KIND_MEMZONE
    RING = lib.IVS_KIND_RING
    MEMPOOL = lib.IVS_KIND_MEMPOOL
    __hash__ = int.__hash__  # the enum's own is written in Python, and every object's key has a kind in it


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """A segment as a table names it. Sizes in bytes; `path` is empty in a metadata."""

    uuid: UUID
    size: int
    page_size: int
    host_address: int
    socket_id: int
    group: str
    epoch: int
    path: str = ""
    readonly: bool = False


@dataclass(unsafe_hash=True, slots=True)  # not frozen: that takes thrice the time, for each of thousands of entries
class Entry:
    """An object as a table names it; nobody changes one. `segment` is an index into the table's segments, `offset`
    counts from the first byte of that segment's file. `dtype` is a description (see eal.text.dtypes), "" where there is
    none; `shape` is None where there is none.
    """

    name: str
    kind: Kind
    segment: int
    offset: int
    length: int
    align: int = 64
    flags: int = 0
    dtype: str = ""
    shape: tuple[int, ...] | None = None
    serial: int = 0

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Table:
    """A whole table. `selector` is the number of the change that brought it into force."""

    segments: tuple[SegmentRecord, ...] = ()
    entries: tuple[Entry, ...] = ()
    epoch: int = 0
    kept: bool = False
    selector: int = 0

    def find(self, kind: Kind, name: str) -> Entry | None:
        return next((e for e in self.entries if e.kind == kind and e.name == name), None)


@dataclass(frozen=True, slots=True)
class TableInfo:
    """A table file's identity. `name` and `version` may be known of a file that is otherwise refused."""

    uuid: UUID
    size: int
    version: int
    name: str


@dataclass
class _Heap:
    data: bytearray = field(default_factory=bytearray)

    def add(self, piece: bytes) -> tuple[int, int]:
        at = len(self.data)
        self.data += piece
        return at, len(piece)


def encode(table: Table) -> bytes:
    """The table as it lies in a slot; length, selector and CRC are filled in by the C core when it is published."""
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


@lru_cache(maxsize=1 << 16)  # a table is encoded anew at each change, and most of it has not changed
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


def decode(raw: bytes) -> Table:
    """Data from a table that the C core has checked: every index, range and heap reference in it is sound.

    Raises Corrupt for text that is not UTF-8.
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


def _codes(ctype: Any) -> str:
    """The codes of Python's struct module for a C type. A guest may be given thousands of entries, and this way takes
    a fifth of the time of one through cffi; the layout is still the C core's.
    """
    if ctype.kind == "struct":
        return "".join(_codes(field.type) for _, field in ctype.fields)
    if ctype.kind == "array":
        return f"{ffi.sizeof(ctype)}s"
    return {"uint32_t": "I", "int32_t": "i", "uint64_t": "Q"}[ctype.cname]


def _struct_of(name: str) -> struct.Struct:
    codes = f"<{_codes(ffi.typeof(name))}"
    return struct.Struct(f"{codes}{ffi.sizeof(name) - struct.calcsize(codes)}x")  # what is reserved comes last


_SEGMENT = _struct_of("struct ivs_table_segment")
_ENTRY = _struct_of("struct ivs_table_entry")
_KINDS = {int(kind): kind for kind in Kind}


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
    text = name.partition(b"\0")[0].decode()  # as unpack_name does
    if not dtype_length:
        return Entry(text, _KINDS[kind], segment, offset, length, align, flags, "", None, serial)
    dtype = heap[dtype_at : dtype_at + dtype_length].decode()
    shape = struct.unpack(f"<{shape_length // 8}Q", heap[shape_at : shape_at + shape_length])
    return Entry(text, _KINDS[kind], segment, offset, length, align, flags, dtype, shape, serial)


_uncleared = ffi.new_allocator(should_clear_after_alloc=False)  # room for a table may be 16 MiB, a table is small


def table_room(size: int) -> int:
    """Bytes that a table may have in a table file of that size."""
    room: int = lib.ivs_table_room(size)
    return room


class TableFile:
    """A mapped table file. `what` names it in messages, such as "metadata 'vm0'" or a device's address."""

    def __init__(self, mapping: Mapping, info: TableInfo, what: str) -> None:
        self.mapping = mapping
        self.info = info
        self.what = what
        self._cached = Table(selector=-1)

    @classmethod
    def format(cls, mapping: Mapping, magic: int, name: str, uuid: UUID, *, epoch: int = 0) -> TableFile:
        """Makes an empty table file in a zeroed mapping."""
        raw = ffi.new("struct ivs_table_info *")
        raw.uuid, raw.size, raw.name = uuid.bytes, mapping.length, pack_name(name)
        lib.ivs_table_format(mapping.pointer(), magic, raw, epoch)
        return cls(mapping, TableInfo(uuid, mapping.length, lib.IVS_TABLE_VERSION, name), repr(name))

    @classmethod
    def open(cls, mapping: Mapping, magic: int, what: str) -> TableFile:
        """Checks the header. Raises Corrupt with the reason and, where readable, the name."""
        raw = ffi.new("struct ivs_table_info *")
        fault = lib.ivs_table_check_file(mapping.pointer(), mapping.length, magic, raw)
        name = ffi.string(raw.name).decode(errors="replace")
        if fault:
            raise Corrupt(f"{what}{f' ({name!r})' if name else ''}: {_explain(fault, raw.version)}")
        info = TableInfo(UUID(bytes=bytes(ffi.buffer(raw.uuid))), raw.size, raw.version, name)
        return cls(mapping, info, what)

    @staticmethod
    def readable_name(mapping: Mapping, magic: int) -> str:
        """The name in the header, also of a file that `open` refuses; "" where none can be read."""
        raw = ffi.new("struct ivs_table_info *")
        lib.ivs_table_check_file(mapping.pointer(), mapping.length, magic, raw)
        name: bytes = ffi.string(raw.name)
        return name.decode(errors="replace")

    @property
    def leaving(self) -> int:
        """The number of the unplug that its host has announced, 0 while there is none."""
        number: int = lib.ivs_table_leaving(self.mapping.pointer())
        return number

    def read(self) -> Table:
        """The table in force, decoded once for each change. Raises Corrupt with the reason."""
        if lib.ivs_table_selector(self.mapping.pointer()) == self._cached.selector:
            return self._cached
        copy = _uncleared("unsigned char[]", table_room(self.info.size))
        length = lib.ivs_table_read(self.mapping.pointer(), self.info.size, copy)
        if length < 0:
            raise Corrupt(f"{self.what} ({self.info.name!r}): {fault_text(-length)}")
        try:
            self._cached = decode(bytes(ffi.buffer(copy, length)))
        except Corrupt as error:
            raise Corrupt(f"{self.what} ({self.info.name!r}): {error}") from error
        return self._cached

    def publish(self, table: Table) -> Table:
        """Brings a table into force by one store; gives it back with its selector.

        Raises NoMemory where it does not fit the file. One writer at a time.
        """
        raw = bytearray(encode(table))
        result = lib.ivs_table_publish(self.mapping.pointer(), self.info.size, ffi.from_buffer(raw), len(raw))
        if result < 0:
            room = table_room(self.info.size)
            if len(raw) <= room:
                raise AssertionError(f"{self.what}: refused its own table {table}")
            raise NoMemory(
                f"{self.what} is full: a table of {len(raw)} bytes ({len(table.entries)} objects) does not fit "
                f"{room}; make it with a larger capacity"
            )
        self._cached = replace(table, selector=lib.ivs_table_selector(self.mapping.pointer()))
        return self._cached


def _explain(fault: int, version: int) -> str:
    if fault == lib.IVS_FAULT_VERSION:
        return f"format version {version}, this release knows {lib.IVS_TABLE_VERSION}: use a newer ivshmem"
    return fault_text(fault)


def table_as_json(table: Table) -> dict[str, Any]:
    """A table as data for `json.dumps`: what `--json` prints of it."""
    return {
        "epoch": table.epoch,
        "kept": table.kept,
        "segments": [
            {
                "uuid": str(s.uuid),
                "size": s.size,
                "page_size": s.page_size,
                "host_address": s.host_address,
                "socket_id": s.socket_id,
                "group": s.group,
                "epoch": s.epoch,
                "path": s.path,
                "readonly": s.readonly,
            }
            for s in table.segments
        ],
        "entries": [
            {
                "name": e.name,
                "kind": e.kind.name.lower(),
                "segment": str(table.segments[e.segment].uuid),
                "offset": e.offset,
                "length": e.length,
                "align": e.align,
                "flags": e.flags,
                "dtype": e.dtype or None,
                "shape": e.shape,
            }
            for e in table.entries
        ],
    }
