# SPDX-License-Identifier: BSD-3-Clause
"""The lock file of a prefix: who is primary, who is there at all, and who may change the registry now."""

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
    """The byte of the lock file that stands for each right."""

    CHANGE = 0  # held while the registry is changed
    PRIMARY = 1  # held by the primary as long as it lives
    MEMBER = 2  # shared by every process of the prefix as long as it lives


class LockFile:
    """fcntl record locks on one file that this process opens once.

    fcntl locks, because they die with the process even while a forked child lives on; a file of its own, because
    they are lost when any other descriptor of the same file is closed. Threads of one process share them, so a
    thread lock stands before CHANGE.
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
        """Whether the path still names the file that was opened: a closing primary removes it."""
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        mine = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def take(self, lock: Lock, *, shared: bool = False) -> bool:
        """Takes a lock if nobody else holds it; False otherwise."""
        try:
            fcntl.lockf(self._fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB, 1, lock)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True

    def give(self, lock: Lock) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, lock)

    def holder(self, lock: Lock) -> int | None:
        """The pid of one other process that holds a lock, or None."""
        return _holder(self._fd, lock)

    @contextmanager
    def change(self) -> Iterator[None]:
        """Alone among all threads and processes of the prefix while it lasts; may be nested."""
        with self._thread_lock:
            if self._fd < 0:
                raise Closed("this Eal is closed, or belongs to the parent process: call eal.init() again")
            if self._fd < 0:
                raise Closed(f"lock file {self.path} was closed while this thread waited for it")
            if self._depth == 0:
                fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, Lock.CHANGE)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0 and self._fd >= 0:
                    self.give(Lock.CHANGE)

    def close(self) -> None:
        """Gives up every lock, when no thread holds CHANGE."""
        with self._thread_lock:
            self.abandon()

    def abandon(self) -> None:
        """In a forked child, where a thread that is not there may hold the thread lock: lets go without asking."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _holder(fd: int, lock: Lock) -> int | None:
    ask = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, lock, 1, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, ask))
    return None if kind == fcntl.F_UNLCK else pid


def holder_of(path: Path, lock: Lock) -> int | None:
    """The pid of a process that holds a lock of the lock file at `path`, or None.

    For prefixes that this process has no Eal of: on its own lock file, opening and closing it here would lose
    the locks (`ivshmem.inspect.prefixes` answers for its own).
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        return _holder(fd, lock)
    finally:
        os.close(fd)
