"""The command `ivshmem`."""

from __future__ import annotations

import io
import json
import logging
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import click

from eal import runtime
from eal.errors import EalError

if TYPE_CHECKING:
    from rich.console import Console

    from ivshmem.demo import Report
    from ivshmem.state import Garbage, PrefixState

Command = TypeVar("Command", bound=Callable[..., Any])


class _Group(click.Group):
    """Errors of ours and of the system become one line and exit status 1; a broken pipe is none."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except EalError as error:
            raise click.ClickException(str(error)) from error
        except BrokenPipeError:
            raise  # click itself ends quietly
        except OSError as error:
            if error.filename is None:  # what could not be written must not be tried again at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.ClickException(f"{error.filename or 'cannot write'}: {error.strerror}") from error
        return result


def _prefix_option(command: Command) -> Command:
    return click.option("--file-prefix", metavar="PREFIX", help="Only this file_prefix.")(command)


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else.")


def _out() -> Console:
    from rich.console import Console

    # Where no terminal says how wide it is, nothing is cut: somebody may look for a name in it.
    width = None if sys.stdout.isatty() else 10_000
    return Console(highlight=False, soft_wrap=True, emoji=False, width=width)


def _print_json(data: Any) -> None:
    click.echo(json.dumps(data, indent=2))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ivshmem")
@click.option("-v", "--verbose", is_flag=True, help="Say more on stderr.")
def cli(verbose: bool) -> None:
    """Share memory between this host and its virtual machines.

    Exit status: 0 all is well, 1 it is not and stderr says why, 2 the command line makes no sense.
    """
    logging.basicConfig(level=logging.DEBUG if verbose else logging.WARNING, format="%(levelname)s: %(message)s")


# --- ls, dump, cmdline ------------------------------------------------------------------------------------------


@cli.command()
@_prefix_option
@_json_option
def ls(file_prefix: str | None, as_json: bool) -> None:
    """List prefixes with their objects, alive or dead.

    Example: ivshmem ls --file-prefix rte
    """
    from ivshmem.state import prefix_states

    states = prefix_states(runtime.runtime_dir(), file_prefix)
    if as_json:
        _print_json([state.as_json() for state in states])
    elif not states:
        click.echo(f"nothing is shared in {runtime.runtime_dir()}")
    for state in states if not as_json else []:
        _print_state(state)


def _print_state(state: PrefixState) -> None:
    from rich.table import Table
    from rich.text import Text

    from ivshmem.dump import size_text

    console = _out()
    pid = f", pid {state.pid}" if state.pid is not None else ""
    metadata = ", ".join(state.directory.metadata_names()) or "none"
    console.print(Text.assemble((state.prefix, "bold"), f" ({state.status}{pid}), metadata: {metadata}"))
    if state.table is None:
        console.print("  its registry cannot be read")
        return
    table = Table("kind", "name", "size", "group", "segment", "offset")
    for entry in sorted(state.table.entries, key=lambda e: (e.kind, e.name)):
        segment = state.table.segments[entry.segment]
        table.add_row(
            entry.kind.name.lower(),
            Text(entry.name),
            size_text(entry.length),
            Text(segment.group),
            str(segment.uuid)[:8],
            f"{entry.offset:#x}",
        )
    for segment in state.table.segments:
        console.print(f"  segment {str(segment.uuid)[:8]}: {size_text(segment.size)}, {segment.path}", markup=False)
    if state.table.entries:
        console.print(table)


@cli.command()
@click.argument("name")
@_prefix_option
@_json_option
def dump(name: str, file_prefix: str | None, as_json: bool) -> None:
    """Show what is in the metadata NAME.

    Example: ivshmem dump vm0 --json
    """
    from ivshmem.dump import dump_table, table_json
    from ivshmem.state import find_metadata

    found = find_metadata(runtime.runtime_dir(), name, file_prefix)
    if as_json:
        _print_json(table_json(found.file, found.path))
    else:
        dump_table(found.file, found.path, sys.stdout)


@cli.command()
@click.argument("name")
@_prefix_option
@_json_option
def cmdline(name: str, file_prefix: str | None, as_json: bool) -> None:
    """Print the QEMU options that give the metadata NAME to a VM.

    Example: eval "qemu-system-x86_64 -m 512 $(ivshmem cmdline vm0)"
    """
    from ivshmem.qemu import direct_args
    from ivshmem.state import find_metadata

    args = direct_args(find_metadata(runtime.runtime_dir(), name, file_prefix).devices())
    if as_json:
        _print_json(args)
    else:
        click.echo(shlex.join(args))


# --- emulate, clean ---------------------------------------------------------------------------------------------


class _WithCommand(click.Command):
    """A command whose words after `--` are another program's, options and all; they are in `ctx.meta`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = args[: args.index("--")] if "--" in args else args
        if "--help" not in own and "-h" not in own:
            if "--" not in args:
                raise click.UsageError("put -- between the metadata and the command", ctx)
            at = args.index("--")
            ctx.meta["command"], args = args[at + 1 :], args[:at]
            if not ctx.meta["command"]:
                raise click.UsageError("a command is needed after --", ctx)
        return super().parse_args(ctx, args)


@cli.command(cls=_WithCommand, options_metavar="[OPTIONS]")
@click.argument("names", nargs=-1, required=True, metavar="NAME... -- COMMAND [ARG]...")
@_prefix_option
@click.pass_context
def emulate(ctx: click.Context, names: tuple[str, ...], file_prefix: str | None) -> None:
    """Run COMMAND as a guest that is given the metadata NAME..., with no VM.

    Its PCI bus is a folder, its BARs are the shared files. The exit status is COMMAND's.

    Example: ivshmem emulate vm0 -- python guest.py
    """
    from ivshmem.device import merge
    from ivshmem.emulate import run
    from ivshmem.state import find_metadata

    command: list[str] = ctx.meta["command"]
    root = runtime.runtime_dir()
    devices = [device for name in names for device in find_metadata(root, name, file_prefix).devices()]
    try:
        sys.exit(run(merge(devices), command))
    except EalError:
        raise
    except OSError as error:
        raise click.ClickException(f"cannot run {command[0]!r}: {error.strerror}") from error


@cli.command()
@_prefix_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("-n", "--dry-run", is_flag=True, help="List only.")
@_json_option
def clean(file_prefix: str | None, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Remove the files of dead prefixes, after listing them.

    Prefixes that are alive or kept are left alone.

    Example: ivshmem clean --yes
    """
    from ivshmem.state import garbage, remove_garbage

    pieces = garbage(runtime.runtime_dir(), file_prefix)
    if as_json:
        _print_json([{"file_prefix": p.directory.prefix, "files": [str(f) for f in p.files]} for p in pieces])
    else:
        _list_garbage(pieces)
    if not pieces or dry_run:
        return
    if not yes and not click.confirm("Remove them?", err=True):
        raise click.Abort
    for piece in pieces:
        remove_garbage(piece)


def _list_garbage(pieces: list[Garbage]) -> None:
    if not pieces:
        click.echo("nothing to clean")
    for piece in pieces:
        click.echo(f"{piece.directory.prefix} (dead):")
        for path in piece.files or [piece.directory.path]:
            click.echo(f"  {path}")


# --- placement --------------------------------------------------------------------------------------------------


@cli.command()
@click.option("--check", is_flag=True, help="Compare what runs with the rules. [without --plan]")
@click.option("--qmp", "sockets", multiple=True, metavar="SOCKET", help="QMP socket of a QEMU; may be repeated.")
@click.option("--app", "apps", type=int, multiple=True, metavar="PID", help="A host app. [all that loaded eal]")
@click.option("--plan", metavar="SPEC", help="Plan instead: see cpu-layout --help.")
@_prefix_option
@_json_option
def placement(
    check: bool,
    sockets: tuple[str, ...],
    apps: tuple[int, ...],
    plan: str | None,
    file_prefix: str | None,
    as_json: bool,
) -> None:
    """Check where host apps and their VMs run, and where their memory is.

    Names each vCPU that is not pinned, each lcore that polls beside one on the same core, and each VM, app and segment
    that do not meet on one NUMA node. The exit status is 1 if any rule is broken (or a plan does not fit).

    Example: ivshmem placement --check --qmp /run/vm0.qmp
    """
    from eal.topology_cli import run as run_layout
    from ivshmem.placement import check as check_placement
    from ivshmem.state import prefix_states

    if plan is not None:
        if check or sockets or apps:
            raise click.UsageError("--plan goes without --check, --qmp and --app")
        sys.exit(run_layout(["--plan", plan, *(["--json"] if as_json else [])]))
    if file_prefix is not None:
        pids = [state.pid for state in prefix_states(runtime.runtime_dir(), file_prefix) if state.pid is not None]
        apps = (*apps, *pids)
    found = check_placement(sockets, apps or None)
    if as_json:
        _print_json([asdict(violation) for violation in found])
    else:
        for violation in found:
            click.echo(str(violation))
        click.echo(f"{len(found)} rules broken" if found else "all rules hold")
    sys.exit(1 if found else 0)


# --- demo -------------------------------------------------------------------------------------------------------


@cli.command()
@click.option("--vm", is_flag=True, help="In a real QEMU virtual machine instead of on an emulated bus.")
@click.option("--messages", type=click.IntRange(1, 10**9), help="How many. [100000; with --vm 20000]")
@click.option("--size", type=click.IntRange(1, 1 << 20), default=64, show_default=True, help="Bytes of a message.")
@click.option("--file-prefix", metavar="PREFIX", help="The host's file_prefix. [one of its own]")
@click.option("--fault", type=click.Choice(["corrupt", "drop", "swap"]), help="Spoil one message in flight.")
@_json_option
def demo(vm: bool, messages: int | None, size: int, file_prefix: str | None, fault: str | None, as_json: bool) -> None:
    """Exchange messages between a host and a guest, and check every byte.

    The host sends messages in objects of a mempool through a ring; the guest, which knows names and nothing else,
    checks each one, answers through a second ring, and puts the objects back. The exit status is 1 if anything was
    lost, reordered or corrupted.

    Example: ivshmem demo --vm --messages 50000 --size 256
    """
    from ivshmem import demo as demo_module

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
        _print_json(asdict(report))
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


def main() -> None:
    """The entry point of the installed command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")  # a file_prefix, and so a path, may be any bytes
    cli(prog_name="ivshmem")
