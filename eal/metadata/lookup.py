# SPDX-License-Identifier: BSD-3-Clause
"""Metadata files: opening one by its path, and finding those of a prefix."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from eal.errors import Corrupt, Denied, EalError, NotFound
from eal.linux.mapping import Mapping
from eal.metadata.table_file import HEADER_SIZE, METADATA_MAGIC, TableFile
from eal.runtime.prefix_dir import PrefixDir


def open_metadata(path: Path, *, writable: bool = False) -> TableFile:
    """Maps and checks a metadata file. Raises NotFound, Denied or Corrupt with the reason."""
    what = f"metadata file {path}"
    try:
        fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"{what} is gone") from error
    except OSError as error:
        raise Denied(f"cannot open {what}: {error.strerror}") from error
    try:
        size = os.fstat(fd).st_size
        if size < HEADER_SIZE:
            raise Corrupt(f"{what} has {size} bytes, not even a header: it was truncated")
        return TableFile.open(Mapping(fd, size, writable=writable, what=what), METADATA_MAGIC, what)
    finally:
        os.close(fd)


def metadata_of(directory: PrefixDir) -> Iterator[tuple[str, TableFile]]:
    """Name and file of each metadata of a prefix that can be read."""
    for name in directory.metadata_names():
        try:
            yield name, open_metadata(directory.metadata_link(name))
        except EalError:
            continue  # being removed, or damaged: it gives nothing to anybody


def holders(directory: PrefixDir, segment: UUID, offset: int, length: int) -> list[str]:
    """The metadata of a prefix that name any byte of a range of a segment."""
    found = []
    for name, file in metadata_of(directory):
        table = file.read()
        for entry in table.entries:
            same = table.segments[entry.segment].uuid == segment
            if same and entry.offset < offset + length and offset < entry.end:
                found.append(name)
                break
    return found
