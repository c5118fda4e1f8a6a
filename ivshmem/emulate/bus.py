# SPDX-License-Identifier: BSD-3-Clause
"""The emulated bus: a folder that looks like /sys to a guest, on which devices come and go."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from eal.errors import Denied, Exists, NotFound
from eal.pci.device import DEVICE, VENDOR
from ivshmem.emulate.readonly_mount import open_readonly
from ivshmem.scratch import Scratch
from ivshmem.vmm.device import Device

if TYPE_CHECKING:
    from ivshmem.hotplug.running_vm import Given
    from ivshmem.metadata.metadata import Metadata

log = logging.getLogger(__name__)

_FIRST_SLOT = 2  # 0 and 1 are the host bridge's and the VGA's on many machines
_WINDOW = 0x80_0000_0000  # where the emulated BARs claim to be
_MEM64_PREFETCH = 0x14220C  # the kernel's flags of a 64-bit prefetchable memory BAR
_MEM32 = 0x40200


class EmulatedBus:
    """A folder that looks like /sys to `eal.init(sysfs_root=...)`: BARs are the shared files themselves; one that is
    read-only is the file on a read-only mount of its own, which goes with this process.

    A context manager; `root` is the folder. Files of sysfs that nothing here reads are left out.
    """

    def __init__(self, files: Iterable[Path | str | Device] = (), folder: Path | None = None) -> None:
        """One ivshmem device for each file, in this order."""
        self._scratch = Scratch("bus") if folder is None else None
        self.root = self._scratch.path if self._scratch else Path(tempfile.mkdtemp(prefix="ivshmem-bus-", dir=folder))
        self._next = 0
        self._address = _WINDOW
        self._devices: dict[str, Device] = {}  # by address
        self._views: dict[str, int] = {}  # descriptors of read-only mounts, by address
        try:
            (self.root / "bus/pci/devices").mkdir(parents=True)
            for file in files:
                self.add(file)
        except BaseException:
            self.close()
            raise

    # --- devices ------------------------------------------------------------------------------------------

    def add(self, file: Path | str | Device, address: str | None = None) -> str:
        """Puts one more device on the bus, while guests run too; gives its PCI address. A plain file may be written.

        `address` is one that `remove` has made free; without it a slot is taken that never had a device. The device
        appears whole, by one rename. Raises Exists for an address that is taken.
        """
        given = file if isinstance(file, Device) else _plain(Path(file))
        if address is None:
            slot = _FIRST_SLOT + self._next
            self._next += 1
            address = f"0000:{slot >> 5:02x}:{slot & 31:02x}.0"
        place = self.root / "bus/pci/devices" / address
        if place.exists():
            raise Exists(f"there is a device at {address} already: remove it first, or leave the address out")
        size = os.stat(given.path).st_size
        device = Path(tempfile.mkdtemp(prefix="new-", dir=self.root))
        device.chmod(0o755)
        self._write(device, size)
        (device / "resource2").symlink_to(self._resource(given, address))
        device.rename(place)
        self._devices[address] = given
        return address

    def _write(self, device: Path, size: int) -> None:
        start = -(-self._address // max(size, 1)) * max(size, 1)
        self._address = start + size
        texts = {
            "vendor": f"{VENDOR:#06x}",
            "device": f"{DEVICE:#06x}",
            "subsystem_vendor": "0x1af4",
            "subsystem_device": "0x1100",
            "class": "0x050000",
            "revision": "0x01",
            "numa_node": "-1",
            "enable": "0",
            "resource": _resource_lines(start, size),
        }
        for name, text in texts.items():
            (device / name).write_text(f"{text}\n")

    def _resource(self, device: Device, address: str) -> str:
        """What stands for a device's memory."""
        if device.readonly:
            try:
                self._views[address] = view = open_readonly(Path(device.path))
            except Denied as error:
                log.warning("guests of the emulated bus can write to what they should only read: %s", error)
            else:
                return f"/proc/{os.getpid()}/fd/{view}"
        return device.path

    def remove(self, address: str) -> None:
        """Takes a device off the bus: it goes as a whole, by one rename. A surprise to guests, who are not asked."""
        gone = Path(tempfile.mkdtemp(prefix="gone-", dir=self.root))
        (self.root / "bus/pci/devices" / address).rename(gone)
        shutil.rmtree(gone)
        self._devices.pop(address, None)
        if (view := self._views.pop(address, None)) is not None:
            os.close(view)

    # --- metadata -----------------------------------------------------------------------------------------

    def plug(self, metadata: Metadata) -> list[str]:
        """Puts on the bus what it lacks of a metadata, the segments first; gives the addresses of what was added. After
        an `add_*` that took a new segment: once more. (`Metadata.plug`, for a guest without a VM.)
        """
        from ivshmem.hotplug.unplug_handshake import is_leaving, set_leaving

        with metadata.shared() as share:
            if is_leaving(share.file):  # whoever announced that was killed before the end
                set_leaving(share.file, 0)
            return self.give(share.devices())

    def give(self, devices: Iterable[Device]) -> list[str]:
        """Adds those of these devices whose file the bus does not have, or not to be written."""
        return [self.add(device) for device in devices if not self._has(device)]

    def _has(self, device: Device) -> bool:
        there = (one for one in self._devices.values() if one.path == device.path)
        return any(device.readonly or not one.readonly for one in there)

    def unplug(self, metadata: Metadata, timeout: float = 5.0, force: bool = False) -> list[str]:
        """Takes a metadata off the bus, with the segments that no other metadata there needs: announced first, removed
        when every guest process has let go. Gives the addresses that are free now.

        `timeout`: seconds that the processes have. Raises Stalled, naming who did not let go, and leaves it plugged;
        with `force` it goes all the same. Raises NotFound where the bus does not have it. (`Metadata.unplug`.)
        """
        from ivshmem.hotplug.plug import to_remove
        from ivshmem.hotplug.unplug_handshake import announce, set_leaving

        with metadata.shared() as share:
            mine, segments = to_remove(share, self._given())
            if not mine and not segments:
                raise NotFound(f"the bus at {self.root} does not have metadata {share.name!r}")
            announce(share.file, share.segments(), share.vms.next_announcement(), timeout, force=force)
            try:
                for one in (*mine, *segments):
                    self.remove(one.id)
            finally:
                set_leaving(share.file, 0)
        return [one.id for one in (*mine, *segments)]

    def _given(self) -> list[Given]:
        """What is on the bus, as a VM would tell it."""
        from ivshmem.hotplug.running_vm import Given

        return [Given(address, one.id, one.path, one.readonly) for address, one in self._devices.items()]

    # --- ending -------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Takes the folder away. May be called twice."""
        shutil.rmtree(self.root, ignore_errors=True)
        if self._scratch:
            self._scratch.close()
        while self._views:
            os.close(self._views.popitem()[1])

    def __enter__(self) -> EmulatedBus:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _plain(file: Path) -> Device:
    """A file of which nothing more is known."""
    path = file.absolute()
    return Device("", UUID(int=0), str(path), path.stat().st_size, readonly=False)


def _resource_lines(start: int, size: int) -> str:
    """The `resource` file: start, end and flags of each of the 13 BARs and windows."""
    bars = {0: (0xFEBF_0000, 0xFEBF_00FF, _MEM32), 2: (start, start + size - 1, _MEM64_PREFETCH)}
    return "\n".join("0x{:016x} 0x{:016x} 0x{:016x}".format(*bars.get(bar, (0, 0, 0))) for bar in range(13))
