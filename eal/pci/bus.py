# SPDX-License-Identifier: BSD-3-Clause
"""The PCI bus: list the ivshmem devices, and wait for changes."""

from __future__ import annotations

import logging
import os
import select
import time
from pathlib import Path
from typing import Any, Protocol

from eal.pci.device import SYSFS, IvshmemDevice, scan

log = logging.getLogger(__name__)

_SETTLED = 0.2  # seconds after which the timestamp of a directory distinguishes every later change
_RELIST = 2.0  # seconds between two scans although the kernel reports changes, in case it lost an event


class Bus:
    """The ivshmem devices of this machine, or of another sysfs tree."""

    def __init__(self, sysfs_root: str | os.PathLike[str] | None = None) -> None:
        self._root = sysfs_root or os.environ.get("EAL_SYSFS_ROOT")
        self._source: _Source | None = None

    def devices(self) -> list[IvshmemDevice]:
        """Return all current ivshmem devices, sorted by address."""
        return scan(self._root)

    def listen(self) -> None:
        """Start monitoring, so that `wait` reports changes. Call `devices` after this, not before."""
        if self._source is None:
            self._source = _Folder(Path(self._root)) if self._root else _kernel()

    def wait(self, timeout: float, wakeup: int) -> bool:
        """Wait up to `timeout` seconds, or until `wakeup` is readable. Return whether to call `devices`."""
        assert self._source is not None
        descriptors = [wakeup, *self._source.descriptors()]
        poll = select.poll()
        for fd in descriptors:
            poll.register(fd, select.POLLIN)
        poll.poll(timeout * 1000)
        return self._source.changed()

    def close(self) -> None:
        """Stop monitoring. Also in a forked child: nothing of the parent is changed."""
        self._source = None


class _Source(Protocol):
    """A source of device changes."""

    def descriptors(self) -> list[int]:
        """Descriptors that become readable on a change."""

    def changed(self) -> bool:
        """Return whether the bus may have changed since the last call."""


class _Folder:
    """The timestamp of a device directory that no kernel maintains."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "bus/pci/devices"
        self._last: tuple[int, int] | None = None

    def descriptors(self) -> list[int]:
        return []

    def changed(self) -> bool:
        try:
            found = os.stat(self._folder)
            stamp = (found.st_ino, found.st_mtime_ns)
        except OSError:
            stamp = (0, 0)
        if stamp != self._last:
            self._last = stamp
            return True
        # timestamps have a resolution of some milliseconds: a change just after the last scan may have the same one
        return abs(time.time_ns() - stamp[1]) < _SETTLED * 1e9


class _Kernel:
    """The kernel's uevents, which need no udevd."""

    def __init__(self) -> None:
        import pyudev

        self._monitor: Any = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
        self._monitor.filter_by("pci")
        self._monitor.start()
        self._relist = _Relist()

    def descriptors(self) -> list[int]:
        return [self._monitor.fileno()]

    def changed(self) -> bool:
        notified = False
        try:
            while self._monitor.poll(timeout=0) is not None:
                notified = True
        except OSError as error:  # more events than the socket buffer holds
            log.debug("uevents were lost (%s): scanning the bus", error)
            notified = True
        return self._relist.changed() or notified


class _Relist:
    """A scan of the bus at intervals, or on each call where no other source exists."""

    def __init__(self, interval: float = _RELIST) -> None:
        self._interval = interval
        self._next = 0.0
        self._last: list[tuple[str, int]] = []

    def descriptors(self) -> list[int]:
        return []

    def changed(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._interval
        try:
            with os.scandir(SYSFS / "bus/pci/devices") as entries:
                found = sorted((entry.name, entry.inode()) for entry in entries)
        except OSError:
            found = []
        before, self._last = self._last, found
        return found != before


def _kernel() -> _Source:
    try:
        return _Kernel()
    except (ImportError, OSError) as error:
        log.warning("no uevents from the kernel (%s): scanning %s at each poll instead", error, SYSFS)
        return _Relist(0.1)
