# SPDX-License-Identifier: BSD-3-Clause
"""Classification: the content of each ivshmem device of this machine, by magic; valid until the device is removed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from enum import Enum
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

_PATIENCE = 2.0  # seconds that an unreadable device may take to appear completely: the kernel reports it early


class ProbedDevice:
    """A foreign device, or one that cannot be used: `fault` states the reason."""

    def __init__(self, device: IvshmemDevice, *, fault: str = "", name: str = "") -> None:
        self.device = device
        self.serial = _serial(device)
        self.fault = fault
        self.name = name  # of the metadata file, if it is readable
        self.since = time.monotonic()
        self._bar: Bar | None = None

    @property
    def address(self) -> str:
        return self.device.address

    @property
    def gone(self) -> bool:
        """Return whether the device has been removed, even if no event was received."""
        return _serial(self.device) != self.serial

    @property
    def settled(self) -> bool:
        """Return whether the fault is permanent."""
        return time.monotonic() - self.since > _PATIENCE

    def bar(self, opened: Bar | None = None) -> Bar:
        """Return the device's BAR, open until `close`."""
        if self._bar is None:
            self._bar = opened or Bar(self.device)
        return self._bar

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class SegmentDevice(ProbedDevice):
    """A device that carries a segment. `home` is the address of the metadata file with which it was plugged, "" if
    unknown: the device is removed when that metadata file is unplugged.
    """

    def __init__(self, device: IvshmemDevice, record: SegmentRecord) -> None:
        super().__init__(device)
        self.record = record
        self.home = ""

    def takes_writes(self) -> bool:
        """Return whether writes reach the segment: QEMU silently drops them if the device is read-only."""
        try:
            page: Mapping = self.bar().map(HEADER_SIZE, writable=True)
        except Denied:  # on an emulated bus
            return False
        return bool(lib.ivs_segment_takes_writes(page.pointer()))


class DeviceState(Enum):
    """State of a device with a metadata file; eal.probe.prober has the table of transitions."""

    NEW = "new"
    ACCEPTED = "accepted"
    PENDING = "pending"
    LEAVING = "leaving"
    REJECTED = "rejected"


class MetadataDevice(ProbedDevice):
    """A device that carries a metadata file, accepted or not."""

    def __init__(self, device: IvshmemDevice) -> None:
        super().__init__(device)
        self.state = DeviceState.NEW
        self.released = False  # its share was in use until the unplug was announced

    def read(self) -> TableFile:
        """Return the metadata file, mapped and validated. Raise Corrupt with the reason."""
        whole = self.bar().map(self.bar().size, writable=False)
        try:
            file = TableFile.open(whole, METADATA_MAGIC, f"metadata on device {self.address}")
        except Corrupt:
            self.name = TableFile.readable_name(whole, METADATA_MAGIC)
            raise
        self.name = file.info.name
        return file


class DeviceTable:
    """All known devices by address."""

    def __init__(self) -> None:
        self.devices: dict[str, ProbedDevice] = {}
        self._carriers: dict[UUID, list[SegmentDevice]] = {}
        self._forgot = False

    def update(self, there: Iterable[IvshmemDevice]) -> list[ProbedDevice]:
        """Classify new devices. Return the removed ones, including those whose slot now has another device.

        A damaged device gets a fault and does not affect the others.
        """
        self._forgot = False
        now = {device.address: device for device in there}
        gone = []
        for address, probed in list(self.devices.items()):
            if address not in now or probed.serial != _serial(now[address]):
                gone.append(self.devices.pop(address))
                probed.close()
            elif probed.fault and type(probed) is ProbedDevice and not probed.settled:
                self.devices[address] = self._probe(now[address], probed.since)
        new = [device for address, device in sorted(now.items()) if address not in self.devices]
        for device in new:
            self.devices[device.address] = self._probe(device)
        _assign_homes([self.devices[device.address] for device in new])
        self._carriers = {}
        for _, probed in sorted(self.devices.items()):
            if isinstance(probed, SegmentDevice):
                self._carriers.setdefault(probed.record.uuid, []).append(probed)
        return gone

    def _probe(self, device: IvshmemDevice, since: float | None = None) -> ProbedDevice:
        try:
            return _classify(device)
        except EalError as error:
            probed = ProbedDevice(device, fault=str(error))
            if since is None:
                log.warning("ivshmem device %s is not used: %s", device.address, error)
            else:
                probed.since = since
            return probed

    def forget(self, probed: ProbedDevice) -> None:
        """Classify a device again, because its content has changed."""
        if self.devices.get(probed.address) is probed:
            del self.devices[probed.address]
            probed.close()
            self._forgot = True

    @property
    def unsettled(self) -> bool:
        """Return whether a device has to be classified again."""
        return self._forgot or any(
            probed.fault and type(probed) is ProbedDevice and not probed.settled for probed in self.devices.values()
        )

    def metadata(self) -> list[MetadataDevice]:
        return [probed for _, probed in sorted(self.devices.items()) if isinstance(probed, MetadataDevice)]

    def carriers_of(self, segment: UUID) -> list[SegmentDevice]:
        return self._carriers.get(segment, [])

    def foreign(self) -> list[str]:
        return [
            address
            for address, probed in sorted(self.devices.items())
            if type(probed) is ProbedDevice and not probed.fault
        ]

    def close(self) -> None:
        """Close the file of every device; mappings stay."""
        for probed in self.devices.values():
            probed.close()


def _classify(device: IvshmemDevice) -> ProbedDevice:
    bar = Bar(device)
    try:
        probed = _probe_content(device, bar)
    except BaseException:
        bar.close()
        raise
    if type(probed) is ProbedDevice:
        bar.restore()
        bar.close()
        log.debug("ivshmem device %s is foreign: left unchanged", device.address)
    else:
        probed.bar(bar)
    return probed


def _probe_content(device: IvshmemDevice, bar: Bar) -> ProbedDevice:
    if bar.size < HEADER_SIZE:
        return ProbedDevice(device)
    head = bar.map(HEADER_SIZE, writable=False)
    magic = ffi.cast("uint64_t *", head.pointer())[0]
    if magic == METADATA_MAGIC:
        return MetadataDevice(device)
    if magic == lib.IVS_SEGMENT_MAGIC:
        return SegmentDevice(device, read_header(head, f"device {device.address}", bar.size))
    return ProbedDevice(device)


def _assign_homes(new: list[ProbedDevice]) -> None:
    """Assign each new segment device to the metadata file before it, as on the command line; segment devices before the
    first metadata file belong to that one.
    """
    home = next((probed.address for probed in new if isinstance(probed, MetadataDevice)), "")
    for probed in new:
        if isinstance(probed, MetadataDevice):
            home = probed.address
        elif isinstance(probed, SegmentDevice):
            probed.home = home


def _serial(device: IvshmemDevice) -> tuple[int, ...]:
    """Return the identity of a device in a slot. The kernel does not reuse inode numbers in /sys; another file system
    may, but not with the same timestamp. Empty if the device is gone.
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
