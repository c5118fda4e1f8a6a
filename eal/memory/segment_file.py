# SPDX-License-Identifier: BSD-3-Clause
"""Files of segments and metadata: create one, allocate all of its pages, set its mode and owner."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eal._native import lib
from eal.errors import Denied, EalError, Invalid, NoMemory, NotFound, from_errno
from eal.linux.mapping import Mapping
from eal.memory import numa
from eal.memory.hugepages import Backend
from eal.text.sizes import KIB, MIB

CHUNK = 64 * MIB  # bytes allocated in one step; between two steps `progress` is called and signals are handled

Progress = Callable[[int], object]  # called with the number of bytes allocated since its last call


@dataclass(frozen=True)
class Ownership:
    """Mode, user and group of a file; user and group by name or number, None for those of this process."""

    mode: int = 0o600
    user: str | int | None = None
    group: str | int | None = None

    def matches(self, path: Path) -> bool:
        """Return whether a file already has this mode, user and group."""
        found = path.stat()
        user = pwd.getpwnam(self.user).pw_uid if isinstance(self.user, str) else self.user
        group = grp.getgrnam(self.group).gr_gid if isinstance(self.group, str) else self.group
        owned = user in (None, found.st_uid) and group in (None, found.st_gid)
        return owned and found.st_mode & 0o777 == self.mode

    def apply_to(self, path: Path) -> None:
        """Apply to an existing file. Raise Denied, or NotFound for an unknown user or group."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            self.apply_fd(fd, path)
        finally:
            os.close(fd)

    def apply_fd(self, fd: int, path: Path) -> None:
        """Apply to an open file; `path` is for messages. Raise as `apply_to`."""
        try:
            if self.user is not None or self.group is not None:
                # shutil.chown takes names as well as numbers, os.fchown only numbers.
                shutil.chown(f"/proc/self/fd/{fd}", self.user, self.group)  # type: ignore[arg-type]
            os.fchmod(fd, self.mode)
        except LookupError as error:
            raise NotFound(f"{path}: {error}") from error
        except OSError as error:
            raise Denied(
                f"cannot set user {self.user}, group {self.group}, mode {self.mode:o} of {path}: {error.strerror}"
            ) from error


def check_mode(mode: object, subject: str) -> None:
    """Raise Invalid if `mode` is not the mode of a shared file; `subject` begins the message."""
    if not isinstance(mode, int) or mode & ~0o777 or mode & 0o600 != 0o600:
        shown = oct(mode) if isinstance(mode, int) else repr(mode)
        raise Invalid(f"{subject}: mode must be permission bits that include 0o600, such as 0o660, got {shown}")


def check_owner(kind: str, owner: str | int | None) -> None:
    """Raise NotFound if a user (`kind` "user") or group (`kind` "group") name is unknown to this system."""
    look_up = pwd.getpwnam if kind == "user" else grp.getgrnam
    try:
        if isinstance(owner, str):
            look_up(owner)
    except KeyError as error:
        raise NotFound(f"this system has no {kind} {owner!r}") from error


def create(
    backend: Backend,
    path: Path,
    size: int,
    *,
    hint: int = 0,
    ownership: Ownership | None = None,
    bind: int | None = None,
    progress: Progress | None = None,
) -> Mapping:
    """Create a file of `size` bytes, map it at address `hint` if free, and allocate every page, on NUMA node `bind`.

    Raise NoMemory for too few pages or pages on another node, Invalid for an unknown node, Denied, or NotFound for an
    unknown owner. After an error the file does not exist.
    """
    if bind is not None:
        numa.check_node(bind)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise Denied(f"cannot create {path}: {error.strerror}") from error
    try:
        os.ftruncate(fd, size)
        mapping = Mapping(fd, size, hint=hint, label=str(path))
        if bind is not None:
            numa.bind(mapping, bind, path)
        _allocate(backend, fd, mapping, progress)
        if bind is not None:
            numa.check_placement(mapping, backend.page_size, bind)
        (ownership or Ownership()).apply_fd(fd, path)
        return mapping
    except BaseException as error:
        os.unlink(path)
        if isinstance(error, NoMemory) or (isinstance(error, OSError) and not isinstance(error, EalError)):
            raise NoMemory(_shortage(backend, size, bind, error)) from error
        raise
    finally:
        os.close(fd)


def _allocate(backend: Backend, fd: int, mapping: Mapping, progress: Progress | None) -> None:
    """Allocate all pages now, because a page fault without a free page raises SIGBUS.

    fallocate allocates those of a tmpfs and fails cleanly; mmap has reserved those of a hugetlbfs.
    """
    if not backend.huge and backend.free_pages() * backend.page_size < mapping.length:
        raise _no_space()  # before the first page, so that a request that must fail starves no other process
    step = max(CHUNK, backend.page_size)
    for at in range(0, mapping.length, step):
        size = min(step, mapping.length - at)
        if not backend.huge:
            os.posix_fallocate(fd, at, size)
        result = lib.ivs_populate(mapping.address + at, size, backend.page_size)
        if result < 0:
            raise from_errno(result, f"cannot allocate the pages: {os.strerror(-result)}")
        if progress is not None:
            progress(size)


def check_room(backend: Backend, size: int) -> None:
    """Raise NoMemory if fewer than `size` bytes of pages are free. Call it before the first of several files."""
    if backend.free_pages() * backend.page_size < size:
        raise NoMemory(_shortage(backend, size, None, _no_space()))


def _no_space() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _shortage(backend: Backend, size: int, node: int | None, error: BaseException) -> str:
    need = size // backend.page_size
    kind = f"{'hugepages' if backend.huge else 'pages'} of {backend.page_size // KIB} KiB"
    where = f"{backend.folder}" if node is None else f"{backend.folder} on NUMA node {node}"
    try:
        free = str(backend.free_pages(node))
    except OSError:
        free = "an unknown number"
    return f"{need} {kind} required in {where}, {free} available ({error}): {backend.how_to_get_more(node)}"
