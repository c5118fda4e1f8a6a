# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem placement`: check that host applications, their VMs and their memory are on one NUMA node."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from eal.runtime import prefix_dir
from ivshmem.cli_options import json_option, prefix_option, print_json


@click.command()
@click.option("--check", is_flag=True, help="Check the running processes. [default without --plan]")
@click.option("--qmp", "sockets", multiple=True, metavar="SOCKET", help="QMP socket of a VM; may be repeated.")
@click.option(
    "--app",
    "apps",
    type=int,
    multiple=True,
    metavar="PID",
    help="PID of a host application; may be repeated. [default: all that loaded eal]",
)
@click.option("--plan", metavar="SPEC", help="Compute a placement instead; see cpu-layout --help.")
@prefix_option
@json_option
def placement(
    check: bool,
    sockets: tuple[str, ...],
    apps: tuple[int, ...],
    plan: str | None,
    file_prefix: str | None,
    as_json: bool,
) -> None:
    """Check the CPUs and the NUMA nodes of host applications, their VMs and their memory.

    Reports each vCPU that is not pinned, each lcore that shares a core with another polling lcore, and each VM,
    application and segment that are not on one NUMA node. The exit status is 1 if a rule is violated (or --plan finds
    no placement).

    Example: ivshmem placement --check --qmp /run/vm0.qmp
    """
    from eal.topology.cli import main as run_layout
    from ivshmem.inspect.prefixes import prefix_states
    from ivshmem.placement import check as check_placement

    if plan is not None:
        if check or sockets or apps:
            raise click.UsageError("--plan cannot be combined with --check, --qmp or --app")
        sys.exit(run_layout(["--plan", plan, *(["--json"] if as_json else [])]))
    if file_prefix is not None:
        pids = [state.pid for state in prefix_states(prefix_dir.runtime_dir(), file_prefix) if state.pid is not None]
        apps = (*apps, *pids)
    found = check_placement(sockets, apps or None)
    if as_json:
        print_json([asdict(violation) for violation in found])
    else:
        for violation in found:
            click.echo(str(violation))
        click.echo(f"{len(found)} rules broken" if found else "all rules hold")
    sys.exit(1 if found else 0)
