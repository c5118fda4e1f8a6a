"""`ivshmem clean`: files of dead prefixes are removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from eal import runtime
from ivshmem.terminal import json_option, prefix_option, print_json

if TYPE_CHECKING:
    from ivshmem.state import Garbage


@click.command()
@prefix_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("-n", "--dry-run", is_flag=True, help="List only.")
@json_option
def clean(file_prefix: str | None, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Remove the files of dead prefixes, after listing them.

    Prefixes that are alive or kept are left alone.

    Example: ivshmem clean --yes
    """
    from ivshmem.state import garbage, remove_garbage

    pieces = garbage(runtime.runtime_dir(), file_prefix)
    if as_json:
        print_json([{"file_prefix": p.directory.prefix, "files": [str(f) for f in p.files]} for p in pieces])
    else:
        _list_garbage(pieces)
    if not pieces or dry_run:
        return
    if not yes and not click.confirm("Remove them?", err=True):
        raise click.Abort
    for piece in pieces:
        remove_garbage(piece)


def _list_garbage(pieces: list[Garbage]) -> None:
    if not pieces:
        click.echo("nothing to clean")
    for piece in pieces:
        click.echo(f"{piece.directory.prefix} (dead):")
        for path in piece.files or [piece.directory.path]:
            click.echo(f"  {path}")
