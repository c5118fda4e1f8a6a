# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem ls`: list the prefixes and their objects."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from eal.runtime import prefix_dir
from ivshmem.cli_options import console, json_option, prefix_option, print_json

if TYPE_CHECKING:
    from eal.metadata.records import Table
    from ivshmem.inspect.prefixes import PrefixState


@click.command()
@prefix_option
@json_option
def ls(file_prefix: str | None, as_json: bool) -> None:
    """List all prefixes, alive or dead, with their objects and fill levels. Files are only read.

    If a file is damaged, the exit status is 1 and the readable part is listed.

    Example: ivshmem ls --file-prefix rte
    """
    from ivshmem.inspect.prefixes import prefix_states

    states = prefix_states(prefix_dir.runtime_dir(), file_prefix)
    data = [state.as_json() for state in states]
    if as_json:
        print_json(data)
    elif not states:
        click.echo(f"no prefixes in {prefix_dir.runtime_dir()}")
    for state, one in zip(states, data, strict=True) if not as_json else ():
        _print_state(state, one["files"])
    sys.exit(1 if any(file["faults"] for one in data for file in one["files"]) else 0)


def _print_state(state: PrefixState, files: list[dict[str, Any]]) -> None:
    from rich.text import Text

    out = console()
    pid = f", pid {state.pid}" if state.pid is not None else ""
    metadata = ", ".join(state.directory.metadata_names()) or "none"
    out.print(Text.assemble((state.prefix, "bold"), f" ({state.status}{pid}), metadata: {metadata}"))
    if state.table is None:
        out.print("  registry cannot be read")
    else:
        _print_table(state.table, files[0])
    for fault in dict.fromkeys(fault for file in files for fault in file["faults"]):
        out.print(f"  FAULT: {fault}", markup=False)


def _print_table(registry: Table, file: dict[str, Any]) -> None:
    """Print the objects of a registry. `file` is the inspection of its segments, which has the fill levels."""
    from rich.table import Table as Rows
    from rich.text import Text

    from eal.text.sizes import size_text
    from ivshmem.inspect.text import use_text

    out = console()
    objects = (one for segment in file.get("segments", ()) for one in segment["objects"])
    uses = {(one["kind"], one["name"]): use_text(one) for one in objects}
    rows = Rows("kind", "name", "size", "group", "segment", "offset", "use")
    for entry in sorted(registry.entries, key=lambda e: (e.kind, e.name)):
        segment = registry.segments[entry.segment]
        kind = entry.kind.name.lower()
        rows.add_row(
            kind,
            Text(entry.name),
            size_text(entry.length),
            Text(segment.group),
            str(segment.uuid)[:8],
            f"{entry.offset:#x}",
            uses.get((kind, entry.name), ""),
        )
    for segment in registry.segments:
        out.print(f"  segment {str(segment.uuid)[:8]}: {size_text(segment.size)}, {segment.path}", markup=False)
    if registry.entries:
        out.print(rows)
