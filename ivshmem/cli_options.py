# SPDX-License-Identifier: BSD-3-Clause
"""What commands have in common: their options, JSON on stdout, and a console that people read."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from eal.errors import EalError
from eal.runtime import prefix_dir as runtime

if TYPE_CHECKING:
    from rich.console import Console

Command = TypeVar("Command", bound=Callable[..., Any])


def complete_metadata(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The names of metadata that start so, of the prefix that was given if one was."""
    from ivshmem.inspect.prefixes import metadata_names

    try:
        names = metadata_names(runtime.runtime_dir(), ctx.params.get("file_prefix"))
    except EalError:
        return []  # a shell that completes has no place for what is wrong
    return [name for name in names if name.startswith(incomplete)]


def complete_prefix(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    try:
        return [d.prefix for d in runtime.prefixes(runtime.runtime_dir()) if d.prefix.startswith(incomplete)]
    except EalError:
        return []


def metadata_argument(command: Command) -> Command:
    return click.argument("name", shell_complete=complete_metadata)(command)


def metadata_arguments(metavar: str) -> Callable[[Command], Command]:
    """One name or more, as `names`."""
    return click.argument("names", nargs=-1, required=True, metavar=metavar, shell_complete=complete_metadata)


def prefix_option(command: Command) -> Command:
    return click.option(
        "--file-prefix", metavar="PREFIX", help="Only this file_prefix.", shell_complete=complete_prefix
    )(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else.")


def print_json(data: Any) -> None:
    click.echo(json.dumps(data, indent=2))


def console() -> Console:
    """stdout for tables and colours."""
    from rich.console import Console

    # Where no terminal says how wide it is, nothing is cut: somebody may look for a name in it.
    width = None if sys.stdout.isatty() else 10_000
    return Console(highlight=False, soft_wrap=True, emoji=False, width=width)
