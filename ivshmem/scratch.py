# SPDX-License-Identifier: BSD-3-Clause
"""Scratch folders, of emulated buses, guests and VMs: each goes with its owner, or at the next start after that."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eal.errors import EalError
from eal.lifecycle import cleanup as leftovers
from eal.runtime import prefix_dir as runtime

log = logging.getLogger(__name__)

_NAME = re.compile(r"ivshmem-(bus|guest|vm)-[0-9]+-[a-z0-9_]+")
_FRESH = 2.0  # seconds in which a new folder may not be locked yet


class Scratch:
    """A private folder among the system's temporary files; `kind` is "bus", "guest" or "vm".

    It is locked (flock) as long as a process has the descriptor `lock`: this one, and who inherits that. Folders whose
    lock nobody holds are taken away first.
    """

    def __init__(self, kind: str) -> None:
        for folder in abandoned():
            remove(folder)
        self.path = Path(tempfile.mkdtemp(prefix=f"ivshmem-{kind}-{os.getpid()}-"))
        self.lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Takes it away. May be called twice."""
        if self.lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self.lock)
            self.lock = -1


def abandoned() -> list[Path]:
    """This user's scratch folders whose owner died before it could take them away."""
    root = Path(tempfile.gettempdir())
    found = []
    for name in sorted(os.listdir(root)):
        if _NAME.fullmatch(name):
            with _claimed(root / name) as claimed:
                if claimed:
                    found.append(root / name)
    return found


def remove(folder: Path) -> None:
    """Takes an abandoned folder away, with what its guest had; one that is not is left alone."""
    with _claimed(folder) as claimed:
        if claimed:
            log.info("%s is removed: its owner is dead", folder)
            for directory in runtime.prefixes(folder / "run"):
                leftovers.remove(directory)
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _claimed(folder: Path) -> Iterator[bool]:
    """Whether a folder is abandoned; it is locked meanwhile, so that two who clean do not meet."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # gone, or somebody else's
        yield False
        return
    try:
        yield _is_abandoned(fd, folder)
    finally:
        os.close(fd)


def _is_abandoned(fd: int, folder: Path) -> bool:
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() or time.time() - found.st_ctime < _FRESH:
        return False
    with suppress(OSError, EalError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return all(directory.holder() is None for directory in runtime.prefixes(folder / "run"))
    return False
