"""Difference: what stands between a plan and what is in place, and what of it cannot be."""

from __future__ import annotations

from collections.abc import Iterator

import ivshmem
from eal.eal import Eal
from eal.errors import InUse
from eal.metadata import holders as metadata_with
from eal.segment import SOCKET_ID_ANY
from eal.table import Entry, Kind, SegmentRecord
from ivshmem.holders import find_holders
from ivshmem.metadata import Metadata
from ivshmem.plan import Faults, Group, Plan, PlannedMetadata
from ivshmem.plan_items import Item, Key
from ivshmem.plan_reader import key_path
from ivshmem.plan_record import PlanRecord

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
        changed = [p.name for p in self.plan.metadata.values() if p.name in self.names and self._disturbs(p)]
        of_objects = {id(entry): self.table.segments[entry.segment].path for entry in self.gone}
        of_metadata = {name: str(link(name).readlink()) for name in (*self.old, *changed)}
        holders = find_holders({*of_objects.values(), *of_metadata.values()})
        faults = [fault for entry in self.gone for fault in self._stands_in(entry)]
        for entry in self.gone:
            if by := ", ".join(map(str, holders.of(of_objects[id(entry)]))):
                faults.append(f"{entry.kind.name.lower()} {entry.name!r} cannot go: its segment is held by {by}")
        for name, path in of_metadata.items():
            if by := ", ".join(map(str, holders.of(path))):
                does = "go" if name in self.old else "lose an object, or get one in a further segment"
                faults.append(f"metadata {name!r} cannot {does}: it is held by {by}")
        if faults:
            raise InUse("nothing was changed, for it is in use:" + "".join(f"\n  {fault}" for fault in faults))

    def _disturbs(self, planned: PlannedMetadata) -> bool:
        """Whether a VM that has a metadata would lose something by it, or have to be given a further segment."""
        metadata = ivshmem.metadata_lookup(planned.name)
        there = ways(metadata)
        known = {record.uuid for record in metadata.table.segments}
        fresh = [self.there.get(key) for key in planned.objects if key not in there]
        return bool(self.dropped(planned)) or any(
            entry is None or self.table.segments[entry.segment].uuid not in known for entry in fresh
        )

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
