# SPDX-License-Identifier: BSD-3-Clause
"""Names of metadata: unique in a runtime directory, whatever the file_prefix; and the uuid that goes with a new one."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID, uuid4

from eal.errors import Exists
from eal.lifecycle import cleanup as leftovers
from eal.runtime import prefix_dir as runtime
from eal.runtime.lock_file import LockFile
from eal.runtime.prefix_dir import PrefixDir
from ivshmem.vmm import qemu

_names_thread_lock = threading.Lock()
_NAMES_LOCK = "names-lock".ljust(runtime.PREFIX_LIMIT + 1, "-")  # longer than a prefix may be: never one's folder


@contextmanager
def names_lock(root: Path) -> Iterator[None]:
    """Alone with the names of metadata in a runtime directory, among all prefixes. Leaves no file behind."""
    path = runtime.make_private(root) / _NAMES_LOCK
    with _names_thread_lock:
        while True:
            lock = LockFile(path)
            try:
                with lock.change():
                    if lock.is_current():  # else whoever had it before has removed the file: once more
                        try:
                            yield
                        finally:
                            path.unlink()
                        return
            finally:
                lock.close()


def claim_name(mine: PrefixDir, name: str) -> None:
    """Raises Exists where somebody has the name; takes away what a dead prefix left of it."""
    for directory in runtime.prefixes(mine.root):
        link = directory.metadata_link(name)
        if not link.is_symlink():
            continue
        if directory.prefix == mine.prefix:
            raise Exists(f"metadata {name!r} exists already in this file_prefix: close it or choose another name")
        living = directory.holder()
        table = leftovers.last_table(directory)
        if living is not None or (table is not None and table.kept):
            by = f"pid {living}" if living is not None else "kept, no process"
            raise Exists(f"metadata {name!r} exists already: file_prefix {directory.prefix!r} has it ({by})")
        remove_files(link, Path(os.readlink(link)))


def new_uuid(root: Path) -> UUID:
    """A random uuid whose place on a VM's root bus is the one that the fewest other metadata have."""
    taken = Counter(map(qemu.place_of, _uuids(root)))
    place = min(range(len(qemu.PLACES)), key=lambda number: taken[number])
    return next(uuid for uuid in iter(uuid4, None) if qemu.place_of(uuid) == place)


def _uuids(root: Path) -> Iterator[UUID]:
    """Of all metadata of a runtime directory, from the names of their files."""
    for directory in runtime.prefixes(root):
        for name in directory.metadata_names():
            with suppress(OSError, ValueError):  # being removed, or not ours
                yield UUID(os.readlink(directory.metadata_link(name)).split(".")[-2])


def remove_files(link: Path, path: Path) -> None:
    """Takes a metadata's file away, and its name unless that is another one's by now."""
    try:
        if os.readlink(link) == str(path):
            link.unlink()
    except FileNotFoundError:
        pass
    path.unlink(missing_ok=True)
