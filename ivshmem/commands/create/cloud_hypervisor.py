# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem cloud-hypervisor`: print the option that passes metadata to a Cloud Hypervisor VM."""

from __future__ import annotations

import shlex

import click

from eal.runtime import prefix_dir
from ivshmem.cli_options import json_option, metadata_argument, prefix_option, print_json


@click.command()
@metadata_argument
@prefix_option
@json_option
def cloud_hypervisor(name: str, file_prefix: str | None, as_json: bool) -> None:
    """Print the Cloud Hypervisor option for the metadata NAME, or the reason why there is none.

    Cloud Hypervisor passes a single, writable file to a VM; a metadata file needs several devices and is read-only.

    Example: ivshmem cloud-hypervisor vm0
    """
    from ivshmem.metadata.lookup import find_metadata
    from ivshmem.vmm.cloud_hypervisor import args

    words = args(find_metadata(prefix_dir.runtime_dir(), name, file_prefix).devices(), f"metadata {name!r}")
    if as_json:
        print_json(words)
    else:
        click.echo(shlex.join(words))
