# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem inspect`: what is in a file, with nobody alive."""

from __future__ import annotations

import sys

import click

from eal.runtime import prefix_dir as runtime
from ivshmem.cli_options import json_option, metadata_argument, prefix_option, print_json


@click.command()
@metadata_argument
@prefix_option
@json_option
def inspect(name: str, file_prefix: str | None, as_json: bool) -> None:
    """Show what is in NAME: a metadata, a file_prefix (its registry), or the path of any file of theirs.

    Segments, participants, how full rings are and who is inside an end, who has what of a pool; read from the files
    alone, which are not changed. The exit status is 1 if anything is damaged: then what can be told is shown, and what
    is wrong.

    Example: ivshmem inspect vm0 --json
    """
    from ivshmem.inspect.files import inspect_file, locate
    from ivshmem.inspect.text import inspection_lines

    data = inspect_file(locate(runtime.runtime_dir(), name, file_prefix)).as_json()
    if as_json:
        print_json(data)
    else:
        for line in inspection_lines(data):
            click.echo(line)
    sys.exit(1 if data["faults"] else 0)
