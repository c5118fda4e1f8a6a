"""`ivshmem cmdline`: the QEMU options that give a metadata to a VM."""

from __future__ import annotations

import shlex

import click

from eal import runtime
from ivshmem.terminal import json_option, prefix_option, print_json


@click.command()
@click.argument("name")
@prefix_option
@json_option
def cmdline(name: str, file_prefix: str | None, as_json: bool) -> None:
    """Print the QEMU options that give the metadata NAME to a VM.

    Example: eval "qemu-system-x86_64 -m 512 $(ivshmem cmdline vm0)"
    """
    from ivshmem.qemu import direct_args
    from ivshmem.state import find_metadata

    args = direct_args(find_metadata(runtime.runtime_dir(), name, file_prefix).devices())
    if as_json:
        print_json(args)
    else:
        click.echo(shlex.join(args))
