# SPDX-License-Identifier: BSD-3-Clause
"""Inspection of segment, metadata and registry files, of live and dead prefixes, without a change to the files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from eal._native import ffi, lib
from eal.errors import Corrupt, Denied, EalError, NotFound
from eal.lifecycle import cleanup
from eal.linux.mapping import Mapping
from eal.memory.segment import HEADER_SIZE, Segment, read_header
from eal.metadata.records import Entry, SegmentRecord, Table, table_as_json
from eal.metadata.table_file import METADATA_MAGIC, REGISTRY_MAGIC, TableFile, TableInfo, decode
from eal.native_handle import fault_text
from eal.runtime import prefix_dir
from ivshmem.inspect.objects import find_objects, object_json, participants_json

_KINDS = {lib.IVS_SEGMENT_MAGIC: "segment", METADATA_MAGIC: "metadata", REGISTRY_MAGIC: "registry"}
_MAGICS = {kind: magic for magic, kind in _KINDS.items()}
_MAX_METADATA_FILES = 1000  # of a directory that is searched for the table of a segment


@dataclass
class Inspection:
    """The content of a file: `data` for `json.dumps`, and the faults of the file and of the files that it names."""

    data: dict[str, Any]
    faults: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {**self.data, "faults": self.faults}


def inspect_file(path: Path) -> Inspection:
    """Inspect a file, or a copy of a file in another directory.

    Every fault is listed in `faults`, beside the data that is still readable. Raise NotFound, Denied, or Corrupt if the
    file is neither a segment nor a metadata file nor a registry.
    """
    mapping = _map(path)
    found = Inspection({"path": str(path), "kind": _kind_of(mapping, path), "bytes": mapping.length})
    if found.data["kind"] == "segment":
        _inspect_segment(found, mapping, path)
    else:
        _inspect_table(found, mapping, path)
    return found


def inspect_leniently(path: Path) -> Inspection:
    """Inspect a file that belongs to a prefix. Where `inspect_file` raises, return the error as a fault."""
    try:
        return inspect_file(path)
    except EalError as error:
        return Inspection({"path": str(path), "kind": "unreadable"}, [str(error)])


def _map(path: Path) -> Mapping:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise NotFound(f"file {path} does not exist") from error
    except OSError as error:
        raise Denied(f"cannot open {path}: {error.strerror}") from error
    try:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            raise Corrupt(f"{path} must be a regular file: a segment, a metadata file or a registry")
        if state.st_size < HEADER_SIZE:
            raise Corrupt(
                f"{path} must have at least {HEADER_SIZE} bytes, got {state.st_size}: it was truncated, or is not an "
                "ivshmem file"
            )
        return Mapping(fd, state.st_size, writable=False, label=str(path))
    finally:
        os.close(fd)


def _table_header(mapping: Mapping) -> Any:
    """Return the header of a table file as a C struct, unvalidated. Every kind of file begins with the same magic."""
    return ffi.cast("struct ivs_table_file *", mapping.pointer())


def _kind_of(mapping: Mapping, path: Path) -> str:
    """Return the kind of a file by its magic, or by its name if the magic is damaged."""
    magic = _table_header(mapping).magic
    named = {".seg": "segment", ".md": "metadata"}.get(path.suffix, "registry" if path.name == "registry" else None)
    kind = _KINDS.get(magic, named)
    if kind is None:
        raise Corrupt(f"{path} must begin with the magic of a segment, metadata file or registry, got {magic:#018x}")
    return kind


def _text(name: Any) -> str:
    """Return a name of a damaged header."""
    raw: bytes = ffi.string(name)
    return raw.decode(errors="replace")


# --- segments ---------------------------------------------------------------------------------------------------


def _inspect_segment(found: Inspection, mapping: Mapping, path: Path) -> None:
    record = _segment_record(found, mapping, path)
    source, table = _table_for(record.uuid, path)
    found.data["names_from"] = str(source) if source else None
    entries = [e for e in table.entries if table.segments[e.segment].uuid == record.uuid] if table else None
    _add_segment(found, mapping, record, path, entries)


def _segment_record(found: Inspection, mapping: Mapping, path: Path) -> SegmentRecord:
    """Return the record in a segment's header, unvalidated, and add the fault of a damaged header."""
    header = ffi.cast("struct ivs_segment *", mapping.pointer())
    found.data["version"] = header.version
    try:
        read_header(mapping, str(path))
    except Corrupt as error:
        found.faults.append(f"{error} (the file has {mapping.length} bytes)")
    return SegmentRecord(
        UUID(bytes=bytes(header.uuid)),
        header.size,
        header.page_size,
        header.host_address,
        header.socket_id,
        _text(header.group),
        header.epoch,
        path=str(path),
    )


def _add_segment(
    found: Inspection, mapping: Mapping, record: SegmentRecord, path: Path, entries: list[Entry] | None
) -> None:
    """Add a segment's header, participants and objects; without `entries`, search the segment for objects."""
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
    """Return a table file that lists a segment, with its table; (None, None) if there is none."""
    for candidate in _tables_near(path):
        table = _readable_table(candidate)
        if table is not None and any(record.uuid == uuid for record in table.segments):
            return candidate, table
    return None, None


def _tables_near(path: Path) -> Iterator[Path]:
    """Yield registries and metadata files that may list a segment.

    First the registry in the segment's directory, then those of the runtime directory, then the metadata files in the
    segment's directory.
    """
    yield path.parent / "registry"
    try:
        yield from (directory.registry for directory in prefix_dir.prefixes(prefix_dir.runtime_dir()))
    except EalError:
        pass  # the runtime directory belongs to another user
    yield from sorted(path.parent.glob("*.md"))[:_MAX_METADATA_FILES]


def _readable_table(path: Path) -> Table | None:
    try:
        mapping = _map(path)
        magic = _table_header(mapping).magic
        return TableFile.open(mapping, magic, str(path)).read() if _KINDS.get(magic) != "segment" else None
    except EalError:
        return None


# --- metadata files and registries --------------------------------------------------------------------------------


def _inspect_table(found: Inspection, mapping: Mapping, path: Path) -> None:
    kind = found.data["kind"]
    header = _table_header(mapping)
    found.data.update(name=_text(header.name), uuid=str(UUID(bytes=bytes(header.uuid))), size=header.size)
    found.data.update(version=header.version, leaving=lib.ivs_table_leaving(mapping.pointer()), former=False)
    try:
        file = TableFile.open(mapping, _MAGICS[kind], f"{kind} {path}")
    except Corrupt as error:
        found.faults.append(str(error))
        file = _headerless(mapping, kind, path)
    table = _current_table(found, file)
    if table is None:
        return
    found.data.update(table_as_json(table), selector=table.selector)
    for number, record in enumerate(table.segments):
        entries = [entry for entry in table.entries if entry.segment == number]
        found.data["segments"][number].update(_listed_segment(found, record, path, entries))


def _headerless(mapping: Mapping, kind: str, path: Path) -> TableFile:
    """Return a table file with a damaged header: its tables have CRCs of their own, its size is that of the file."""
    return TableFile(mapping, TableInfo(UUID(int=0), mapping.length, 0, path.name), f"{kind} {path}")


def _current_table(found: Inspection, file: TableFile) -> Table | None:
    """Return the current table, or the previous one if the current one is damaged; None if both are."""
    try:
        return file.read()
    except Corrupt as error:
        found.faults.append(str(error))
    image = bytearray(file.mapping.view())
    header = ffi.cast("struct ivs_table_file *", ffi.from_buffer(image))
    header.selector = (header.selector - 1) % (1 << 64)
    try:
        table = _decode(image, file)
    except Corrupt:
        return None
    found.data["former"] = True
    return table


def _decode(image: bytearray, file: TableFile) -> Table:
    """Return the current table of a private copy of a table file. Raise Corrupt."""
    copy = bytearray(lib.ivs_table_room(file.info.size))
    length = lib.ivs_table_read(ffi.from_buffer(image), file.info.size, ffi.from_buffer(copy))
    if length < 0:
        raise Corrupt(f"{file.label}: {fault_text(-length)}")
    return decode(bytes(copy[:length]))


def _listed_segment(found: Inspection, record: SegmentRecord, path: Path, entries: list[Entry]) -> dict[str, Any]:
    """Return the content of a segment that a table lists, read from the segment's file."""
    file = _segment_file(record, path)
    part = Inspection({"path": str(file) if file else record.path, "objects": []})
    try:
        if file is None:
            raise NotFound(f"file of segment {record.uuid} does not exist")
        mapping = _map(file)
        header = _segment_record(part, mapping, file)
        if header.uuid != record.uuid:
            part.faults.append(f"{file} must contain segment {record.uuid}, got {header.uuid}")
        _add_segment(part, mapping, record, file, entries)
    except EalError as error:
        part.faults.append(str(error))
        part.data["objects"] = [object_json(entry, None, 0) for entry in entries]
    found.faults.extend(part.faults)
    return {"path": part.data["path"], **{key: part.data.get(key) for key in ("retired", "participants", "objects")}}


def _segment_file(record: SegmentRecord, path: Path) -> Path | None:
    """Return the file of a segment, preferably the one in the directory of the table file `path`."""
    directory = path.resolve().parent
    for candidate in sorted(directory.glob(f"*{record.uuid.hex}.seg")):
        return candidate
    if record.path:
        return Path(record.path) if os.path.exists(record.path) else None
    return next(cleanup.segment_files(record.uuid), None)


# --- by name ----------------------------------------------------------------------------------------------------


def locate(root: Path, name: str, prefix: str | None = None) -> Path:
    """Return the file that a name selects: a path, the name of a metadata file, or a file_prefix (its registry).

    Raise NotFound with the existing names.
    """
    if "/" in name or (prefix is None and os.path.isfile(name)):
        return Path(name)
    directories = [d for d in prefix_dir.prefixes(root) if prefix in (None, d.prefix)]
    for directory in directories:
        if name in directory.metadata_names():
            return directory.metadata_link(name)
    for directory in directories:
        if name == directory.prefix:
            return directory.registry
    metadata = sorted(repr(existing) for d in directories for existing in d.metadata_names())
    existing = ", ".join([*metadata, *(repr(d.prefix) for d in directories)]) or "none"
    raise NotFound(f"name must be a file, or a metadata name or file_prefix in {root} ({existing}), got {name!r}")
