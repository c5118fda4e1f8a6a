# SPDX-License-Identifier: BSD-3-Clause
"""Lock file of a prefix: record locks for the primary role, membership, and changes of the registry."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

from eal.errors import Closed, Denied

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, len, pid


class Lock(IntEnum):
    """The locks, as byte offsets in the lock file."""

    CHANGE = 0  # held during a change of the registry or a metadata file
    PRIMARY = 1  # held by the primary until it ends
    MEMBER = 2  # shared by all processes of the prefix until they end


class LockFile:
    """fcntl record locks on a lock file that this process opens once.

    fcntl locks end with the process, even if a forked child lives on; flock locks would not. The file has no other use,
    because closing another descriptor of the same file would drop the locks. All threads of a process share a record
    lock, so a thread lock is acquired before CHANGE.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread_lock = threading.RLock()
        self._depth = 0
        self._fd = self._open()

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(self.path, flags, 0o600)
        except OSError as error:
            raise Denied(f"cannot open lock file {self.path}: {error.strerror}") from error

    def is_current(self) -> bool:
        """Return whether the path still refers to the open file; a closing primary removes the file."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return False
        opened = os.fstat(self._fd)
        return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)

    def acquire(self, lock: Lock, *, shared: bool = False) -> bool:
        """Acquire a lock without waiting. Return False if another process holds it."""
        try:
            fcntl.lockf(self._fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB, 1, lock)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True

    def release(self, lock: Lock) -> None:
        """Release a lock."""
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, lock)

    def holder(self, lock: Lock) -> int | None:
        """Return the pid of one other process that holds a lock, or None."""
        return _holder(self._fd, lock)

    @contextmanager
    def change(self) -> Iterator[None]:
        """Hold CHANGE in the block, against all other threads and processes of the prefix; may be nested.

        Raise Closed if the lock file was closed, also while this thread waited for another one.
        """
        with self._thread_lock:
            if self._fd < 0:
                raise Closed("this Eal is closed, or belongs to the parent process: call eal.init() again")
            if self._depth == 0:
                fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, Lock.CHANGE)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0 and self._fd >= 0:
                    self.release(Lock.CHANGE)

    def close(self) -> None:
        """Release all locks, after waiting until no thread of this process holds CHANGE."""
        with self._thread_lock:
            self.abandon()

    def abandon(self) -> None:
        """Close the file without acquiring the thread lock: in a forked child, its holder may not exist."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _holder(fd: int, lock: Lock) -> int | None:
    query = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, lock, 1, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, query))
    return None if kind == fcntl.F_UNLCK else pid


def holder_of(path: Path, lock: Lock) -> int | None:
    """Return the pid of a process that holds a lock of the lock file at `path`, or None.

    Do not call it for a prefix of which this process has an Eal: closing the second descriptor would drop that Eal's
    locks (`ivshmem.inspect.prefixes` uses the Eal instead).
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        return _holder(fd, lock)
    finally:
        os.close(fd)
