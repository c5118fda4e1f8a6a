# SPDX-License-Identifier: BSD-3-Clause
"""Segment map: the segments that this machine has mapped from devices, one mapping each, and the device of each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from uuid import UUID

from eal.errors import Corrupt, EalError
from eal.linux.mapping import Mapping
from eal.memory.segment import Segment
from eal.metadata.records import SegmentRecord, Table
from eal.probe.classify import DeviceTable, ProbedDevice, SegmentDevice
from eal.probe.unplug_ack import MonitorSlot, release_slots

log = logging.getLogger(__name__)


@dataclass
class _Held:
    segment: Segment
    carrier: SegmentDevice  # the device it is mapped from


class SegmentMap:
    """One mapping per segment uuid, shared by all metadata files, from one of the devices that carry the segment."""

    def __init__(self, devices: DeviceTable, map_bar: Callable[..., Mapping]) -> None:
        self._devices = devices
        self._map_bar = map_bar
        self._held: dict[UUID, _Held] = {}

    @staticmethod
    def wanted_writable(tables: Iterable[Table]) -> set[UUID]:
        """Return the uuids of the segments that one of these tables lists as writable."""
        return {record.uuid for table in tables for record in table.segments if not record.readonly}

    def is_there(self, uuid: UUID) -> bool:
        return bool(self._devices.carriers_of(uuid))

    def carrier(self, record: SegmentRecord, writable: bool) -> SegmentDevice:
        """Return the device to map a segment from: if several carry it and it is written, one that is writable."""
        if (held := self._held.get(record.uuid)) is not None:
            return held.carrier
        carriers = self._devices.carriers_of(record.uuid)
        if writable and len(carriers) > 1:
            return next((carrier for carrier in carriers if carrier.takes_writes()), carriers[0])
        return carriers[0]

    def map(self, record: SegmentRecord, writable: bool, name: str) -> Segment:
        """Return the segment of a record of metadata file `name`. Raise Corrupt if its header does not match the
        record.
        """
        held = self._held.get(record.uuid)
        carrier = self.carrier(record, writable)
        if (carrier.record.size, carrier.record.group) != (record.size, record.group):
            raise Corrupt(
                f"{carrier.address}: segment {record.uuid} has {carrier.record.size} bytes and group "
                f"{carrier.record.group!r}, metadata {name!r} says {record.size} and {record.group!r}"
            )
        if held is not None:
            if writable and held.segment.readonly:
                self._move(held, carrier, writable=True)
            return held.segment
        mapping = self._map_bar(carrier.bar(), record.size, writable=writable, hint=carrier.record.host_address)
        segment = Segment(carrier.record, mapping, carrier.device.resource_name, socket_id=carrier.device.numa_node)
        self._held[record.uuid] = _Held(segment, carrier)
        return segment

    def is_held(self, uuid: UUID) -> bool:
        return uuid in self._held

    def mapped_from(self, uuid: UUID) -> SegmentDevice:
        return self._held[uuid].carrier

    def move_slot(self, slot: MonitorSlot | None) -> None:
        """Map a monitor slot through the device from which its segment is mapped now."""
        if slot is not None and slot.carrier is not (carrier := self.mapped_from(slot.segment)):
            try:
                slot.move(carrier)
            except EalError as error:
                log.warning("%s: cannot move the monitor slot there: %s", carrier.address, error)
                slot.lose()

    def assign_home(self, uuid: UUID, home: str) -> None:
        """Assign a segment device that was plugged before any metadata file to the first one that needs it."""
        for carrier in self._devices.carriers_of(uuid):
            carrier.home = carrier.home or home

    # --- release ----------------------------------------------------------------------------------------

    def lose(self, gone: Iterable[ProbedDevice]) -> set[UUID]:
        """Handle removed devices: map their segments from other devices, or detach them. Return the detached ones."""
        lost = set()
        for uuid, held in list(self._held.items()):
            if held.carrier in gone and not self._move_elsewhere(held, self._devices.carriers_of(uuid)):
                held.segment.detach()
                del self._held[uuid]
                lost.add(uuid)
        return lost

    def release(self, segments: Iterable[Segment], needed: set[UUID], home: str) -> None:
        """Detach the segments of the metadata file at `home`, which is about to be removed, except those that other
        shares need. These are mapped from a device that stays, if there is one.
        """
        for segment in segments:
            held = self._held[segment.uuid]
            if segment.uuid not in needed:
                self._detach(held)
            elif held.carrier.home == home:
                self._move_elsewhere(held, [c for c in self._devices.carriers_of(segment.uuid) if c.home != home])

    def drop_unused(self, used: Iterable[list[Segment]]) -> None:
        """Detach the segments that none of these lists contains."""
        kept = {segment.uuid for segments in used for segment in segments}
        for uuid, held in list(self._held.items()):
            if uuid not in kept:
                self._detach(held)

    def _detach(self, held: _Held) -> None:
        slots = held.segment.detach()
        del self._held[held.segment.uuid]
        if slots:
            try:
                release_slots(held.carrier, slots)
            except EalError as error:
                log.warning("%s: the slots of this process's threads stay in use: %s", held.carrier.address, error)

    def _move_elsewhere(self, held: _Held, carriers: Iterable[SegmentDevice]) -> bool:
        for carrier in carriers:
            if carrier is not held.carrier and carrier.record == held.segment.record:
                try:
                    self._move(held, carrier, writable=not held.segment.readonly)
                except EalError as error:
                    log.warning("segment %s cannot be mapped from %s: %s", held.segment.uuid, carrier.address, error)
                else:
                    return True
        return False

    def _move(self, held: _Held, carrier: SegmentDevice, *, writable: bool) -> None:
        """Map a segment from another device, or writable, in place of the existing mapping and its views."""
        held.segment.mapping.replace(self._map_bar(carrier.bar(), held.segment.size, writable=writable))
        held.segment.path = carrier.device.resource_name
        held.segment.socket_id = carrier.device.numa_node
        held.segment.readonly = not writable
        held.carrier = carrier
