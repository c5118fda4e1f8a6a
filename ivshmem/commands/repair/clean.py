# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem clean`: remove the files of dead prefixes and of killed emulators and VMs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from eal.runtime import prefix_dir
from ivshmem.cli_options import json_option, prefix_option, print_json

if TYPE_CHECKING:
    from ivshmem.inspect.stale_files import StaleFiles


@click.command()
@prefix_option
@click.option("-y", "--yes", is_flag=True, help="Remove without confirmation.")
@click.option("-n", "--dry-run", is_flag=True, help="Only list the files.")
@json_option
def clean(file_prefix: str | None, yes: bool, dry_run: bool, as_json: bool) -> None:
    """List and remove the files of dead prefixes, and the scratch directories of killed `ivshmem emulate` and VMs.

    Files of live and kept prefixes are not removed. With --file-prefix no scratch directory is removed.

    Example: ivshmem clean --yes
    """
    from ivshmem import scratch
    from ivshmem.inspect.stale_files import find_stale_files, remove_stale_files

    pieces = find_stale_files(prefix_dir.runtime_dir(), file_prefix)
    folders = scratch.stale_folders() if file_prefix is None else []
    if as_json:
        found = [{"file_prefix": p.directory.prefix, "files": [str(f) for f in p.files]} for p in pieces]
        print_json([*found, *({"file_prefix": None, "files": [str(folder)]} for folder in folders)])
    else:
        _list(pieces, folders)
    if not (pieces or folders) or dry_run:
        return
    if not yes and not click.confirm("Remove them?", err=True):
        raise click.Abort
    for piece in pieces:
        remove_stale_files(piece)
    for folder in folders:
        scratch.remove(folder)


def _list(pieces: list[StaleFiles], folders: list[Path]) -> None:
    if not pieces and not folders:
        click.echo("nothing to clean")
    for piece in pieces:
        click.echo(f"{piece.directory.prefix} (dead):")
        for path in piece.files or [piece.directory.path]:
            click.echo(f"  {path}")
    if folders:
        click.echo("scratch directories of killed emulators and VMs:")
    for folder in folders:
        click.echo(f"  {folder}")
