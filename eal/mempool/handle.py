# SPDX-License-Identifier: BSD-3-Clause
"""Mempool handles: the C handle of each thread, and the sentinel handles of closed mempools."""

from __future__ import annotations

from typing import Any

from eal._native import ffi, lib
from eal.errors import TERMINAL_ERRNOS
from eal.linux import process
from eal.memory.memzone import Memzone
from eal.memory.participant import Slot
from eal.native_handle import own


def _allocate(cache_size: int) -> Any:
    """Return zeroed memory for a `struct ivs_mempool` with a cache."""
    return ffi.new("uint64_t[]", -(-lib.ivs_mempool_handle_size(cache_size) // 8))


def _sentinel(code: int) -> Any:
    memory = _allocate(0)
    pointer = own(ffi.cast("struct ivs_mempool *", memory), memory)
    lib.ivs_mempool_refuse(pointer, -code)
    return pointer


# Sentinel C handles of closed, detached and stale mempools, by errno: every operation on them fails with that errno.
_SENTINELS = {code: _sentinel(code) for code in TERMINAL_ERRNOS}


def attach_reader(zone: Memzone, info: Any) -> Any:
    """Return a C handle without a slot for the mempool in `zone`: enough to count, and to read a read-only share."""
    memory = _allocate(info.cache_size)
    mapping = zone.segment.mapping
    pointer = own(ffi.cast("struct ivs_mempool *", memory), memory, mapping.view())
    lib.ivs_mempool_attach(pointer, mapping.pointer(zone.offset), info)
    return pointer


class MempoolHandle:
    """The C handle of one thread; owns the thread's participant slot in the segment.

    `pointer` is passed to C functions; after `close` it is a sentinel.
    """

    def __init__(self, zone: Memzone, info: Any, slot: Slot | None) -> None:
        """Attach to the mempool in `zone`. Without a slot the handle has no cache."""
        memory = _allocate(info.cache_size)
        raw = ffi.cast("struct ivs_mempool *", memory)
        mapping = zone.segment.mapping
        pages = mapping.pages
        # The cache is flushed when the handle is destroyed: when its thread exits, or when the mempool is closed.
        leave = lib.ivs_mempool_leave
        self.pointer = own(raw, memory, mapping.view(), slot, finish=lambda: pages.mapped and leave(raw))
        lib.ivs_mempool_attach(raw, mapping.pointer(zone.offset), info)
        if slot is not None:
            lib.ivs_mempool_join(raw, slot.index)
        raw.owner = process.owner_word()
        self._raw, self._memory, self._mapping = raw, memory, mapping
        self._lent: Any = None

    @property
    def fault(self) -> int:
        """The `enum ivs_fault` of the last -EINVAL of a put or free."""
        fault: int = self._raw.fault
        return fault

    @property
    def culprit(self) -> int:
        """With MempoolFlag.DEBUG: the object that caused the last error."""
        culprit: int = self._raw.culprit
        return culprit

    def lend(self) -> int:
        """Return the address of the C handle. Handle and pages stay valid while this object lives."""
        self._lent = self._mapping.pointer()
        return int(ffi.cast("uintptr_t", self._raw))

    def close(self, code: int) -> None:
        """Make every further operation fail with this errno, one of TERMINAL_ERRNOS; also through a lent address."""
        if self._lent is not None:
            lib.ivs_mempool_refuse(self._raw, -code)
        self.pointer = _SENTINELS[code]
