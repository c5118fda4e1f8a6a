"""What commands have in common: their options, JSON on stdout, and a console that people read."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

Command = TypeVar("Command", bound=Callable[..., Any])


def prefix_option(command: Command) -> Command:
    return click.option("--file-prefix", metavar="PREFIX", help="Only this file_prefix.")(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else.")


def print_json(data: Any) -> None:
    click.echo(json.dumps(data, indent=2))


def console() -> Console:
    """stdout for tables and colours."""
    from rich.console import Console

    # Where no terminal says how wide it is, nothing is cut: somebody may look for a name in it.
    width = None if sys.stdout.isatty() else 10_000
    return Console(highlight=False, soft_wrap=True, emoji=False, width=width)
