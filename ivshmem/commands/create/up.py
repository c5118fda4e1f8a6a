# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem up`: makes what a plan describes."""

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
    from ivshmem.plan.apply import Outcome


@click.command()
@click.argument("plan", type=click.Path(dir_okay=False, path_type=Path))
@click.option("-n", "--check", "check_only", is_flag=True, help="Check the plan only, and make nothing.")
@json_option
def up(plan: Path, check_only: bool, as_json: bool) -> None:
    """Make the segments, objects and metadata that the file PLAN describes.

    Prints the QEMU options of each VM, and leaves all in place when it ends. With a changed plan it does the
    difference; what is in use, or would change its shape, is refused. Whatever goes wrong, nothing is changed.
    docs/plan.md has the format.

    Example: ivshmem up plan.toml
    """
    from ivshmem.plan.apply import up as make
    from ivshmem.plan.schema import load

    read = load(plan)
    if check_only:
        if as_json:
            print_json({"file_prefix": read.file_prefix, "faults": []})
        else:
            click.echo(f"{plan}: no fault")
        return
    with _stoppable(), _progress(as_json) as watch, warnings.catch_warnings(record=True) as warned:
        outcome = make(read, watch)
    for warning in warned:
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
def _stoppable() -> Iterator[None]:
    """Ctrl-C and SIGTERM undo what was done; a second one does not undo the undoing."""

    def stop(number: int, _: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    before: dict[int, Any] = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    for each in before:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[int], Callable[[int], object]]]:
    """What is told how many bytes are to be taken, and gives what is told of some; a bar where stderr is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    shown = sys.stderr.isatty() and not quiet
    columns = ("taking pages", BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as progress:

        def watch(total: int) -> Callable[[int], object]:
            task = progress.add_task("", total=total)
            return lambda some: progress.advance(task, some)

        yield watch
