# SPDX-License-Identifier: BSD-3-Clause
"""Packets for tests of mbufs."""

from __future__ import annotations

import eal


def taken(pool: eal.MbufPool) -> int:
    index = pool.alloc()
    assert index is not None
    return index


def packet(pool: eal.MbufPool, *parts: bytes) -> int:
    """A packet with a segment for each part."""
    head = taken(pool)
    for number, part in enumerate(parts):
        segment = head if number == 0 else taken(pool)
        room = pool.append(segment, len(part))
        assert room is not None
        room[:] = part
        if segment != head:
            pool.chain(head, segment)
    pool.sanity_check(head)
    return head


def cloned(pool: eal.MbufPool, index: int) -> int:
    clone = pool.clone(index)
    assert clone is not None
    pool.sanity_check(clone)
    return clone
