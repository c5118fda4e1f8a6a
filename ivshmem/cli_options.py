# SPDX-License-Identifier: BSD-3-Clause
"""Options, JSON output and console that several commands use."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from eal.errors import EalError
from eal.runtime import prefix_dir

if TYPE_CHECKING:
    from rich.console import Console

Command = TypeVar("Command", bound=Callable[..., Any])


def complete_metadata(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of metadata that start with `incomplete`, only of --file-prefix if it was given."""
    from ivshmem.metadata.lookup import metadata_names

    try:
        names = metadata_names(prefix_dir.runtime_dir(), ctx.params.get("file_prefix"))
    except EalError:
        return []  # shell completion cannot show an error
    return [name for name in names if name.startswith(incomplete)]


def complete_prefix(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    try:
        return [d.prefix for d in prefix_dir.prefixes(prefix_dir.runtime_dir()) if d.prefix.startswith(incomplete)]
    except EalError:
        return []


def metadata_argument(command: Command) -> Command:
    return click.argument("name", shell_complete=complete_metadata)(command)


def metadata_arguments(metavar: str) -> Callable[[Command], Command]:
    """Return an argument `names` of at least one metadata name."""
    return click.argument("names", nargs=-1, required=True, metavar=metavar, shell_complete=complete_metadata)


def prefix_option(command: Command) -> Command:
    return click.option(
        "--file-prefix", metavar="PREFIX", help="Only use this file_prefix.", shell_complete=complete_prefix
    )(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Print only JSON.")


def print_json(data: Any) -> None:
    click.echo(json.dumps(data, indent=2))


def console() -> Console:
    """Return a rich console on stdout, for tables and colours."""
    from rich.console import Console

    # Without a terminal there is no width: do not truncate names, which scripts may search for.
    width = None if sys.stdout.isatty() else 10_000
    return Console(highlight=False, soft_wrap=True, emoji=False, width=width)
