# SPDX-License-Identifier: BSD-3-Clause
"""Up: makes what a plan describes, or the difference to what is in place, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import eal
import ivshmem
from eal.errors import InUse, Invalid
from eal.lifecycle import cleanup as leftovers
from eal.lifecycle.eal import Eal
from eal.memory import hugepages, segment_file
from eal.memory.hugepages import Backend
from eal.memory.segment_file import Ownership
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.metadata.records import Kind
from eal.runtime import prefix_dir as runtime
from eal.runtime.prefix_dir import PrefixDir
from eal.text.sizes import size_text
from ivshmem.plan.diff import Difference, ways
from ivshmem.plan.items import Key
from ivshmem.plan.layout import missing_segments
from ivshmem.plan.reader import key_path
from ivshmem.plan.record import PlanRecord
from ivshmem.plan.schema import Group, Plan, PlannedMetadata

Watch = Callable[[int], Callable[[int], object]]  # is told how many bytes are to be taken; gives what is told of some


@dataclass(frozen=True)
class Change:
    """One thing that was done: `action` is "created", "added", "changed", "taken out", "freed" or "removed"."""

    action: str
    what: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.action} {self.what}{f': {self.detail}' if self.detail else ''}"


@dataclass
class Outcome:
    """What `up` did, and the QEMU options of each VM."""

    file_prefix: str
    changes: list[Change] = field(default_factory=list)
    vms: dict[str, list[str]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"file_prefix": self.file_prefix, "changes": [vars(change) for change in self.changes], "vms": self.vms}


def up(plan: Plan, watch: Watch | None = None) -> Outcome:
    """Makes what a plan describes and leaves it in place. Where an earlier plan of that file_prefix is in place, does
    the difference. `watch` is shown the progress while pages are taken.

    Raises Faults for what cannot be changed, InUse for what would be taken from somebody alive, or for a file_prefix
    that a program made; NoMemory, Denied, Exists. Whatever it raises, all is as it was before.
    """
    directory = PrefixDir(runtime.runtime_dir().absolute(), plan.file_prefix)
    last = leftovers.last_table(directory)
    # A secondary of what is kept changes nothing by coming and going, not even an epoch.
    role = "secondary" if last is not None and (last.kept or directory.holder() is not None) else "primary"
    how = {"no_huge": plan.no_huge, "huge_dir": plan.huge_dir}
    with eal.init(["--no-pci"], file_prefix=plan.file_prefix, proc_type=role, **how) as app:  # type: ignore[arg-type]
        if role == "secondary" and not app.registry_table.kept:
            raise InUse(
                f"file_prefix {plan.file_prefix!r} is that of a running program, which takes all away when it ends: "
                "choose another file_prefix"
            )
        with app.lock():
            outcome = _Work(plan, app, PlanRecord.load(directory), watch).run()
        app.detach()
    return outcome


class _Work:
    """One run of `up`, alone in the prefix."""

    def __init__(self, plan: Plan, app: Eal, record: PlanRecord, watch: Watch | None) -> None:
        self._plan = plan
        self._app = app
        self._record = record
        self._watch = watch
        self._difference = Difference(plan, app, record)
        self._owners: dict[str, os.stat_result] = {}  # as they were, of files that were given to others
        self._outcome = Outcome(plan.file_prefix)

    def run(self) -> Outcome:
        self._difference.check_shapes()
        self._difference.check_use()
        with self._whole_or_not_at_all(), self._app.transaction():
            self._make_segments()
            for item in self._difference.fresh:
                item.create(self._app, self._plan.groups[item.group].socket_id)
                self._did("created", f"{item.key[0].name.lower()} {item.key[1]!r}", f"{item.length} bytes")
            for planned in self._plan.metadata.values():
                self._fill(planned)
            self._give_to_owners()
            self._write_vms()
            self._record.save(self._plan)
        self._take_away()
        return self._outcome

    def _did(self, action: str, what: str, detail: str = "") -> None:
        self._outcome.changes.append(Change(action, what, detail))

    @contextmanager
    def _whole_or_not_at_all(self) -> Iterator[None]:
        """What `transaction` does for zones, done for metadata, owners of files, and files that nobody knows yet."""
        directory = self._app.directory
        names = directory.metadata_names()
        tables = {name: ivshmem.metadata_lookup(name).table for name in names if name in self._plan.metadata}
        try:
            yield
        except BaseException:
            for name in set(directory.metadata_names()) - set(names):
                ivshmem.metadata_lookup(name).close()
            for name, table in tables.items():
                ivshmem.metadata_lookup(name).restore(table)
            for path, found in self._owners.items():
                os.chown(path, found.st_uid, found.st_gid)
                os.chmod(path, found.st_mode & 0o777)
            for stray in leftovers.strays(directory):
                stray.unlink(missing_ok=True)
            raise

    # --- making -------------------------------------------------------------------------------------------

    def _make_segments(self) -> None:
        """Before what lies in them, so that there is one progress of it all."""
        wanted = [(group, size) for group in self._plan.groups.values() for size in self._missing(group)]
        small = sum(size for group, size in wanted if self._page_size_of(group) == hugepages.tmpfs().page_size)
        if small:
            segment_file.check_room(
                hugepages.tmpfs(), small
            )  # all of them: what is refused must not starve others first
        told = self._watch(sum(size for _, size in wanted)) if self._watch is not None and wanted else None
        for group, size in wanted:
            backend = self._pages_of(group)
            segment = self._app.segment_create(
                size,
                group=group.name,
                socket_id=group.socket_id,
                mode=group.mode,
                user=group.user,
                user_group=group.user_group,
                page_size=backend.page_size if backend else None,
                huge_dir=backend.folder if backend and backend.huge else None,
                progress=told,
            )
            node = "" if group.socket_id == SOCKET_ID_ANY else f" on NUMA node {group.socket_id}"
            pages_text = f"{size_text(size)} of {size_text(segment.page_size)} pages{node}"
            self._did("created", f"segment of group {group.name!r}", pages_text)

    def _missing(self, group: Group) -> list[int]:
        items = [item for item in self._difference.fresh if item.group == group.name]
        if not items and group.size is None:
            return []
        return missing_segments(self._difference.table, group, items, self._page_size_of(group))

    def _page_size_of(self, group: Group) -> int:
        backend = self._pages_of(group)
        return backend.page_size if backend else self._app.page_size

    def _pages_of(self, group: Group) -> Backend | None:
        """The pages that a group has already, or insists on."""
        if there := self._difference.segments_of(group.name):
            return hugepages.backend_of(there[0])
        if group.huge_dir is None and group.page_size is None:
            return None
        return hugepages.choose(huge_dir=group.huge_dir, page_size=group.page_size)

    def _fill(self, planned: PlannedMetadata) -> None:
        """Makes a metadata, or takes out of it and adds to it what the plan says."""
        of = f"metadata {planned.name!r}"
        if planned.name in self._difference.names:
            metadata = ivshmem.metadata_lookup(planned.name)
            gone = self._difference.dropped(planned)
            if gone:
                metadata.drop(gone)
            for kind, name in sorted(gone):
                self._did("taken out", f"{kind.name.lower()} {name!r}", f"of {of}")
        else:
            owner = {"mode": planned.mode, "user": planned.user, "group": planned.user_group}
            metadata = ivshmem.metadata_create(planned.name, capacity=planned.capacity, **owner)  # type: ignore[arg-type]
            self._did("created", of)
        metadata.isolated = planned.isolated
        there = ways(metadata)
        for readonly in (False, True):
            keys = [key for key, way in planned.objects.items() if way == readonly and key not in there]
            metadata.add(*map(_lookup, keys), readonly=readonly)
            for kind, name in keys:
                self._did("added", f"{kind.name.lower()} {name!r}", f"to {of}")
        exposed = [zone.name for segment in metadata.exposure() for zone in segment.zones]
        if planned.isolated and exposed:
            raise Invalid(f"{key_path('metadata', planned.name)} is to be isolated, but exposes {', '.join(exposed)}")

    def _give_to_owners(self) -> None:
        """Gives files that were there already to whom the plan says by now."""
        wanted: dict[str, Group | PlannedMetadata] = {}
        for group in self._plan.groups.values():
            if group.owned:
                wanted.update((record.path, group) for record in self._difference.segments_of(group.name))
        for name in set(self._difference.names) & set(self._plan.metadata):
            wanted[ivshmem.metadata_lookup(name).path] = self._plan.metadata[name]
        for path, to in sorted(wanted.items()):
            ownership = Ownership(to.mode, to.user, to.user_group)
            if not ownership.holds(Path(path)):
                self._owners[path] = os.stat(path)
                ownership.give(Path(path))
                self._did("changed", f"owner and mode of {path}")

    def _write_vms(self) -> None:
        """The options of each VM; where the plan has none, of each metadata as if it were one."""
        vms = {vm.name: (vm.metadata, vm.plug) for vm in self._plan.vms.values()}
        for name, (given, plug) in (vms or {name: ((name,), None) for name in self._plan.metadata}).items():
            metadata = [ivshmem.metadata_lookup(each) for each in given]
            self._outcome.vms[name] = ivshmem.qemu_args(*metadata, plug=plug)

    # --- taking away --------------------------------------------------------------------------------------

    def _take_away(self) -> None:
        """What the plan has no more; when all that is new is there, so that nothing else can fail."""
        free: dict[Kind, Callable[[Any], None]] = {
            Kind.MEMZONE: self._app.memzone_free,
            Kind.RING: self._app.ring_free,
            Kind.MEMPOOL: self._app.mempool_free,
        }
        for name in self._difference.old:
            ivshmem.metadata_lookup(name).close()
            self._did("removed", f"metadata {name!r}")
        for entry in self._difference.gone:
            free[entry.kind](_lookup((entry.kind, entry.name)))
            self._did("freed", f"{entry.kind.name.lower()} {entry.name!r}")
        groups = {self._difference.table.segments[entry.segment].group for entry in self._difference.gone}
        for record in self._app.remove_empty_segments(lambda record: record.group in groups):
            self._did("removed", f"segment of group {record.group!r}", size_text(record.size))


def _lookup(key: Key) -> Any:
    look = {Kind.MEMZONE: eal.memzone_lookup, Kind.RING: eal.ring_lookup, Kind.MEMPOOL: eal.mempool_lookup}
    return look[key[0]](key[1])
