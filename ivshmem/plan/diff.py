# SPDX-License-Identifier: BSD-3-Clause
"""Difference: compare a plan with the current state of its file_prefix, and refuse changes that are not possible."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from eal.errors import InUse
from eal.lifecycle.eal import Eal
from eal.memory.heap import CACHE_LINE
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.metadata.lookup import metadata_with
from eal.metadata.records import Entry, Kind, SegmentRecord
from ivshmem.hotplug.attached_vms import AttachedVms
from ivshmem.inspect.holders import find_holders
from ivshmem.metadata.create import metadata_lookup
from ivshmem.metadata.metadata import Metadata
from ivshmem.plan.items import Item, Key, kind_name, mismatch
from ivshmem.plan.layout import missing_segments
from ivshmem.plan.reader import Fault, key_path
from ivshmem.plan.record import PlanRecord
from ivshmem.plan.schema import Faults, Group, Plan, PlannedMetadata

_REMOVED = "be removed"
_LOSES = "lose an object"
_GROWS = "get an object in a further segment"


class Difference:
    """The difference between a plan and the registry of its file_prefix.

    `missing`: items to create. `obsolete`: entries of the registry to free. `obsolete_metadata`: metadata files to
    remove. Only objects that the last plan created can be obsolete; objects that programs created are left unchanged.
    """

    def __init__(self, plan: Plan, app: Eal, record: PlanRecord) -> None:
        self.plan = plan
        self.app = app
        self.record = record
        self.table = app.registry_table
        self.existing: dict[Key, Entry] = {(entry.kind, entry.name): entry for entry in self.table.entries}
        self.metadata_names = app.directory.metadata_names()
        self.missing: list[Item] = [item for key, item in plan.items.items() if key not in self.existing]
        self.obsolete = [e for key, e in self.existing.items() if key in record.objects and key not in plan.items]
        self.obsolete_metadata = [
            name for name in record.metadata if name not in plan.metadata and name in self.metadata_names
        ]

    def segments_of(self, group: str) -> list[SegmentRecord]:
        """Return the existing segments of a group."""
        return [record for record in self.table.segments if record.group == group]

    def dropped(self, planned: PlannedMetadata) -> set[Key]:
        """Return the objects of the last plan that a metadata file must drop: the plan no longer lists them, or lists
        them with other access (read-only instead of writable, or the reverse).
        """
        if planned.name not in self.metadata_names:
            return set()
        access = readonly_by_key(metadata_lookup(planned.name))
        recorded = self.record.metadata.get(planned.name, set())
        return {key for key in access if key in recorded and planned.objects.get(key, not access[key]) != access[key]}

    # --- changes that are not possible --------------------------------------------------------------------

    def check_shapes(self) -> None:
        """Raise Faults if an existing object, group or metadata file has other properties than the plan."""
        faults = [fault for item in self.plan.items.values() for fault in self._item_faults(item)]
        for group in self.plan.groups.values():
            if segments := self.segments_of(group.name):
                faults += _group_faults(group, segments[0])
        for planned in self.plan.metadata.values():
            if planned.name in self.metadata_names:
                size = self.app.directory.metadata_link(planned.name).stat().st_size
                if size != planned.capacity:
                    path = key_path("metadata", planned.name, "capacity")
                    faults.append(mismatch(path, "existing metadata file", size, planned.capacity))
        if faults:
            raise Faults(f"file_prefix {self.plan.file_prefix!r} cannot be changed as planned", faults)

    def _item_faults(self, item: Item) -> Iterator[Fault]:
        entry = self.existing.get(item.key)
        if entry is None:
            return
        group = self.table.segments[entry.segment].group
        if group != item.group:
            yield item.difference("group", group, item.group)
        elif item.key[0] == Kind.MEMZONE and entry.align != max(item.align, CACHE_LINE):
            yield item.difference("align", entry.align, item.align)
        elif fault := item.compare(self.app, self.plan.groups[item.group].socket_id):
            yield fault

    def check_use(self) -> None:
        """Raise InUse if a live process or VM holds an object or metadata file that would be removed or changed."""
        changes = dict(self._metadata_changes())
        segment_paths = {id(entry): self.table.segments[entry.segment].path for entry in self.obsolete}
        metadata_paths = {name: str(self.app.directory.metadata_link(name).readlink()) for name in changes}
        holders = find_holders({*segment_paths.values(), *metadata_paths.values()})
        faults = [fault for entry in self.obsolete for fault in self._metadata_faults(entry)]
        for entry in self.obsolete:
            if by := ", ".join(map(str, holders.of(segment_paths[id(entry)]))):
                faults.append(f"{kind_name(entry.kind)} {entry.name!r} cannot be freed: its segment is held by {by}")
        for name, change in changes.items():
            updatable = self._attached_pids(name) if change == _GROWS else set()
            by = ", ".join(str(holder) for holder in holders.of(metadata_paths[name]) if holder.pid not in updatable)
            if by:
                remedy = f"; to update a running VM, use `ivshmem plug {name} --qmp SOCKET`" if change == _GROWS else ""
                faults.append(f"metadata file {name!r} cannot {change}: it is held by {by}{remedy}")
        if faults:
            raise InUse("objects are in use, nothing was changed:" + "".join(f"\n  {fault}" for fault in faults))

    def _metadata_changes(self) -> Iterator[tuple[str, str]]:
        """Yield the name of each metadata file that a VM could not follow, and the change."""
        yield from ((name, _REMOVED) for name in self.obsolete_metadata)
        for planned in self.plan.metadata.values():
            if planned.name in self.metadata_names and self.dropped(planned):
                yield planned.name, _LOSES
            elif planned.name in self.metadata_names and self._needs_segment(planned):
                yield planned.name, _GROWS

    def _needs_segment(self, planned: PlannedMetadata) -> bool:
        """Return True if a VM that has this metadata file needs a further segment."""
        metadata = metadata_lookup(planned.name)
        shared = {record.uuid for record in metadata.table.segments}
        added = planned.objects.keys() - readonly_by_key(metadata).keys()
        groups = {item.group for item in self.missing if item.key in added}
        old = {self.table.segments[self.existing[key].segment].uuid for key in added if key in self.existing}
        return not old <= shared or any(self._may_leave(group, shared) for group in groups)

    def _may_leave(self, name: str, shared: set[UUID]) -> bool:
        """Return True if the missing items of a group may be allocated in a segment that is not in `shared`."""
        segments = self.segments_of(name)
        items = [item for item in self.missing if item.group == name]
        if not segments or not {record.uuid for record in segments} <= shared:
            return True
        return bool(missing_segments(self.table, self.plan.groups[name], items, segments[0].page_size))

    def _attached_pids(self, name: str) -> set[int]:
        """Return the process ids of the VMs into which a metadata file was plugged: they get new segments by QMP."""
        attached = AttachedVms(self.app.directory, metadata_lookup(name).uuid).read()
        return {vm.pid for vm in attached if not vm.gone}

    def _metadata_faults(self, entry: Entry) -> Iterator[str]:
        """Yield a fault for each metadata file that lists an obsolete object and would still list it after `up`."""
        uuid = self.table.segments[entry.segment].uuid
        for name in metadata_with(self.app.directory, uuid, entry.offset, entry.length):
            if name in self.obsolete_metadata:
                continue
            planned = self.plan.metadata.get(name)
            if planned is None or (entry.kind, entry.name) not in self.dropped(planned):
                yield f"{kind_name(entry.kind)} {entry.name!r} cannot be freed: metadata file {name!r} lists it"


def readonly_by_key(metadata: Metadata) -> dict[Key, bool]:
    """Return the objects that a metadata file lists, each with True if a VM gets it read-only."""
    table = metadata.table
    return {(entry.kind, entry.name): table.segments[entry.segment].readonly for entry in table.entries}


def _group_faults(group: Group, first: SegmentRecord) -> Iterator[Fault]:
    """Yield a fault for each property of a group that its existing first segment does not have."""
    planned = {"page_size": group.page_size, "size": group.size}
    if group.socket_id != SOCKET_ID_ANY:
        planned["socket_id"] = group.socket_id
    existing = {"page_size": first.page_size, "size": first.size, "socket_id": first.socket_id}
    for key, value in planned.items():
        if value not in (None, existing[key]):
            yield mismatch(key_path("groups", group.name, key), "existing segment", existing[key], value)
