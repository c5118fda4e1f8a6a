# SPDX-License-Identifier: BSD-3-Clause
"""Mbuf formats: what an mbuf's header is, the bytes that a pool of them takes, and a fresh one laid out in a zone."""

from __future__ import annotations

import errno
from functools import cache
from typing import TYPE_CHECKING, Any

from eal._native import ffi, lib
from eal.errors import Invalid, InvalidType, raise_for
from eal.mempool.mempool import plan_mempool

if TYPE_CHECKING:
    import numpy as np

    from eal.memory.memzone import Memzone

HEADER_SIZE: int = ffi.sizeof("struct ivs_mbuf")
HEADROOM: int = lib.IVS_MBUF_HEADROOM  # DPDK: RTE_PKTMBUF_HEADROOM
DEFAULT_DATA_ROOM = 2048 + HEADROOM  # DPDK: RTE_MBUF_DEFAULT_BUF_SIZE
NO_MBUF: int = lib.IVS_MBUF_NONE  # `next` of a packet's last segment
_LENGTH_MAX = 0xFFFF  # a header has 16 bits for them


def _plan(name: str, n: int, cache_size: int, data_room: int, private_size: int, flags: int) -> tuple[Any, int]:
    for what, value in (("data_room", data_room), ("private_size", private_size), ("flags", flags)):
        if not isinstance(value, int):
            raise InvalidType(f"mempool {name!r}: {what} is an int, not {type(value).__name__}")
    if not 0 <= data_room <= _LENGTH_MAX:
        raise Invalid(f"mempool {name!r}: data_room {data_room}: 0 to {_LENGTH_MAX} bytes")
    if not 0 <= private_size <= _LENGTH_MAX or private_size % 8:
        raise Invalid(f"mempool {name!r}: private_size {private_size}: a multiple of 8 up to {_LENGTH_MAX - 7} bytes")
    elt_size = HEADER_SIZE + private_size + data_room
    return plan_mempool(name, n, elt_size, cache_size, flags | lib.IVS_MEMPOOL_MBUF, private_size)


def mbuf_pool_memsize(name: str, n: int, *sizes: int) -> tuple[int, int]:
    """Bytes that a pool of mbufs takes, and the flags it has. Arguments as of format_mbuf_pool. Raises Invalid."""
    info, need = _plan(name, n, *sizes)
    return need, info.flags


def format_mbuf_pool(zone: Memzone, name: str, n: int, *sizes: int) -> None:
    """Makes a pool of mbufs in a zeroed zone that is long enough.

    `sizes`: cache_size, data_room, private_size, flags.
    """
    info, _ = _plan(name, n, *sizes)
    result = lib.ivs_mbuf_pool_create(zone.segment.mapping.pointer(zone.offset), zone.length, info)
    if result < 0:
        raise_for(result, "mempool", name, {errno.ENOSPC: f"does not fit its zone of {zone.length} bytes"})


@cache
def header_dtype() -> np.dtype[Any]:
    """A header as numpy sees it: rte_mbuf's field names, little-endian, 64 bytes."""
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
