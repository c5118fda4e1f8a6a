# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem demo`: exchange messages between a host and a guest."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ivshmem.cli_options import json_option, print_json

if TYPE_CHECKING:
    from ivshmem.demo.result import DemoResult


@click.command()
@click.option("--vm", is_flag=True, help="Run the guest in a QEMU virtual machine instead of on an emulated bus.")
@click.option(
    "--messages", type=click.IntRange(1, 10**9), help="Number of messages. [default: 100000; with --vm 20000]"
)
@click.option(
    "--size", type=click.IntRange(1, 1 << 20), default=64, show_default=True, help="Size of a message in bytes."
)
@click.option("--file-prefix", metavar="PREFIX", help="file_prefix of the host. [default: a new one]")
@click.option("--fault", type=click.Choice(["corrupt", "drop", "swap"]), help="Inject a fault into one message.")
@json_option
def demo(vm: bool, messages: int | None, size: int, file_prefix: str | None, fault: str | None, as_json: bool) -> None:
    """Exchange messages between a host and a guest, and check every byte.

    The host writes messages to objects of a mempool and sends their indices through a ring. The guest finds the objects
    by name, checks each message, answers through a second ring, and frees the object. The exit status is 1 if a message
    was lost, reordered or corrupted.

    Example: ivshmem demo --vm --messages 50000 --size 256
    """
    from ivshmem.demo import host

    count = messages if messages is not None else 20_000 if vm else 100_000
    with _progress(count, as_json) as advance:
        result = host.run(
            messages=count,
            size=size,
            vm=vm,
            file_prefix=file_prefix,
            fault=fault,
            on_start=(lambda _: None) if as_json else _print_start,
            on_progress=advance,
        )
    if as_json:
        print_json(asdict(result))
    else:
        _print_end(result)
    sys.exit(0 if result.ok else 1)


def _progress(total: int, quiet: bool) -> Any:
    """Return a context manager whose value is called with the number of answers received so far.

    It draws a progress bar if stderr is a terminal and `quiet` is false.
    """
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


def _print_start(result: DemoResult) -> None:
    click.echo("created:")
    for name, what in result.created.items():
        click.echo(f"  {name}: {what}")
    click.echo(f"QEMU options:\n  {result.cmdline}")


def _print_end(result: DemoResult) -> None:
    guest = result.guest
    if guest:
        devices = ", ".join(f"metadata {d['metadata']!r} on {d['address']}" for d in guest["devices"])
        names = ", ".join([*guest["memzones"], *guest["rings"], *guest["mempools"]])
        click.echo(f"the guest ({result.mode}) found {devices}:\n  {names}")
    click.echo(
        f"{result.answered} of {result.messages} messages of {result.size} bytes in {result.seconds:.2f} s: "
        f"{result.rate:,.0f} messages/s, {result.bytes_per_second / 1e6:,.1f} MB/s in each direction"
    )
    click.echo(
        f"lost {result.lost}, reordered {result.reordered}, corrupted {result.corrupted}; "
        f"{result.pool_available} of {result.pool_size} objects free in the pool"
    )
    for fault in result.faults[:10]:
        click.echo(f"FAULT: {fault}")
    click.echo("OK" if result.ok else f"{len(result.faults)} faults")
