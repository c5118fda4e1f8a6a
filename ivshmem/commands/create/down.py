# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem down`: takes away what a plan made."""

from __future__ import annotations

from pathlib import Path

import click

from ivshmem.cli_options import complete_prefix, json_option, print_json


@click.command()
@click.argument("plan", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option("--file-prefix", metavar="PREFIX", help="This one, instead of a plan's.", shell_complete=complete_prefix)
@click.option("--force", is_flag=True, help="Even if somebody alive holds it; they keep what they have mapped.")
@json_option
def down(plan: Path | None, file_prefix: str | None, force: bool, as_json: bool) -> None:
    """Take away all that the file PLAN, or a file_prefix, has in place.

    While a living process or VM holds any of it, nothing is removed and the exit status is 1: the error says who. That
    nothing is there is no error.

    Example: ivshmem down plan.toml
    """
    from ivshmem.plan.schema import load_prefix
    from ivshmem.plan.teardown import down as take_away

    if (plan is None) == (file_prefix is None):
        raise click.UsageError("give either a plan or --file-prefix")
    prefix = file_prefix if file_prefix is not None else load_prefix(plan or Path())
    removed = take_away(prefix, force=force)
    if as_json:
        print_json(vars(removed))
    elif not removed.files:
        click.echo(f"file_prefix {prefix!r}: nothing was there")
    else:
        if removed.held_by:
            click.echo(f"Warning: it was held by {removed.held_by}", err=True)
        click.echo(f"removed file_prefix {prefix!r}: {len(removed.files)} files")
