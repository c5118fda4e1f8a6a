# SPDX-License-Identifier: BSD-3-Clause
"""Runtime directory: lock file, registry and metadata links of each file_prefix (DPDK: rte_eal_get_runtime_dir)."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from eal.errors import Denied, Invalid, InvalidType
from eal.runtime.lock_file import Lock, holder_of

PREFIX_LIMIT = 128  # bytes; the prefix is part of file names, which may have 255 bytes
_REMEDY = "set EAL_RUNTIME_DIR to another directory"


def runtime_dir() -> Path:
    """Return the runtime directory of this user, which may not exist.

    The first of: $EAL_RUNTIME_DIR; /run/ivshmem for root; $XDG_RUNTIME_DIR/ivshmem; ivshmem-UID in the directory for
    temporary files.
    """
    if configured := os.environ.get("EAL_RUNTIME_DIR"):
        return Path(configured)
    if os.geteuid() == 0:
        return Path("/run/ivshmem")
    if session := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(session) / "ivshmem"
    return Path(tempfile.gettempdir()) / f"ivshmem-{os.geteuid()}"


def make_private(path: Path) -> Path:
    """Create a directory that only this user can write to, or check an existing one. Return the path.

    Raise Denied if the directory cannot be created, or as `check_private`.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Denied(f"cannot create {path}: {error.strerror}; {_REMEDY}") from error
    return check_private(path)


def check_private(path: Path) -> Path:
    """Return the path of a directory. Raise Denied if another user owns it or can write to it.

    Files of another user in the directory could decide which files are removed, or which memory a VM gets.
    """
    try:
        found = os.lstat(path)
    except OSError as error:
        raise Denied(f"cannot read {path}: {error.strerror}; {_REMEDY}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise Denied(f"{path} must be a directory: remove the file, or {_REMEDY}")
    if found.st_uid != os.geteuid():
        raise Denied(f"{path} must belong to user {os.geteuid()}, not to user {found.st_uid}: {_REMEDY}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Denied(f"{path} must not be writable by other users: run chmod go-w {path}, or {_REMEDY}")
    return path


def check_prefix(prefix: object) -> str:
    """Return a file_prefix. Raise Invalid for an invalid one, InvalidType for no str."""
    if not isinstance(prefix, str):
        raise InvalidType(f"file_prefix must be a str, got {type(prefix).__name__}")
    size = len(os.fsencode(prefix))
    if not 1 <= size <= PREFIX_LIMIT:
        raise Invalid(f"file_prefix must have 1 to {PREFIX_LIMIT} bytes, got {size}: {prefix!r}")
    if prefix in (".", "..") or any(c == "/" or ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in prefix):
        raise Invalid(f"file_prefix must be a file name without control characters, got {prefix!r}")
    return prefix


@dataclass(frozen=True)
class PrefixDir:
    """The directory of one prefix in a runtime directory, and the files in it."""

    root: Path
    prefix: str

    @property
    def path(self) -> Path:
        return self.root / self.prefix

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def registry(self) -> Path:
        return self.path / "registry"

    @property
    def bar_access(self) -> Path:
        """The record of how the prefix's processes map BARs (`eal.pci.bar_access`)."""
        return self.path / "bar_access"

    @property
    def metadata(self) -> Path:
        return self.path / "metadata"

    def metadata_link(self, name: str) -> Path:
        """Return the path of the link to a metadata file. The suffix prevents special names such as ".."."""
        return self.metadata / f"{name}.md"

    def metadata_names(self) -> list[str]:
        """Return the names of the prefix's metadata files, sorted."""
        try:
            return sorted(link.name[:-3] for link in self.metadata.iterdir() if link.name.endswith(".md"))
        except FileNotFoundError:
            return []

    def create(self) -> None:
        """Create the directories. Raise Denied as `make_private`."""
        make_private(self.root)
        make_private(self.path)
        make_private(self.metadata)

    def holder(self) -> int | None:
        """Return the pid of a live process of the prefix, or None. The restriction of `holder_of` applies."""
        return holder_of(self.lock, Lock.MEMBER)

    def file_name(self, uuid: object, suffix: str) -> str:
        """Return the name of a segment file or metadata file.

        The name contains the user id, a tag of the runtime directory, the prefix and the uuid, so that cleanup can
        attribute a stale file.
        """
        return f"{file_stem(self.root)}.{self.prefix}.{uuid}.{suffix}"


def file_stem(root: Path) -> str:
    """Return the common start of the names of all files that belong to a runtime directory of this user."""
    tag = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:8]
    return f"ivshmem.{os.geteuid()}.{tag}"


def prefixes(root: Path) -> list[PrefixDir]:
    """Return the prefixes that have files in a runtime directory, sorted by name; other directories are ignored.

    Raise Denied if the runtime directory is not private.
    """
    try:
        check_private(root)
    except Denied as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return []
        raise
    found = [PrefixDir(root, path.name) for path in root.iterdir()]
    return sorted((d for d in found if d.registry.is_file() or d.metadata.is_dir()), key=lambda d: d.prefix)
