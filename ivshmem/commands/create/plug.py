# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem plug`: a metadata goes into a running VM."""

from __future__ import annotations

import click

from eal.runtime import prefix_dir as runtime
from ivshmem.cli_options import json_option, metadata_argument, prefix_option, print_json


@click.command()
@metadata_argument
@click.option("--qmp", "socket", required=True, metavar="SOCKET", help="QMP socket of the VM's QEMU.")
@click.option("--timeout", default=5.0, show_default=True, metavar="SECONDS", help="How long the guest may take.")
@prefix_option
@json_option
def plug(name: str, socket: str, timeout: float, file_prefix: str | None, as_json: bool) -> None:
    """Plug the metadata NAME into a running VM.

    The segments that the VM lacks go first, then the metadata, if it lacks that. Whatever is added to the metadata from
    now on goes there too. The VM has to have room for it: see `ivshmem cmdline --plug`.

    Example: ivshmem plug vm0 --qmp /run/vm0.qmp
    """
    from ivshmem.hotplug.plug import plug as plug_into
    from ivshmem.inspect.prefixes import changing

    with changing(runtime.runtime_dir(), name, file_prefix) as share:
        places = plug_into(share, socket, timeout)
    if as_json:
        print_json([{"id": p.device.device_id, "path": p.device.path, "bus": p.bus, "slot": p.slot} for p in places])
        return
    for place in places:
        click.echo(f"{place.device.path}: bus {place.bus}, slot {place.slot}")
    if not places:
        click.echo(f"the VM has all of metadata {name!r} already")
