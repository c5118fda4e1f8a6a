# SPDX-License-Identifier: BSD-3-Clause
"""The guest under test: probe a bus and use all objects. Only EalErrors may be raised."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

import numpy as np

import eal
from eal.mbuf.pool import MbufPool, attach_pool
from eal.memory.memzone import Memzone
from eal.metadata.records import Entry, Kind, table_as_json
from eal.pci.device import scan
from eal.probe.prober import Prober
from eal.ring.ring import Ring

STALL = 0.0005  # stall timeout in seconds; no other process uses these objects
READ_MAX = 64  # maximum bytes to read: a peer may set any element size


def visit(root: Path, names: Set[str] = frozenset({""})) -> int:
    """Probe the bus and use the objects with these names ("": all); return the number of usable objects."""
    findings = Prober().probe(scan(root))
    used = 0
    for share in findings.shares:
        table_as_json(share.table)
        for entry in share.table.entries:
            if "" not in names and entry.name not in names:
                continue
            with contextlib.suppress(eal.EalError):
                use(entry, Memzone(entry, share.segment_of(entry)))
                used += 1
        for segment in share.segments:
            segment.participants()
            assert segment.retired in (False, True)
            segment.close()
        share.file.mapping.release()
    return used


def use(entry: Entry, zone: Memzone) -> None:
    if entry.kind == Kind.RING:
        use_ring(Ring(zone, entry.name, STALL))
    elif entry.kind == Kind.MEMPOOL:
        use_pool(attach_pool(zone, entry.name))
    else:
        use_zone(zone)


def use_zone(zone: Memzone) -> None:
    assert len(zone.buf) == zone.length
    if not zone.readonly:
        zone.buf[0] = zone.buf[-1]
    if zone.entry.dtype:
        array = zone.array()
        assert array.nbytes <= zone.length
        _ = array.tobytes()[:READ_MAX]


def use_ring(ring: Ring) -> None:
    assert 0 <= ring.count <= ring.capacity
    ring.dump(io.StringIO())
    for step in (ring.dequeue, ring.reset, ring.dequeue):
        call(step)
    if ring.elem_size <= READ_MAX:
        call(ring.enqueue_burst, np.zeros((3, ring.elem_size), np.uint8))
        call(ring.dequeue_burst, np.zeros((5, ring.elem_size), np.uint8))


def use_pool(pool: Any) -> None:
    assert 0 <= pool.available <= pool.n
    indices = np.zeros(5, np.uint32)
    if call(pool.get_bulk, indices):
        assert (indices < pool.n).all()
        pool.array[indices[0]] = 1  # writable: get_bulk raises on a read-only share
        call(pool.put_bulk, indices)
    str(pool.audit())
    if isinstance(pool, MbufPool):
        use_mbufs(pool)


def use_mbufs(pool: MbufPool) -> None:
    packet = call(pool.alloc)
    if packet is not None:
        call(pool.append, packet, 100)
        call(pool.read, packet)
        call(pool.sanity_check, packet)
        call(pool.free, packet)
    assert len(pool.mbufs) == len(pool.data) == pool.n


def call(step: Callable[..., Any], *arguments: Any) -> Any:
    """Call an operation; ignore EalErrors, which damaged objects may raise."""
    with contextlib.suppress(eal.EalError):
        return step(*arguments)
    return None
