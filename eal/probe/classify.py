# SPDX-License-Identifier: BSD-3-Clause
"""Devices: what each ivshmem device of this machine was found to carry; it is that until it goes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from uuid import UUID

from eal._native import ffi, lib
from eal.errors import Corrupt, Denied, EalError
from eal.linux.mapping import Mapping
from eal.memory.segment import HEADER_SIZE, read_header
from eal.metadata.records import SegmentRecord
from eal.metadata.table_file import METADATA_MAGIC, TableFile
from eal.pci.bar import Bar
from eal.pci.device import IvshmemDevice

log = logging.getLogger(__name__)

_PATIENCE = 2.0  # seconds in which a device that cannot be read yet may become whole: the kernel tells of it early


class ProbedDevice:
    """A device that carries nothing of ours, or something that cannot be used: `fault` says why."""

    def __init__(self, device: IvshmemDevice, *, fault: str = "", name: str = "") -> None:
        self.device = device
        self.serial = _serial(device)
        self.fault = fault
        self.name = name  # of the metadata, where it can be read
        self.since = time.monotonic()
        self._bar: Bar | None = None

    @property
    def address(self) -> str:
        return self.device.address

    @property
    def gone(self) -> bool:
        """Whether it is not there any more, though nobody has told yet."""
        return _serial(self.device) != self.serial

    @property
    def settled(self) -> bool:
        """Whether a fault is there to stay."""
        return time.monotonic() - self.since > _PATIENCE

    def bar(self, opened: Bar | None = None) -> Bar:
        """Its memory; open until `close`."""
        if self._bar is None:
            self._bar = opened or Bar(self.device)
        return self._bar

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class SegmentDevice(ProbedDevice):
    """A device that carries a segment. `home` is the address of the metadata with which it came, as far as can be
    told: the device that goes when that is unplugged.
    """

    def __init__(self, device: IvshmemDevice, record: SegmentRecord) -> None:
        super().__init__(device)
        self.record = record
        self.home = ""

    def takes_writes(self) -> bool:
        """Whether writes reach the segment: QEMU drops them without a word where the device is read-only."""
        try:
            page: Mapping = self.bar().map(HEADER_SIZE, writable=True)
        except Denied:  # on an emulated bus
            return False
        return bool(lib.ivs_segment_takes_writes(page.pointer()))


class MetadataDevice(ProbedDevice):
    """A device that carries a metadata, taken up or not.

    `state` is "new", "accepted", "pending" (a segment is missing), "leaving" (its unplug is announced) or "rejected".
    """

    def __init__(self, device: IvshmemDevice) -> None:
        super().__init__(device)
        self.state = "new"
        self.let_go = False  # it was in use until its unplug was announced

    def read(self) -> TableFile:
        """The file on it, mapped and checked. Raises Corrupt with the reason."""
        whole = self.bar().map(self.bar().size, writable=False)
        try:
            file = TableFile.open(whole, METADATA_MAGIC, f"metadata on device {self.address}")
        except Corrupt:
            self.name = TableFile.readable_name(whole, METADATA_MAGIC)
            raise
        self.name = file.info.name
        return file


class DeviceTable:
    """All devices that are known now, by address."""

    def __init__(self) -> None:
        self.known: dict[str, ProbedDevice] = {}
        self._carriers: dict[UUID, list[SegmentDevice]] = {}
        self._forgot = False

    def update(self, there: Iterable[IvshmemDevice]) -> list[ProbedDevice]:
        """Looks at the devices that came. Gives those that went; one whose slot was taken by another is among them.

        A bad device gets a fault and never takes another one down with it.
        """
        self._forgot = False
        now = {device.address: device for device in there}
        gone = []
        for address, known in list(self.known.items()):
            if address not in now or known.serial != _serial(now[address]):
                gone.append(self.known.pop(address))
                known.close()
            elif known.fault and type(known) is ProbedDevice and not known.settled:
                self.known[address] = self._look(now[address], known.since)
        came = [device for address, device in sorted(now.items()) if address not in self.known]
        for device in came:
            self.known[device.address] = self._look(device)
        _settle_homes([self.known[device.address] for device in came])
        self._carriers = {}
        for _, known in sorted(self.known.items()):
            if isinstance(known, SegmentDevice):
                self._carriers.setdefault(known.record.uuid, []).append(known)
        return gone

    def _look(self, device: IvshmemDevice, since: float | None = None) -> ProbedDevice:
        try:
            return _classify(device)
        except EalError as error:
            known = ProbedDevice(device, fault=str(error))
            if since is None:
                log.warning("ivshmem device %s is not used: %s", device.address, error)
            else:
                known.since = since
            return known

    def forget(self, known: ProbedDevice) -> None:
        """Has a device looked at anew, since it shows something else than it did."""
        if self.known.get(known.address) is known:
            del self.known[known.address]
            known.close()
            self._forgot = True

    @property
    def unsettled(self) -> bool:
        """Whether there is a device that is to be looked at again."""
        return self._forgot or any(
            known.fault and type(known) is ProbedDevice and not known.settled for known in self.known.values()
        )

    def metadata(self) -> list[MetadataDevice]:
        return [known for _, known in sorted(self.known.items()) if isinstance(known, MetadataDevice)]

    def carriers_of(self, segment: UUID) -> list[SegmentDevice]:
        return self._carriers.get(segment, [])

    def foreign(self) -> list[str]:
        return [
            address for address, known in sorted(self.known.items()) if type(known) is ProbedDevice and not known.fault
        ]

    def close(self) -> None:
        """Closes the file of every device; mappings stay."""
        for known in self.known.values():
            known.close()


def _classify(device: IvshmemDevice) -> ProbedDevice:
    bar = Bar(device)
    try:
        known = _known_by_content(device, bar)
    except BaseException:
        bar.close()
        raise
    if type(known) is ProbedDevice:
        bar.restore()
        bar.close()
        log.debug("ivshmem device %s carries nothing of ours: left alone", device.address)
    else:
        known.bar(bar)
    return known


def _known_by_content(device: IvshmemDevice, bar: Bar) -> ProbedDevice:
    if bar.size < HEADER_SIZE:
        return ProbedDevice(device)
    head = bar.map(HEADER_SIZE, writable=False)
    magic = ffi.cast("uint64_t *", head.pointer())[0]
    if magic == METADATA_MAGIC:
        return MetadataDevice(device)
    if magic == lib.IVS_SEGMENT_MAGIC:
        return SegmentDevice(device, read_header(head, f"device {device.address}", bar.size))
    return ProbedDevice(device)


def _settle_homes(came: list[ProbedDevice]) -> None:
    """Of devices that came together each carrier belongs to the metadata that stands before it, as on the command
    line; where the metadata came last, to that one.
    """
    home = next((known.address for known in came if isinstance(known, MetadataDevice)), "")
    for known in came:
        if isinstance(known, MetadataDevice):
            home = known.address
        elif isinstance(known, SegmentDevice):
            known.home = home


def _serial(device: IvshmemDevice) -> tuple[int, ...]:
    """What tells a device from another one in the same slot. The kernel numbers what it shows in /sys; on another file
    system a number may come again, but not with the same time stamp. Empty where the device is gone.
    """
    try:
        number = os.stat(str(device.path)).st_ino
    except OSError:
        return ()
    if not device.emulated:
        return (number,)
    try:
        link = os.lstat(device.resource_name)
    except OSError:
        return (number,)
    return number, link.st_ino, link.st_ctime_ns
