# SPDX-License-Identifier: BSD-3-Clause
"""Stale devices: the ivshmem devices that a VM still has from a host application that died and was restarted."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from eal.errors import EalError
from eal.linux.mapping import Mapping
from eal.memory.segment import Segment
from eal.metadata.lookup import open_metadata
from eal.metadata.records import SegmentRecord
from eal.metadata.table_file import TableFile
from eal.runtime.prefix_dir import PrefixDir
from ivshmem.hotplug.hotplug_vm import HotplugVm, VmDevice
from ivshmem.hotplug.unplug_handshake import await_acknowledgements, set_announcement

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StaleShare:
    """A stale share of a VM: the device and file of its metadata, and the devices of its segments."""

    device: VmDevice
    file: TableFile
    segments: list[tuple[SegmentRecord, VmDevice]]


class StaleDevices:
    """The devices of a prefix whose files were removed, among the devices `present` in the VM of QEMU process `pid`.

    The files have no names any more; they are opened by the descriptors of the QEMU process in /proc.
    """

    def __init__(self, directory: PrefixDir, present: Sequence[VmDevice], pid: int) -> None:
        stale = [one for one in present if _is_of(directory, one) and not os.path.exists(one.path)]
        self._metadata = [one for one in stale if one.path.endswith(".md")]
        self._segments = [one for one in stale if one.path.endswith(".seg")]
        self._descriptors = _deleted_files(pid, [one.path for one in stale]) if self._metadata else {}

    def shares(self) -> list[StaleShare]:
        """Return the shares whose segments are all stale too. Log a share whose metadata file is unreadable."""
        found = []
        for device in self._metadata:
            try:
                file = open_metadata(Path(self._descriptors.get(device.path, device.path)), writable=True)
            except EalError as error:
                log.warning("stale device %s remains in the VM: %s", device.id, error)
                continue
            records = file.read().segments
            segments = [(record, each) for record in records for each in self._segments if record.uuid.hex in each.path]
            if {record.uuid for record in records} == {record.uuid for record, _ in segments}:
                found.append(StaleShare(device, file, segments))
        return found

    def remove(self, hotplug_vm: HotplugVm, timeout: float) -> None:
        """Announce the unplug of the stale shares, and unplug them, even if a guest process does not acknowledge.

        `timeout` is in seconds. Raise as `HotplugVm.unplug`.
        """
        shares = self.shares()
        for share in shares:
            try:
                self._announce(share, timeout)
            except EalError as error:
                log.warning("%s; unplugging nevertheless, because the share is stale", error)
        metadata = [share.device for share in shares]
        segments = {device: None for share in shares for _, device in share.segments}  # without duplicates
        for batch in (metadata, segments):
            hotplug_vm.unplug([(device.id, device.backend) for device in batch])
        for share in shares:
            log.info("stale metadata %r was unplugged from %s", share.file.info.name, hotplug_vm.label)
            share.file.mapping.release()

    def _announce(self, share: StaleShare, timeout: float) -> None:
        number = secrets.randbelow(0xFFFF_FFFF) + 1  # the record of used numbers died with the host
        set_announcement(share.file, number)
        with ExitStack() as stack:
            segments = [self._open_segment(record, one) for record, one in share.segments if not record.readonly]
            for segment in segments:
                stack.callback(segment.close)
            await_acknowledgements(share.file, segments, number, timeout)

    def _open_segment(self, record: SegmentRecord, device: VmDevice) -> Segment:
        path = self._descriptors[device.path]
        with open(path, "r+b", buffering=0) as file:
            return Segment(record, Mapping(file.fileno(), record.size, label=path), path, socket_id=record.socket_id)


def _is_of(directory: PrefixDir, device: VmDevice) -> bool:
    """Return whether a device was created by this project for a prefix."""
    stem = directory.file_name("", "")[:-1]
    name = os.path.basename(device.path).replace("map%5F", "map_")
    return device.backend.startswith("ivs-") and name.startswith(stem)


def _deleted_files(pid: int, paths: Sequence[str]) -> dict[str, str]:
    """Return the /proc paths of deleted files that a process has open, by their former paths.

    Empty if this process may not read the descriptors.
    """
    found = {}
    by_name = {os.path.basename(path): path for path in paths}
    directory = f"/proc/{pid}/fd"
    try:
        for number in os.listdir(directory):
            name, _, deleted = os.path.basename(os.readlink(f"{directory}/{number}")).rpartition(" ")
            if deleted == "(deleted)" and name in by_name:
                found[by_name[name]] = f"{directory}/{number}"
    except OSError as error:
        log.debug("%s: %s", directory, error)
    return found
