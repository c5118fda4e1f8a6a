# SPDX-License-Identifier: BSD-3-Clause
"""Difference: what stands between a plan and what is in place, and what of it cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import ivshmem
from eal.errors import InUse
from eal.lifecycle.eal import Eal
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.metadata.lookup import holders as metadata_with
from eal.metadata.records import Entry, Kind, SegmentRecord
from ivshmem.hotplug.attached_vms import AttachedVms
from ivshmem.inspect.holders import find_holders
from ivshmem.metadata.metadata import Metadata
from ivshmem.plan.items import Item, Key
from ivshmem.plan.layout import missing_segments
from ivshmem.plan.reader import key_path
from ivshmem.plan.record import PlanRecord
from ivshmem.plan.schema import Faults, Group, Plan, PlannedMetadata

GROW = "get an object in a further segment"
KEEPS_SHAPE = "and what lives keeps its shape: take it out of the plan, then put it in again"


class Difference:
    """`fresh` objects are to be made, `gone` ones freed, metadata `old` removed: those that the last plan made and this
    one does not have. What others made in the prefix is left alone.
    """

    def __init__(self, plan: Plan, app: Eal, record: PlanRecord) -> None:
        self.plan = plan
        self.app = app
        self.record = record
        self.table = app.registry_table
        self.there: dict[Key, Entry] = {(entry.kind, entry.name): entry for entry in self.table.entries}
        self.names = app.directory.metadata_names()
        self.fresh: list[Item] = [item for key, item in plan.items.items() if key not in self.there]
        self.gone = [e for key, e in self.there.items() if key in record.objects and key not in plan.items]
        self.old = [name for name in record.metadata if name not in plan.metadata and name in self.names]

    def segments_of(self, group: str) -> list[SegmentRecord]:
        """The segments that a group has already."""
        return [record for record in self.table.segments if record.group == group]

    def dropped(self, planned: PlannedMetadata) -> set[Key]:
        """What the last plan had in a metadata and this one has not, or has the other way."""
        if planned.name not in self.names:
            return set()
        there = ways(ivshmem.metadata_lookup(planned.name))
        known = self.record.metadata.get(planned.name, set())
        return {key for key in there if key in known and planned.objects.get(key, not there[key]) != there[key]}

    # --- what cannot be -----------------------------------------------------------------------------------

    def check_shapes(self) -> None:
        """Raises Faults where what lives has another shape than the plan has it."""
        faults = [fault for item in self.plan.items.values() for fault in self._item_faults(item)]
        for group in self.plan.groups.values():
            if there := self.segments_of(group.name):
                faults += _group_faults(group, there[0])
        for planned in self.plan.metadata.values():
            if planned.name in self.names:
                size = self.app.directory.metadata_link(planned.name).stat().st_size
                if size != planned.capacity:
                    where = key_path("metadata", planned.name, "capacity")
                    faults.append(f"{where}: {size} there, {planned.capacity} asked for, {KEEPS_SHAPE}")
        if faults:
            raise Faults(f"file_prefix {self.plan.file_prefix!r} cannot become what the plan says", faults)

    def _item_faults(self, item: Item) -> Iterator[str]:
        entry = self.there.get(item.key)
        if entry is None:
            return
        group = self.table.segments[entry.segment].group
        if group != item.group:
            yield f"{item.where}.group: {group!r} there, {item.group!r} asked for, {KEEPS_SHAPE}"
        elif item.key[0] == Kind.MEMZONE and entry.align != max(item.align, 64):
            yield f"{item.where}.align: {entry.align} there, {item.align} asked for, {KEEPS_SHAPE}"
        elif difference := item.compare(self.app, self.plan.groups[item.group].socket_id):
            yield f"{difference}, {KEEPS_SHAPE}"

    def check_use(self) -> None:
        """Raises InUse where what is to go, or to change under a VM, is held by somebody alive."""
        link = self.app.directory.metadata_link
        changes = dict(self._changes())
        of_objects = {id(entry): self.table.segments[entry.segment].path for entry in self.gone}
        of_metadata = {name: str(link(name).readlink()) for name in changes}
        holders = find_holders({*of_objects.values(), *of_metadata.values()})
        faults = [fault for entry in self.gone for fault in self._stands_in(entry)]
        for entry in self.gone:
            if by := ", ".join(map(str, holders.of(of_objects[id(entry)]))):
                faults.append(f"{entry.kind.name.lower()} {entry.name!r} cannot go: its segment is held by {by}")
        for name, change in changes.items():
            spared = self._plugged(name) if change == GROW else set()
            if by := ", ".join(str(holder) for holder in holders.of(of_metadata[name]) if holder.pid not in spared):
                remedy = f": `ivshmem plug {name} --qmp SOCKET` makes it known to a VM" if change == GROW else ""
                faults.append(f"metadata {name!r} cannot {change}: it is held by {by}{remedy}")
        if faults:
            raise InUse("nothing was changed, for it is in use:" + "".join(f"\n  {fault}" for fault in faults))

    def _changes(self) -> Iterator[tuple[str, str]]:
        """The metadata that a VM would lose or lack something by, and what becomes of each."""
        yield from ((name, "go") for name in self.old)
        for planned in self.plan.metadata.values():
            if planned.name in self.names and self.dropped(planned):
                yield planned.name, "lose an object"
            elif planned.name in self.names and self._grows(planned):
                yield planned.name, GROW

    def _grows(self, planned: PlannedMetadata) -> bool:
        """Whether a VM that has a metadata has to be given a further segment."""
        metadata = ivshmem.metadata_lookup(planned.name)
        known = {record.uuid for record in metadata.table.segments}
        added = planned.objects.keys() - ways(metadata).keys()
        groups = {item.group for item in self.fresh if item.key in added}
        old = {self.table.segments[self.there[key].segment].uuid for key in added if key in self.there}
        return not old <= known or any(self._lands_elsewhere(group, known) for group in groups)

    def _lands_elsewhere(self, name: str, known: set[UUID]) -> bool:
        """Whether what is made in a group may lie in another segment than those."""
        there = self.segments_of(name)
        items = [item for item in self.fresh if item.group == name]
        if not there or not {record.uuid for record in there} <= known:
            return True
        return bool(missing_segments(self.table, self.plan.groups[name], items, there[0].page_size))

    def _plugged(self, name: str) -> set[int]:
        """The process ids of the VMs that are given what a metadata gets: those it was plugged into."""
        known = AttachedVms(self.app.directory, ivshmem.metadata_lookup(name).uuid).known()
        return {vm.pid for vm in known if not vm.gone}

    def _stands_in(self, entry: Entry) -> Iterator[str]:
        """The metadata that keep an object from going: those that no plan made, or that others put it into."""
        uuid = self.table.segments[entry.segment].uuid
        for name in metadata_with(self.app.directory, uuid, entry.offset, entry.length):
            planned = self.plan.metadata.get(name)
            if name not in self.old and (planned is None or (entry.kind, entry.name) not in self.dropped(planned)):
                yield f"{entry.kind.name.lower()} {entry.name!r} cannot go: it stands in metadata {name!r}"


def ways(metadata: Metadata) -> dict[Key, bool]:
    """What is in a metadata, and whether read-only."""
    table = metadata.table
    return {(entry.kind, entry.name): table.segments[entry.segment].readonly for entry in table.entries}


def _group_faults(group: Group, first: SegmentRecord) -> Iterator[str]:
    """What a plan wants of a group whose first segment lives otherwise."""
    asked = {"page_size": group.page_size, "size": group.size}
    if group.socket_id != SOCKET_ID_ANY:
        asked["socket_id"] = group.socket_id
    for key, value in asked.items():
        there = getattr(first, key)
        if value not in (None, there):
            yield f"{key_path('groups', group.name, key)}: {there} there, {value} asked for, {KEEPS_SHAPE}"
