# SPDX-License-Identifier: BSD-3-Clause
"""Attached VMs: which running VMs a metadata was plugged into, remembered in a file of its prefix."""

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
    """A QEMU: its QMP socket, its process id (0 where this process cannot see it), and when it started."""

    qmp: str
    pid: int
    started: int

    @classmethod
    def of(cls, qmp: str, pid: int) -> AttachedVm:
        return cls(os.path.abspath(qmp), pid, process.start_time(pid))

    @property
    def gone(self) -> bool:
        return self.pid != 0 and process.start_time(self.pid) != self.started


class AttachedVms:
    """The VMs of one metadata, and the number of its last unplug announcement. The file, one a prefix, is replaced
    whole, and metadata that are gone are dropped with each change. Callers hold the prefix's CHANGE lock.
    """

    def __init__(self, directory: PrefixDir, metadata: UUID) -> None:
        self._directory = directory
        self._path = directory.path / "vms"
        self._metadata = metadata

    def known(self) -> list[AttachedVm]:
        """Those that were not forgotten; QEMU may have ended since."""
        return [AttachedVm(**vm) for vm in self._mine()["vms"]]

    def remember(self, vm: AttachedVm) -> None:
        self._change(vms=[asdict(one) for one in (*(one for one in self.known() if one.qmp != vm.qmp), vm)])

    def forget(self, qmp: str) -> None:
        path = os.path.abspath(qmp)
        if any(vm.qmp == path for vm in self.known()):
            self._change(vms=[asdict(vm) for vm in self.known() if vm.qmp != path])

    def next_announcement(self) -> int:
        """A number that no unplug of this metadata was announced by, never 0."""
        number: int = (self._mine()["announced"] + 1) & 0xFFFF_FFFF or 1
        self._change(announced=number)
        return number

    def drop(self) -> None:
        """All of this metadata, which is closed."""
        known = self._read()
        if known.pop(self._metadata.hex, None) is not None:
            self._write(known)

    def _mine(self) -> dict[str, Any]:
        mine: dict[str, Any] = self._read().get(self._metadata.hex, {"announced": 0, "vms": []})
        return mine

    def _change(self, **changes: Any) -> None:
        known = self._read()
        known[self._metadata.hex] = {**self._mine(), **changes}
        there = {self._metadata.hex}
        for name in self._directory.metadata_names():
            with suppress(OSError):
                there.add(os.readlink(self._directory.metadata_link(name)).split(".")[-2])
        self._write({uuid: one for uuid, one in known.items() if uuid in there})

    def _read(self) -> dict[str, Any]:
        try:
            known: dict[str, Any] = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError:
            log.warning("%s is damaged: plug the metadata of %r again", self._path, self._directory.prefix)
            return {}
        return known

    def _write(self, known: dict[str, Any]) -> None:
        atomic_file.write_text(self._path, json.dumps(known))
