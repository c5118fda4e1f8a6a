# SPDX-License-Identifier: BSD-3-Clause
"""Emulated PCI bus: a directory with the layout of /sys, in which ivshmem devices can be plugged and unplugged."""

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
from ivshmem.hotplug.hotplug_vm import VmDevice
from ivshmem.hotplug.plug import devices_to_remove
from ivshmem.hotplug.unplug_handshake import announce_unplug, withdraw_announcement
from ivshmem.scratch import Scratch
from ivshmem.vmm.device import Device

if TYPE_CHECKING:
    from ivshmem.metadata.metadata import Metadata

log = logging.getLogger(__name__)

_FIRST_SLOT = 2  # on many machines slot 0 is the host bridge and slot 1 the VGA adapter
_WINDOW = 0x80_0000_0000  # first guest-physical address of the emulated BARs
_MEM64_PREFETCH = 0x14220C  # flags of <linux/ioport.h> for a 64-bit prefetchable memory BAR
_MEM32 = 0x40200


class EmulatedBus:
    """A directory with the layout of /sys for `eal.init(sysfs_root=...)`. Only the files that eal reads exist.

    The BAR of a device is a link to the shared file. The BAR of a read-only device is a link to the same file on a
    private read-only mount, which exists as long as this process. A context manager; `root` is the directory.
    """

    def __init__(self, files: Iterable[Path | str | Device] = (), folder: Path | None = None) -> None:
        """Create the bus with one ivshmem device per file, in this order.

        `folder` is the parent directory of `root`; None: a scratch directory, removed by `close`.
        """
        self._scratch = Scratch("bus") if folder is None else None
        self.root = self._scratch.path if self._scratch else Path(tempfile.mkdtemp(prefix="ivshmem-bus-", dir=folder))
        self._next_slot = _FIRST_SLOT
        self._next_bar = _WINDOW
        self._devices: dict[str, Device] = {}  # by PCI address
        self._mounts: dict[str, int] = {}  # descriptors of read-only mounts, by PCI address
        try:
            (self.root / "bus/pci/devices").mkdir(parents=True)
            for file in files:
                self.add(file)
        except BaseException:
            self.close()
            raise

    # --- devices ------------------------------------------------------------------------------------------

    def add(self, file: Path | str | Device, address: str | None = None) -> str:
        """Add a device, also while guests run, and return its PCI address. A path gives a writable device.

        `address`: the PCI address; None: a slot that was never used. The device appears atomically, by one rename.
        Raises Exists if the address is occupied.
        """
        device = file if isinstance(file, Device) else _writable_device(Path(file))
        if address is None:
            slot = self._next_slot
            self._next_slot += 1
            address = f"0000:{slot >> 5:02x}:{slot & 31:02x}.0"
        target = self.root / "bus/pci/devices" / address
        if target.exists():
            raise Exists(f"PCI address {address} is occupied: remove that device first, or omit the address")
        folder = Path(tempfile.mkdtemp(prefix="new-", dir=self.root))
        folder.chmod(0o755)
        self._write_attributes(folder, os.stat(device.path).st_size)
        (folder / "resource2").symlink_to(self._bar_path(device, address))
        folder.rename(target)
        self._devices[address] = device
        return address

    def _write_attributes(self, folder: Path, size: int) -> None:
        start = -(-self._next_bar // max(size, 1)) * max(size, 1)
        self._next_bar = start + size
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
            (folder / name).write_text(f"{text}\n")

    def _bar_path(self, device: Device, address: str) -> str:
        """Return the target of the link resource2."""
        if device.readonly:
            try:
                self._mounts[address] = fd = open_readonly(Path(device.path))
            except Denied as error:
                log.warning("guests of the emulated bus can write to a read-only device: %s", error)
            else:
                return f"/proc/{os.getpid()}/fd/{fd}"
        return device.path

    def remove(self, address: str) -> None:
        """Remove a device atomically, by one rename. Guests are not notified before (surprise removal)."""
        removed = Path(tempfile.mkdtemp(prefix="gone-", dir=self.root))
        (self.root / "bus/pci/devices" / address).rename(removed)
        shutil.rmtree(removed)
        self._devices.pop(address, None)
        if (fd := self._mounts.pop(address, None)) is not None:
            os.close(fd)

    # --- metadata -----------------------------------------------------------------------------------------

    def plug(self, metadata: Metadata) -> list[str]:
        """Add the missing devices of a metadata file, segments first, and return their PCI addresses.

        Call it again after an `add_*` that needed a new segment. It corresponds to `Metadata.plug` of a VM.
        """
        with metadata.shared() as share:
            if share.file.leaving:  # the process that announced an unplug was killed during it
                withdraw_announcement(share.file)
            return self.give(share.devices())

    def give(self, devices: Iterable[Device]) -> list[str]:
        """Add each device whose file is not on the bus, or only read-only and the device is writable."""
        return [self.add(device) for device in devices if not self._has(device)]

    def _has(self, device: Device) -> bool:
        present = (one for one in self._devices.values() if one.path == device.path)
        return any(device.readonly or not one.readonly for one in present)

    def unplug(self, metadata: Metadata, timeout: float = 5.0, force: bool = False) -> list[str]:
        """Remove a metadata file and the segments that no other metadata file on the bus needs.

        The unplug is announced first; the devices are removed after every guest process has detached. Return the PCI
        addresses that became free. `timeout`: seconds to wait for the processes. Raises Stalled with the names of the
        processes that did not detach, and leaves the devices plugged; with `force` they are removed nevertheless.
        Raises NotFound if the metadata file is not on the bus. It corresponds to `Metadata.unplug` of a VM.
        """
        with metadata.shared() as share:
            own, segments = devices_to_remove(share, self._vm_devices())
            if not own and not segments:
                raise NotFound(f"metadata {share.name!r} is not plugged into the bus at {self.root}")
            announce_unplug(share.file, share.segments(), share.vms.next_announcement(), timeout, force=force)
            try:
                for one in (*own, *segments):
                    self.remove(one.id)
            finally:
                withdraw_announcement(share.file)
        return [one.id for one in (*own, *segments)]

    def _vm_devices(self) -> list[VmDevice]:
        """Return the devices of the bus in the form in which QMP reports those of a VM."""
        return [VmDevice(address, one.id, one.path, one.readonly) for address, one in self._devices.items()]

    # --- close --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Remove the directory and the read-only mounts. Idempotent."""
        shutil.rmtree(self.root, ignore_errors=True)
        if self._scratch:
            self._scratch.close()
        while self._mounts:
            os.close(self._mounts.popitem()[1])

    def __enter__(self) -> EmulatedBus:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _writable_device(file: Path) -> Device:
    """Return a device for a file that belongs to no metadata file."""
    path = file.absolute()
    return Device("", UUID(int=0), str(path), path.stat().st_size, readonly=False)


def _resource_lines(start: int, size: int) -> str:
    """Return the content of the file `resource`: start, end and flags of the 13 BARs and windows."""
    bars = {0: (0xFEBF_0000, 0xFEBF_00FF, _MEM32), 2: (start, start + size - 1, _MEM64_PREFETCH)}
    return "\n".join("0x{:016x} 0x{:016x} 0x{:016x}".format(*bars.get(bar, (0, 0, 0))) for bar in range(13))
