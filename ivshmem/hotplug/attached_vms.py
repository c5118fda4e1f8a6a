# SPDX-License-Identifier: BSD-3-Clause
"""Attached VMs: the running VMs into which a metadata file was plugged, recorded in a file of its prefix."""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from eal.linux import atomic_file, process
from eal.runtime.prefix_dir import PrefixDir

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AttachedVm:
    """A QEMU process: its QMP socket, its pid (0 if invisible to this process), and its start time."""

    qmp: str
    pid: int
    started: int

    @classmethod
    def of(cls, qmp: str, pid: int) -> AttachedVm:
        return cls(os.path.abspath(qmp), pid, process.start_time(pid))

    @property
    def gone(self) -> bool:
        """Whether the process has ended."""
        return self.pid != 0 and process.start_time(self.pid) != self.started


class AttachedVms:
    """The attached VMs of one metadata file, and the number of its last unplug announcement.

    All metadata files of a prefix use one record file. Each change replaces the file, and drops the records of metadata
    files that no longer exist. The caller holds the prefix's CHANGE lock.
    """

    def __init__(self, directory: PrefixDir, metadata: UUID) -> None:
        self._directory = directory
        self._path = directory.path / "vms"
        self._metadata = metadata

    def read(self) -> list[AttachedVm]:
        """Return the recorded VMs; some of their processes may have ended."""
        return [AttachedVm(**vm) for vm in self._record()["vms"]]

    def add(self, vm: AttachedVm) -> None:
        """Record a VM, in place of one with the same QMP socket."""
        others = [other for other in self.read() if other.qmp != vm.qmp]
        self._change(vms=[asdict(one) for one in (*others, vm)])

    def remove(self, qmp: str) -> None:
        """Remove the VM with this QMP socket, if it is recorded."""
        path = os.path.abspath(qmp)
        vms = self.read()
        if any(vm.qmp == path for vm in vms):
            self._change(vms=[asdict(vm) for vm in vms if vm.qmp != path])

    def remove_ended(self) -> None:
        """Remove the VMs whose process has ended."""
        for vm in self.read():
            if vm.gone:
                log.info("the VM at %s has ended; its record was removed", vm.qmp)
                self.remove(vm.qmp)

    def next_announcement(self) -> int:
        """Return a number, never 0, that no earlier unplug of this metadata file used."""
        number: int = (self._record()["announced"] + 1) & 0xFFFF_FFFF or 1
        self._change(announced=number)
        return number

    def clear(self) -> None:
        """Remove the record of this metadata file, which is being closed."""
        records = self._read_file()
        if records.pop(self._metadata.hex, None) is not None:
            self._write_file(records)

    def _record(self) -> dict[str, Any]:
        record: dict[str, Any] = self._read_file().get(self._metadata.hex, {"announced": 0, "vms": []})
        return record

    def _change(self, **changes: Any) -> None:
        records = self._read_file()
        records[self._metadata.hex] = {**self._record(), **changes}
        existing = {self._metadata.hex}
        for name in self._directory.metadata_names():
            with suppress(OSError):
                existing.add(os.readlink(self._directory.metadata_link(name)).split(".")[-2])
        self._write_file({uuid: record for uuid, record in records.items() if uuid in existing})

    def _read_file(self) -> dict[str, Any]:
        try:
            records: dict[str, Any] = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError:
            log.warning("%s is damaged: plug the metadata of file_prefix %r again", self._path, self._directory.prefix)
            return {}
        return records

    def _write_file(self, records: dict[str, Any]) -> None:
        atomic_file.write_text(self._path, json.dumps(records))
