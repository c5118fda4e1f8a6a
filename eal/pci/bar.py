# SPDX-License-Identifier: BSD-3-Clause
"""BARs: map the memory of an ivshmem device, and restore the state of a foreign device."""

from __future__ import annotations

import errno
import logging
import os

from eal.errors import Corrupt, Denied, Detached, EalError, InUse
from eal.linux.lockdown import HOW_TO_LIFT, lockdown
from eal.linux.mapping import Mapping
from eal.linux.memory_type import WRITE_BACK, map_write_back, memory_types
from eal.pci.device import IvshmemDevice

log = logging.getLogger(__name__)

HOW_TO_LET_USERS_IN = "run as root, or install the udev rule of docs/nonroot.md in the guest"


class Bar:
    """BAR2 of a device, opened. Raise Detached if it has no address, Denied without access; both name the remedy."""

    def __init__(self, device: IvshmemDevice) -> None:
        self.device = device
        self._enabled_here = False
        self._fd = self._open()
        try:
            self._enable()
        except BaseException:
            self.close()
            raise
        found = os.fstat(self._fd)
        self.size = found.st_size
        self._block = found.st_blksize  # a hugepage on hugetlbfs, where munmap needs whole pages

    def _open(self) -> int:
        try:
            return _open_resource(self.device.resource_name)
        except FileNotFoundError as error:
            raise Detached(
                f"{self.device.address}: BAR2 has no address; the bridge window was probably too small for it. "
                "Boot the VM with ivshmem.qemu_args(..., plug=SIZE), which reserves a window"
            ) from error
        except OSError as error:
            raise _without_access(self.device, f"open {self.device.resource}", error) from error

    def _enable(self) -> None:
        """Enable memory decoding, which the kernel leaves off for an unbound device."""
        try:
            if int(self.device.read("enable")) == 0:
                (self.device.path / "enable").write_text("1")
                self._enabled_here = True
        except (FileNotFoundError, ValueError):
            pass  # already enabled
        except OSError as error:
            raise _without_access(self.device, "enable the device", error) from error

    def restore(self) -> None:
        """Restore the state in which the device was found."""
        if self._enabled_here:
            (self.device.path / "enable").write_text("0")
            self._enabled_here = False

    def map(self, length: int, *, writable: bool, hint: int = 0) -> Mapping:
        """Map at least the first `length` bytes through sysfs. Raise Corrupt if the BAR is smaller.

        If another process maps the BAR write-back, so does this mapping: the kernel allows one memory type at a time.
        """
        length = self._whole_pages(length)
        try:
            return Mapping(self._fd, length, writable=writable, hint=hint, label=f"BAR2 of {self.device.address}")
        except EalError as error:
            if error.code == errno.EINVAL and self.held_write_back():
                return self.map_write_back(length, writable=writable, hint=hint)
            raise _explain(self.device, error) from error

    def map_write_back(self, length: int, *, writable: bool, hint: int = 0) -> Mapping:
        """Map the BAR through /dev/mem. Raise the errors of eal.linux.memory_type.map_write_back."""
        length = self._whole_pages(length)
        label = f"BAR2 of {self.device.address}"
        return map_write_back(self.device.bar_start, length, writable=writable, hint=hint, label=label)

    def held_write_back(self) -> bool:
        """Return whether a process maps this BAR write-back, according to the kernel's PAT list."""
        return not self.device.emulated and WRITE_BACK in (memory_types(self.device.bar_start, self.size) or ())

    def _whole_pages(self, length: int) -> int:
        if length > self.size:
            raise Corrupt(
                f"{self.device.address}: BAR2 must have {length} bytes or more, got {self.size}: its file was truncated"
            )
        return min(-(-length // self._block) * self._block, self.size)

    def close(self) -> None:
        """Close the file; mappings stay."""
        os.close(self._fd)


def _open_resource(path: str) -> int:
    """Open the file writable, or read-only on a read-only mount: a read-only device of an emulated bus."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _without_access(device: IvshmemDevice, action: str, error: OSError) -> EalError:
    if error.errno == errno.ENODEV:  # of files in /sys that the kernel is removing
        return Detached(f"{device.address}: cannot {action}: the device is being removed")
    return Denied(f"{device.address}: cannot {action}: {error.strerror}: {HOW_TO_LET_USERS_IN}")


def _explain(device: IvshmemDevice, error: EalError) -> EalError:
    """Return the error that names the obstacle to a mapping, if it is known."""
    if error.code == errno.EINVAL:
        if device.driver:
            return InUse(
                f"{device.address}: BAR2 is claimed by driver {device.driver}: "
                f"echo {device.address} > /sys/bus/pci/drivers/{device.driver}/unbind"
            )
        return InUse(
            f"{device.address}: BAR2 is claimed by a driver, or another process maps it write-back "
            "(bar_access='devmem'): unbind the driver, or run this process as root, which can also use /dev/mem"
        )
    if error.code == errno.EPERM:
        mode = lockdown()
        obstacle = f"kernel lockdown {mode} forbids" if mode not in (None, "none") else "the kernel (lockdown?) forbids"
        return Denied(f"{device.address}: {obstacle} mapping BARs: {HOW_TO_LIFT}")
    return error
