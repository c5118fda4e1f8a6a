# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem exposure`: what a VM reaches beyond its metadata."""

from __future__ import annotations

import sys

import click

from eal.runtime import prefix_dir as runtime
from ivshmem.cli_options import json_option, metadata_argument, prefix_option, print_json


@click.command()
@metadata_argument
@prefix_option
@json_option
def exposure(name: str, file_prefix: str | None, as_json: bool) -> None:
    """Show what a VM with the metadata NAME reaches beyond it.

    A VM gets whole segments: with them every zone in these that is not in its metadata, and their free bytes.

    Example: ivshmem exposure vm0 --json
    """
    from ivshmem.inspect.prefixes import find_metadata
    from ivshmem.metadata.exposure import write_exposure

    found = find_metadata(runtime.runtime_dir(), name, file_prefix).exposure()
    if as_json:
        print_json([segment.as_json() for segment in found])
    else:
        write_exposure(found, sys.stdout)
