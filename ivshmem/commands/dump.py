"""`ivshmem dump`: what is in a metadata."""

from __future__ import annotations

import sys

import click

from eal import runtime
from ivshmem.terminal import json_option, metadata_argument, prefix_option, print_json


@click.command()
@metadata_argument
@prefix_option
@json_option
def dump(name: str, file_prefix: str | None, as_json: bool) -> None:
    """Show what is in the metadata NAME.

    Example: ivshmem dump vm0 --json
    """
    from ivshmem.dump import dump_table, table_json
    from ivshmem.state import find_metadata

    found = find_metadata(runtime.runtime_dir(), name, file_prefix)
    if as_json:
        print_json(table_json(found.file, found.path))
    else:
        dump_table(found.file, found.path, sys.stdout)
