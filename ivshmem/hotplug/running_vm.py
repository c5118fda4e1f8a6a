# SPDX-License-Identifier: BSD-3-Clause
"""RunningVm: a running QEMU, the shared files that it has, and one more of them or one less."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from eal.errors import EalError, InUse, Invalid, NoMemory, Stalled
from ivshmem.hotplug.pci_windows import Placement, find_buses, firmware_was_here, no_room, place, regions_of
from ivshmem.hotplug.qmp import Qmp
from ivshmem.vmm.device import Device

log = logging.getLogger(__name__)

_POLL = 0.02  # seconds between two looks at what the guest has done
_SETTLED = 0.2  # seconds after which a BAR without an address, beside one with an address, stays without


@dataclass(frozen=True)
class VmDevice:
    """A shared file that a VM has: QEMU's id of the device ("" where it has none) and of its memory backend."""

    id: str
    backend: str
    path: str
    readonly: bool


class RunningVm:
    """A QEMU at the other end of a QMP connection. `timeout`: seconds that its guest has for each thing it must do."""

    def __init__(self, qmp: Qmp, timeout: float) -> None:
        self._qmp = qmp
        self._timeout = timeout
        self.what = f"the VM at {qmp.path!r}"

    def given(self) -> list[VmDevice]:
        """The shared files it has now, those of others among them."""
        found = []
        for folder in ("/machine/peripheral", "/machine/peripheral-anon"):
            for one in self._children(folder):
                if one["type"] == "child<ivshmem-plain>":
                    backend = self._get(f"{folder}/{one['name']}", "memdev")
                    name = one["name"] if folder == "/machine/peripheral" else ""
                    path, readonly = self._get(backend, "mem-path"), self._get(backend, "readonly")
                    found.append(VmDevice(name, backend.removeprefix("/objects/"), path, readonly))
        return found

    def check_running(self) -> None:
        """Raises InUse for a VM that is paused: its guest would not notice anything."""
        status = self._qmp.execute("query-status")
        if not status["running"]:
            raise InUse(f"{self.what} does not run (it is {status['status']}): continue it first")

    # --- plugging -----------------------------------------------------------------------------------------

    def plug(self, devices: Sequence[Device]) -> list[Placement]:
        """Plugs devices, and last the metadata, if it is one of them; says where. The guest has given all an address.

        Raises NoMemory where the VM has no room, Stalled where its guest does not answer, Invalid where QEMU refuses.
        The VM is as it was then, or the message says what it still has.
        """
        refused: dict[str, str] = {}
        while True:
            places = self._place(devices, refused)
            try:
                self._plug(places)
                return places
            except _RefusedError as error:
                refused[error.bus] = f"{error.bus!r} is refused by QEMU ({error})"

    def _place(self, devices: Sequence[Device], refused: dict[str, str]) -> list[Placement]:
        deadline = time.monotonic() + self._timeout
        while not firmware_was_here(pci := self._qmp.execute("query-pci")):
            if time.monotonic() > deadline:
                raise Stalled(f"{self.what} has not set up its PCI bridges yet: wait until it has booted")
            time.sleep(_POLL)
        kinds = {one["name"]: one["type"][len("child<") : -1] for one in self._children("/machine/peripheral")}
        return place(devices, find_buses(pci, kinds), refused)

    def _plug(self, places: Sequence[Placement]) -> None:
        added: list[Placement] = []
        try:
            for is_metadata in (False, True):
                batch = [one for one in places if one.device.is_metadata == is_metadata]
                for one in batch:
                    self._add(one)
                    added.append(one)
                self._await_addresses(batch)
        except BaseException as error:
            self._take_back(added, error)
            raise

    def _add(self, one: Placement) -> None:
        device = one.device
        if device.id in (child["name"] for child in self._children("/objects")):
            self._qmp.execute("object-del", id=device.id)  # its device went after its unplug was given up
        self._qmp.execute("object-add", **_backend(device))
        try:
            self._qmp.execute(
                "device_add",
                driver="ivshmem-plain",
                id=device.device_id,
                memdev=device.id,
                bus=one.bus,
                addr=f"{one.slot:x}",
            )
        except EalError as error:
            if isinstance(error, Invalid):
                self._qmp.execute("object-del", id=device.id)
                if "hotplug" in str(error):
                    raise _RefusedError(one.bus, str(error.__cause__)) from error
            raise

    def _await_addresses(self, places: Iterable[Placement]) -> None:
        """Waits until the guest has given each BAR an address."""
        waiting = {one.device.id: one for one in places}
        start = time.monotonic()
        since: dict[str, float] = {}  # when a device was first seen with one BAR that has an address
        while True:
            pci = self._qmp.execute("query-pci")
            now = time.monotonic()
            for one in list(waiting.values()):
                set_up = [region["address"] > 0 for region in regions_of(pci, one.device.device_id)]
                if set_up and all(set_up):
                    del waiting[one.device.id]
                elif any(set_up) and now - since.setdefault(one.device.id, now) > _SETTLED:
                    lacking = f"{one.bus!r} has a window that is too small: the guest found no room there for its BAR"
                    raise no_room([place.device for place in waiting.values()], one.device, [lacking])
            if not waiting:
                return
            if now - start > self._timeout:
                names = ", ".join(one.device.path for one in waiting.values())
                raise Stalled(
                    f"{self.what}: its guest did not answer for {self._timeout:g} s, so {names} got no address: has it "
                    "booted, and does its kernel support PCI hot plug?"
                )
            time.sleep(_POLL)

    def _take_back(self, added: Sequence[Placement], error: BaseException) -> None:
        """What was plugged before an error, the metadata first."""
        try:
            self.unplug([(one.device.device_id, one.device.id) for one in reversed(added)])
        except EalError as second:
            log.error("%s could not be put back as it was: %s", self.what, second)
            if isinstance(error, EalError):
                error.args = (f"{error}; and not all could be taken back: {second}",)

    # --- unplugging ---------------------------------------------------------------------------------------

    def unplug(self, devices: Sequence[tuple[str, str]]) -> None:
        """Removes devices, given as their own id and their backend's, and waits until QEMU says that they are gone.

        Raises InUse where the guest refuses, Stalled where it does not answer: QEMU then removes them when it does.
        """
        waiting = dict(devices)
        deadline = time.monotonic() + self._timeout
        for name in waiting:
            self._qmp.execute("device_del", id=name)
        while waiting:
            event = self._qmp.event(deadline)
            if event is None:
                raise Stalled(
                    f"{self.what}: its guest did not answer for {self._timeout:g} s, so it still has "
                    f"{', '.join(waiting)}; QEMU removes them as soon as it does"
                )
            kind, data = event
            name = data.get("device", "")
            if name not in waiting:
                continue
            if kind == "DEVICE_UNPLUG_GUEST_ERROR":
                raise InUse(f"{self.what}: its guest refuses to give {name} up")
            self._delete_backend(waiting.pop(name), deadline)

    def _delete_backend(self, name: str, deadline: float) -> None:
        """QEMU lets go of the memory a moment after it has said that the device is gone."""
        while True:
            try:
                self._qmp.execute("object-del", id=name)
                return
            except Invalid as error:
                if "in use" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL)

    # --- asking -------------------------------------------------------------------------------------------

    def _children(self, path: str) -> list[dict[str, str]]:
        found: list[dict[str, str]] = self._qmp.execute("qom-list", path=path)
        return found

    def _get(self, path: str, name: str) -> Any:
        return self._qmp.execute("qom-get", path=path, property=name)


class _RefusedError(NoMemory):
    """QEMU does not let devices be plugged into a bus."""

    def __init__(self, bus: str, reason: str) -> None:
        super().__init__(reason)
        self.bus = bus


def _backend(device: Device) -> dict[str, Any]:
    """What object-add takes: the same as `ivshmem.vmm.qemu.backend_args`."""
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
