# SPDX-License-Identifier: BSD-3-Clause
"""The PCI bus over time: which ivshmem devices are there now, and when that may have changed."""

from __future__ import annotations

import logging
import os
import select
import time
from pathlib import Path
from typing import Any, Protocol

from eal.pci.device import SYSFS, IvshmemDevice, scan

log = logging.getLogger(__name__)

_SETTLED = 0.2  # seconds after which a folder's time stamp tells every later change from the last one
_RELIST = 2.0  # seconds between looks at the bus where the kernel tells of changes, in case it lost one


class Bus:
    """The ivshmem devices of this machine, or of a sysfs tree that is named."""

    def __init__(self, sysfs_root: str | os.PathLike[str] | None = None) -> None:
        self._root = sysfs_root or os.environ.get("EAL_SYSFS_ROOT")
        self._source: _Source | None = None

    def devices(self) -> list[IvshmemDevice]:
        """All ivshmem devices now, sorted by address."""
        return scan(self._root)

    def listen(self) -> None:
        """From now on `wait` tells of changes. Look at `devices` after this, not before."""
        if self._source is None:
            self._source = _Folder(Path(self._root)) if self._root else _kernel()

    def wait(self, timeout: float, bell: int) -> bool:
        """Waits up to `timeout` seconds, or until the descriptor `bell` can be read. Whether to look at `devices`."""
        assert self._source is not None
        descriptors = [bell, *self._source.descriptors()]
        poll = select.poll()
        for fd in descriptors:
            poll.register(fd, select.POLLIN)
        poll.poll(timeout * 1000)
        return self._source.changed()

    def close(self) -> None:
        """Listens no more. In a forked child too: nothing of its parent's is touched."""
        self._source = None


class _Source(Protocol):
    """What tells that devices came or went."""

    def descriptors(self) -> list[int]:
        """Those that can be read when something has changed."""

    def changed(self) -> bool:
        """Whether anything may have changed since the last call."""


class _Folder:
    """A folder of devices that no kernel stands behind: its time stamp tells."""

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
        # time stamps are some milliseconds coarse: what came right after the last look may bear the same one
        return abs(time.time_ns() - stamp[1]) < _SETTLED * 1e9


class _Kernel:
    """The kernel's own events, which come without udevd too."""

    def __init__(self) -> None:
        import pyudev

        self._monitor: Any = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
        self._monitor.filter_by("pci")
        self._monitor.start()
        self._relist = _Relist()

    def descriptors(self) -> list[int]:
        return [self._monitor.fileno()]

    def changed(self) -> bool:
        told = False
        try:
            while self._monitor.poll(timeout=0) is not None:
                told = True
        except OSError as error:  # more events than its buffer holds
            log.debug("events were lost (%s): looking at the bus", error)
            told = True
        return self._relist.changed() or told


class _Relist:
    """A list of the bus, compared now and then, or each time where nothing else tells."""

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
        log.warning("no events from the kernel (%s): looking at %s all the time instead", error, SYSFS)
        return _Relist(0.1)
