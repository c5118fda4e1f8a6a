"""Dumps: tables as text for people and as data for programs."""

from __future__ import annotations

from typing import Any, TextIO

from eal.table import Table, TableFile, table_as_json


def size_text(size: int) -> str:
    """Bytes as a person would say them: "2 MiB", "1000 B"."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor and size % factor == 0:
            return f"{size // factor} {unit}"
    return f"{size} B"


def table_json(file: TableFile, path: str) -> dict[str, Any]:
    """A metadata as data: what `ivshmem dump --json` prints."""
    table = file.read()
    return {
        "name": file.info.name,
        "uuid": str(file.info.uuid),
        "version": file.info.version,
        "path": path,
        "size": file.info.size,
        **table_as_json(table),
    }


def dump_table(file: TableFile, path: str, out: TextIO) -> None:
    """Writes a metadata as text."""
    table = file.read()
    out.write(f"metadata {file.info.name!r}, version {file.info.version}, epoch {table.epoch}\n")
    out.write(f"  uuid {file.info.uuid}\n  file {path}, {size_text(file.info.size)}\n")
    for number, segment in enumerate(table.segments):
        access = "read-only" if segment.readonly else "read-write"
        out.write(
            f"  segment {number}: {segment.uuid}, {size_text(segment.size)} of {size_text(segment.page_size)} pages, "
            f"{access}, group {segment.group!r}, socket {segment.socket_id}, host address {segment.host_address:#x}\n"
        )
    _dump_entries(table, out)


def _dump_entries(table: Table, out: TextIO) -> None:
    if not table.entries:
        out.write("  no objects\n")
    for entry in sorted(table.entries, key=lambda e: (e.kind, e.name)):
        array = f", array {entry.dtype} {entry.shape}" if entry.dtype else ""
        out.write(
            f"  {entry.kind.name.lower()} {entry.name!r}: segment {entry.segment}, offset {entry.offset:#x}, "
            f"{entry.length} bytes{array}\n"
        )
