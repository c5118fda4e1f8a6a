# SPDX-License-Identifier: BSD-3-Clause
"""Objects and participants of a segment as data for `ivshmem inspect`, read from the segment's file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eal._native import ffi, lib
from eal.errors import EalError
from eal.linux import process
from eal.linux.mapping import Mapping
from eal.mbuf.pool import attach_pool
from eal.memory.memzone import Memzone
from eal.memory.segment import HEADER_SIZE, Segment
from eal.mempool.mempool import Mempool
from eal.metadata.records import Entry, Kind
from eal.ring.headtail import HeadTail
from eal.ring.ring import Ring

_LINE: int = lib.IVS_CACHE_LINE  # objects are aligned to cache lines
_MAX_INDICES = 16  # of the mempool objects that are listed


def owner_json(owner: int, state: str | None = None) -> dict[str, Any] | None:
    """Return the fields of an owner word as data, None for 0. `state` overrides `process.owner_state`."""
    if owner == 0:
        return None
    fields = process.decode_owner(owner)
    return {"machine": f"{fields.machine:08x}", "thread": fields.thread, "state": state or process.owner_state(owner)}


def participants_json(segment: Segment) -> list[dict[str, Any]]:
    """Return the participant slots in use of a segment as data."""
    found = []
    for one in segment.participants():
        is_local = process.local_pid(one.owner) is not None
        state = "dead" if one.dead else "alive" if is_local else "unknown"
        words = {"pid": one.pid, "heartbeat": one.heartbeat, "ack": one.ack, "share": one.share}
        found.append({"slot": one.slot, **(owner_json(one.owner, state) or {}), **words})
    return found


def object_json(entry: Entry, segment: Segment | None, length: int) -> dict[str, Any]:
    """Return an object and its state as data; `fault` is the reason why the object is unusable, or None.

    `segment` is None if its file is unreadable. `length` is the size of the segment's file in bytes.
    """
    kind = entry.kind.name.lower()
    found: dict[str, Any] = {"kind": kind, "name": entry.name, "offset": entry.offset, "length": entry.length}
    found["fault"] = None
    if segment is None:
        return found
    if entry.end > length:
        found["fault"] = f"{kind} {entry.name!r} ends at byte {entry.end}, but the file has {length}: it was truncated"
        return found
    zone = Memzone(entry, segment)
    try:
        if entry.kind == Kind.RING:
            found.update(_ring_json(Ring(zone, entry.name, 0)))
        elif entry.kind == Kind.MEMPOOL:
            found.update(_pool_json(attach_pool(zone, entry.name)))
        else:
            found.update(dtype=entry.dtype or None, shape=entry.shape)
    except EalError as error:
        found["fault"] = str(error)
    return found


def _ring_json(ring: Ring) -> dict[str, Any]:
    return {
        "elem_size": ring.elem_size,
        "size": ring.size,
        "capacity": ring.capacity,
        "flags": int(ring.flags),
        "count": ring.count,
        "free": ring.free_count,
        "producer": _headtail_json(ring.end("producer")),
        "consumer": _headtail_json(ring.end("consumer")),
    }


def _headtail_json(headtail: HeadTail) -> dict[str, Any]:
    return {
        "sync": headtail.sync,
        "head": headtail.head,
        "tail": headtail.tail,
        "half_moved": headtail.incomplete,
        "reserved": headtail.distance,
        "owner": owner_json(headtail.owner),
    }


def _pool_json(pool: Mempool) -> dict[str, Any]:
    audit = pool.audit()
    owners = {participant.slot: participant for participant in audit.participants}

    def holder(slot: int) -> dict[str, Any] | None:
        if slot not in owners:
            return None
        return owner_json(owners[slot].owner, "dead" if owners[slot].dead else None)

    return {
        "n": pool.n,
        "elt_size": pool.elt_size,
        "cache_size": pool.cache_size,
        "flags": int(pool.flags),
        "available": pool.available,
        "in_use": pool.in_use,
        "free": len(audit.free),
        "cached": [{"slot": slot, "n": len(i), "owner": holder(slot)} for slot, i in sorted(audit.cached.items())],
        "in_hand": len(audit.in_hand),
        "in_hand_first": audit.in_hand[:_MAX_INDICES],
        "holders": [{"n": len(i), "owner": owner_json(owner)} for owner, i in sorted(audit.holders.items())],
        "dead_hold": sum(map(len, audit.dead.values())),
        "lost": audit.lost,
        "twice": len(audit.twice),
        "foreign": audit.foreign,
    }


# --- without a table ----------------------------------------------------------------------------------------------


def find_objects(mapping: Mapping) -> Iterator[Entry]:
    """Yield an entry for each ring and mempool of a segment without a table.

    They are found by their magics, so a memzone, which has no magic, is not found.
    """
    import numpy as np

    if mapping.length < HEADER_SIZE + _LINE:
        return
    usable = mapping.length // _LINE * _LINE
    lines = np.frombuffer(mapping.view(0, usable), "<u8")[:: _LINE // 8]
    for line in np.flatnonzero((lines == lib.IVS_RING_MAGIC) | (lines == lib.IVS_MEMPOOL_MAGIC)).tolist():
        if lines[line] == lib.IVS_RING_MAGIC:
            yield from _entry_at(mapping, Kind.RING, "struct ivs_ring_shared", line * _LINE)
        else:
            yield from _entry_at(mapping, Kind.MEMPOOL, "struct ivs_mempool_shared", line * _LINE)


def _entry_at(mapping: Mapping, kind: Kind, header_type: str, magic_at: int) -> Iterator[Entry]:
    """Yield the entry of the object whose magic is at an offset, if its name is inside the object area.

    The size is unknown, so the entry extends to the end of the segment.
    """
    offset = magic_at - ffi.offsetof(header_type, "magic")
    if offset < HEADER_SIZE or offset + ffi.offsetof(header_type, "name") + lib.IVS_NAME_SIZE > mapping.length:
        return
    header = ffi.cast(f"{header_type} *", mapping.pointer(offset))
    flags = header.flags if kind == Kind.MEMPOOL else 0
    name = ffi.string(header.name).decode(errors="replace")
    yield Entry(name, kind, 0, offset, mapping.length - offset, flags=flags)
