# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem cmdline`: the QEMU options that give metadata to a VM."""

from __future__ import annotations

import shlex

import click

from eal.runtime import prefix_dir as runtime
from ivshmem.cli_options import json_option, metadata_arguments, prefix_option, print_json


@click.command()
@metadata_arguments("NAME...")
@click.option("--plug", metavar="SIZE", help="Reserve room for so much to be plugged while the VM runs, such as 1G.")
@prefix_option
@json_option
def cmdline(names: tuple[str, ...], plug: str | None, file_prefix: str | None, as_json: bool) -> None:
    """Print the QEMU options that give the metadata NAME... to one VM.

    The options of one command make a whole VM. Those of several commands may follow each other if each names one
    metadata.

    Example: eval "qemu-system-x86_64 -m 512 $(ivshmem cmdline vm0)"
    """
    from ivshmem.inspect.prefixes import find_metadata
    from ivshmem.vmm.device import merge
    from ivshmem.vmm.qemu import place_of, vm_args

    found = [find_metadata(runtime.runtime_dir(), name, file_prefix) for name in names]
    devices = merge(device for one in found for device in one.devices())
    args = vm_args(devices, plug, place_of(*(one.file.info.uuid for one in found)))
    if as_json:
        print_json(args)
    else:
        click.echo(shlex.join(args))
