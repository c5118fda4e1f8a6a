# SPDX-License-Identifier: BSD-3-Clause
"""Prober: accept metadata files from ivshmem devices as shares, and release them again.

A device with a metadata file has one of these states (DeviceState):

| state    | entered when                                   | next states                        |
|----------|------------------------------------------------|------------------------------------|
| NEW      | it was classified, or its share was lost       | ACCEPTED, PENDING, LEAVING, REJECTED |
| ACCEPTED | valid, complete and without conflict: a share  | LEAVING, NEW                       |
| PENDING  | valid, but a segment is missing                | ACCEPTED, LEAVING, REJECTED        |
| LEAVING  | its host has announced the unplug              | ACCEPTED, PENDING, REJECTED        |
| REJECTED | invalid, or in conflict with another share     | ACCEPTED, PENDING, LEAVING         |

LEAVING is left only if the unplug does not take place. An accepted share never becomes PENDING or REJECTED: it keeps
its table if a newer one cannot be used (`Share.unused`). A removed device has no state.
Never: a share published before all its segments are mapped, an acknowledgement sent before everything is detached.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from uuid import UUID

from eal.errors import Detached, EalError, InUse
from eal.linux.mapping import Mapping
from eal.metadata.records import Entry, Table
from eal.metadata.table_file import TableFile
from eal.pci.bar import Bar
from eal.pci.device import IvshmemDevice
from eal.probe.classify import DeviceState, DeviceTable, MetadataDevice, ProbedDevice
from eal.probe.events import Event, EventKind, names_of
from eal.probe.observer import ProbeObserver
from eal.probe.segment_map import SegmentMap
from eal.probe.share import Findings, Share
from eal.probe.unplug_ack import MonitorSlot
from eal.probe.validation import MissingSegment, check_complete, check_conflicts, check_unused

log = logging.getLogger(__name__)

NEW, ACCEPTED, PENDING = DeviceState.NEW, DeviceState.ACCEPTED, DeviceState.PENDING
LEAVING, REJECTED = DeviceState.LEAVING, DeviceState.REJECTED

TRANSITIONS = {
    NEW: {ACCEPTED, PENDING, LEAVING, REJECTED},
    ACCEPTED: {LEAVING, NEW},
    PENDING: {ACCEPTED, LEAVING, REJECTED},
    LEAVING: {ACCEPTED, PENDING, REJECTED},
    REJECTED: {ACCEPTED, PENDING, LEAVING},
}


def enter(device: MetadataDevice, state: DeviceState, fault: str = "") -> None:
    """Move a device to a state; a state may be entered again with another fault."""
    assert state is device.state or state in TRANSITIONS[device.state], (device.state, state)
    device.state, device.fault = state, fault


class Prober:
    """Accepts every metadata file whose segments are all present; keeps its state for later passes.

    One thread at a time. `map_segment` maps segments, with the arguments of Bar.map.
    """

    def __init__(self, observer: ProbeObserver | None = None, map_segment: Callable[..., Mapping] = Bar.map) -> None:
        self._observer = observer or ProbeObserver()
        self.refuse_stale = False  # whether objects of a stale share are refused
        self.findings = Findings()
        self.devices = DeviceTable()
        self.segments = SegmentMap(self.devices, map_segment)

    def probe(self, devices: Iterable[IvshmemDevice]) -> Findings:
        """Classify all devices for the first time, and accept their metadata files."""
        try:
            self.devices.update(devices)
            self.accept_all()
        finally:
            self.devices.close()
        return self.findings

    def outstanding(self) -> list[Event]:
        """Return the events that a new watch has missed: pending and stale shares."""
        pending = [
            Event("pending", device.name, device.address, reason=device.fault)
            for device in self.devices.metadata()
            if device.state is PENDING
        ]
        return pending + [
            Event("stale", share.name, share.address, names_of(share.table.entries), share.stale)
            for share in self.findings.shares
            if share.stale
        ]

    # --- acceptance ---------------------------------------------------------------------------------------

    def accept_all(self, *, only_released: bool = False) -> None:
        """Accept every usable metadata file; with `only_released`, only those released for an announced unplug."""
        accepted = {share.address for share in self.findings.shares}
        found = [
            (device, content)
            for device in self.devices.metadata()
            if device.address not in accepted and (device.released or not only_released)
            if (content := self._read(device)) is not None
        ]
        writable = self.segments.wanted_writable(
            [*(share.table for share in self.findings.shares), *(table for _, (_, table) in found)]
        )
        for device, (file, table) in found:
            self._accept(device, file, table, writable)
        self.findings.update(self.devices)

    def _read(self, device: MetadataDevice) -> tuple[TableFile, Table] | None:
        try:
            file = device.read()
            if file.leaving:
                enter(device, LEAVING, _leaving(device.name))
                return None
            return file, file.read()
        except Detached:
            return None  # the kernel is removing the device's files, one after another
        except EalError as error:
            if not device.gone:
                self._refuse(device, REJECTED, str(error))
            return None

    def _accept(self, device: MetadataDevice, file: TableFile, table: Table, writable: set[UUID]) -> None:
        try:
            share = self._map(device, file, table, writable)
        except Detached:
            return  # as in _read, for a segment
        except EalError as error:
            self._refuse(device, PENDING if isinstance(error, MissingSegment) else REJECTED, str(error))
            return
        was_released, device.released = device.released, False
        enter(device, ACCEPTED)
        for older in self.findings.shares:
            succeeded = older.name == share.name and older.uuid != share.uuid and older.table.epoch < table.epoch
            if succeeded and not older.stale:  # otherwise its retired flag was seen before
                self.mark_stale(older, f"its host made a fresh start: its successor is on device {share.address}")
        self._publish([*self.findings.shares, share])
        self._report("added" if was_released else "plugged", share, table.entries)

    def _refuse(self, device: MetadataDevice, state: DeviceState, reason: str) -> None:
        if (device.state, device.fault) == (state, reason):
            return
        if device.state is NEW:
            log.warning("ivshmem device %s is not used: %s", device.address, reason)
        enter(device, state, reason)
        self._report("pending" if state is PENDING else "rejected", device, reason=reason)

    def _map(self, device: MetadataDevice, file: TableFile, table: Table, writable: set[UUID]) -> Share:
        name = file.info.name
        self._check(file, table, self.findings.shares)
        try:
            segments = [self.segments.map(record, record.uuid in writable, name) for record in table.segments]
            slot = self._claim_slot(file, table)  # last: the first mapping of a BAR decides on its memory type
        except BaseException:
            self._drop_unused()
            raise
        for record in table.segments:
            self.segments.assign_home(record.uuid, device.address)
        return Share(name, device.address, file.info.uuid, file, table, segments, device, slot)

    def _check(self, file: TableFile, table: Table, others: Iterable[Share]) -> None:
        check_conflicts(file, table, others)
        check_unused(file.info.name, self._observer.find_in_use(table.entries))
        check_complete(file.info.name, table, self.segments)

    def _claim_slot(self, file: TableFile, table: Table) -> MonitorSlot | None:
        """Claim a monitor slot in the first writable segment; None if the share has no writable segment."""
        record = next((record for record in table.segments if not record.readonly), None)
        slot = MonitorSlot(file.info.uuid, self.segments.mapped_from(record.uuid)) if record else None
        if file.leaving:  # announced after the table was read: the host may not have seen this slot
            if slot is not None:
                slot.leave()
            raise InUse(_leaving(file.info.name))
        return slot

    # --- changes of accepted shares -----------------------------------------------------------------------

    def adopt_table(self, share: Share) -> None:
        """Adopt the current table of a share if every entry is usable."""
        others = [other for other in self.findings.shares if other is not share]
        try:
            table = share.file.read()
            self._check(share.file, table, others)
            writable = self.segments.wanted_writable([table])
            segments = [self.segments.map(record, record.uuid in writable, share.name) for record in table.segments]
        except Detached:
            return
        except EalError as error:
            if share.unused != str(error):
                share.unused = str(error)
                self._report("pending" if isinstance(error, MissingSegment) else "rejected", share, reason=share.unused)
            return
        grown = replace(share, table=table, segments=segments, unused="")
        self._publish([grown if other is share else other for other in self.findings.shares])
        self._observer.revoke(share, errno.ENODEV)  # objects that the new table no longer contains
        self._drop_unused()
        new = [entry for entry in table.entries if not share.has(entry, grown.segment_of(entry))]
        if new:
            self._report("added", share, new)

    def mark_stale(self, share: Share, reason: str) -> None:
        """Mark a share whose host made a fresh start: no process serves its objects."""
        share.stale = reason
        self._publish(self.findings.shares)
        if self.refuse_stale:
            self.refuse(share)
        self._report("stale", share, share.table.entries, reason)

    def refuse(self, share: Share) -> None:
        """Make operations on the objects of a stale share raise Stale."""
        share.terminal_errno = errno.ESTALE
        self._observer.revoke(share, errno.ESTALE)

    # --- removal ------------------------------------------------------------------------------------------

    def release(self, share: Share) -> None:
        """Detach everything of a share whose unplug is announced, then acknowledge."""
        announcement = share.file.leaving
        self._forget(share)  # first, so that cached objects return to their pools while the memory is still shared
        needed = {segment.uuid for other in self.findings.shares for segment in other.segments}
        self.segments.release(share.segments, needed, share.address)
        for other in self.findings.shares:
            self.segments.move_slot(other.slot)
        share.file.mapping.detach()
        share.device.released = True
        enter(share.device, LEAVING, _leaving(share.name))
        self.devices.close()
        if share.slot is not None:
            share.slot.acknowledge(announcement)
            share.slot.leave()
        self.findings.update(self.devices)
        self._report("unplugged", share, share.table.entries, "announced")

    def lose(self, gone: list[ProbedDevice]) -> None:
        """Handle devices that were removed without announcement: use other devices of their segments, or detach."""
        lost = self.segments.lose(gone)
        for share in self.findings.shares:
            if share.device not in gone and share.first_of(lost) and share.no_longer_lists(lost):
                self.adopt_table(share)
        for share in self.findings.shares:
            if share.device in gone:
                self._drop(share, f"device {share.address} is gone")
            elif broken := share.first_of(lost):
                self._drop(share, f"device that carried segment {broken} is gone")
            else:
                self.segments.move_slot(share.slot)

    def _drop(self, share: Share, reason: str) -> None:
        share.file.mapping.detach()
        if share.slot is not None:
            if self.segments.is_held(share.slot.segment):
                self.segments.move_slot(share.slot)
                share.slot.leave()
            else:
                share.slot.lose()
        self._forget(share)
        self._drop_unused()
        enter(share.device, NEW)
        self._report("unplugged", share, share.table.entries, reason)

    def _forget(self, share: Share) -> None:
        """Remove a share from lookups and refuse its objects."""
        self._publish([other for other in self.findings.shares if other is not share])
        share.terminal_errno = errno.ENODEV
        self._observer.revoke(share, errno.ENODEV)

    def _drop_unused(self) -> None:
        self.segments.drop_unused(share.segments for share in self.findings.shares)

    def close(self) -> None:
        """Release the monitor slots and every mapping; views keep their pages."""
        for share in self.findings.shares:
            if share.slot is not None:
                share.slot.leave()
            for segment in share.segments:
                segment.close()
            share.file.mapping.release()
        self.devices.close()

    # --- results ------------------------------------------------------------------------------------------

    def _publish(self, shares: list[Share]) -> None:
        """Replace the list of shares, those of live hosts first. Other threads iterate over the old list."""
        self.findings.shares = sorted(shares, key=lambda share: bool(share.stale))
        self._observer.publish(self.findings.shares)

    def _report(
        self, kind: EventKind, subject: Share | MetadataDevice, entries: Iterable[Entry] = (), reason: str = ""
    ) -> None:
        log.info("metadata %r on %s: %s %s", subject.name, subject.address, kind, reason)
        self._observer.report(Event(kind, subject.name, subject.address, names_of(entries), reason))


def _leaving(name: str) -> str:
    return f"metadata {name!r}: its host is about to unplug it"
