# SPDX-License-Identifier: BSD-3-Clause
"""Inspections as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eal.linux.process import Owner
from eal.text.sizes import size_text


def inspection_lines(data: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that `ivshmem inspect` prints, the faults last."""
    if data["kind"] == "segment":
        yield f"segment {data['path']}"
        yield from (f"  {line}" for line in segment_lines(data))
        if data["names_from"]:
            yield f"  object names from {data['names_from']}"
        else:
            yield "  no table lists the objects: rings and mempools were found by their magics"
    else:
        yield from _table_lines(data)
    yield from (f"FAULT: {fault}" for fault in data["faults"])


def _table_lines(data: dict[str, Any]) -> Iterator[str]:
    yield f"{data['kind']} {data['name']!r}, version {data['version']}, {data['path']}"
    if "segments" not in data:
        yield "  no readable table"
        return
    kept = ", kept" if data["kept"] else ""
    previous = ", PREVIOUS TABLE: the current one is damaged" if data["former"] else ""
    leaving = f", unplug {data['leaving']} announced" if data["leaving"] else ""
    yield f"  epoch {data['epoch']}, change {data['selector']}{kept}{leaving}{previous}"
    for segment in data["segments"]:
        yield f"  segment {segment['path'] or 'without a file'}"
        yield from (f"    {line}" for line in segment_lines(segment))


def segment_lines(segment: dict[str, Any]) -> Iterator[str]:
    """Yield the lines for a segment, its participants and its objects."""
    retired = ", RETIRED: no longer served by the host" if segment.get("retired") else ""
    yield (
        f"{segment['uuid']}, {size_text(segment['size'])} of {size_text(segment['page_size'])} pages, group "
        f"{segment['group']!r}, socket {segment['socket_id']}, epoch {segment['epoch']}{retired}"
    )
    for one in segment.get("participants") or ():
        heartbeat = f", heartbeat {one['heartbeat']}" if one["heartbeat"] else ""
        yield f"slot {one['slot']}: {owner_text(one)}{heartbeat}"
    for one in segment["objects"]:
        yield from object_lines(one)


def owner_text(owner: dict[str, Any] | None) -> str:
    """Return an owner of `ivshmem.inspect.objects.owner_json` as text."""
    if owner is None:
        return "none"
    return str(Owner(int(owner["machine"], 16), owner["thread"], owner.get("pid", 0), owner["state"]))


def object_lines(one: dict[str, Any]) -> Iterator[str]:
    """Yield the lines for an object and its state."""
    label = f"{one['kind']} {one['name']!r} at {one['offset']:#x}"
    if one["fault"]:
        yield f"{label}: DAMAGED"
    elif "capacity" in one:
        yield f"{label}: {one['count']} of {one['capacity']} elements of {one['elem_size']} bytes"
        yield from (f"  {role} {_headtail_text(one[role])}" for role in ("producer", "consumer"))
    elif "elt_size" in one:
        yield from _pool_lines(label, one)
    else:
        array = f", array {one['dtype']} {one['shape']}" if one.get("dtype") else ""
        yield f"{label}: {one['length']} bytes{array}"


def use_text(one: dict[str, Any]) -> str:
    """Return the use of a ring or mempool in a few characters; "" for a memzone."""
    if one["fault"]:
        return "damaged"
    if "capacity" in one:
        incomplete = any(one[role]["half_moved"] for role in ("producer", "consumer"))
        return f"{one['count']}/{one['capacity']}" + (" incomplete" if incomplete else "")
    return f"{one['in_use']}/{one['n']} used" if "elt_size" in one else ""


def _headtail_text(headtail: dict[str, Any]) -> str:
    text = f"{headtail['sync']}: head {headtail['head']}, tail {headtail['tail']}"
    if headtail["half_moved"]:
        text += f", INCOMPLETE: {headtail['reserved']} elements reserved but not published"
    return f"{text}, owner {owner_text(headtail['owner'])}" if headtail["sync"] == "ST" else text


def _pool_lines(label: str, pool: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{label}: {pool['available']} of {pool['n']} objects of {pool['elt_size']} bytes available, "
        f"{pool['free']} in the free bitmap"
    )
    for cache in pool["cached"]:
        yield f"  {cache['n']} in the cache of slot {cache['slot']}, {owner_text(cache['owner'])}"
    if pool["in_hand"]:
        more = ", ..." if pool["in_hand"] > len(pool["in_hand_first"]) else ""
        yield f"  {pool['in_hand']} in use or in rings: {', '.join(map(str, pool['in_hand_first']))}{more}"
    for holder in pool["holders"]:
        yield f"    {holder['n']} allocated by {owner_text(holder['owner'])}"
    for fault in ("lost", "twice", "foreign"):
        if pool[fault]:
            yield f"  {pool[fault]} {fault}"
