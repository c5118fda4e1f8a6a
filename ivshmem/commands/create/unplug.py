# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem unplug`: a metadata leaves a running VM."""

from __future__ import annotations

import click

from eal.runtime import prefix_dir as runtime
from ivshmem.cli_options import json_option, metadata_argument, prefix_option, print_json


@click.command()
@metadata_argument
@click.option("--qmp", "socket", required=True, metavar="SOCKET", help="QMP socket of the VM's QEMU.")
@click.option("--timeout", default=5.0, show_default=True, metavar="SECONDS", help="How long the guest may take.")
@click.option("--force", is_flag=True, help="Go on though a guest process has not let go of it.")
@prefix_option
@json_option
def unplug(name: str, socket: str, timeout: float, force: bool, file_prefix: str | None, as_json: bool) -> None:
    """Take the metadata NAME out of a running VM.

    It is announced; when every guest process has let go of it, it is removed, with the segments that no other metadata
    of the VM needs.

    Example: ivshmem unplug vm0 --qmp /run/vm0.qmp
    """
    from ivshmem.hotplug.plug import unplug as unplug_from
    from ivshmem.inspect.prefixes import changing

    with changing(runtime.runtime_dir(), name, file_prefix) as share:
        removed = unplug_from(share, socket, timeout, force=force)
    if as_json:
        print_json([{"id": one.id, "path": one.path} for one in removed])
        return
    for one in removed:
        click.echo(f"{one.path}: removed")
