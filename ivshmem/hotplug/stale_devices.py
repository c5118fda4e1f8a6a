# SPDX-License-Identifier: BSD-3-Clause
"""StaleMetadata devices: what a VM has still of a host app that died and was started afresh. Their files are gone."""

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
from ivshmem.hotplug.running_vm import RunningVm, VmDevice
from ivshmem.hotplug.unplug_handshake import await_letting_go, set_leaving

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StaleMetadata:
    """A metadata of an earlier life as a VM has it: its device, its file, and the devices of its segments."""

    metadata: VmDevice
    file: TableFile
    segments: list[tuple[SegmentRecord, VmDevice]]


class StaleDevices:
    """What a VM, whose QEMU is process `pid`, has of a prefix though nobody serves it any more.

    The files have no names, so that they are opened where the kernel shows what QEMU has open.
    """

    def __init__(self, directory: PrefixDir, given: Sequence[VmDevice], pid: int) -> None:
        gone = [one for one in given if _is_of(directory, one) and not os.path.exists(one.path)]
        self._metadata = [one for one in gone if one.path.endswith(".md")]
        self._segments = [one for one in gone if one.path.endswith(".seg")]
        self._open = _open_files(pid, [one.path for one in gone]) if self._metadata else {}

    def abandoned(self) -> list[StaleMetadata]:
        """The metadata all of whose segments are gone too. One that cannot be read stays, with a warning."""
        found = []
        for one in self._metadata:
            try:
                file = open_metadata(Path(self._open.get(one.path, one.path)), writable=True)
            except EalError as error:
                log.warning("device %s stays in the VM, though nobody serves it any more: %s", one.id, error)
                continue
            records = file.read().segments
            segments = [(record, each) for record in records for each in self._segments if record.uuid.hex in each.path]
            if {record.uuid for record in records} == {record.uuid for record, _ in segments}:
                found.append(StaleMetadata(one, file, segments))
        return found

    def remove(self, machine: RunningVm, timeout: float) -> None:
        """Takes it out of the VM, announced as any unplug is. Who does not let go in time does not keep it there."""
        found = self.abandoned()
        for one in found:
            try:
                self._announce(one, timeout)
            except EalError as error:
                log.warning("%s; nobody serves it any more, so it goes all the same", error)
        metadata = [one.metadata for one in found]
        segments = {device: None for one in found for _, device in one.segments}  # each once
        for batch in (metadata, segments):
            machine.unplug([(device.id, device.backend) for device in batch])
        for one in found:
            log.info("metadata %r of an earlier life was taken out of %s", one.file.info.name, machine.what)
            one.file.mapping.release()

    def _announce(self, one: StaleMetadata, timeout: float) -> None:
        number = secrets.randbelow(0xFFFF_FFFF) + 1  # nobody knows those of the dead
        set_leaving(one.file, number)
        with ExitStack() as undo:
            segments = [self._open_segment(record, device) for record, device in one.segments if not record.readonly]
            for segment in segments:
                undo.callback(segment.close)
            await_letting_go(one.file, segments, number, timeout)

    def _open_segment(self, record: SegmentRecord, device: VmDevice) -> Segment:
        path = self._open[device.path]
        with open(path, "r+b", buffering=0) as file:
            return Segment(record, Mapping(file.fileno(), record.size, label=path), path, socket_id=record.socket_id)


def _is_of(directory: PrefixDir, one: VmDevice) -> bool:
    stem = directory.file_name("", "")[:-1]
    return one.backend.startswith("ivs-") and os.path.basename(one.path).replace("map%5F", "map_").startswith(stem)


def _open_files(pid: int, paths: Sequence[str]) -> dict[str, str]:
    """Under which names the kernel shows files that a process has open though they were removed, by their paths. Empty
    where this process may not look.
    """
    found = {}
    by_name = {os.path.basename(path): path for path in paths}
    folder = f"/proc/{pid}/fd"
    try:
        for number in os.listdir(folder):
            name, _, deleted = os.path.basename(os.readlink(f"{folder}/{number}")).rpartition(" ")
            if deleted == "(deleted)" and name in by_name:
                found[by_name[name]] = f"{folder}/{number}"
    except OSError as error:
        log.debug("%s: %s", folder, error)
    return found
