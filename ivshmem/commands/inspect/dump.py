# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem dump`: what is in a metadata."""

from __future__ import annotations

import sys

import click

from eal.errors import Corrupt
from eal.runtime import prefix_dir as runtime
from ivshmem.cli_options import json_option, metadata_argument, prefix_option, print_json


@click.command()
@metadata_argument
@prefix_option
@json_option
def dump(name: str, file_prefix: str | None, as_json: bool) -> None:
    """Show what is in the metadata NAME, and how full it is.

    The exit status is 1 if it is damaged; what can be told is shown all the same. See `inspect` for more.

    Example: ivshmem dump vm0 --json
    """
    from ivshmem.inspect.files import inspect_leniently, locate
    from ivshmem.inspect.prefixes import find_metadata
    from ivshmem.inspect.text import inspection_lines
    from ivshmem.metadata.dump import dump_table, table_json

    root = runtime.runtime_dir()
    try:
        found = find_metadata(root, name, file_prefix)
        found.file.read()
    except Corrupt:
        broken = inspect_leniently(locate(root, name, file_prefix)).as_json()
        if "segments" in broken:  # what can be told in spite of it
            print_json(broken) if as_json else click.echo("\n".join(inspection_lines(broken)))
        raise
    state = inspect_leniently(found.directory.metadata_link(name)).as_json()
    if as_json:
        print_json(table_json(found.file, found.path, state))
    else:
        dump_table(found.file, found.path, sys.stdout, state)
