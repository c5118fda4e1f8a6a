# SPDX-License-Identifier: BSD-3-Clause
"""Mbuf format: header layout, parameter validation, size, and formatting of a memzone as a pool of mbufs."""

from __future__ import annotations

import errno
from functools import cache
from typing import TYPE_CHECKING, Any

from eal._native import ffi, lib
from eal.errors import Invalid, raise_for
from eal.mempool.format import check_uint32, plan_mempool

if TYPE_CHECKING:
    import numpy as np

    from eal.memory.memzone import Memzone

HEADER_SIZE: int = ffi.sizeof("struct ivs_mbuf")
HEADROOM: int = lib.IVS_MBUF_HEADROOM  # DPDK: RTE_PKTMBUF_HEADROOM
DEFAULT_DATA_ROOM = 2048 + HEADROOM  # DPDK: RTE_MBUF_DEFAULT_BUF_SIZE
NO_MBUF: int = lib.IVS_MBUF_NONE  # `next` of the last segment of a packet
_LENGTH_MAX = 0xFFFF  # buf_len and priv_size have 16 bits


def _plan(name: str, n: int, cache_size: int, data_room: int, private_size: int, flags: int) -> tuple[Any, int]:
    """Return the validated `struct ivs_mempool_info` of a pool of mbufs, and its size in bytes. Raise Invalid."""
    check_uint32(name, data_room=data_room, private_size=private_size, flags=flags)
    if data_room > _LENGTH_MAX:  # here, because elt_size could exceed its limit first
        raise Invalid(f"mempool {name!r}: data_room must be 0 to {_LENGTH_MAX}, got {data_room}")
    if private_size % 8 or private_size > _LENGTH_MAX:
        limit = _LENGTH_MAX - 7
        raise Invalid(f"mempool {name!r}: private_size must be a multiple of 8, at most {limit}, got {private_size}")
    elt_size = HEADER_SIZE + private_size + data_room
    return plan_mempool(name, n, elt_size, cache_size, flags | lib.IVS_MEMPOOL_MBUF, private_size)


def mbuf_pool_memsize(name: str, n: int, *sizes: int) -> tuple[int, int]:
    """Return the size in bytes of a pool of mbufs, and its flags. Arguments as in `format_mbuf_pool`. Raise Invalid."""
    info, need = _plan(name, n, *sizes)
    return need, info.flags


def format_mbuf_pool(zone: Memzone, name: str, n: int, *sizes: int) -> None:
    """Create a pool of `n` mbufs in a zeroed memzone. Raise Invalid, or NoMemory if the zone is too short.

    `sizes`: cache_size, data_room, private_size, flags.
    """
    info, _ = _plan(name, n, *sizes)
    result = lib.ivs_mbuf_pool_create(zone.segment.mapping.pointer(zone.offset), zone.length, info)
    if result < 0:
        raise_for(result, "mempool", name, {errno.ENOSPC: f"does not fit its memzone of {zone.length} bytes"})


@cache
def header_dtype() -> np.dtype[Any]:
    """Return the numpy dtype of an mbuf header: field names as in rte_mbuf, little-endian, 64 bytes."""
    import numpy as np

    fields = ffi.typeof("struct ivs_mbuf").fields
    return np.dtype(
        {
            "names": [name for name, _ in fields],
            "formats": [f"<u{ffi.sizeof(field.type)}" for _, field in fields],
            "offsets": [field.offset for _, field in fields],
            "itemsize": HEADER_SIZE,
        }
    )
