# SPDX-License-Identifier: BSD-3-Clause
"""Inspection: what the files of segments, metadata and registries say, with nobody alive and without changing them."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from eal._native import ffi, lib
from eal.errors import Corrupt, Denied, EalError, NotFound
from eal.lifecycle import cleanup as leftovers
from eal.linux.mapping import Mapping
from eal.memory.segment import HEADER_SIZE, Segment, read_header
from eal.metadata.records import SegmentRecord, Table, table_as_json
from eal.metadata.table_file import METADATA_MAGIC, REGISTRY_MAGIC, TableFile, TableInfo, decode
from eal.native_handle import fault_text
from eal.runtime import prefix_dir as runtime
from ivshmem.inspect.objects import find_objects, object_json, participants_json

_KINDS = {lib.IVS_SEGMENT_MAGIC: "segment", METADATA_MAGIC: "metadata", REGISTRY_MAGIC: "registry"}
_MAGICS = {kind: magic for magic, kind in _KINDS.items()}
_SEGMENT_HEADER = struct.Struct("<QII16sQQQiIQ32s")  # struct ivs_segment up to its group
_TABLE_HEADER = struct.Struct("<QII16sQ32s")  # struct ivs_table_file up to its name
_SELECTOR_AT = 128
_NEIGHBOURS = 1000  # files of a folder that are looked at for the table of a segment


@dataclass
class Inspection:
    """What a file says: `data` for `json.dumps`, and what is wrong with it or with files that it names."""

    data: dict[str, Any]
    faults: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {**self.data, "faults": self.faults}


def inspect_file(path: Path) -> Inspection:
    """Looks into a file, also one that was copied elsewhere. Raises NotFound, Denied, or Corrupt for what is no file of
    ours at all; whatever else is wrong stands in `faults`, beside what can be told in spite of it.
    """
    mapping = _map(path)
    found = Inspection({"path": str(path), "kind": _kind_of(mapping, path), "bytes": mapping.length})
    if found.data["kind"] == "segment":
        _inspect_segment(found, mapping, path)
    else:
        _inspect_table(found, mapping, path)
    return found


def inspect_leniently(path: Path) -> Inspection:
    """The same for a file that is known to be ours: one that cannot be looked into at all is nothing but a fault."""
    try:
        return inspect_file(path)
    except EalError as error:
        return Inspection({"path": str(path), "kind": "unreadable"}, [str(error)])


def _map(path: Path) -> Mapping:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}") from error
    except OSError as error:
        raise Denied(f"cannot open {path}: {error.strerror}") from error
    try:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            raise Corrupt(f"{path} is not a regular file: name a segment, a metadata or a registry")
        if state.st_size < HEADER_SIZE:
            raise Corrupt(f"{path} has {state.st_size} bytes, not even a header: it was truncated, or is not ours")
        return Mapping(fd, state.st_size, writable=False, label=str(path))
    finally:
        os.close(fd)


def _kind_of(mapping: Mapping, path: Path) -> str:
    """By the magic, or where that is damaged by the name."""
    magic = int.from_bytes(mapping.view(0, 8), "little")
    named = {".seg": "segment", ".md": "metadata"}.get(path.suffix, "registry" if path.name == "registry" else None)
    kind = _KINDS.get(magic, named)
    if kind is None:
        raise Corrupt(f"{path} begins with {magic:#018x}: neither a segment, nor a metadata, nor a registry")
    return kind


# --- segments ---------------------------------------------------------------------------------------------------


def _inspect_segment(found: Inspection, mapping: Mapping, path: Path) -> None:
    record = _segment_record(found, mapping, path)
    source, table = _table_for(record.uuid, path)
    found.data["names_from"] = str(source) if source else None
    entries = [e for e in table.entries if table.segments[e.segment].uuid == record.uuid] if table else None
    _add_segment(found, mapping, record, path, entries)


def _segment_record(found: Inspection, mapping: Mapping, path: Path) -> SegmentRecord:
    """The header, as it stands there where it is damaged."""
    _, version, _, uuid, size, page_size, address, socket_id, _, epoch, group = _SEGMENT_HEADER.unpack_from(
        mapping.view(0, HEADER_SIZE)
    )
    name = group.split(b"\0", 1)[0].decode(errors="replace")
    record = SegmentRecord(UUID(bytes=uuid), size, page_size, address, socket_id, name, epoch, path=str(path))
    found.data["version"] = version
    try:
        read_header(mapping, str(path))
    except Corrupt as error:
        found.faults.append(f"{error} (the file has {mapping.length} bytes)")
    return record


def _add_segment(
    found: Inspection, mapping: Mapping, record: SegmentRecord, path: Path, entries: list[Any] | None
) -> None:
    """A segment's header, participants and objects; without `entries` the objects are looked for."""
    segment = Segment(record, mapping, str(path), socket_id=record.socket_id)
    found.data.update(
        uuid=str(record.uuid),
        size=record.size,
        page_size=record.page_size,
        host_address=record.host_address,
        socket_id=record.socket_id,
        group=record.group,
        epoch=record.epoch,
        retired=segment.retired,
        participants=participants_json(segment),
    )
    objects = found.data["objects"] = []
    for entry in find_objects(mapping) if entries is None else entries:
        one = object_json(entry, segment, mapping.length)
        objects.append(one)
        if one["fault"]:
            found.faults.append(f"{path}: {one['fault']}")


def _table_for(uuid: UUID, path: Path) -> tuple[Path, Table] | tuple[None, None]:
    """The table that names the objects of a segment: of a registry beside the file or of this runtime directory, else
    of a metadata beside it.
    """
    for candidate in _tables_near(path):
        table = _readable_table(candidate)
        if table is not None and any(record.uuid == uuid for record in table.segments):
            return candidate, table
    return None, None


def _tables_near(path: Path) -> Iterator[Path]:
    yield path.parent / "registry"
    try:
        yield from (directory.registry for directory in runtime.prefixes(runtime.runtime_dir()))
    except EalError:
        pass  # somebody else's; the metadata beside the file may still tell
    yield from sorted(path.parent.glob("*.md"))[:_NEIGHBOURS]


def _readable_table(path: Path) -> Table | None:
    try:
        mapping = _map(path)
        magic = int.from_bytes(mapping.view(0, 8), "little")
        return TableFile.open(mapping, magic, str(path)).read() if _KINDS.get(magic) != "segment" else None
    except EalError:
        return None


# --- metadata and registries --------------------------------------------------------------------------------------


def _inspect_table(found: Inspection, mapping: Mapping, path: Path) -> None:
    kind = found.data["kind"]
    _, version, _, uuid, size, name = _TABLE_HEADER.unpack_from(mapping.view(0, HEADER_SIZE))
    found.data.update(name=name.split(b"\0", 1)[0].decode(errors="replace"), uuid=str(UUID(bytes=uuid)), size=size)
    found.data.update(version=version, leaving=lib.ivs_table_leaving(mapping.pointer()), former=False)
    try:
        file = TableFile.open(mapping, _MAGICS[kind], f"{kind} {path}")
    except Corrupt as error:
        found.faults.append(str(error))
        file = _headless(mapping, kind, path)
    table = _table_in_force(found, file)
    if table is None:
        return
    found.data.update(table_as_json(table), selector=table.selector)
    for number, record in enumerate(table.segments):
        entries = [entry for entry in table.entries if entry.segment == number]
        found.data["segments"][number].update(_segment_of_table(found, record, path, entries))


def _headless(mapping: Mapping, kind: str, path: Path) -> TableFile:
    """A table file whose header is damaged: its size is the file's, and its tables have checksums of their own."""
    return TableFile(mapping, TableInfo(UUID(int=0), mapping.length, 0, path.name), f"{kind} {path}")


def _table_in_force(found: Inspection, file: TableFile) -> Table | None:
    """The table in force, or the one before it where that is damaged."""
    try:
        return file.read()
    except Corrupt as error:
        found.faults.append(str(error))
    former = bytearray(file.mapping.view())
    selector = int.from_bytes(former[_SELECTOR_AT : _SELECTOR_AT + 8], "little")
    former[_SELECTOR_AT : _SELECTOR_AT + 8] = ((selector - 1) % (1 << 64)).to_bytes(8, "little")
    try:
        table = _decode(former, file)
    except Corrupt:
        return None
    found.data["former"] = True
    return table


def _decode(image: bytearray, file: TableFile) -> Table:
    """The table in force of a table file's image in private memory. Raises Corrupt."""
    copy = bytearray(lib.ivs_table_room(file.info.size))
    length = lib.ivs_table_read(ffi.from_buffer(image), file.info.size, ffi.from_buffer(copy))
    if length < 0:
        raise Corrupt(f"{file.label}: {fault_text(-length)}")
    return decode(bytes(copy[:length]))


def _segment_of_table(found: Inspection, record: SegmentRecord, path: Path, entries: list[Any]) -> dict[str, Any]:
    """What a segment that a table names holds, from its file: the one beside the table if there is one."""
    there = _segment_file(record, path)
    part = Inspection({"path": str(there) if there else record.path, "objects": []})
    try:
        if there is None:
            raise NotFound(f"the file of segment {record.uuid} is gone")
        mapping = _map(there)
        header = _segment_record(part, mapping, there)
        if header.uuid != record.uuid:
            part.faults.append(f"{there} holds segment {header.uuid}, not {record.uuid}")
        _add_segment(part, mapping, record, there, entries)
    except EalError as error:
        part.faults.append(str(error))
        part.data["objects"] = [object_json(entry, None, 0) for entry in entries]
    found.faults.extend(part.faults)
    return {"path": part.data["path"], **{key: part.data.get(key) for key in ("retired", "participants", "objects")}}


def _segment_file(record: SegmentRecord, path: Path) -> Path | None:
    folder = path.resolve().parent
    for beside in sorted(folder.glob(f"*{record.uuid.hex}.seg")):
        return beside
    if record.path:
        return Path(record.path) if os.path.exists(record.path) else None
    return next(leftovers.segment_files(record.uuid), None)


# --- by name --------------------------------------------------------------------------------------------------------


def locate(root: Path, name: str, prefix: str | None = None) -> Path:
    """The file that a name means: a path, a metadata's name, or a file_prefix (its registry). Raises NotFound."""
    if "/" in name or (prefix is None and os.path.isfile(name)):
        return Path(name)
    directories = [d for d in runtime.prefixes(root) if prefix in (None, d.prefix)]
    for directory in directories:
        if name in directory.metadata_names():
            return directory.metadata_link(name)
    for directory in directories:
        if name == directory.prefix:
            return directory.registry
    metadata = sorted(repr(there) for d in directories for there in d.metadata_names())
    known = ", ".join([*metadata, *(repr(d.prefix) for d in directories)]) or "none"
    raise NotFound(f"{name!r} is no file, and no metadata or file_prefix in {root}; there are: {known}")
