# SPDX-License-Identifier: BSD-3-Clause
"""Metadata files of a prefix: open one by its path, list the readable ones, find those that contain an object."""

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
    """Map and validate a metadata file. Raise NotFound, Denied or Corrupt with the reason."""
    label = f"metadata file {path}"
    try:
        fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"{label} does not exist") from error
    except OSError as error:
        raise Denied(f"cannot open {label}: {error.strerror}") from error
    try:
        size = os.fstat(fd).st_size
        if size < HEADER_SIZE:
            raise Corrupt(f"{label} must have at least {HEADER_SIZE} bytes, got {size}: it was truncated")
        return TableFile.open(Mapping(fd, size, writable=writable, label=label), METADATA_MAGIC, label)
    finally:
        os.close(fd)


def readable_metadata(directory: PrefixDir) -> Iterator[tuple[str, TableFile]]:
    """Yield the name and file of each metadata file of a prefix, except those that are being removed or damaged."""
    for name in directory.metadata_names():
        try:
            yield name, open_metadata(directory.metadata_link(name))
        except EalError:
            continue


def metadata_with(directory: PrefixDir, segment: UUID, offset: int, length: int) -> list[str]:
    """Return the names of the metadata files of a prefix that list any byte of a segment's range."""
    found = []
    for name, file in readable_metadata(directory):
        table = file.read()
        for entry in table.entries:
            same = table.segments[entry.segment].uuid == segment
            if same and entry.offset < offset + length and offset < entry.end:
                found.append(name)
                break
    return found
