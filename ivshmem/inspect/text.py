# SPDX-License-Identifier: BSD-3-Clause
"""Inspections as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eal.linux.process import Owner
from eal.text.sizes import size_text


def inspection_lines(data: dict[str, Any]) -> Iterator[str]:
    """The lines that `ivshmem inspect` prints; what is wrong comes last."""
    if data["kind"] == "segment":
        yield f"segment {data['path']}"
        yield from (f"  {line}" for line in segment_lines(data))
        source = data["names_from"]
        yield (
            f"  names from {source}"
            if source
            else "  no table names its objects: rings and pools found by their magics"
        )
    else:
        yield from _table_lines(data)
    yield from (f"FAULT: {fault}" for fault in data["faults"])


def _table_lines(data: dict[str, Any]) -> Iterator[str]:
    yield f"{data['kind']} {data['name']!r}, version {data['version']}, {data['path']}"
    if "segments" not in data:
        yield "  no table can be read"
        return
    kept = ", kept" if data["kept"] else ""
    former = ", THE FORMER TABLE: the one in force is damaged" if data["former"] else ""
    leaving = f", unplug {data['leaving']} announced" if data["leaving"] else ""
    yield f"  epoch {data['epoch']}, change {data['selector']}{kept}{leaving}{former}"
    for segment in data["segments"]:
        yield f"  segment {segment['path'] or 'without a file here'}"
        yield from (f"    {line}" for line in segment_lines(segment))


def segment_lines(segment: dict[str, Any]) -> Iterator[str]:
    """A segment, who takes part in it, and its objects."""
    retired = ", RETIRED: its host gave it up" if segment.get("retired") else ""
    yield (
        f"{segment['uuid']}, {size_text(segment['size'])} of {size_text(segment['page_size'])} pages, group "
        f"{segment['group']!r}, socket {segment['socket_id']}, epoch {segment['epoch']}{retired}"
    )
    for one in segment.get("participants") or ():
        beats = f", heartbeat {one['heartbeat']}" if one["heartbeat"] else ""
        yield f"slot {one['slot']}: {owner_text(one)}{beats}"
    for one in segment["objects"]:
        yield from object_lines(one)


def owner_text(owner: dict[str, Any] | None) -> str:
    if owner is None:
        return "none"
    return str(Owner(int(owner["machine"], 16), owner["thread"], owner.get("pid", 0), owner["state"]))


def object_lines(one: dict[str, Any]) -> Iterator[str]:
    what = f"{one['kind']} {one['name']!r} at {one['offset']:#x}"
    if one["fault"]:
        yield f"{what}: DAMAGED"
    elif "capacity" in one:
        yield f"{what}: {one['count']} of {one['capacity']} elements of {one['elem_size']} bytes"
        yield from (f"  {role} {_end_text(one[role])}" for role in ("producer", "consumer"))
    elif "elt_size" in one:
        yield from _pool_lines(what, one)
    else:
        array = f", array {one['dtype']} {one['shape']}" if one.get("dtype") else ""
        yield f"{what}: {one['length']} bytes{array}"


def use_text(one: dict[str, Any]) -> str:
    """How full a ring is, or how much of a pool is out, in a few characters."""
    if one["fault"]:
        return "damaged"
    if "capacity" in one:
        stuck = any(one[role]["half_moved"] for role in ("producer", "consumer"))
        return f"{one['count']}/{one['capacity']}" + (" half moved" if stuck else "")
    return f"{one['in_use']}/{one['n']} out" if "elt_size" in one else ""


def _end_text(end: dict[str, Any]) -> str:
    text = f"{end['sync']}: head {end['head']}, tail {end['tail']}"
    if end["half_moved"]:
        text += f", HALF MOVED: {end['reserved']} elements reserved and not finished"
    return f"{text}, owner {owner_text(end['owner'])}" if end["sync"] == "ST" else text


def _pool_lines(what: str, pool: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{what}: {pool['available']} of {pool['n']} objects of {pool['elt_size']} bytes available, "
        f"{pool['free']} in the shared list"
    )
    for cache in pool["cached"]:
        yield f"  {cache['n']} in the cache of slot {cache['slot']}, {owner_text(cache['owner'])}"
    if pool["in_hand"]:
        more = ", ..." if pool["in_hand"] > len(pool["in_hand_first"]) else ""
        yield f"  {pool['in_hand']} in hand or in rings: {', '.join(map(str, pool['in_hand_first']))}{more}"
    for holder in pool["holders"]:
        yield f"    {holder['n']} taken by {owner_text(holder['owner'])}"
    for what_is_wrong in ("lost", "twice", "foreign"):
        if pool[what_is_wrong]:
            yield f"  {pool[what_is_wrong]} {what_is_wrong}"
