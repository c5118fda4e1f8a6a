# SPDX-License-Identifier: BSD-3-Clause
"""BAR access: how the processes of a prefix map BARs of segments, decided once and used by all of them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from eal.errors import Denied, EalError, InUse, NotFound
from eal.linux import atomic_file
from eal.linux.latency import measure
from eal.linux.mapping import Mapping
from eal.memory.segment import HEADER_SIZE
from eal.pci.bar import Bar

log = logging.getLogger(__name__)

SYSFS, DEVMEM, AUTO = "sysfs", "devmem", "auto"
# A range in use is tried again, because another process may just be classifying the device.
_ATTEMPTS = 20  # in all
_RETRY_DELAY = 0.01  # seconds


@dataclass
class Choice:
    """The choice of a prefix: "sysfs", "devmem" or "auto" (not decided yet), and the reason.

    `fallbacks` has, by PCI address, the reason why a BAR is mapped through sysfs although devmem was chosen.
    """

    access: str = AUTO
    why: str = ""
    fallbacks: dict[str, str] = field(default_factory=dict)


def read_choice(path: Path) -> Choice:
    """Return the recorded choice of a prefix; the default one if there is no readable record."""
    try:
        found = json.loads(path.read_bytes())
        return Choice(str(found["access"]), str(found["why"]), {str(k): str(v) for k, v in found["fallbacks"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Choice()


class BarAccess:
    """Maps segments as the prefix has chosen.

    "auto" is decided when the first segment is mapped: devmem if the measured latency shows an uncached BAR, or if
    another process maps the BAR write-back; otherwise sysfs.
    """

    def __init__(
        self, path: Path, requested: str, *, primary: bool, lock: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """`path` is the prefix's record, which a primary replaces; `lock` excludes the prefix's other processes."""
        self._path = path
        self._lock = lock
        self._attempts = _ATTEMPTS
        self._access = AUTO  # the decided access, which does not change
        if primary:
            with lock():
                self._path.unlink(missing_ok=True)
                if requested != AUTO:
                    self._write(Choice(requested, "asked for"))
        elif requested not in (AUTO, self.choice.access):
            log.warning("bar_access=%r is not followed: the prefix's is %r", requested, self.choice.access)

    @property
    def choice(self) -> Choice:
        """The current choice of the prefix."""
        return read_choice(self._path)

    def map(self, bar: Bar, length: int, *, writable: bool, hint: int = 0) -> Mapping:
        """Map the first `length` bytes of a segment's BAR. Raise the errors of Bar.map."""
        if self._access == AUTO:
            self._access = self._decide(bar).access
        if self._access == DEVMEM:
            try:
                if bar.device.emulated:
                    raise EalError("the device is a file on an emulated bus")
                return self._map_write_back(bar, length, writable, hint)
            except EalError as error:
                self._fall_back(bar, str(error))
        return bar.map(length, writable=writable, hint=hint)

    def _map_write_back(self, bar: Bar, length: int, writable: bool, hint: int) -> Mapping:
        while self._attempts:
            try:
                return bar.map_write_back(length, writable=writable, hint=hint)
            except InUse:
                self._attempts -= 1
                time.sleep(_RETRY_DELAY)
        return bar.map_write_back(length, writable=writable, hint=hint)

    def _decide(self, bar: Bar) -> Choice:
        choice = self.choice
        if choice.access == AUTO:
            with self._lock():
                choice = self.choice  # another process may have decided in the meantime
                if choice.access == AUTO:
                    choice = Choice(*_compare(bar))
                    log.info("bar_access is %s: %s", choice.access, choice.why)
                    self._write(choice)
        return choice

    def _fall_back(self, bar: Bar, reason: str) -> None:
        address = bar.device.address
        log.warning("BAR2 of %s is mapped through sysfs, not write-back through /dev/mem: %s", address, reason)
        with self._lock():
            choice = self.choice
            choice.fallbacks[address] = reason
            self._write(choice)

    def _write(self, choice: Choice) -> None:
        atomic_file.write_text(self._path, json.dumps(asdict(choice)))


def _compare(bar: Bar) -> tuple[str, str]:
    """Return the better access for the BARs of this machine, measured on one of them, and the reason."""
    if bar.device.emulated:
        return SYSFS, "an emulated bus"
    if bar.held_write_back():
        return DEVMEM, f"another process maps {bar.device.address} write-back"
    speed = measure(bar.map(HEADER_SIZE, writable=False))
    if not speed.uncached:
        return SYSFS, f"the processor caches BARs in spite of their memory type: {speed}"
    why = f"the processor does not cache BARs mapped through sysfs: {speed}"
    try:
        bar.map_write_back(HEADER_SIZE, writable=False)
    except (Denied, NotFound) as error:  # this reason holds for every BAR, other reasons for this BAR only
        log.warning("shared memory will be slow: %s; %s", why, error)
        return SYSFS, f"{why}; but {error}"
    except EalError:
        pass
    return DEVMEM, why
