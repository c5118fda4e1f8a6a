# SPDX-License-Identifier: BSD-3-Clause
"""Cleanup: remove the files of a file_prefix that has no live process."""

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


def last_table(directory: PrefixDir) -> Table | None:
    """Return the table of a prefix's registry; None if it is not readable."""
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


_OURS = re.compile(r"ivshmem\.[0-9]+\.[0-9a-f]{8}\..+\.[0-9a-f]{32}\.(seg|md)")


def data_files(directory: PrefixDir, table: Table | None = None) -> list[Path]:
    """Return the segment and metadata files of a prefix: those in the registry, and orphans with the prefix in their
    name. A
    file whose name does not have this project's form is left out, even if the registry lists it.
    """
    named = [Path(record.path) for record in table.segments] if table else []
    found = {path for path in named if _OURS.fullmatch(path.name)}
    found.update(folder / name for folder, name in _named(directory))
    return sorted(path for path in found if path.exists())


def strays(directory: PrefixDir) -> list[Path]:
    """Return the data files of a prefix that neither its registry nor one of its metadata files lists: they were being
    created when their process was stopped.
    """
    table = last_table(directory)
    links = (directory.metadata_link(name) for name in directory.metadata_names())
    known = {os.readlink(link) for link in links} | {record.path for record in (table.segments if table else ())}
    return [path for path in data_files(directory) if str(path) not in known]


def segment_files(uuid: UUID) -> Iterator[Path]:
    """Yield files with the name of a segment file of this uuid, of any prefix, in every directory for data files."""
    for folder in _folders():
        yield from (folder / name for name in glob.glob(f"*.{uuid.hex}.seg", root_dir=folder))


def orphans(root: Path) -> dict[str, list[Path]]:
    """Return the data files of a runtime directory by prefix, also of prefixes without a directory."""
    pattern = re.compile(re.escape(file_stem(root)) + r"\.(?P<prefix>.+)\.[0-9a-f]{32}\.(seg|md)")
    found: dict[str, list[Path]] = {}
    for folder in _folders():
        for name in sorted(os.listdir(folder)):
            if match := pattern.fullmatch(name):
                found.setdefault(match["prefix"].replace("map%5F", "map_"), []).append(folder / name)
    return found


def _folders() -> set[Path]:
    """Return the directories that may contain data files."""
    return {
        folder for folder in (SHM_DIR, *(mount.folder for mount in hugetlbfs_mounts())) if os.access(folder, os.R_OK)
    }


def _named(directory: PrefixDir) -> Iterator[tuple[Path, str]]:
    stem = f"{file_stem(directory.root)}.{directory.prefix}."
    spelt = "|".join(re.escape(one) for one in {stem, stem.replace("map_", "map%5F")})
    pattern = re.compile(rf"(?:{spelt})[0-9a-f]{{32}}\.(?:seg|md)")
    for folder in _folders():
        yield from ((folder, name) for name in os.listdir(folder) if pattern.fullmatch(name))


def remove(directory: PrefixDir, *, keep_folder: bool = False) -> None:
    """Remove all files of a prefix; segments are marked retired first, for VMs that still map them. The caller holds
    the
    prefix's CHANGE lock, or knows that the prefix has no live process.
    """
    table = last_table(directory)
    if table is not None:
        for record in table.segments:
            try:
                segment = open_segment(record)
            except EalError as error:
                log.debug("not marked retired: %s", error)
                continue
            segment.retire()
            segment.close()
    for path in data_files(directory, table):
        _unlink(path)
    for name in directory.metadata_names():
        _unlink(directory.metadata_link(name))
    if keep_folder:
        _unlink(directory.registry)
    else:
        shutil.rmtree(directory.path, ignore_errors=True)


def _unlink(path: Path) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
