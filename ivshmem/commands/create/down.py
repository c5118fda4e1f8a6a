# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem down`: remove all files of a file_prefix."""

from __future__ import annotations

from pathlib import Path

import click

from ivshmem.cli_options import complete_prefix, json_option, print_json


@click.command()
@click.argument("plan", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option(
    "--file-prefix",
    metavar="PREFIX",
    help="Use this file_prefix instead of a plan.",
    shell_complete=complete_prefix,
)
@click.option("--force", is_flag=True, help="Remove files that live processes hold; these keep their mappings.")
@json_option
def down(plan: Path | None, file_prefix: str | None, force: bool, as_json: bool) -> None:
    """Remove all segments, objects and metadata files of the file_prefix of PLAN.

    If a live process or VM holds one of the files, nothing is removed, the error names the process, and the exit status
    is 1. A file_prefix without files is not an error.

    Example: ivshmem down plan.toml
    """
    from ivshmem.plan import teardown
    from ivshmem.plan.load import load_prefix

    if (plan is None) == (file_prefix is None):
        raise click.UsageError("specify either PLAN or --file-prefix")
    prefix = file_prefix if file_prefix is not None else load_prefix(plan or Path())
    removed = teardown.down(prefix, force=force)
    if as_json:
        print_json(vars(removed))
    elif not removed.files:
        click.echo(f"file_prefix {prefix!r}: nothing to remove")
    else:
        if removed.held_by:
            click.echo(f"Warning: removed files are held by {removed.held_by}", err=True)
        click.echo(f"removed file_prefix {prefix!r}: {len(removed.files)} files")
