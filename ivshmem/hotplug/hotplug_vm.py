# SPDX-License-Identifier: BSD-3-Clause
"""Running VM: list, plug and unplug the ivshmem devices of a QEMU by QMP."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from eal.errors import EalError, InUse, NoMemory, Stalled
from ivshmem.hotplug.pci_windows import PlacedDevice, find_buses, is_firmware_done, no_room, place_devices, regions_of
from ivshmem.hotplug.qmp import CommandRejected, Qmp
from ivshmem.vmm.device import Device

log = logging.getLogger(__name__)

_POLL = 0.02  # seconds between two queries of the guest's progress
_SETTLED = 0.2  # seconds after which a BAR without an address stays without one, if the device's other BAR has one


class _QemuText(Enum):
    """Conditions that QEMU reports only by the text of a GenericError, and the part of that text to search for."""

    NO_HOTPLUG = "hotplug"  # device_add: "Bus 'b' does not support hotplugging"
    BACKEND_IN_USE = "in use"  # object-del: "object 'o' is in use, can not be deleted"

    def matches(self, error: CommandRejected) -> bool:
        return self.value in error.description


@dataclass(frozen=True)
class VmDevice:
    """An ivshmem device of a VM: QEMU's id of the device ("" if it has none), id and file of its memory backend."""

    id: str
    backend: str
    path: str
    readonly: bool


class HotplugVm:
    """The VM of a QMP connection. `timeout`: seconds that the guest has for each operation."""

    def __init__(self, qmp: Qmp, timeout: float) -> None:
        self._qmp = qmp
        self._timeout = timeout
        self.label = f"the VM at {qmp.path!r}"

    def devices(self) -> list[VmDevice]:
        """Return the ivshmem devices, including user-supplied ones."""
        found = []
        for folder in ("/machine/peripheral", "/machine/peripheral-anon"):
            for child in self._children(folder):
                if child["type"] == "child<ivshmem-plain>":
                    backend = self._property(f"{folder}/{child['name']}", "memdev")
                    name = child["name"] if folder == "/machine/peripheral" else ""
                    path, readonly = self._property(backend, "mem-path"), self._property(backend, "readonly")
                    found.append(VmDevice(name, backend.removeprefix("/objects/"), path, readonly))
        return found

    def check_running(self) -> None:
        """Raise InUse if the VM is paused, because its guest could not respond."""
        status = self._qmp.execute("query-status")
        if not status["running"]:
            raise InUse(f"{self.label} is not running (state: {status['status']}); resume it first")

    # --- plug ---------------------------------------------------------------------------------------------

    def plug(self, devices: Sequence[Device]) -> list[PlacedDevice]:
        """Plug devices, a metadata file last, wait until the guest has assigned addresses, and return the placements.

        Raise NoMemory if the VM has no room, Stalled if its guest does not respond, Invalid if QEMU rejects a command.
        The VM is then unchanged, or the message names the devices that remain.
        """
        rejecting: dict[str, str] = {}
        while True:
            placements = self._place(devices, rejecting)
            try:
                self._plug(placements)
                return placements
            except _BusRejected as error:
                rejecting[error.bus] = f"{error.bus!r} is rejected by QEMU ({error})"

    def _place(self, devices: Sequence[Device], rejecting: dict[str, str]) -> list[PlacedDevice]:
        deadline = time.monotonic() + self._timeout
        while not is_firmware_done(pci := self._qmp.execute("query-pci")):
            if time.monotonic() > deadline:
                raise Stalled(f"{self.label}: the firmware has not set up PCI bridges yet; wait until it has booted")
            time.sleep(_POLL)
        models = {one["name"]: one["type"][len("child<") : -1] for one in self._children("/machine/peripheral")}
        return place_devices(devices, find_buses(pci, models), rejecting)

    def _plug(self, placements: Sequence[PlacedDevice]) -> None:
        plugged: list[PlacedDevice] = []
        try:
            for is_metadata in (False, True):
                batch = [one for one in placements if one.device.is_metadata == is_metadata]
                for one in batch:
                    self._add(one)
                    plugged.append(one)
                self._await_addresses(batch)
        except BaseException as error:
            self._roll_back(plugged, error)
            raise

    def _add(self, placement: PlacedDevice) -> None:
        device = placement.device
        if device.id in (child["name"] for child in self._children("/objects")):
            self._qmp.execute("object-del", id=device.id)  # QEMU removed the device after an unplug had timed out
        self._qmp.execute("object-add", **_backend(device))
        try:
            self._qmp.execute(
                "device_add",
                driver="ivshmem-plain",
                id=device.device_id,
                memdev=device.id,
                bus=placement.bus,
                addr=f"{placement.slot:x}",
            )
        except CommandRejected as error:
            self._qmp.execute("object-del", id=device.id)
            if _QemuText.NO_HOTPLUG.matches(error):
                raise _BusRejected(placement.bus, error.description) from error
            raise

    def _await_addresses(self, placements: Iterable[PlacedDevice]) -> None:
        """Wait until the guest has assigned an address to each BAR."""
        waiting = {one.device.id: one for one in placements}
        start = time.monotonic()
        partial_since: dict[str, float] = {}  # time at which only one BAR of a device was seen with an address
        while True:
            pci = self._qmp.execute("query-pci")
            now = time.monotonic()
            for one in list(waiting.values()):
                assigned = [region["address"] > 0 for region in regions_of(pci, one.device.device_id)]
                if assigned and all(assigned):
                    del waiting[one.device.id]
                elif any(assigned) and now - partial_since.setdefault(one.device.id, now) > _SETTLED:
                    shortage = f"{one.bus!r} has a window that is too small: the guest found no room in it for the BAR"
                    raise no_room([other.device for other in waiting.values()], one.device, [shortage])
            if not waiting:
                return
            if now - start > self._timeout:
                paths = ", ".join(one.device.path for one in waiting.values())
                raise Stalled(
                    f"{self.label}: the guest did not respond within {self._timeout:g} s and assigned no address to "
                    f"{paths}; wait until it has booted, and check that its kernel supports PCI hotplug"
                )
            time.sleep(_POLL)

    def _roll_back(self, plugged: Sequence[PlacedDevice], error: BaseException) -> None:
        """Unplug devices that were plugged before an error, in reverse order."""
        try:
            self.unplug([(one.device.device_id, one.device.id) for one in reversed(plugged)])
        except EalError as second:
            log.error("%s: rollback of a failed plug is incomplete: %s", self.label, second)
            if isinstance(error, EalError):
                error.args = (f"{error}; rollback is incomplete: {second}",)

    # --- unplug -------------------------------------------------------------------------------------------

    def unplug(self, devices: Sequence[tuple[str, str]]) -> None:
        """Unplug devices, given as (device id, backend id), and wait for QEMU's event of each.

        Raise InUse if the guest rejects an unplug; Stalled if it does not respond: QEMU then removes the device later.
        """
        waiting = dict(devices)
        deadline = time.monotonic() + self._timeout
        for name in waiting:
            self._qmp.execute("device_del", id=name)
        while waiting:
            event = self._qmp.event(deadline)
            if event is None:
                raise Stalled(
                    f"{self.label}: the guest did not respond within {self._timeout:g} s and still has "
                    f"{', '.join(waiting)}; QEMU removes them when it responds"
                )
            kind, data = event
            name = data.get("device", "")
            if name not in waiting:
                continue
            if kind == "DEVICE_UNPLUG_GUEST_ERROR":
                raise InUse(f"{self.label}: the guest rejected the unplug of {name}")
            self._delete_backend(waiting.pop(name), deadline)

    def _delete_backend(self, name: str, deadline: float) -> None:
        """Delete a memory backend; QEMU releases it shortly after the event of its device."""
        while True:
            try:
                self._qmp.execute("object-del", id=name)
                return
            except CommandRejected as error:
                if not _QemuText.BACKEND_IN_USE.matches(error) or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL)

    # --- QOM ----------------------------------------------------------------------------------------------

    def _children(self, path: str) -> list[dict[str, str]]:
        found: list[dict[str, str]] = self._qmp.execute("qom-list", path=path)
        return found

    def _property(self, path: str, name: str) -> Any:
        return self._qmp.execute("qom-get", path=path, property=name)


class _BusRejected(NoMemory):
    """QEMU does not support hotplug into a bus."""

    def __init__(self, bus: str, description: str) -> None:
        super().__init__(description)
        self.bus = bus


def _backend(device: Device) -> dict[str, Any]:
    """Return the arguments of object-add that correspond to `ivshmem.vmm.qemu.backend_args`."""
    backend: dict[str, Any] = {
        "qom-type": "memory-backend-file",
        "id": device.id,
        "size": device.size,
        "mem-path": device.path,
        "share": True,
        "readonly": device.readonly,
    }
    if device.socket_id >= 0:
        backend.update({"host-nodes": [device.socket_id], "policy": "bind"})
    return backend
