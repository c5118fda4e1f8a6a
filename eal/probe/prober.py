# SPDX-License-Identifier: BSD-3-Clause
"""Probing: what the ivshmem devices of this machine carry, validated before anything of it is used."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from uuid import UUID

from eal.errors import Corrupt, Detached, EalError, Exists, InUse, NotFound
from eal.linux.mapping import Mapping
from eal.metadata.records import Entry, Table
from eal.metadata.table_file import TableFile
from eal.pci.bar import Bar
from eal.pci.device import IvshmemDevice
from eal.probe.classify import DeviceTable, MetadataDevice, ProbedDevice
from eal.probe.events import Event, EventKind, names_of
from eal.probe.segment_map import SegmentMap
from eal.probe.share import Findings, Rejection, Share, by_name, place_of
from eal.probe.unplug_ack import MonitorSlot

log = logging.getLogger(__name__)


class _Missing(NotFound):
    """A segment is not there, or not yet."""


class Prober:
    """Sorts devices by what is in them, and takes each metadata whose segments are all there.

    It keeps what it knows, so that it can be asked again whenever devices came or went. One thread at a time.
    """

    def __init__(
        self,
        in_use: Callable[[Iterable[Entry]], tuple[Entry, str] | None],
        map_segment: Callable[..., Mapping] = Bar.map,
        *,
        publish: Callable[[list[Share]], None] = lambda shares: None,
        revoke: Callable[[Share, int], None] = lambda share, code: None,
        report: Callable[[Event], None] = lambda event: None,
    ) -> None:
        """`in_use` gives the first object whose kind and name somebody has already, and who has it, or None.
        `map_segment` maps the segments that are used, with the arguments of Bar.map.

        `publish` is told which shares there are whenever that changes, `revoke` that what is only in this share, or
        in it no more, is refused with an errno from now on, and `report` of every event.
        """
        self._in_use = in_use
        self._tell_shares, self._revoke, self._report = publish, revoke, report
        self.refuse_stale = False  # whether objects of a stale share are refused
        self.findings = Findings()
        self.devices = DeviceTable()
        self.segments = SegmentMap(self.devices, map_segment)

    def probe(self, devices: Iterable[IvshmemDevice]) -> Findings:
        """Looks at every device, for the first time."""
        try:
            self.devices.update(devices)
            self.take()
        finally:
            self.devices.close()
        return self.findings

    def tell(
        self, kind: EventKind, name: str, address: str, *, reason: str = "", entries: Iterable[Entry] = ()
    ) -> None:
        log.info("metadata %r on %s: %s %s", name, address, kind, reason)
        self._report(Event(kind, name, address, objects=names_of(entries), reason=reason))

    def standing(self) -> list[Event]:
        """What somebody who begins to listen has missed: what is pending, and what is stale."""
        pending = [
            Event("pending", device.name, device.address, reason=device.fault)
            for device in self.devices.metadata()
            if device.state == "pending"
        ]
        return pending + [
            Event("stale", share.name, share.address, names_of(share.table.entries), share.stale)
            for share in self.findings.shares
            if share.stale
        ]

    # --- metadata that came -------------------------------------------------------------------------------

    def take(self, *, only_known: bool = False) -> None:
        """Takes every metadata that can be; with `only_known` those alone that were in use until their unplug was
        announced. What is refused stands in `findings.rejections` with the reason.
        """
        taken = {share.address for share in self.findings.shares}
        found = [
            (device, read)
            for device in self.devices.metadata()
            if device.address not in taken and (device.let_go or not only_known)
            if (read := self._read(device)) is not None
        ]
        writable = self.segments.wanted_writable(
            [*(share.table for share in self.findings.shares), *(table for _, (_, table) in found)]
        )
        for device, (file, table) in found:
            self._try(device, file, table, writable)
        self._list()

    def _read(self, device: MetadataDevice) -> tuple[TableFile, Table] | None:
        try:
            file = device.read()
            if file.leaving:
                self._refuse(device, "leaving", f"metadata {device.name!r}: its host is about to unplug it")
                return None
            return file, file.read()
        except Detached:
            return None  # it is on its way out: the kernel takes its files away one by one
        except EalError as error:
            if not device.gone:
                self._refuse(device, "rejected", str(error))
            return None

    def _try(self, device: MetadataDevice, file: TableFile, table: Table, writable: set[UUID]) -> None:
        try:
            share = self._accept(device, file, table, writable)
        except Detached:
            return  # as above, of a segment
        except EalError as error:
            self._refuse(device, "pending" if isinstance(error, _Missing) else "rejected", str(error))
            return
        again, device.let_go = device.let_go, False
        device.state, device.fault = "accepted", ""
        for older in self.findings.shares:
            succeeded = older.name == share.name and older.uuid != share.uuid and older.table.epoch < table.epoch
            if succeeded and not older.stale:  # else it was told by its retired mark
                self.retire(older, f"its host started afresh: its successor is on device {share.address}")
        self._publish([*self.findings.shares, share])
        self.tell("added" if again else "plugged", share.name, share.address, entries=table.entries)

    def _refuse(self, device: MetadataDevice, state: str, reason: str) -> None:
        if (device.state, device.fault) != (state, reason):
            if state != "leaving":
                if device.state == "new":
                    log.warning("ivshmem device %s is not used: %s", device.address, reason)
                self.tell("pending" if state == "pending" else "rejected", device.name, device.address, reason=reason)
            device.state, device.fault = state, reason

    def _accept(self, device: MetadataDevice, file: TableFile, table: Table, writable: set[UUID]) -> Share:
        name = file.info.name
        self._check_conflicts(file, table)
        self._check_complete(name, table)
        try:
            segments = [self.segments.map(record, record.uuid in writable, name) for record in table.segments]
            guard = self._guard(file, table)  # afterwards: the first mapping of a BAR decides on its caching type
        except BaseException:
            self._drop_unused()
            raise
        for record in table.segments:
            self.segments.settle_home(record.uuid, device.address)
        return Share(name, device.address, file.info.uuid, file, table, segments, device, guard)

    def _guard(self, file: TableFile, table: Table) -> MonitorSlot | None:
        """A guard's slot in the first segment that may be written; None where there is no such."""
        guard = None
        record = next((record for record in table.segments if not record.readonly), None)
        if record is not None:
            guard = MonitorSlot(file.info.uuid, self.segments.mapped_from(record.uuid))
        if file.leaving:  # announced after it was read: the host may not have seen this guard
            if guard is not None:
                guard.leave()
            raise InUse(f"metadata {file.info.name!r}: its host is about to unplug it")
        return guard

    def _check_complete(self, name: str, table: Table) -> None:
        for record in table.segments:
            if not self.segments.is_there(record.uuid):
                raise _Missing(
                    f"metadata {name!r} needs segment {record.uuid} of {record.size} bytes, which no device carries: "
                    "give the VM all devices of the metadata's command line"
                )

    def _check_conflicts(self, file: TableFile, table: Table, own: Share | None = None) -> None:
        name = file.info.name
        mine = by_name(table)
        if len(mine) != len(table.entries):
            raise Corrupt(f"metadata {name!r} names one object twice")
        for share in self.findings.shares:
            if share is own:
                continue
            if share.uuid == file.info.uuid:
                raise Exists(f"metadata {name!r} is on device {share.address} too: that one is used")
            for key in () if share.stale else sorted(mine.keys() & share.index.keys()):
                if place_of(table, mine[key]) != place_of(share.table, share.index[key]):
                    raise Exists(
                        f"metadata {name!r} and metadata {share.name!r} (device {share.address}) both have a "
                        f"{key[0].name.lower()} {key[1]!r}, and they are different objects: rename one"
                    )
        if taken := self._in_use(table.entries):
            entry, holder = taken
            raise Exists(
                f"metadata {name!r} has a {entry.kind.name.lower()} {entry.name!r}, and so has {holder}: rename one"
            )

    def _publish(self, shares: list[Share]) -> None:
        """The list is never changed in place: others go through it meanwhile. Those of living hosts come first."""
        self.findings.shares = sorted(shares, key=lambda share: bool(share.stale))
        self._tell_shares(self.findings.shares)

    def _list(self) -> None:
        """Brings the lists of findings up to date."""
        faults = ((known, known.fault) for _, known in sorted(self.devices.known.items()))
        self.findings.rejections = [Rejection(known.address, known.name, fault) for known, fault in faults if fault]
        self.findings.foreign = self.devices.foreign()

    # --- shares that change -------------------------------------------------------------------------------

    def grow(self, share: Share) -> None:
        """Goes by the table that is in force by now, if all of it can be used."""
        try:
            table = share.file.read()
            self._check_conflicts(share.file, table, share)
            self._check_complete(share.name, table)
            writable = self.segments.wanted_writable([table])
            segments = [self.segments.map(record, record.uuid in writable, share.name) for record in table.segments]
        except Detached:
            return
        except EalError as error:
            if share.unused != str(error):
                share.unused = str(error)
                kind: EventKind = "pending" if isinstance(error, _Missing) else "rejected"
                self.tell(kind, share.name, share.address, reason=share.unused)
            return
        grown = replace(share, table=table, segments=segments, unused="")
        self._publish([grown if other is share else other for other in self.findings.shares])
        self._revoke(share, errno.ENODEV)  # what is no longer in it
        self._drop_unused()
        new = [e for e in table.entries if not share.has(e, grown.segment_of(e))]
        if new:
            self.tell("added", share.name, share.address, entries=new)

    def retire(self, share: Share, reason: str) -> None:
        """Its host started afresh: what it carries is served by nobody any more."""
        share.stale = reason
        self._publish(self.findings.shares)
        if self.refuse_stale:
            self.refuse(share)
        self.tell("stale", share.name, share.address, reason=reason, entries=share.table.entries)

    def refuse(self, share: Share) -> None:
        """From now on its objects raise Stale."""
        share.over = errno.ESTALE
        self._revoke(share, errno.ESTALE)

    # --- shares that go -----------------------------------------------------------------------------------

    def let_go(self, share: Share) -> None:
        """An unplug is announced: everything of the share is detached, then that is acknowledged."""
        announcement = share.file.leaving
        self._forget(share)  # first, so that what threads keep in caches gets back to where others find it
        needed = {segment.uuid for other in self.findings.shares for segment in other.segments}
        self.segments.let_go(share.segments, needed, share.address)
        for other in self.findings.shares:
            self._move_guard(other)
        share.file.mapping.detach()
        share.device.let_go = True
        self._refuse(share.device, "leaving", f"metadata {share.name!r}: its host is about to unplug it")
        self.devices.close()
        if share.guard is not None:
            share.guard.acknowledge(announcement)
            share.guard.leave()
        self._list()
        self.tell("unplugged", share.name, share.address, reason="announced", entries=share.table.entries)

    def lose(self, gone: list[ProbedDevice]) -> None:
        """Devices are gone without a word: what was mapped from them is mapped from others, or detached."""
        lost = self.segments.lose(gone)
        for share in self.findings.shares:
            broken = next((segment.uuid for segment in share.segments if segment.uuid in lost), None)
            if share.device in gone or broken is not None:
                what = share.address if share.device in gone else f"that carried segment {broken}"
                self._drop(share, f"device {what} is gone")
            else:
                self._move_guard(share)

    def _drop(self, share: Share, reason: str) -> None:
        share.file.mapping.detach()
        if share.guard is not None:
            if self.segments.is_held(share.guard.segment):
                self._move_guard(share)
                share.guard.leave()
            else:
                share.guard.lose()
        self._forget(share)
        self._drop_unused()
        share.device.state = "new"
        self.tell("unplugged", share.name, share.address, reason=reason, entries=share.table.entries)

    def _move_guard(self, share: Share) -> None:
        """Has a share's guard stand where its segment is mapped from."""
        guard = share.guard
        if guard is not None and guard.carrier is not (carrier := self.segments.mapped_from(guard.segment)):
            try:
                guard.move(carrier)
            except EalError as error:
                log.warning("%s: the guard cannot stand there: %s", carrier.address, error)
                guard.lose()

    def _forget(self, share: Share) -> None:
        """Nobody finds its objects any more, and who has them is refused."""
        self._publish([other for other in self.findings.shares if other is not share])
        share.over = errno.ENODEV
        self._revoke(share, errno.ENODEV)

    def _drop_unused(self) -> None:
        self.segments.drop_unused(share.segments for share in self.findings.shares)

    def close(self) -> None:
        """Gives up the guards' slots and every mapping; views keep their pages."""
        for share in self.findings.shares:
            if share.guard is not None:
                share.guard.leave()
            for segment in share.segments:
                segment.close()
            share.file.mapping.release()
        self.devices.close()
