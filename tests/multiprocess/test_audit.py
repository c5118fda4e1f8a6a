# SPDX-License-Identifier: BSD-3-Clause
"""Mempool audit after a process died: its cached objects, its objects in use and the objects queued in rings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import eal
from eal import MempoolFlag
from eal.linux import process

VICTIM = """
import os, sys
import eal
eal.init(["--no-pci"], file_prefix=sys.argv[1], no_huge=True)
pool, ring = eal.mempool_lookup("pool"), eal.ring_lookup("ring")
held = [pool.get() for _ in range(5)]
for index in held[:2]:
    ring.enqueue(index)
print(os.getpid(), *held)
sys.stdin.readline()
"""


def victim(primary: eal.Eal, peer: Callable[..., Any], flags: int) -> tuple[eal.Mempool, eal.Ring, int, list[int]]:
    pool = primary.mempool_create("pool", 64, 32, cache_size=8, flags=flags)
    ring = primary.ring_create("ring", 64, elem_size=4)
    other = peer(VICTIM)
    pid, *held = map(int, other.hear().split())
    other.crash()
    return pool, ring, process.machine_id() << 32 | pid, held


@pytest.mark.parametrize("flags", [0, MempoolFlag.DEBUG])
def test_audit_lists_objects_of_dead_process(primary: eal.Eal, peer: Callable[..., Any], flags: int) -> None:
    pool, ring, owner, held = victim(primary, peer, flags)
    audit = pool.audit(rings=[ring])
    assert audit.in_rings == {"ring": held[:2]}
    assert sorted(audit.in_hand) == sorted(held[2:])
    (cached,) = audit.cached.values()
    expected = cached + held[2:] if flags else cached
    assert audit.dead == {owner: sorted(expected)}
    assert len(audit.free) + len(cached) + 2 + 3 == 64
    text = str(audit)
    assert f"in the cache of slot 0, machine {owner >> 32:08x} thread {owner & 0xFFFFFFFF} (dead)" in text
    assert "2 in ring 'ring'" in text
    assert "3 in use" in text
    assert (f"  3 by machine {owner >> 32:08x}" in text) == bool(flags)


def test_audit_names_dead_owner_after_slot_is_reused(primary: eal.Eal, peer: Callable[..., Any]) -> None:
    pool, ring, owner, held = victim(primary, peer, MempoolFlag.DEBUG)
    index = pool.get()  # claims the participant slot and the cache of the dead process
    assert index is not None
    audit = pool.audit(rings=[ring])
    assert audit.dead == {owner: sorted(held[2:])}
    assert audit.holders[process.owner_word()] == [index]
    assert process.owner_word() not in audit.dead
    assert "(dead)" in audit.who(owner)
    assert "(dead)" not in audit.who(process.owner_word())


def test_audit_without_rings_reports_queued_objects_in_hand(primary: eal.Eal, peer: Callable[..., Any]) -> None:
    pool, ring, _, held = victim(primary, peer, 0)
    assert sorted(pool.audit().in_hand) == sorted(held)
    assert ring.elements() == held[:2]
    assert [ring.dequeue(), ring.dequeue(), ring.dequeue()] == [*held[:2], None]
    assert ring.elements() == []


def test_audit_with_ring_of_other_element_size_raises_invalid(primary: eal.Eal) -> None:
    pool, ring = primary.mempool_create("pool", 8, 8), primary.ring_create("numbers", 8)
    with pytest.raises(eal.Invalid, match="'numbers': elem_size must be 4"):
        pool.audit(rings=[ring])


def test_elements_of_wrapped_ring_are_oldest_first(primary: eal.Eal) -> None:
    ring = primary.ring_create("ring", 8, elem_size=4)
    for number in range(20):
        assert ring.enqueue(number)
        if number >= 5:
            ring.dequeue()
    assert ring.elements() == [15, 16, 17, 18, 19]
