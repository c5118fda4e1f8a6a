# SPDX-License-Identifier: BSD-3-Clause
"""Mempool format: flags, parameter validation, size, and formatting of a memzone as a mempool."""

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


class MempoolFlag(IntFlag):
    """Flags of a mempool (DPDK: RTE_MEMPOOL_F_*).

    NO_CACHE_ALIGN: objects are not padded to cache lines. DEBUG: a cookie before and after each object detects double
    puts and overruns, and records the object's user (DPDK: RTE_LIBRTE_MEMPOOL_DEBUG).
    """

    NO_CACHE_ALIGN = lib.IVS_MEMPOOL_NO_CACHE_ALIGN
    DEBUG = lib.IVS_MEMPOOL_DEBUG


def check_uint32(name: str, **values: object) -> None:
    """Raise InvalidType unless each argument of a mempool is an int, Invalid unless it is a uint32."""
    for argument, value in values.items():
        if not isinstance(value, int):
            raise InvalidType(f"mempool {name!r}: {argument} must be an int, got {type(value).__name__}")
        if not 0 <= value < 1 << 32:
            raise Invalid(f"mempool {name!r}: {argument} must be 0 to 4294967295, got {value}")


def plan_mempool(
    name: str, n: int, elt_size: int, cache_size: int, flags: int, private_size: int = 0
) -> tuple[Any, int]:
    """Return the validated `struct ivs_mempool_info` of a mempool, and its size in bytes. Raise Invalid."""
    check_uint32(name, n=n, elt_size=elt_size, cache_size=cache_size, flags=flags)
    info = ffi.new("struct ivs_mempool_info *")
    info.name = pack_name(name)
    info.n, info.elt_size, info.cache_size, info.flags = n, elt_size, cache_size, flags
    info.private_size = private_size
    if fault := lib.ivs_mempool_info_fault(info):
        values = f"n={n}, elt_size={elt_size}, cache_size={cache_size}, flags={flags:#x}"
        raise Invalid(f"mempool {name!r}: {fault_text(fault)}, got {values}")
    return info, lib.ivs_mempool_plan(info)


def mempool_memsize(name: str, n: int, elt_size: int, cache_size: int, flags: int) -> int:
    """Return the size of a mempool in bytes. Raise Invalid."""
    if isinstance(flags, int) and flags & lib.IVS_MEMPOOL_MBUF:
        raise Invalid(f"mempool {name!r}: flags must not contain {flags:#x}; for mbufs use pktmbuf_pool_create")
    return plan_mempool(name, n, elt_size, cache_size, flags)[1]


def format_mempool(zone: Memzone, name: str, n: int, elt_size: int, cache_size: int, flags: int) -> None:
    """Create a mempool with all objects free in a zeroed memzone. Raise Invalid; NoMemory if the zone is too short."""
    info, _ = plan_mempool(name, n, elt_size, cache_size, flags)
    result = lib.ivs_mempool_create(zone.segment.mapping.pointer(zone.offset), zone.length, info)
    if result < 0:
        raise_for(result, "mempool", name, {errno.ENOSPC: f"does not fit its memzone of {zone.length} bytes"})
