# SPDX-License-Identifier: BSD-3-Clause
"""Memory types (PAT) of physical ranges: read the kernel's list, and map a BAR write-back through /dev/mem.

Through sysfs the kernel maps a BAR uncached-minus. Under KVM, Intel processors use write-back anyway; AMD processors
obey the guest's type: every load goes to DRAM and every atomic locks the bus. Through /dev/mem a BAR above 4 GiB can be
mapped write-back, unless another process has mapped the range with another type: a range has one type at a time.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from eal.errors import Denied, EalError, InUse, NotFound
from eal.linux.latency import measure
from eal.linux.lockdown import HOW_TO_LIFT, lockdown
from eal.linux.mapping import Mapping

WRITE_BACK = "write-back"
DEVMEM = Path("/dev/mem")
PAT_LIST = Path("/sys/kernel/debug/x86/pat_memtype_list")

_NEW_LINE = re.compile(r"\[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\] ([a-z-]+)")  # Linux 5.6 and later
_OLD_LINE = re.compile(r"([a-z-]+) @ 0x([0-9a-f]+)-0x([0-9a-f]+)")


def memory_types(start: int, length: int, pat_list: Path | None = None) -> set[str] | None:
    """Return the types with which any process maps part of a physical range now, in the kernel's spelling.

    None if the kernel's list is not readable: it is in debugfs, which requires root and a mount.
    """
    try:
        text = (pat_list or PAT_LIST).read_text()
    except OSError:
        return None
    found = set()
    for line in text.splitlines():
        if new := _NEW_LINE.search(line):
            first, end, kind = int(new[1], 16), int(new[2], 16), new[3]
        elif old := _OLD_LINE.search(line):
            first, end, kind = int(old[2], 16), int(old[3], 16), old[1]
        else:
            continue
        if first < start + length and end > start:
            found.add(kind)
    return found


def map_write_back(start: int, length: int, *, writable: bool, hint: int = 0, label: str) -> Mapping:
    """Map a physical range write-back through /dev/mem; `label` names it in messages.

    Raise Denied, NotFound or EalError with the reason if this is not possible, InUse while another process maps the
    range with another type. After an error nothing is mapped.
    """
    fd = _open_devmem(writable)
    try:
        mapping = Mapping(fd, length, writable=writable, hint=hint, label=f"{DEVMEM} for {label}", offset=start)
    except EalError as error:
        if error.code in (errno.EPERM, errno.EACCES):
            reason = f"the kernel refuses {DEVMEM} for {label}: a driver has claimed it, or STRICT_DEVMEM is set"
            raise Denied(reason) from error
        raise
    finally:
        os.close(fd)
    fault = _write_back_fault(mapping, start)
    if fault:
        mapping.release()
        # This process has no mapping any more, so the types listed now are those of other processes.
        others = (memory_types(start, length) or set()) - {WRITE_BACK}
        if others:
            raise InUse(f"another process maps it {', '.join(sorted(others))}: start it with the same bar_access")
        raise EalError(f"{fault}: place the device behind a bridge with a window above 4 GiB (pref64-reserve=1G)")
    return mapping


def _write_back_fault(mapping: Mapping, start: int) -> str:
    """Return how a mapping differs from write-back, "" if not; by its latency if the kernel's list is not readable."""
    types = memory_types(start, mapping.length)
    if types:
        return "" if types == {WRITE_BACK} else f"{DEVMEM} returned {', '.join(sorted(types))} memory at {start:#x}"
    speed = measure(mapping)
    return f"{DEVMEM} returned uncached memory at {start:#x} ({speed})" if speed.uncached else ""


def _open_devmem(writable: bool) -> int:
    try:
        # Without O_SYNC, which requests uncached memory.
        return os.open(DEVMEM, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"this kernel has no {DEVMEM}") from error
    except OSError as error:
        reason = f"cannot open {DEVMEM}: {error.strerror}"
        if error.errno == errno.EPERM and lockdown() not in (None, "none"):
            raise Denied(f"{reason} (kernel lockdown {lockdown()}): {HOW_TO_LIFT}") from error
        raise Denied(f"{reason}: run as root with CAP_SYS_RAWIO") from error
