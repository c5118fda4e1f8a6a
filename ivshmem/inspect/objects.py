# SPDX-License-Identifier: BSD-3-Clause
"""Objects and participants of a segment as data, read from its file: for `ivshmem inspect`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eal._native import lib
from eal.errors import EalError
from eal.linux import process
from eal.linux.mapping import Mapping
from eal.mbuf.pool import attach_pool
from eal.memory.memzone import Memzone
from eal.memory.segment import HEADER_SIZE, Segment
from eal.mempool.mempool import Mempool
from eal.metadata.records import Entry, Kind
from eal.ring.headtail import EndState
from eal.ring.ring import Ring

_LINE = 64  # objects begin at cache lines
_RING_MAGIC_AT, _RING_NAME_AT = 64, 0
_POOL_MAGIC_AT, _POOL_NAME_AT, _POOL_FLAGS_AT = 0, 64, 28
_NAME_SIZE: int = lib.IVS_NAME_SIZE
_LISTED = 16  # indices of one kind that are listed


def owner_json(owner: int, state: str | None = None) -> dict[str, Any] | None:
    """An owner word: machine, thread and "alive", "dead" or "unknown", which it is for other machines. None: nobody."""
    if owner == 0:
        return None
    found = process.decode_owner(owner)
    return {"machine": f"{found.machine:08x}", "thread": found.thread, "state": state or process.owner_state(owner)}


def participants_json(segment: Segment) -> list[dict[str, Any]]:
    """Who has a slot of a segment's header."""
    found = []
    for one in segment.participants():
        here = process.local_pid(one.owner) is not None
        state = "dead" if one.dead else "alive" if here else "unknown"
        words = {"pid": one.pid, "heartbeat": one.heartbeat, "ack": one.ack, "share": one.share}
        found.append({"slot": one.slot, **(owner_json(one.owner, state) or {}), **words})
    return found


def object_json(entry: Entry, segment: Segment | None, length: int) -> dict[str, Any]:
    """An object and the state it is in; `fault` says what is wrong with it, or is None. `length` are the bytes that its
    segment's file has.
    """
    kind = entry.kind.name.lower()
    found: dict[str, Any] = {"kind": kind, "name": entry.name, "offset": entry.offset, "length": entry.length}
    found["fault"] = None
    if segment is None:
        return found
    if entry.end > length:
        found["fault"] = f"{kind} {entry.name!r} ends at byte {entry.end}, the file has {length}: it was truncated"
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
        "producer": _end_json(ring.end("producer")),
        "consumer": _end_json(ring.end("consumer")),
    }


def _end_json(end: EndState) -> dict[str, Any]:
    return {
        "sync": end.sync,
        "head": end.head,
        "tail": end.tail,
        "half_moved": end.half_moved,
        "reserved": end.distance,
        "owner": owner_json(end.owner),
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
        "in_hand_first": audit.in_hand[:_LISTED],
        "holders": [{"n": len(i), "owner": owner_json(owner)} for owner, i in sorted(audit.holders.items())],
        "dead_hold": sum(map(len, audit.dead.values())),
        "lost": audit.lost,
        "twice": len(audit.twice),
        "foreign": audit.foreign,
    }


# --- without a table ----------------------------------------------------------------------------------------------


def find_objects(mapping: Mapping) -> Iterator[Entry]:
    """What looks like a ring or a pool in a segment that no table tells of: by their magics, at each cache line. Zones
    have none.
    """
    import numpy as np

    if mapping.length < HEADER_SIZE + _LINE:
        return
    usable = mapping.length // _LINE * _LINE
    lines = np.frombuffer(mapping.view(0, usable), "<u8")[:: _LINE // 8]
    for line in np.flatnonzero((lines == lib.IVS_RING_MAGIC) | (lines == lib.IVS_MEMPOOL_MAGIC)).tolist():
        if lines[line] == lib.IVS_RING_MAGIC:
            yield from _found(mapping, Kind.RING, line * _LINE - _RING_MAGIC_AT, _RING_NAME_AT, None)
        else:
            yield from _found(mapping, Kind.MEMPOOL, line * _LINE - _POOL_MAGIC_AT, _POOL_NAME_AT, _POOL_FLAGS_AT)


def _found(mapping: Mapping, kind: Kind, offset: int, name_at: int, flags_at: int | None) -> Iterator[Entry]:
    """The entry of an object at `offset`, if that is behind the header; it may take all of the rest."""
    if offset < HEADER_SIZE or offset + name_at + _NAME_SIZE > mapping.length:
        return
    raw = bytes(mapping.view(offset + name_at, _NAME_SIZE))
    flags = 0 if flags_at is None else int.from_bytes(mapping.view(offset + flags_at, 4), "little")
    name = raw.split(b"\0", 1)[0].decode(errors="replace")
    yield Entry(name, kind, 0, offset, mapping.length - offset, flags=flags)
