# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem unplug`: unplug metadata from a running VM."""

from __future__ import annotations

import click

from eal.runtime import prefix_dir
from ivshmem.cli_options import json_option, metadata_argument, prefix_option, print_json


@click.command()
@metadata_argument
@click.option("--qmp", "socket", required=True, metavar="SOCKET", help="QMP socket of the VM's QEMU.")
@click.option("--timeout", default=5.0, show_default=True, metavar="SECONDS", help="Time limit for the guest.")
@click.option("--force", is_flag=True, help="Unplug even if a guest process has not detached.")
@prefix_option
@json_option
def unplug(name: str, socket: str, timeout: float, force: bool, file_prefix: str | None, as_json: bool) -> None:
    """Unplug the metadata NAME from a running VM.

    The unplug is announced to the guest. When every guest process has detached, the metadata file is removed, and the
    segments that no other metadata of the VM needs.

    Example: ivshmem unplug vm0 --qmp /run/vm0.qmp
    """
    from ivshmem.hotplug.plug import unplug_share
    from ivshmem.metadata.lookup import locked_share

    with locked_share(prefix_dir.runtime_dir(), name, file_prefix) as share:
        removed = unplug_share(share, socket, timeout, force=force)
    if as_json:
        print_json([{"id": one.id, "path": one.path} for one in removed])
        return
    for one in removed:
        click.echo(f"{one.path}: removed")
