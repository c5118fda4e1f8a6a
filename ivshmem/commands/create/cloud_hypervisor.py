# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem cloud-hypervisor`: the option that gives a metadata to a Cloud Hypervisor VM, where there is one."""

from __future__ import annotations

import shlex

import click

from eal.runtime import prefix_dir as runtime
from ivshmem.cli_options import json_option, metadata_argument, prefix_option, print_json


@click.command()
@metadata_argument
@prefix_option
@json_option
def cloud_hypervisor(name: str, file_prefix: str | None, as_json: bool) -> None:
    """Print Cloud Hypervisor's option for the metadata NAME, or say why it has none.

    It gives a VM one shared file, which the VM may write to; a metadata takes several, itself read-only.

    Example: ivshmem cloud-hypervisor vm0
    """
    from ivshmem.inspect.prefixes import find_metadata
    from ivshmem.vmm.cloud_hypervisor import args

    words = args(find_metadata(runtime.runtime_dir(), name, file_prefix).devices(), f"metadata {name!r}")
    if as_json:
        print_json(words)
    else:
        click.echo(shlex.join(words))
