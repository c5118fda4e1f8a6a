# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem dump`: print the content of a metadata file."""

from __future__ import annotations

import sys

import click

from eal.errors import Corrupt
from eal.runtime import prefix_dir
from ivshmem.cli_options import json_option, metadata_argument, prefix_option, print_json


@click.command()
@metadata_argument
@prefix_option
@json_option
def dump(name: str, file_prefix: str | None, as_json: bool) -> None:
    """Show the segments and objects of the metadata NAME, and the free capacity.

    If the file is damaged, the exit status is 1 and the readable part is shown. See `inspect` for details.

    Example: ivshmem dump vm0 --json
    """
    from ivshmem.inspect.files import inspect_leniently, locate
    from ivshmem.inspect.text import inspection_lines
    from ivshmem.metadata.dump import dump_table, table_json
    from ivshmem.metadata.lookup import find_metadata

    root = prefix_dir.runtime_dir()
    try:
        found = find_metadata(root, name, file_prefix)
        found.file.read()
    except Corrupt:
        broken = inspect_leniently(locate(root, name, file_prefix)).as_json()
        if "segments" in broken:  # the readable part
            print_json(broken) if as_json else click.echo("\n".join(inspection_lines(broken)))
        raise
    state = inspect_leniently(found.directory.metadata_link(name)).as_json()
    if as_json:
        print_json(table_json(found.file, found.path, state))
    else:
        dump_table(found.file, found.path, sys.stdout, state)
