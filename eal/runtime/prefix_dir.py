# SPDX-License-Identifier: BSD-3-Clause
"""The runtime directory: where each prefix keeps its lock, its registry and the names of its metadata."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from eal.errors import Denied, Invalid, InvalidType
from eal.runtime.lock_file import Lock, holder_of

PREFIX_LIMIT = 128  # bytes; a segment's file name carries it and may have 255


def runtime_dir() -> Path:
    """$EAL_RUNTIME_DIR; else /run/ivshmem for root; else $XDG_RUNTIME_DIR/ivshmem; else a private folder in the
    system's folder for temporary files. Not made yet.
    """
    if given := os.environ.get("EAL_RUNTIME_DIR"):
        return Path(given)
    if os.geteuid() == 0:
        return Path("/run/ivshmem")
    if session := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(session) / "ivshmem"
    return Path(tempfile.gettempdir()) / f"ivshmem-{os.geteuid()}"


def make_private(path: Path) -> Path:
    """Makes a folder that nobody else can write to, or checks that it is one.

    Raises Denied for a folder of another user, one that others can write to, or one that cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Denied(f"cannot make {path}: {error.strerror}; name another one by EAL_RUNTIME_DIR") from error
    return check_private(path)


def check_private(path: Path) -> Path:
    """Gives the folder back if nobody else can write to it. Raises Denied otherwise: what others planted there would
    decide what is removed, or given to a VM.
    """
    try:
        found = os.lstat(path)
    except OSError as error:
        raise Denied(f"cannot look at {path}: {error.strerror}; name another one by EAL_RUNTIME_DIR") from error
    if not stat.S_ISDIR(found.st_mode):
        raise Denied(f"{path} is not a folder: remove it, or name another one by EAL_RUNTIME_DIR")
    if found.st_uid != os.geteuid():
        raise Denied(
            f"{path} belongs to user {found.st_uid}, not to {os.geteuid()}: name another one by EAL_RUNTIME_DIR"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Denied(f"others may write to {path}: chmod go-w it, or name another one by EAL_RUNTIME_DIR")
    return path


def check_prefix(prefix: object) -> str:
    """Gives a file_prefix back, or raises Invalid (InvalidType for what is no str)."""
    if not isinstance(prefix, str):
        raise InvalidType(f"file_prefix is a str, not {type(prefix).__name__}")
    size = len(os.fsencode(prefix))
    if not 1 <= size <= PREFIX_LIMIT:
        raise Invalid(f"file_prefix {prefix!r} has {size} bytes: 1 to {PREFIX_LIMIT} are allowed")
    if prefix in (".", "..") or any(c == "/" or ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in prefix):
        raise Invalid(f"file_prefix {prefix!r} is no file name, or has a control character in it")
    return prefix


@dataclass(frozen=True)
class PrefixDir:
    """The files of one prefix in a runtime directory."""

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
        """How the prefix's processes map BARs: see eal.pci.bar_access."""
        return self.path / "bar_access"

    @property
    def metadata(self) -> Path:
        return self.path / "metadata"

    def metadata_link(self, name: str) -> Path:
        """The link that names a metadata's file. The ending keeps names such as ".." from meaning a folder."""
        return self.metadata / f"{name}.md"

    def metadata_names(self) -> list[str]:
        try:
            return sorted(link.name[:-3] for link in self.metadata.iterdir() if link.name.endswith(".md"))
        except FileNotFoundError:
            return []

    def make(self) -> None:
        make_private(self.root)
        make_private(self.path)
        make_private(self.metadata)

    def holder(self) -> int | None:
        """The pid of a living process of the prefix, or None. Not for the prefix of this process's own Eal."""
        return holder_of(self.lock, Lock.MEMBER)

    def file_name(self, uuid: object, ending: str) -> str:
        """The name of a segment's or metadata's file: it carries the uid, which runtime directory, the prefix
        and the uuid, so that an orphan's owner is known.
        """
        return f"{file_stem(self.root)}.{self.prefix}.{uuid}.{ending}"


def file_stem(root: Path) -> str:
    """How the names of all files that belong to a runtime directory of this user start."""
    tag = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:8]
    return f"ivshmem.{os.geteuid()}.{tag}"


def prefixes(root: Path) -> list[PrefixDir]:
    """The prefixes that have files in a runtime directory, sorted by name; other folders there are nobody's business.

    Raises Denied for a folder that is not private.
    """
    try:
        check_private(root)
    except Denied as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return []
        raise
    found = [PrefixDir(root, path.name) for path in root.iterdir()]
    return sorted((d for d in found if d.registry.is_file() or d.metadata.is_dir()), key=lambda d: d.prefix)
