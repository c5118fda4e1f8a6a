# SPDX-License-Identifier: BSD-3-Clause
"""FakeQemu: a simulated QEMU with QMP, PCI bridges and a guest whose behaviour a test selects."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MIB = 1 << 20
BASE = 1 << 32


@dataclass
class Bridge:
    """A PCI bridge of QEMU's type `model` with a window of `window` bytes."""

    model: str = "pci-bridge"
    window: int = 1 << 30
    base: int = 0
    hotplug: bool = True


@dataclass
class Plugged:
    """A device: its bus and slot, and the addresses that the guest has assigned to its BARs (-1: none)."""

    memdev: str
    bus: str
    slot: int
    bar0: int = -1
    bar2: int = -1


class CommandError(Exception):
    """The error with which QEMU responds to a command."""


@dataclass
class FakeQemu:
    """Serves QMP at `path` as a context manager. A test may set these fields at any time:

    silent        devices to which the guest does not respond ("*" for all)
    rejects       devices whose unplug the guest rejects
    lacks_room    devices for whose memory the guest has no room
    dies_at       a command at which QEMU ends
    running       the result of query-status
    busy          number of object-del commands that fail because the memory is still in use
    booting       number of query-pci commands that show bridges before the firmware has set them up
    """

    path: Path
    bridges: dict[str, Bridge] = field(default_factory=lambda: {"ivs-plug": Bridge()})
    silent: set[str] = field(default_factory=set)
    rejects: set[str] = field(default_factory=set)
    lacks_room: set[str] = field(default_factory=set)
    dies_at: str = ""
    running: bool = True
    busy: int = 0
    booting: int = 0
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    devices: dict[str, Plugged] = field(default_factory=dict)
    commands: list[tuple[str, str]] = field(default_factory=list)

    def __enter__(self) -> FakeQemu:
        base = BASE
        for bridge in self.bridges.values():
            bridge.base, base = base, base + (1 << 33)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def backends(self) -> list[str]:
        """Return the backends of the devices, and check that no other backend exists."""
        used = [device.memdev for device in self.devices.values()]
        assert sorted(used) == sorted(self.objects), "a backend without a device"
        return used

    def cold(self, args: list[str]) -> None:
        """Add the devices of a QEMU command line."""
        for name, value in zip(args[::2], args[1::2], strict=True):
            kind, *rest = value.split(",")
            options = dict(part.split("=", 1) for part in rest)
            if name == "-object":
                self.objects[options["id"]] = {"mem-path": options["mem-path"], "readonly": "readonly" in options}
            elif kind == "ivshmem-plain":
                self.devices[options["id"]] = Plugged(options["memdev"], "cold", int(options["addr"], 16), BASE, BASE)

    # --- the socket -----------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._client = client
            with client, contextlib.suppress(OSError):
                self._say(
                    QMP={"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}
                )
                if not all(self._answer(request) for request in _requests(client)):
                    self._listener.close()
                    return

    def _say(self, **message: Any) -> None:
        self._client.sendall(json.dumps(message).encode() + b"\r\n")

    def _answer(self, request: dict[str, Any]) -> bool:
        command, arguments = request["execute"], request.get("arguments", {})
        number = {"id": request["id"]} if "id" in request else {}
        self.commands.append((command, arguments.get("id", "")))
        if command == self.dies_at:
            return False
        try:
            result = getattr(self, "_" + command.replace("-", "_"))(
                **{k.replace("-", "_"): v for k, v in arguments.items()}
            )
        except CommandError as error:
            self._say(error={"class": "GenericError", "desc": str(error)}, **number)
        else:
            self._say(**{"return": {} if result is None else result}, **number)
            if command == "device_del":
                self._eject(arguments["id"])
        return True

    # --- commands -------------------------------------------------------------------------------------------

    def _qmp_capabilities(self, **_: Any) -> None:
        pass

    def _query_status(self) -> dict[str, Any]:
        return {"running": self.running, "status": "running" if self.running else "paused"}

    def _qom_list(self, path: str) -> list[dict[str, str]]:
        if path == "/objects":
            return [{"name": name, "type": "child<memory-backend-file>"} for name in self.objects]
        if path == "/machine/peripheral-anon":
            return []
        models = {name: bridge.model for name, bridge in self.bridges.items()}
        models |= dict.fromkeys(self.devices, "ivshmem-plain")
        return [{"name": name, "type": f"child<{model}>"} for name, model in models.items()]

    def _qom_get(self, path: str, property: str) -> Any:
        name = path.rsplit("/", 1)[1]
        return f"/objects/{self.devices[name].memdev}" if property == "memdev" else self.objects[name][property]

    def _object_add(self, id: str, **options: Any) -> None:
        if id in self.objects:
            raise CommandError(f"attempt to add duplicate property '{id}' to object (type 'container')")
        assert os.path.getsize(options["mem_path"]) >= options["size"]
        self.objects[id] = {"mem-path": options["mem_path"], "readonly": options["readonly"], "size": options["size"]}

    def _object_del(self, id: str) -> None:
        if self.busy or any(device.memdev == id for device in self.devices.values()):
            self.busy = max(0, self.busy - 1)
            raise CommandError(f"object '{id}' is in use, can not be deleted")
        del self.objects[id]

    def _device_add(self, driver: str, id: str, memdev: str, bus: str, addr: str) -> None:
        assert driver == "ivshmem-plain"
        assert memdev in self.objects
        if not self.bridges[bus].hotplug:
            raise CommandError(f"Bus '{bus}' does not support hotplugging")
        slot = int(addr, 16)
        if id in self.devices or any((d.bus, d.slot) == (bus, slot) for d in self.devices.values()):
            raise CommandError(f"slot {slot} function 0 not available for ivshmem-plain, or Duplicate device ID '{id}'")
        self.devices[id] = Plugged(memdev, bus, slot)
        if not {id, "*"} & self.silent:
            self._give_address(id, bus)

    def _give_address(self, id: str, bus: str) -> None:
        device, size = self.devices[id], self.objects[self.devices[id].memdev]["size"]
        device.bar0 = 0xF000_0000 + 256 * device.slot
        taken = [(d.bar2, self.objects[d.memdev]["size"]) for d in self.devices.values() if d.bus == bus and d.bar2 > 0]
        start = self.bridges[bus].base
        for at in range(start, start + self.bridges[bus].window, size):
            if not {id, "*"} & self.lacks_room and all(at + size <= a or a + s <= at for a, s in taken):
                device.bar2 = at
                return

    def _device_del(self, id: str) -> None:
        if id not in self.devices:
            raise CommandError(f"Device '{id}' not found")

    def _eject(self, id: str) -> None:
        if {id, "*"} & self.silent:
            return
        if {id, "*"} & self.rejects:
            self._event("DEVICE_UNPLUG_GUEST_ERROR", id)
        else:
            del self.devices[id]
            self._event("DEVICE_DELETED", id)

    def _event(self, name: str, device: str) -> None:
        data = {"device": device, "path": f"/machine/peripheral/{device}"}
        self._say(event=name, data=data, timestamp={"seconds": 0, "microseconds": 0})

    def _query_pci(self) -> list[dict[str, Any]]:
        self.booting = max(0, self.booting - 1)
        return [{"bus": 0, "devices": [self._bridge(name, bridge) for name, bridge in self.bridges.items()]}]

    def _bridge(self, name: str, bridge: Bridge) -> dict[str, Any]:
        bus = {
            "number": 0,
            "secondary": 0 if self.booting else 1,
            "subordinate": 1,
            "prefetchable_range": {"base": bridge.base, "limit": bridge.base + bridge.window - 1},
            "memory_range": {"base": 0xFFF0_0000, "limit": 0xFFFFF},
        }
        there = [self._device(id, d) for id, d in self.devices.items() if d.bus == name]
        return {"qdev_id": name, "slot": 1, "regions": [], "pci_bridge": {"bus": bus, "devices": there}}

    def _device(self, id: str, device: Plugged) -> dict[str, Any]:
        size = self.objects[device.memdev]["size"]
        regions: Iterable[tuple[int, int, int]] = ((0, 256, device.bar0), (2, size, device.bar2))
        return {
            "qdev_id": id,
            "slot": device.slot,
            "regions": [{"type": "memory", "bar": bar, "size": n, "address": at} for bar, n, at in regions],
        }


def _requests(client: socket.socket) -> Iterator[dict[str, Any]]:
    """Yield JSON objects that follow each other with or without white space."""
    text = ""
    while data := client.recv(65536):
        text = (text + data.decode()).lstrip()
        while text:
            try:
                request, end = json.JSONDecoder().raw_decode(text)
            except ValueError:
                break  # the object is incomplete
            text = text[end:].lstrip()
            yield request
