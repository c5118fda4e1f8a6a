# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem cmdline`: print the QEMU options that pass metadata to a VM."""

from __future__ import annotations

import shlex

import click

from eal.runtime import prefix_dir
from ivshmem.cli_options import json_option, metadata_arguments, prefix_option, print_json


@click.command()
@metadata_arguments("NAME...")
@click.option("--plug", metavar="SIZE", help="Reserve a window of SIZE, such as 1G, for hotplug.")
@prefix_option
@json_option
def cmdline(names: tuple[str, ...], plug: str | None, file_prefix: str | None, as_json: bool) -> None:
    """Print the QEMU options that pass the metadata NAME... to one VM.

    Name all metadata of a VM in one command. The options of several commands may be concatenated if each command names
    one metadata.

    Example: eval "qemu-system-x86_64 -m 512 $(ivshmem cmdline vm0)"
    """
    from ivshmem.metadata.lookup import find_metadata
    from ivshmem.vmm.device import merge
    from ivshmem.vmm.qemu import place_of, vm_args

    found = [find_metadata(prefix_dir.runtime_dir(), name, file_prefix) for name in names]
    devices = merge(device for one in found for device in one.devices())
    args = vm_args(devices, plug, place_of(*(one.file.info.uuid for one in found)))
    if as_json:
        print_json(args)
    else:
        click.echo(shlex.join(args))
