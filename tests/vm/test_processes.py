# SPDX-License-Identifier: BSD-3-Clause
"""Several processes on the host and in the guest find the same objects, and the death of one harms no other."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import eal
import ivshmem

KILLS = 4  # as in the guest's script
ROLES = ("host_primary", "host_secondary", "guest_primary", "guest_secondary")

HOST_SECONDARY = """
import json, os, sys
import eal

with eal.init(["--no-pci"], file_prefix=sys.argv[1]) as me:
    eal.memzone_lookup("board").array()["host_secondary"] = os.getpid()
    print(json.dumps({
        "proc_type": me.proc_type,
        "memzones": [zone.name for zone in eal.memzones()],
        "rings": [ring.name for ring in eal.rings()],
        "mempools": [pool.name for pool in eal.mempools()],
        "card": eal.ring_lookup("cards").dequeue(),
        "object": eal.mempool_lookup("objects").get(),
    }))
"""


def share() -> ivshmem.Metadata:
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_memzone(eal.array_reserve("board", (), [(role, "<u4") for role in ROLES]))
    metadata.add_ring(eal.ring_create("cards", 64))
    metadata.add_mempool(eal.mempool_create("objects", 16, 64))
    return metadata


def test_two_processes_per_side_find_the_same_objects(
    primary: eal.Eal, guest: Callable[..., Any], peer: Callable[..., Any]
) -> None:
    metadata = share()
    board, cards, objects = eal.memzone_lookup("board"), eal.ring_lookup("cards"), eal.mempool_lookup("objects")
    for card in (10, 11, 12, 13):
        cards.enqueue(card)
    board.array()["host_primary"] = os.getpid()

    secondary = json.loads(peer(HOST_SECONDARY).end())
    running = guest("processes", metadata)
    guest_secondary, guest_primary = running.hear(), running.hear()
    running.end()

    zones = ["MP_objects", "RG_cards", "board"]
    names = {"rings": ["cards"], "mempools": ["objects"]}
    own = {"memzones": sorted([*zones, "guests_own"]), "message": "hello", **names}
    refusal = guest_secondary.pop("second_primary")
    assert "'rte'" in refusal
    assert "has a live primary" in refusal
    assert secondary == {
        "proc_type": "secondary",
        "memzones": zones,
        "card": 10,
        "object": secondary["object"],
        **names,
    }
    assert guest_secondary == {**own, "proc_type": "secondary", "card": 11, "object": guest_secondary["object"]}
    assert guest_primary == {**own, "proc_type": "primary", "card": 12, "object": guest_primary["object"]}
    assert (cards.dequeue(), cards.dequeue()) == (13, None)
    taken = {found["object"] for found in (secondary, guest_secondary, guest_primary)}
    assert len(taken) == objects.in_use == 3
    for index in taken:
        objects.put(index)
    assert objects.audit().ok
    assert all(board.array().tolist())
    assert [zone.name for zone in eal.memzones()] == zones  # zones reserved in a guest are visible there only


def test_killed_guest_primary_leaves_nothing_behind(primary: eal.Eal, guest: Callable[..., Any]) -> None:
    metadata = share()
    eal.ring_lookup("cards").enqueue(100)

    running = guest("killed", metadata)
    kills = running.hear()["kills"]
    last, end = running.hear(), running.hear()
    running.end()

    assert [kill["role"] for kill in kills] == ["primary"] * KILLS
    assert [kill["second"] for kill in kills] == ["InUse"] * KILLS
    assert [kill["status"] for kill in kills] == [-9] * KILLS
    assert [kill["secondary"] for kill in kills] == ["secondary lived on"] * KILLS
    assert kills[0]["files"] > 0
    assert {kill["files"] for kill in kills} == {kills[0]["files"]}
    assert last == {
        "role": "primary",
        "memzones": ["MP_objects", "RG_cards", "board"],
        "card": 100 + 1001 * KILLS,  # one by each primary, a thousand by each secondary
        "left": 0,
    }
    assert end == {"files": []}
