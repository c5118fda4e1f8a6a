# SPDX-License-Identifier: BSD-3-Clause
"""Membership of a file_prefix: join it as primary or secondary, hold its locks, and leave it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from eal.errors import Closed, InUse, NotFound
from eal.lifecycle import cleanup
from eal.lifecycle.recovery import raise_metadata_epochs
from eal.memory.registry import Registry, create_registry, open_registry
from eal.metadata.records import Entry
from eal.runtime.lock_file import Lock, LockFile
from eal.runtime.prefix_dir import PrefixDir

_JOIN_ATTEMPTS = 100  # each closing primary removes the directory, but not this often in a row


@dataclass
class Membership:
    """This process's membership of a file_prefix. `proc_type` is "primary" or "secondary"."""

    directory: PrefixDir
    locks: LockFile
    proc_type: str
    registry: Registry
    closed: bool = False

    @property
    def is_primary(self) -> bool:
        return self.proc_type == "primary"

    @property
    def owns_files(self) -> bool:
        """Return whether the files are to be removed at the end: this is the primary, and they are not kept."""
        return self.is_primary and not self.registry.table.kept

    def check_open(self) -> None:
        """Raise Closed after `leave` or `abandon`."""
        if self.closed:
            raise Closed("this Eal was closed, or belongs to the parent of this forked process; call eal.init() again")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the CHANGE lock: no other thread or process of the file_prefix changes anything. Raise Closed."""
        self.check_open()
        with self.locks.change():
            self.check_open()  # another thread may have closed the Eal while this one waited
            yield

    def is_alone(self) -> bool:
        """Return whether no other process of the file_prefix is alive."""
        return self.locks.holder(Lock.MEMBER) is None

    def find_in_registry(self, entries: Iterable[Entry]) -> tuple[Entry, str] | None:
        """Return the first entry whose kind and name are in the registry, and the text for its holder; else None."""
        self.check_open()
        for entry in entries if self.registry.table.entries else ():
            if self.registry.find(entry.kind, entry.name):
                return entry, f"file_prefix {self.directory.prefix!r}"
        return None

    def keep_files(self) -> None:
        """Mark the files as kept: the next process of the file_prefix attaches to them."""
        with self.locks.change():
            self.registry.set_kept()

    def leave(self, resources: ExitStack, *, remove: bool) -> None:
        """Close the resources of the Eal, release all locks, and remove the files of the file_prefix if `remove`."""
        with self.locks.change():
            self.closed = True
            resources.close()
            if remove and self.locks.is_current():
                cleanup.remove(self.directory)
        self.locks.close()

    def abandon(self, resources: ExitStack) -> None:
        """Close the resources in a forked child. No lock is acquired: a thread that was not forked may hold it."""
        self.closed = True
        resources.close()
        self.locks.abandon()


def join(directory: PrefixDir, proc_type: str, *, recover: bool) -> Membership:
    """Join a file_prefix in the requested role ("auto", "primary" or "secondary").

    With `recover`, a new primary adopts the objects of a dead one. Raise InUse, NotFound, Denied or Corrupt.
    """
    for _ in range(_JOIN_ATTEMPTS):
        directory.create()
        with ExitStack() as on_failure:
            locks = LockFile(directory.lock)
            on_failure.callback(locks.close)
            with locks.change():
                if locks.is_current():
                    role, registry = _take_role(directory, locks, proc_type, recover=recover)
                    locks.acquire(Lock.MEMBER, shared=True)
                    on_failure.pop_all()
                    return Membership(directory, locks, role, registry)
    raise InUse(
        f"file_prefix {directory.prefix!r}: runtime directory {directory.path} disappeared {_JOIN_ATTEMPTS} times "
        "during start-up; use another file_prefix"
    )


def _take_role(directory: PrefixDir, locks: LockFile, proc_type: str, *, recover: bool) -> tuple[str, Registry]:
    """Return the role of this process and the registry. The caller holds CHANGE."""
    primary = locks.holder(Lock.PRIMARY)
    if primary is not None:
        if proc_type == "primary" or recover:
            raise InUse(
                f"file_prefix {directory.prefix!r} has a live primary (pid {primary}); stop it, use another "
                "file_prefix, or pass proc_type='secondary'"
            )
        return "secondary", open_registry(directory.registry)
    last = cleanup.last_table(directory)
    kept = last is not None and last.kept
    if proc_type == "secondary":
        if not kept:
            raise NotFound(f"file_prefix {directory.prefix!r} has no primary; start one first")
        return "secondary", open_registry(directory.registry)
    locks.acquire(Lock.PRIMARY)
    if directory.registry.exists() and (recover or (kept and proc_type == "auto")):
        registry = open_registry(directory.registry)
        registry.raise_epoch()
        raise_metadata_epochs(directory, registry.table.epoch)
        return "primary", registry
    cleanup.remove(directory, keep_folder=True)
    return "primary", create_registry(directory.registry, last_epoch=last.epoch if last else 0)
