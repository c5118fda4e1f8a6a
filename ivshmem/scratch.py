# SPDX-License-Identifier: BSD-3-Clause
"""Scratch directories of emulated buses, emulated guests and VMs. Those of dead owners are found and removed."""

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
from eal.lifecycle import cleanup
from eal.runtime import prefix_dir

log = logging.getLogger(__name__)

_NAME = re.compile(r"ivshmem-(bus|guest|vm)-[0-9]+-[a-z0-9_]+")
_LOCK_DELAY = 2.0  # seconds; a younger directory may not be locked yet


class Scratch:
    """A private directory below the system's temporary directory; `kind` is "bus", "guest" or "vm".

    It is locked (flock) as long as a process has the descriptor `lock` open: this process and those that inherit it.
    """

    def __init__(self, kind: str) -> None:
        """Create and lock the directory, after removing stale ones."""
        for folder in stale_folders():
            remove(folder)
        self.path = Path(tempfile.mkdtemp(prefix=f"ivshmem-{kind}-{os.getpid()}-"))
        self.lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove the directory. Idempotent."""
        if self.lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self.lock)
            self.lock = -1


def stale_folders() -> list[Path]:
    """Return the scratch directories of this user whose owners are dead."""
    root = Path(tempfile.gettempdir())
    stale = []
    for name in sorted(os.listdir(root)):
        if _NAME.fullmatch(name):
            with _lock_stale(root / name) as locked:
                if locked:
                    stale.append(root / name)
    return stale


def remove(folder: Path) -> None:
    """Remove a scratch directory and the data files of its guest if it is stale; otherwise do nothing."""
    with _lock_stale(folder) as locked:
        if locked:
            log.info("removing %s: its owner is dead", folder)
            for directory in prefix_dir.prefixes(folder / "run"):
                cleanup.remove(directory)
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _lock_stale(folder: Path) -> Iterator[bool]:
    """Yield True if a directory is stale, and keep it locked so that two processes do not remove it at once."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # removed in the meantime, or owned by another user
        yield False
        return
    try:
        yield _try_lock(fd, folder)
    finally:
        os.close(fd)


def _try_lock(fd: int, folder: Path) -> bool:
    """Lock a directory and return True if it is stale. The lock ends when `fd` is closed."""
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or time.time() - status.st_ctime < _LOCK_DELAY:
        return False
    with suppress(OSError, EalError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return all(directory.holder() is None for directory in prefix_dir.prefixes(folder / "run"))
    return False
