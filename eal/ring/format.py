# SPDX-License-Identifier: BSD-3-Clause
"""Ring format: the flags and size of a ring, and an empty ring written to a zone."""

from __future__ import annotations

import errno
from enum import IntFlag
from typing import TYPE_CHECKING, Any

from eal._native import ffi, lib
from eal.errors import Invalid, InvalidType, raise_for
from eal.native_handle import fault_text
from eal.text.names import pack_name

if TYPE_CHECKING:
    from eal.memory.memzone import Memzone


class RingFlag(IntFlag):
    """Sync types of the two sides (DPDK: RING_F_*). Without a flag a side is MT: any number of threads.

    SP_ENQ, SC_DEQ: one thread at a time on that side (ST). EXACT_SZ: holds exactly `count`. RTS and HTS: any number of
    threads that may be preempted during an operation.
    """

    SP_ENQ = 0x1
    SC_DEQ = 0x2
    EXACT_SZ = 0x4
    MP_RTS_ENQ = 0x8
    MC_RTS_DEQ = 0x10
    MP_HTS_ENQ = 0x20
    MC_HTS_DEQ = 0x40


def _info(name: str, count: int, elem_size: int, flags: int) -> tuple[Any, int]:
    """Return the C core's plan of a ring and its size in bytes. Raise Invalid with the parameter that is wrong."""
    for what, value in (("count", count), ("elem_size", elem_size), ("flags", flags)):
        if not isinstance(value, int):
            raise InvalidType(f"ring {name!r}: {what} must be an int, got {type(value).__name__}")
        if not 0 <= value < 1 << 32:
            raise Invalid(f"ring {name!r}: {what} must be from 0 to 2**32 - 1, got {value}")
    info = ffi.new("struct ivs_ring_info *")
    info.name = pack_name(name)
    info.count, info.elem_size, info.flags = count, elem_size, flags
    if fault := lib.ivs_ring_info_fault(info):
        raise Invalid(f"ring {name!r}: {fault_text(fault)}, got count {count}, elem_size {elem_size}, flags {flags:#x}")
    return info, lib.ivs_ring_plan(info)


def ring_memsize(name: str, count: int, elem_size: int, flags: int) -> int:
    """Return the size of a ring in bytes (DPDK: rte_ring_get_memsize_elem). Raise Invalid."""
    return _info(name, count, elem_size, flags)[1]


def format_ring(zone: Memzone, name: str, count: int, elem_size: int, flags: int) -> None:
    """Write an empty ring to a zone that is long enough (DPDK: rte_ring_init)."""
    info, _ = _info(name, count, elem_size, flags)
    result = lib.ivs_ring_create(zone.segment.mapping.pointer(zone.offset), zone.length, info)
    if result < 0:
        raise_for(result, "ring", name, {errno.ENOSPC: f"does not fit its memzone of {zone.length} bytes"})
