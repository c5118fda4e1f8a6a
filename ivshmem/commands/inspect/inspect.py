# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem inspect`: print the content of a file without attaching to it."""

from __future__ import annotations

import sys

import click

from eal.runtime import prefix_dir
from ivshmem.cli_options import json_option, metadata_argument, prefix_option, print_json


@click.command()
@metadata_argument
@prefix_option
@json_option
def inspect(name: str, file_prefix: str | None, as_json: bool) -> None:
    """Show the content of NAME: metadata, the registry of a file_prefix, or the path of a file.

    Shows segments, participants, the fill level and sides of rings, and the owners of mempool objects. The files are
    only read. If a file is damaged, the exit status is 1; the readable part and the faults are shown.

    Example: ivshmem inspect vm0 --json
    """
    from ivshmem.inspect.files import inspect_file, locate
    from ivshmem.inspect.text import inspection_lines

    data = inspect_file(locate(prefix_dir.runtime_dir(), name, file_prefix)).as_json()
    if as_json:
        print_json(data)
    else:
        for line in inspection_lines(data):
            click.echo(line)
    sys.exit(1 if data["faults"] else 0)
