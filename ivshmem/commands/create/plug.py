# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem plug`: plug metadata into a running VM."""

from __future__ import annotations

import click

from eal.runtime import prefix_dir
from ivshmem.cli_options import json_option, metadata_argument, prefix_option, print_json


@click.command()
@metadata_argument
@click.option("--qmp", "socket", required=True, metavar="SOCKET", help="QMP socket of the VM's QEMU.")
@click.option("--timeout", default=5.0, show_default=True, metavar="SECONDS", help="Time limit for the guest.")
@prefix_option
@json_option
def plug(name: str, socket: str, timeout: float, file_prefix: str | None, as_json: bool) -> None:
    """Plug the metadata NAME into a running VM.

    Segments that the VM lacks are plugged first, then the metadata file. Segments that are added to the metadata later
    are plugged automatically. The VM needs a window for hotplug: see `ivshmem cmdline --plug`.

    Example: ivshmem plug vm0 --qmp /run/vm0.qmp
    """
    from ivshmem.hotplug.plug import plug_share
    from ivshmem.metadata.lookup import locked_share

    with locked_share(prefix_dir.runtime_dir(), name, file_prefix) as share:
        places = plug_share(share, socket, timeout)
    if as_json:
        print_json([{"id": p.device.device_id, "path": p.device.path, "bus": p.bus, "slot": p.slot} for p in places])
        return
    for place in places:
        click.echo(f"{place.device.path}: bus {place.bus}, slot {place.slot}")
    if not places:
        click.echo(f"the VM already has metadata {name!r} and its segments")
