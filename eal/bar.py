"""BARs: mapping the memory of an ivshmem device, and leaving it as it was found where it is not ours."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from eal.errors import Corrupt, Denied, Detached, EalError, InUse
from eal.mapping import Mapping
from eal.pci import PciDevice


class Bar:
    """BAR2 of a device, opened. Raises an error that says what to do where it cannot be."""

    def __init__(self, device: PciDevice) -> None:
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
        self._block = found.st_blksize  # on hugetlbfs a page, and munmap takes no part of one

    def _open(self) -> int:
        try:
            return os.open(str(self.device.resource), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise Detached(
                f"{self.device.address}: no BAR2 with an address: plugged where no window was large enough for it?"
            ) from error
        except OSError as error:
            raise Denied(f"{self.device.address}: cannot open {self.device.resource}: {error.strerror}") from error

    def _enable(self) -> None:
        """The kernel leaves memory decoding of an unbound device off."""
        try:
            if int(self.device.read("enable")) == 0:
                (self.device.path / "enable").write_text("1")
                self._enabled_here = True
        except (FileNotFoundError, ValueError):
            pass  # nothing to switch
        except OSError as error:
            raise Denied(f"{self.device.address}: cannot enable the device: {error.strerror}") from error

    def restore(self) -> None:
        """Puts the device back into the state it was found in."""
        if self._enabled_here:
            (self.device.path / "enable").write_text("0")
            self._enabled_here = False

    def map(self, length: int, *, writable: bool, hint: int = 0) -> Mapping:
        """Maps the first `length` bytes, or somewhat more. Raises Corrupt where the BAR is smaller."""
        if length > self.size:
            raise Corrupt(f"{self.device.address}: {length} bytes are needed, BAR2 has {self.size}: truncated?")
        length = min(-(-length // self._block) * self._block, self.size)
        try:
            return Mapping(self._fd, length, writable=writable, hint=hint, what=f"BAR2 of {self.device.address}")
        except EalError as error:
            raise _explain(self.device, error) from error

    def close(self) -> None:
        """Closes the file; mappings stay."""
        os.close(self._fd)


def _explain(device: PciDevice, error: EalError) -> EalError:
    code = getattr(error, "code", 0)
    if code == errno.EINVAL:
        driver = device.path / "driver"
        name = driver.resolve().name if driver.exists() else "a driver"
        return InUse(f"{device.address}: BAR2 is claimed by {name}: unbind it ({driver}/unbind)")
    if code == errno.EPERM and _locked_down():
        return Denied(f"{device.address}: kernel lockdown forbids mapping BARs: boot with lockdown=none")
    return error


def _locked_down() -> bool:
    try:
        return "[none]" not in Path("/sys/kernel/security/lockdown").read_text()
    except OSError:
        return False
