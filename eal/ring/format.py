# SPDX-License-Identifier: BSD-3-Clause
"""Ring formats: the flags of a ring, the bytes it takes, and an empty one laid out in a zone."""

from __future__ import annotations

import errno
from enum import IntFlag
from typing import TYPE_CHECKING, Any

from eal._native import ffi, lib
from eal.errors import Invalid, InvalidType, raise_for
from eal.text.names import pack_name

if TYPE_CHECKING:
    from eal.memory.memzone import Memzone


class RingFlag(IntFlag):
    """How the ends of a ring are synchronised (DPDK: RING_F_*). No flag: any number of threads (MT) at an end.

    SP_ENQ, SC_DEQ: one thread at that end. EXACT_SZ: holds exactly `count`. RTS and HTS: any number of threads,
    where they may be preempted while they work.
    """

    SP_ENQ = 0x1
    SC_DEQ = 0x2
    EXACT_SZ = 0x4
    MP_RTS_ENQ = 0x8
    MC_RTS_DEQ = 0x10
    MP_HTS_ENQ = 0x20
    MC_HTS_DEQ = 0x40


def _info(name: str, count: int, elem_size: int, flags: int) -> tuple[Any, int]:
    """The C core's plan of a ring and the bytes it takes. Raises Invalid and says what does not fit."""
    for what, value in (("count", count), ("elem_size", elem_size), ("flags", flags)):
        if not isinstance(value, int):
            raise InvalidType(f"ring {name!r}: {what} is an int, not {type(value).__name__}")
        if not 0 <= value < 1 << 32:
            raise Invalid(f"ring {name!r}: {what} {value} is out of range")
    info = ffi.new("struct ivs_ring_info *")
    info.name = pack_name(name)
    info.count, info.elem_size, info.flags = count, elem_size, flags
    need = lib.ivs_ring_plan(info)
    if need < 0:
        if elem_size == 0 or elem_size % 4:
            raise Invalid(f"ring {name!r}: elem_size {elem_size} is not a multiple of 4")
        if flags & ~0x7F or _contradict(flags):
            raise Invalid(f"ring {name!r}: flags {flags:#x} are unknown or contradict each other (one of ST, RTS, HTS)")
        raise Invalid(f"ring {name!r}: count {count} is not a power of two: use one, or RingFlag.EXACT_SZ")
    return info, need


def _contradict(flags: int) -> bool:
    return any((flags & mask).bit_count() > 1 for mask in (0x29, 0x52))


def ring_memsize(name: str, count: int, elem_size: int, flags: int) -> int:
    """Bytes that a ring takes (DPDK: rte_ring_get_memsize_elem). Raises Invalid."""
    return _info(name, count, elem_size, flags)[1]


def format_ring(zone: Memzone, name: str, count: int, elem_size: int, flags: int) -> None:
    """Makes an empty ring in a zone that is long enough."""
    info, _ = _info(name, count, elem_size, flags)
    result = lib.ivs_ring_create(zone.segment.mapping.pointer(zone.offset), zone.length, info)
    if result < 0:
        raise_for(result, "ring", name, {errno.ENOSPC: f"does not fit its zone of {zone.length} bytes"})
