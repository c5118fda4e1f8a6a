# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem emulate`: a guest app without a VM."""

from __future__ import annotations

import secrets
import sys
from typing import Any

import click

from eal.errors import EalError
from eal.runtime import prefix_dir as runtime
from ivshmem.cli_options import metadata_arguments, prefix_option


class _WithCommand(click.Command):
    """A command whose words after `--` are another program's, options and all; they are in `ctx.meta`.

    A `--` that stands before any name ends the options, as everywhere: the next one is it then.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # a shell completes it
            return super().parse_args(ctx, args)
        own = args[: args.index("--")] if "--" in args else args
        if "--help" not in own and "-h" not in own:
            if "--" not in args:
                raise click.UsageError("put -- between the metadata and the command", ctx)
            at = self._separator(ctx, args)
            ctx.meta["command"], args = args[at + 1 :], args[:at]
            if not ctx.meta["command"]:
                raise click.UsageError("a command is needed after --", ctx)
        return super().parse_args(ctx, args)

    def _separator(self, ctx: click.Context, args: list[str]) -> int:
        """Where the `--` stands behind which the command begins."""
        first = args.index("--")
        given, _, _ = self.make_parser(ctx).parse_args(args[:first])
        names = given.get("names")
        named = isinstance(names, tuple | list) and bool(names)  # click has a mark of its own for none
        return first if named or "--" not in args[first + 1 :] else args.index("--", first + 1)


@click.command(cls=_WithCommand, options_metavar="[OPTIONS]")
@metadata_arguments("NAME... -- COMMAND [ARG]...")
@click.option(
    "--slow",
    type=click.FloatRange(min=1),
    default=1,
    metavar="FACTOR",
    help="Have COMMAND run FACTOR times slower: all of its process group is stopped (SIGSTOP) and continued (SIGCONT) "
    "in turns, 2 ms of running at a time.",
)
@click.option(
    "--kill",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Kill COMMAND and its process group (SIGKILL) at a random moment within SECONDS: status 137.",
)
@click.option("--seed", type=int, metavar="N", help="The random moments of an earlier --kill, which it printed.")
@click.option(
    "--repeat",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="With --kill: start COMMAND N times again, on the same bus, with what it left. A run that ends with an error "
    "of its own is the last, and the status is its own.",
)
@prefix_option
@click.pass_context
def emulate(ctx: click.Context, /, names: tuple[str, ...], file_prefix: str | None, **hardship: Any) -> None:
    """Run COMMAND as a guest that is given the metadata NAME..., with no VM.

    Its PCI bus is a folder, its BARs are the shared files. What comes to the metadata meanwhile comes on the bus. The
    exit status is COMMAND's, of its last run.

    A name that begins with - comes after a -- of its own: ivshmem emulate -- -vm0 -- python guest.py

    How peers bear it when COMMAND dies: ivshmem emulate --kill 2 --repeat 10 vm0 -- python guest.py

    Example: ivshmem emulate vm0 -- python guest.py
    """
    from ivshmem.emulate.runner import run
    from ivshmem.inspect.prefixes import find_metadata
    from ivshmem.vmm.device import Device, merge

    command: list[str] = ctx.meta["command"]
    root = runtime.runtime_dir()

    def devices() -> list[Device]:
        return merge(device for name in names for device in find_metadata(root, name, file_prefix).devices())

    _seed(ctx, hardship)
    try:
        sys.exit(run(devices(), command, follow=devices, **hardship))
    except EalError:
        raise
    except OSError as error:
        raise click.ClickException(f"cannot run {command[0]!r}: {error.strerror}") from error


def _seed(ctx: click.Context, hardship: dict[str, Any]) -> None:
    """Sees to it that a killing can be had again."""
    if hardship["kill"] is None:
        if hardship["repeat"] or hardship["seed"] is not None:
            raise click.UsageError("--seed and --repeat go with --kill", ctx)
    elif hardship["seed"] is None:
        hardship["seed"] = secrets.randbits(32)
        click.echo(f"killed at random moments: --seed {hardship['seed']}", err=True)
