# SPDX-License-Identifier: BSD-3-Clause
"""Cleanup: find and remove the files of a file_prefix without a live process."""

from __future__ import annotations

import glob
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from eal.errors import EalError
from eal.memory.hugepages import SHM_DIR, hugetlbfs_mounts
from eal.memory.registry import open_registry
from eal.memory.segment import open_segment
from eal.metadata.records import Table
from eal.runtime.prefix_dir import PrefixDir, file_stem

log = logging.getLogger(__name__)


_DATA_FILE = re.compile(r"ivshmem\.[0-9]+\.[0-9a-f]{8}\..+\.[0-9a-f]{32}\.(seg|md)")


def last_table(directory: PrefixDir) -> Table | None:
    """Return the registry table of a file_prefix; None if there is no readable registry."""
    try:
        registry = open_registry(directory.registry, writable=False)
    except EalError:
        return None
    try:
        return registry.table
    except EalError:
        return None
    finally:
        registry.close()


def data_files(directory: PrefixDir, table: Table | None = None) -> list[Path]:
    """Return the existing segment and metadata files of a file_prefix, sorted.

    These are the segments of the registry table, and all files whose name contains the file_prefix. A path in the table
    counts only if it has the name of a data file: a damaged registry must not lead to the removal of other files.
    """
    listed = [Path(record.path) for record in table.segments] if table else []
    found = {path for path in listed if _DATA_FILE.fullmatch(path.name)}
    found.update(_files_named_for(directory))
    return sorted(path for path in found if path.exists())


def unlisted_files(directory: PrefixDir) -> list[Path]:
    """Return the data files that neither the registry nor a metadata link lists: their creation was interrupted."""
    table = last_table(directory)
    links = (directory.metadata_link(name) for name in directory.metadata_names())
    listed = {os.readlink(link) for link in links} | {record.path for record in (table.segments if table else ())}
    return [path for path in data_files(directory) if str(path) not in listed]


def segment_files(uuid: UUID) -> Iterator[Path]:
    """Yield the files that have the name of this segment, of any file_prefix."""
    for folder in _data_directories():
        yield from (folder / name for name in glob.glob(f"*.{uuid.hex}.seg", root_dir=folder))


def orphans(root: Path) -> dict[str, list[Path]]:
    """Return the data files of a runtime directory by file_prefix, also of a file_prefix without a directory."""
    pattern = re.compile(re.escape(file_stem(root)) + r"\.(?P<prefix>.+)\.[0-9a-f]{32}\.(seg|md)")
    found: dict[str, list[Path]] = {}
    for folder in _data_directories():
        for name in sorted(os.listdir(folder)):
            if match := pattern.fullmatch(name):
                found.setdefault(match["prefix"].replace("map%5F", "map_"), []).append(folder / name)
    return found


def _data_directories() -> set[Path]:
    folders = [SHM_DIR, *(mount.folder for mount in hugetlbfs_mounts())]
    return {folder for folder in folders if os.access(folder, os.R_OK)}


def _files_named_for(directory: PrefixDir) -> Iterator[Path]:
    stem = f"{file_stem(directory.root)}.{directory.prefix}."
    spellings = {stem, stem.replace("map_", "map%5F")}  # the second on hugetlbfs, where DPDK removes *map_*
    pattern = re.compile(rf"(?:{'|'.join(map(re.escape, spellings))})[0-9a-f]{{32}}\.(?:seg|md)")
    for folder in _data_directories():
        yield from (folder / name for name in os.listdir(folder) if pattern.fullmatch(name))


def remove(directory: PrefixDir, *, keep_folder: bool = False) -> None:
    """Remove all files of a file_prefix; with `keep_folder`, keep its directory and lock file.

    Set the retired flag of each segment first, so that a VM that still maps it is notified. The caller holds CHANGE, or
    knows that no process of the file_prefix is alive.
    """
    table = last_table(directory)
    if table is not None:
        for record in table.segments:
            try:
                segment = open_segment(record)
            except EalError as error:
                log.debug("retired flag not set: %s", error)
                continue
            segment.retire()
            segment.close()
    for path in data_files(directory, table):
        path.unlink(missing_ok=True)
    for name in directory.metadata_names():
        directory.metadata_link(name).unlink(missing_ok=True)
    if keep_folder:
        directory.registry.unlink(missing_ok=True)
    else:
        shutil.rmtree(directory.path, ignore_errors=True)
