# SPDX-License-Identifier: BSD-3-Clause
"""Dumps of metadata files, as text and as data for `--json`."""

from __future__ import annotations

from typing import Any, TextIO

from eal.metadata.records import Table, table_as_json
from eal.metadata.table_file import TableFile
from eal.text.sizes import size_text

_USE_KEYS = ("count", "capacity", "available", "n", "fault")  # of an object in an inspection


def _uses(state: dict[str, Any] | None) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the use of each object by kind and name, from an inspection of the metadata file."""
    objects = (one for segment in (state or {}).get("segments", ()) for one in segment["objects"])
    return {
        (one["kind"], one["name"]): {key: one[key] for key in _USE_KEYS if one.get(key) is not None} for one in objects
    }


def table_json(file: TableFile, path: str, state: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a metadata file as data, as printed by `ivshmem dump --json`. `state` is an inspection of the file."""
    table = file.read()
    uses = _uses(state)
    data = table_as_json(table)
    for entry in data["entries"]:
        entry["use"] = uses.get((entry["kind"], entry["name"]), {})
    return {
        "name": file.info.name,
        "uuid": str(file.info.uuid),
        "version": file.info.version,
        "path": path,
        "size": file.info.size,
        **data,
    }


def dump_table(file: TableFile, path: str, out: TextIO, state: dict[str, Any] | None = None) -> None:
    """Write a metadata file as text, with the use of each object if `state`, an inspection of the file, is given."""
    table = file.read()
    out.write(f"metadata {file.info.name!r}, version {file.info.version}, epoch {table.epoch}\n")
    out.write(f"  uuid {file.info.uuid}\n  file {path}, {size_text(file.info.size)}\n")
    for number, segment in enumerate(table.segments):
        access = "read-only" if segment.readonly else "read-write"
        out.write(
            f"  segment {number}: {segment.uuid}, {size_text(segment.size)} of {size_text(segment.page_size)} pages, "
            f"{access}, group {segment.group!r}, socket {segment.socket_id}, host address {segment.host_address:#x}\n"
        )
    _dump_entries(table, out, _uses(state))


def _dump_entries(table: Table, out: TextIO, uses: dict[tuple[str, str], dict[str, Any]]) -> None:
    if not table.entries:
        out.write("  no objects\n")
    for entry in sorted(table.entries, key=lambda e: (e.kind, e.name)):
        use = _use_text(uses.get((entry.kind.name.lower(), entry.name), {}))
        array = f", array {entry.dtype} {entry.shape}" if entry.dtype else ""
        out.write(
            f"  {entry.kind.name.lower()} {entry.name!r}: segment {entry.segment}, offset {entry.offset:#x}, "
            f"{entry.length} bytes{array}{use}\n"
        )


def _use_text(use: dict[str, Any]) -> str:
    if "fault" in use:
        return f", DAMAGED: {use['fault']}"
    if "capacity" in use:
        return f", {use['count']} of {use['capacity']} elements"
    return f", {use['available']} of {use['n']} objects available" if "n" in use else ""
