# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem exposure`: print the memory that a VM can access beyond its metadata."""

from __future__ import annotations

import sys

import click

from eal.runtime import prefix_dir
from ivshmem.cli_options import json_option, metadata_argument, prefix_option, print_json


@click.command()
@metadata_argument
@prefix_option
@json_option
def exposure(name: str, file_prefix: str | None, as_json: bool) -> None:
    """Show the memory that a VM with the metadata NAME can access beyond the listed objects.

    A VM gets whole segments, hence also the memzones in them that its metadata does not list, and the free bytes.

    Example: ivshmem exposure vm0 --json
    """
    from ivshmem.metadata.exposure import write_exposure
    from ivshmem.metadata.lookup import find_metadata

    found = find_metadata(prefix_dir.runtime_dir(), name, file_prefix).exposure()
    if as_json:
        print_json([segment.as_json() for segment in found])
    else:
        write_exposure(found, sys.stdout)
