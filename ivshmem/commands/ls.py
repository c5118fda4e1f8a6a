"""`ivshmem ls`: the prefixes and their objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from eal import runtime
from ivshmem.terminal import console, json_option, prefix_option, print_json

if TYPE_CHECKING:
    from ivshmem.state import PrefixState


@click.command()
@prefix_option
@json_option
def ls(file_prefix: str | None, as_json: bool) -> None:
    """List prefixes with their objects, alive or dead.

    Example: ivshmem ls --file-prefix rte
    """
    from ivshmem.state import prefix_states

    states = prefix_states(runtime.runtime_dir(), file_prefix)
    if as_json:
        print_json([state.as_json() for state in states])
    elif not states:
        click.echo(f"nothing is shared in {runtime.runtime_dir()}")
    for state in states if not as_json else []:
        _print_state(state)


def _print_state(state: PrefixState) -> None:
    from rich.table import Table
    from rich.text import Text

    from ivshmem.dump import size_text

    out = console()
    pid = f", pid {state.pid}" if state.pid is not None else ""
    metadata = ", ".join(state.directory.metadata_names()) or "none"
    out.print(Text.assemble((state.prefix, "bold"), f" ({state.status}{pid}), metadata: {metadata}"))
    if state.table is None:
        out.print("  its registry cannot be read")
        return
    table = Table("kind", "name", "size", "group", "segment", "offset")
    for entry in sorted(state.table.entries, key=lambda e: (e.kind, e.name)):
        segment = state.table.segments[entry.segment]
        table.add_row(
            entry.kind.name.lower(),
            Text(entry.name),
            size_text(entry.length),
            Text(segment.group),
            str(segment.uuid)[:8],
            f"{entry.offset:#x}",
        )
    for segment in state.table.segments:
        out.print(f"  segment {str(segment.uuid)[:8]}: {size_text(segment.size)}, {segment.path}", markup=False)
    if state.table.entries:
        out.print(table)
