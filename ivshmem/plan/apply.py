# SPDX-License-Identifier: BSD-3-Clause
"""`ivshmem up`: apply a plan, or its difference to the current state, completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import eal
from eal.errors import InUse, Invalid
from eal.lifecycle import cleanup
from eal.lifecycle.eal import Eal
from eal.memory import hugepages, segment_file
from eal.memory.hugepages import Backend
from eal.memory.segment_file import Ownership
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.metadata.records import Entry, Kind
from eal.runtime import prefix_dir
from eal.runtime.prefix_dir import PrefixDir
from eal.text.sizes import size_text
from ivshmem.metadata.create import metadata_create, metadata_lookup
from ivshmem.metadata.metadata import qemu_args
from ivshmem.plan.diff import Difference, readonly_by_key
from ivshmem.plan.items import kind_name, lookup
from ivshmem.plan.layout import missing_segments
from ivshmem.plan.reader import key_path
from ivshmem.plan.record import PlanRecord
from ivshmem.plan.schema import Group, Plan, PlannedMetadata

# Called with the total number of bytes to allocate; returns the callback for each chunk of allocated bytes.
StartProgress = Callable[[int], Callable[[int], object]]


@dataclass(frozen=True)
class Change:
    """One change: `action` is "created", "added", "changed", "taken out", "freed" or "removed"."""

    action: str
    what: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.action} {self.what}{f': {self.detail}' if self.detail else ''}"


@dataclass
class Outcome:
    """Result of `up`: the changes in their order, and the QEMU options of each VM."""

    file_prefix: str
    changes: list[Change] = field(default_factory=list)
    vms: dict[str, list[str]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"file_prefix": self.file_prefix, "changes": [vars(change) for change in self.changes], "vms": self.vms}


def up(plan: Plan, start_progress: StartProgress | None = None) -> Outcome:
    """Create the objects of a plan and leave them in place; if an earlier plan is in place, apply the difference.

    `start_progress` reports the allocation of pages. Raises Faults for changes that are not possible; InUse if a live
    process or VM holds an object to remove, or a program created the file_prefix; NoMemory, Denied, Exists. If it
    raises, the previous state is restored.
    """
    directory = PrefixDir(prefix_dir.runtime_dir().absolute(), plan.file_prefix)
    table = cleanup.last_table(directory)
    # A primary would raise the epoch of a kept prefix; a secondary leaves it unchanged.
    role = "secondary" if table is not None and (table.kept or directory.holder() is not None) else "primary"
    pages = {"no_huge": plan.no_huge, "huge_dir": plan.huge_dir}
    with eal.init(["--no-pci"], file_prefix=plan.file_prefix, proc_type=role, **pages) as app:  # type: ignore[arg-type]
        if role == "secondary" and not app.registry_table.kept:
            raise InUse(
                f"file_prefix {plan.file_prefix!r} belongs to a running program, which removes it on exit: "
                "choose another file_prefix"
            )
        with app.lock():
            outcome = _Update(plan, app, PlanRecord.load(directory), start_progress).run()
        app.detach()
    return outcome


class _Update:
    """One run of `up`. The caller holds the lock of the file_prefix."""

    def __init__(self, plan: Plan, app: Eal, record: PlanRecord, start_progress: StartProgress | None) -> None:
        self._plan = plan
        self._app = app
        self._record = record
        self._start_progress = start_progress
        self._difference = Difference(plan, app, record)
        self._old_owners: dict[str, os.stat_result] = {}  # of the files whose ownership was changed
        self._outcome = Outcome(plan.file_prefix)

    def run(self) -> Outcome:
        self._difference.check_shapes()
        self._difference.check_use()
        with self._rollback(), self._app.transaction():
            self._create_segments()
            for item in self._difference.missing:
                item.create(self._app, self._plan.groups[item.group].socket_id)
                self._log("created", f"{kind_name(item.key[0])} {item.key[1]!r}", f"{item.length} bytes")
            for planned in self._plan.metadata.values():
                self._update_metadata(planned)
            self._change_owners()
            self._plan_vms()
            self._record.save(self._plan)
        self._remove_obsolete()
        return self._outcome

    def _log(self, action: str, what: str, detail: str = "") -> None:
        self._outcome.changes.append(Change(action, what, detail))

    @contextmanager
    def _rollback(self) -> Iterator[None]:
        """On an exception, restore metadata files and file owners, and remove unreferenced files.

        `Eal.transaction` does the same for memzones, rings, mempools and segments.
        """
        directory = self._app.directory
        names = directory.metadata_names()
        tables = {name: metadata_lookup(name).table for name in names if name in self._plan.metadata}
        try:
            yield
        except BaseException:
            for name in set(directory.metadata_names()) - set(names):
                metadata_lookup(name).close()
            for name, table in tables.items():
                metadata_lookup(name).restore(table)
            for path, old in self._old_owners.items():
                os.chown(path, old.st_uid, old.st_gid)
                os.chmod(path, old.st_mode & 0o777)
            for stray in cleanup.unlisted_files(directory):
                stray.unlink(missing_ok=True)
            raise

    # --- create and change --------------------------------------------------------------------------------

    def _create_segments(self) -> None:
        """Create all segments before the objects in them, so that one progress bar covers all pages."""
        needed = [(group, size) for group in self._plan.groups.values() for size in self._missing_sizes(group)]
        tmpfs = hugepages.tmpfs()
        on_tmpfs = sum(size for group, size in needed if self._page_size_of(group) == tmpfs.page_size)
        if on_tmpfs:
            # Check the sum first: allocating all but the last segment could starve other processes in vain.
            segment_file.check_room(tmpfs, on_tmpfs)
        progress = None
        if self._start_progress is not None and needed:
            progress = self._start_progress(sum(size for _, size in needed))
        for group, size in needed:
            backend = self._backend_of(group)
            segment = self._app.segment_create(
                size,
                group=group.name,
                socket_id=group.socket_id,
                mode=group.mode,
                user=group.user,
                user_group=group.user_group,
                page_size=backend.page_size if backend else None,
                huge_dir=backend.folder if backend and backend.huge else None,
                progress=progress,
            )
            node = "" if group.socket_id == SOCKET_ID_ANY else f" on NUMA node {group.socket_id}"
            pages = f"{size_text(size)} of {size_text(segment.page_size)} pages{node}"
            self._log("created", f"segment of group {group.name!r}", pages)

    def _missing_sizes(self, group: Group) -> list[int]:
        """Return the sizes in bytes of the segments to create for a group."""
        items = [item for item in self._difference.missing if item.group == group.name]
        if not items and group.size is None:
            return []
        return missing_segments(self._difference.table, group, items, self._page_size_of(group))

    def _page_size_of(self, group: Group) -> int:
        backend = self._backend_of(group)
        return backend.page_size if backend else self._app.page_size

    def _backend_of(self, group: Group) -> Backend | None:
        """Return the backend of a group's existing segments or of its huge_dir and page_size; None for the default."""
        if segments := self._difference.segments_of(group.name):
            return hugepages.backend_of(segments[0])
        if group.huge_dir is None and group.page_size is None:
            return None
        return hugepages.choose(huge_dir=group.huge_dir, page_size=group.page_size)

    def _update_metadata(self, planned: PlannedMetadata) -> None:
        """Create a metadata file, or drop and add objects of an existing one, until it matches the plan."""
        what = f"metadata {planned.name!r}"
        if planned.name in self._difference.metadata_names:
            metadata = metadata_lookup(planned.name)
            dropped = self._difference.dropped(planned)
            if dropped:
                metadata.drop(dropped)
            for kind, name in sorted(dropped):
                self._log("taken out", f"{kind_name(kind)} {name!r}", f"of {what}")
        else:
            owner = {"mode": planned.mode, "user": planned.user, "group": planned.user_group}
            metadata = metadata_create(planned.name, capacity=planned.capacity, **owner)  # type: ignore[arg-type]
            self._log("created", what)
        metadata.isolated = planned.isolated
        present = readonly_by_key(metadata)
        for readonly in (False, True):
            keys = [key for key, mode in planned.objects.items() if mode == readonly and key not in present]
            metadata.add(*(lookup(self._app, key) for key in keys), readonly=readonly)
            for kind, name in keys:
                self._log("added", f"{kind_name(kind)} {name!r}", f"to {what}")
        exposed = [zone.name for segment in metadata.exposure() for zone in segment.zones]
        if planned.isolated and exposed:
            raise Invalid(f"{key_path('metadata', planned.name)} must be isolated, but exposes {', '.join(exposed)}")

    def _change_owners(self) -> None:
        """Set owner and mode of existing files to those of the plan."""
        planned: dict[str, Group | PlannedMetadata] = {}
        for group in self._plan.groups.values():
            if group.owned:
                planned.update((record.path, group) for record in self._difference.segments_of(group.name))
        for name in set(self._difference.metadata_names) & set(self._plan.metadata):
            planned[metadata_lookup(name).path] = self._plan.metadata[name]
        for path, owner in sorted(planned.items()):
            ownership = Ownership(owner.mode, owner.user, owner.user_group)
            if not ownership.matches(Path(path)):
                self._old_owners[path] = os.stat(path)
                ownership.apply_to(Path(path))
                self._log("changed", f"owner and mode of {path}")

    def _plan_vms(self) -> None:
        """Compute the QEMU options of each VM; if the plan has no VMs, of one VM per metadata file."""
        vms = {vm.name: (vm.metadata, vm.plug) for vm in self._plan.vms.values()}
        for name, (shares, plug) in (vms or {name: ((name,), None) for name in self._plan.metadata}).items():
            self._outcome.vms[name] = qemu_args(*map(metadata_lookup, shares), plug=plug)

    # --- remove -------------------------------------------------------------------------------------------

    def _remove_obsolete(self) -> None:
        """Remove what the plan no longer contains, after the last step that can fail."""
        for name in self._difference.obsolete_metadata:
            metadata_lookup(name).close()
            self._log("removed", f"metadata {name!r}")
        for entry in self._difference.obsolete:
            self._free(entry)
            self._log("freed", f"{kind_name(entry.kind)} {entry.name!r}")
        groups = {self._difference.table.segments[entry.segment].group for entry in self._difference.obsolete}
        for record in self._app.remove_empty_segments(lambda record: record.group in groups):
            self._log("removed", f"segment of group {record.group!r}", size_text(record.size))

    def _free(self, entry: Entry) -> None:
        match entry.kind:
            case Kind.MEMZONE:
                self._app.memzone_free(self._app.memzone_lookup(entry.name))
            case Kind.RING:
                self._app.ring_free(self._app.ring_lookup(entry.name))
            case Kind.MEMPOOL:
                self._app.mempool_free(self._app.mempool_lookup(entry.name))
