# SPDX-License-Identifier: BSD-3-Clause
"""Caching: the memory type that the kernel gave to a range of a BAR, write-back mappings of it, and how fast it is.

The kernel maps a BAR uncached-minus where it is mapped through sysfs. Intel processors under KVM use write-back all the
same; AMD's obey the guest, and then every load goes to memory and every atomic is a bus lock. Above 4 GiB, /dev/mem
gives a write-back mapping, unless somebody else holds the range in another type: a range has one type at a time.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eal._native import ffi, lib
from eal.errors import Denied, EalError, InUse, NotFound
from eal.linux.lockdown import HOW_TO_LIFT, lockdown
from eal.linux.mapping import Mapping

WRITE_BACK = "write-back"
DEVMEM = Path("/dev/mem")
PAT_LIST = Path("/sys/kernel/debug/x86/pat_memtype_list")
UNCACHED_FACTOR = 8.0  # a load from memory takes 50 times as long as one from the first cache, or longer

_NEW_LINE = re.compile(r"\[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\] ([a-z-]+)")  # Linux 5.6 and later
_OLD_LINE = re.compile(r"([a-z-]+) @ 0x([0-9a-f]+)-0x([0-9a-f]+)")
_ROUNDS, _BATCHES = 200, 9


# --- memory types -----------------------------------------------------------------------------------------------


def memory_types(start: int, length: int, pat_list: Path | None = None) -> set[str] | None:
    """The types in which any process maps a part of this physical range now, as the kernel names them.

    None where the kernel does not say: its list is in debugfs, which takes root and a mount.
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


def map_write_back(start: int, length: int, *, writable: bool, hint: int = 0, what: str) -> Mapping:
    """Maps a physical range write-back through /dev/mem.

    Raises Denied, NotFound or EalError with the reason where that cannot be had, InUse while another process holds it
    in another type; nothing stays mapped then.
    """
    fd = _open_devmem(writable)
    try:
        mapping = Mapping(fd, length, writable=writable, hint=hint, what=f"{DEVMEM} for {what}", offset=start)
    except EalError as error:
        if error.code in (errno.EPERM, errno.EACCES):
            raise Denied(f"the kernel keeps {DEVMEM} from {what}: a driver has claimed it, or STRICT_DEVMEM") from error
        raise
    finally:
        os.close(fd)
    fault = _not_write_back(mapping, start)
    if fault:
        mapping.release()
        # What is listed now is another process's.
        others = (memory_types(start, length) or set()) - {WRITE_BACK}
        if others:
            raise InUse(f"another process holds it {', '.join(sorted(others))}: start that with the same bar_access")
        raise EalError(f"{fault}: place the device behind a bridge with a window above 4 GiB (pref64-reserve=1G)")
    return mapping


def _not_write_back(mapping: Mapping, start: int) -> str:
    """What is wrong with a mapping that should be write-back; "" if nothing is. Where the kernel does not tell the
    type, its speed does.
    """
    types = memory_types(start, mapping.length)
    if types:
        return "" if types == {WRITE_BACK} else f"{DEVMEM} gave {', '.join(sorted(types))} at {start:#x}"
    speed = measure(mapping)
    return f"{DEVMEM} gave uncached memory at {start:#x} ({speed})" if speed.uncached else ""


def _open_devmem(writable: bool) -> int:
    try:
        # Never with O_SYNC, which asks for uncached memory.
        return os.open(DEVMEM, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"this kernel has no {DEVMEM}") from error
    except OSError as error:
        why = f"cannot open {DEVMEM}: {error.strerror}"
        if error.errno == errno.EPERM and lockdown() not in (None, "none"):
            raise Denied(f"{why} (kernel lockdown {lockdown()}): {HOW_TO_LIFT}") from error
        raise Denied(f"{why}: it takes root with CAP_SYS_RAWIO") from error


# --- speed ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Speed:
    """Nanoseconds of one load and one atomic addition, here and on ordinary memory of this process. `atomic` is None
    where nothing may be written.
    """

    load: float
    ordinary_load: float
    atomic: float | None
    ordinary_atomic: float

    @property
    def uncached(self) -> bool:
        """Whether the processor leaves its caches out: a load takes many times as long as it should."""
        return self.load > UNCACHED_FACTOR * self.ordinary_load

    def __str__(self) -> str:
        text = f"a load takes {self.load:.1f} ns, {self.ordinary_load:.1f} on ordinary memory"
        if self.atomic is not None:
            text += f"; an atomic {self.atomic:.1f} ns, {self.ordinary_atomic:.1f}"
        return text


def measure(mapping: Mapping, atomic_at: int | None = None) -> Speed:
    """Times loads of a mapping's first word, and atomic additions of 0 to its word at offset `atomic_at` if given: the
    best of some batches, so that an interruption does not count. Takes less than 5 ms even of uncached memory.
    """
    ordinary = ffi.new("uint64_t[8]")
    there, base = mapping.pointer(), mapping.address
    atomic = None
    if atomic_at is not None:
        atomic = _best(lambda: lib.ivs_time_atomics(ffi.cast("void *", base + atomic_at), _ROUNDS))
    return Speed(
        load=_best(lambda: lib.ivs_time_loads(there, _ROUNDS)),
        ordinary_load=_best(lambda: lib.ivs_time_loads(ordinary, _ROUNDS)),
        atomic=atomic,
        ordinary_atomic=_best(lambda: lib.ivs_time_atomics(ordinary, _ROUNDS)),
    )


def _best(batch: Callable[[], int]) -> float:
    return max(min(batch() for _ in range(_BATCHES)), 1) / _ROUNDS
