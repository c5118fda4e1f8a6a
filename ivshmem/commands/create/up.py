# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem up`: apply a plan."""

from __future__ import annotations

import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ivshmem.cli_options import json_option, print_json

if TYPE_CHECKING:
    from ivshmem.plan.apply import Outcome, StartProgress


@click.command()
@click.argument("plan", type=click.Path(dir_okay=False, path_type=Path))
@click.option("-n", "--check", "check_only", is_flag=True, help="Only check the plan; create nothing.")
@json_option
def up(plan: Path, check_only: bool, as_json: bool) -> None:
    """Create the segments, objects and metadata files that the file PLAN describes.

    Prints the QEMU options of each VM. All objects stay in place when the command ends. If an earlier version of the
    plan is in place, only the difference is applied; changes of objects that are in use or cannot be resized are
    refused. On any error the previous state is restored. docs/plan.md describes the file format.

    Example: ivshmem up plan.toml
    """
    from ivshmem.plan import apply
    from ivshmem.plan.load import load

    loaded = load(plan)
    if check_only:
        if as_json:
            print_json({"file_prefix": loaded.file_prefix, "faults": []})
        else:
            click.echo(f"{plan}: OK")
        return
    with (
        _interruptible(),
        _progress(quiet=as_json) as start_progress,
        warnings.catch_warnings(record=True) as caught,
    ):
        outcome = apply.up(loaded, start_progress)
    for warning in caught:
        click.echo(f"Warning: {warning.message}", err=True)
    if as_json:
        print_json(outcome.as_json())
    else:
        _print(outcome)


def _print(outcome: Outcome) -> None:
    for change in outcome.changes:
        click.echo(str(change))
    if not outcome.changes:
        click.echo("no change")
    for name, args in outcome.vms.items():
        click.echo(f"QEMU options of VM {name}:\n  {shlex.join(args)}")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt on the first SIGINT or SIGTERM; ignore further ones, so that the rollback completes."""

    def interrupt(number: int, _: object) -> None:
        for each in old_handlers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    old_handlers: dict[int, Any] = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    for each in old_handlers:
        signal.signal(each, interrupt)
    try:
        yield
    finally:
        for each, handler in old_handlers.items():
            signal.signal(each, handler)


@contextmanager
def _progress(quiet: bool) -> Iterator[StartProgress]:
    """Yield a StartProgress that draws a progress bar if stderr is a terminal and `quiet` is false."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    shown = sys.stderr.isatty() and not quiet
    columns = ("allocating pages", BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as progress:

        def start(total: int) -> Callable[[int], object]:
            task = progress.add_task("", total=total)
            return lambda advance: progress.advance(task, advance)

        yield start
