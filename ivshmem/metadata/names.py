# SPDX-License-Identifier: BSD-3-Clause
"""Names of metadata files, unique among all prefixes of a runtime directory; uuids of new metadata files."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID, uuid4

from eal.errors import Exists
from eal.lifecycle import cleanup
from eal.runtime import prefix_dir
from eal.runtime.lock_file import LockFile
from eal.runtime.prefix_dir import PrefixDir
from ivshmem.vmm import qemu

_names_thread_lock = threading.Lock()
_NAMES_LOCK = "names-lock".ljust(prefix_dir.PREFIX_LIMIT + 1, "-")  # too long for a prefix


@contextmanager
def names_lock(root: Path) -> Iterator[None]:
    """Hold the lock for metadata names of all prefixes of a runtime directory in the block; its file is removed."""
    path = prefix_dir.make_private(root) / _NAMES_LOCK
    with _names_thread_lock:
        while True:
            lock = LockFile(path)
            try:
                with lock.change():
                    if lock.is_current():  # otherwise the previous holder has removed the file: open the new one
                        try:
                            yield
                        finally:
                            path.unlink()
                        return
            finally:
                lock.close()


def claim_name(own: PrefixDir, name: str) -> None:
    """Raise Exists if a metadata file has the name. Remove it if its prefix is dead."""
    for directory in prefix_dir.prefixes(own.root):
        link = directory.metadata_link(name)
        if not link.is_symlink():
            continue
        if directory.prefix == own.prefix:
            raise Exists(f"metadata {name!r} already exists in this file_prefix: close it or choose another name")
        pid = directory.holder()
        table = cleanup.last_table(directory)
        if pid is not None or (table is not None and table.kept):
            state = f"pid {pid}" if pid is not None else "kept, no process"
            raise Exists(f"metadata {name!r} already exists in file_prefix {directory.prefix!r} ({state})")
        remove_files(link, Path(os.readlink(link)))


def new_uuid(root: Path) -> UUID:
    """Return a random uuid whose slot on a VM's root bus has the fewest metadata files of a runtime directory."""
    taken = Counter(map(qemu.place_of, _uuids(root)))
    place = min(range(len(qemu.PLACES)), key=lambda number: taken[number])
    return next(uuid for uuid in iter(uuid4, None) if qemu.place_of(uuid) == place)


def _uuids(root: Path) -> Iterator[UUID]:
    """Yield the uuids of all metadata files of a runtime directory, from their file names."""
    for directory in prefix_dir.prefixes(root):
        for name in directory.metadata_names():
            with suppress(OSError, ValueError):  # the file was just removed, or has another name
                yield UUID(os.readlink(directory.metadata_link(name)).split(".")[-2])


def remove_files(link: Path, path: Path) -> None:
    """Remove a metadata file, and its link unless another metadata file has taken the name."""
    try:
        if os.readlink(link) == str(path):
            link.unlink()
    except FileNotFoundError:
        pass
    path.unlink(missing_ok=True)
