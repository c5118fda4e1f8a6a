# SPDX-License-Identifier: BSD-3-Clause
"""Guest that maps BARs through sysfs and /dev/mem, from one and from several processes, and prints the PAT entries."""

from __future__ import annotations

import json
import mmap
import os
from typing import Any

import eal
import eal.lifecycle.startup  # import before the fork, so that it is imported only once
from eal.linux.latency import measure
from eal.linux.memory_type import memory_types
from eal.pci.bar_access import Choice
from eal.pci.device import IvshmemDevice, scan


def types(device: IvshmemDevice) -> list[str]:
    return sorted(memory_types(device.bar_start, device.bar_size) or ())


def devices_of_zones() -> dict[str, IvshmemDevice]:
    """Return the device that carries each zone."""
    devices = {str(device.resource): device for device in scan()}
    return {zone.name: devices[zone.segment.path] for zone in eal.memzones() if not zone.name.startswith("RG_")}


def choice_of(choice: Choice) -> dict[str, Any]:
    return {"access": choice.access, "why": choice.why, "fallbacks": choice.fallbacks}


def look(access: str) -> dict[str, Any]:
    """Run one process alone."""
    with eal.init(bar_access=access, file_prefix=access) as me:
        devices = devices_of_zones()
        during = {name: types(device) for name, device in devices.items()}
        wire = eal.ring_lookup("wire")
        number = wire.dequeue()
        assert isinstance(number, int)
        eal.memzone_lookup("first").buf[8:16] = (number * 2).to_bytes(8, "little")
        found = {
            "choice": choice_of(me.bar_access),
            "during": during,
            "number": number,
            "relocated": [zone.relocated for zone in eal.memzones()],
            "addresses": {name: device.address for name, device in devices.items()},
            "uncached": measure(eal.memzone_lookup("first").segment.mapping, 132).uncached,
        }
    return {**found, "after": {name: types(device) for name, device in devices.items()}}


def in_a_child(prefix: str, **options: Any) -> dict[str, Any]:
    """Run the same in another process of this or another prefix; it writes to the first zone."""
    hear, tell = os.pipe()
    if os.fork() == 0:
        with eal.init(file_prefix=prefix, **options) as me:
            eal.memzone_lookup("first").buf[64:69] = b"child"
            found = {"role": me.proc_type, "access": me.bar_access.access, "first": types(devices_of_zones()["first"])}
            os.write(tell, json.dumps(found).encode())
        os._exit(0)
    os.close(tell)
    os.wait()
    heard = os.read(hear, 4096)
    os.close(hear)
    return dict(json.loads(heard or b'{"failed": true}'))


def beside_others() -> dict[str, Any]:
    """Run a primary with secondaries, and another prefix beside them, while everything is mapped write-back."""
    with eal.init(bar_access="devmem", file_prefix="several"):
        devices = devices_of_zones()
        return {
            "a secondary": in_a_child("several"),
            "one that wants sysfs": in_a_child("several", bar_access="sysfs"),
            "another prefix": in_a_child("other"),
            "one with sysfs": in_a_child("third", bar_access="sysfs"),
            "types": {name: types(device) for name, device in devices.items()},
        }


def held_by_another(address: str) -> dict[str, Any]:
    """Report the result of devmem while another process maps the first BAR through sysfs."""
    (device,) = (found for found in scan() if found.address == address)
    with open(device.resource, "r+b") as file, mmap.mmap(file.fileno(), 4096):
        return look("devmem")


def main() -> None:
    sysfs = look("sysfs")
    for found in (sysfs, look("devmem"), look("auto"), held_by_another(sysfs["addresses"]["first"]), beside_others()):
        print(json.dumps(found), flush=True)


main()
