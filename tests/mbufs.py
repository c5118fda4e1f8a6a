# SPDX-License-Identifier: BSD-3-Clause
"""Packets for tests: allocate, fill, chain and clone, and validate the result."""

from __future__ import annotations

import eal


def alloc(pool: eal.MbufPool) -> int:
    index = pool.alloc()
    assert index is not None
    return index


def packet(pool: eal.MbufPool, *parts: bytes) -> int:
    """Return a packet with one segment per part."""
    head = alloc(pool)
    for number, part in enumerate(parts):
        segment = head if number == 0 else alloc(pool)
        room = pool.append(segment, len(part))
        assert room is not None
        room[:] = part
        if segment != head:
            pool.chain(head, segment)
    pool.sanity_check(head)
    return head


def clone_of(pool: eal.MbufPool, index: int) -> int:
    clone = pool.clone(index)
    assert clone is not None
    pool.sanity_check(clone)
    return clone
