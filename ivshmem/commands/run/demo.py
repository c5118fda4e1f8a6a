# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem demo`: a host and a guest exchange messages."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ivshmem.cli_options import json_option, print_json

if TYPE_CHECKING:
    from ivshmem.demo.host import Report


@click.command()
@click.option("--vm", is_flag=True, help="In a real QEMU virtual machine instead of on an emulated bus.")
@click.option("--messages", type=click.IntRange(1, 10**9), help="How many. [100000; with --vm 20000]")
@click.option("--size", type=click.IntRange(1, 1 << 20), default=64, show_default=True, help="Bytes of a message.")
@click.option("--file-prefix", metavar="PREFIX", help="The host's file_prefix. [one of its own]")
@click.option("--fault", type=click.Choice(["corrupt", "drop", "swap"]), help="Spoil one message in flight.")
@json_option
def demo(vm: bool, messages: int | None, size: int, file_prefix: str | None, fault: str | None, as_json: bool) -> None:
    """Exchange messages between a host and a guest, and check every byte.

    The host sends messages in objects of a mempool through a ring; the guest, which knows names and nothing else,
    checks each one, answers through a second ring, and puts the objects back. The exit status is 1 if anything was
    lost, reordered or corrupted.

    Example: ivshmem demo --vm --messages 50000 --size 256
    """
    from ivshmem.demo import host as demo_module

    count = messages if messages is not None else 20_000 if vm else 100_000
    with _progress(count, as_json) as advance:
        report = demo_module.run(
            messages=count,
            size=size,
            vm=vm,
            file_prefix=file_prefix,
            fault=fault,
            on_start=(lambda _: None) if as_json else _print_start,
            on_progress=advance,
        )
    if as_json:
        print_json(asdict(report))
    else:
        _print_end(report)
    sys.exit(0 if report.ok else 1)


def _progress(total: int, quiet: bool) -> Any:
    """A context manager that gives a function to call with the number of answers; a bar where stderr is a terminal."""
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)

    @contextmanager
    def bar() -> Any:
        with Progress(console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
            task = progress.add_task("messages", total=total)
            yield lambda done: progress.update(task, completed=done)

    return bar()


def _print_start(report: Report) -> None:
    click.echo("created:")
    for name, what in report.created.items():
        click.echo(f"  {name}: {what}")
    click.echo(f"QEMU options:\n  {report.cmdline}")


def _print_end(report: Report) -> None:
    guest = report.guest
    if guest:
        where = ", ".join(f"metadata {d['metadata']!r} on {d['address']}" for d in guest["devices"])
        found = ", ".join([*guest["memzones"], *guest["rings"], *guest["mempools"]])
        click.echo(f"the guest ({report.mode}) found {where}:\n  {found}")
    click.echo(
        f"{report.answered} of {report.messages} messages of {report.size} bytes in {report.seconds:.2f} s: "
        f"{report.rate:,.0f} a second, {report.bytes_per_second / 1e6:,.1f} MB/s each way"
    )
    click.echo(
        f"lost {report.lost}, reordered {report.reordered}, corrupted {report.corrupted}; "
        f"{report.pool_available} of {report.pool_size} objects back in the pool"
    )
    for fault in report.faults[:10]:
        click.echo(f"FAULT: {fault}")
    click.echo("all is well" if report.ok else f"{len(report.faults)} faults")
