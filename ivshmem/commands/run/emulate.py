# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem emulate`: run a guest application without a VM."""

from __future__ import annotations

import secrets
import sys
from typing import Any

import click

from eal.errors import EalError
from eal.runtime import prefix_dir
from ivshmem.cli_options import metadata_arguments, prefix_option


class _WithCommand(click.Command):
    """A click command that passes all words after `--` on to another program, in ctx.meta["command"].

    A `--` before the first NAME only ends the options, as usual; the next `--` separates the command.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # shell completion
            return super().parse_args(ctx, args)
        own = args[: args.index("--")] if "--" in args else args
        if "--help" not in own and "-h" not in own:
            if "--" not in args:
                raise click.UsageError("put -- between NAME and COMMAND", ctx)
            at = self._separator(ctx, args)
            ctx.meta["command"], args = args[at + 1 :], args[:at]
            if not ctx.meta["command"]:
                raise click.UsageError("put COMMAND after --", ctx)
        return super().parse_args(ctx, args)

    def _separator(self, ctx: click.Context, args: list[str]) -> int:
        """Return the index of the `--` after which the command begins."""
        first = args.index("--")
        values, _, _ = self.make_parser(ctx).parse_args(args[:first])
        names = values.get("names")
        has_names = isinstance(names, tuple | list) and bool(names)  # click uses a sentinel for missing names
        return first if has_names or "--" not in args[first + 1 :] else args.index("--", first + 1)


@click.command(cls=_WithCommand, options_metavar="[OPTIONS]")
@metadata_arguments("NAME... -- COMMAND [ARG]...")
@click.option(
    "--slow",
    type=click.FloatRange(min=1),
    default=1,
    metavar="FACTOR",
    help="Slow COMMAND down by FACTOR: its process group runs for 2 ms at a time, between SIGCONT and SIGSTOP.",
)
@click.option(
    "--kill",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Kill COMMAND and its process group (SIGKILL) after a random time of up to SECONDS. The exit status is 137.",
)
@click.option(
    "--seed", type=int, metavar="N", help="Repeat the random times of an earlier --kill, which printed this seed."
)
@click.option(
    "--repeat",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="With --kill: restart COMMAND N times on the same bus, with its files. There is no restart after a run that "
    "fails by itself; the exit status is that of this run.",
)
@prefix_option
@click.pass_context
def emulate(ctx: click.Context, /, names: tuple[str, ...], file_prefix: str | None, **faults: Any) -> None:
    """Run COMMAND as a guest with the metadata NAME..., without a VM.

    The PCI bus of the guest is a directory, its BARs are the shared files. A segment that is added to the metadata is
    plugged into the bus at once. The exit status is that of COMMAND (of its last run).

    Put a further -- before a NAME that begins with -: ivshmem emulate -- -vm0 -- python guest.py

    Test the peers of a guest that dies: ivshmem emulate --kill 2 --repeat 10 vm0 -- python guest.py

    Example: ivshmem emulate vm0 -- python guest.py
    """
    from ivshmem.emulate.runner import run
    from ivshmem.metadata.lookup import find_metadata
    from ivshmem.vmm.device import Device, merge

    command: list[str] = ctx.meta["command"]
    root = prefix_dir.runtime_dir()

    def devices() -> list[Device]:
        return merge(device for name in names for device in find_metadata(root, name, file_prefix).devices())

    _seed(ctx, faults)
    try:
        sys.exit(run(devices(), command, follow=devices, **faults))
    except EalError:
        raise
    except OSError as error:
        raise click.ClickException(f"cannot run {command[0]!r}: {error.strerror}") from error


def _seed(ctx: click.Context, faults: dict[str, Any]) -> None:
    """Choose and print the seed of --kill, so that a run can be repeated."""
    if faults["kill"] is None:
        if faults["repeat"] or faults["seed"] is not None:
            raise click.UsageError("--seed and --repeat require --kill", ctx)
    elif faults["seed"] is None:
        faults["seed"] = secrets.randbits(32)
        click.echo(f"killing the guest at random times: --seed {faults['seed']}", err=True)
