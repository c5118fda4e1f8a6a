# SPDX-License-Identifier: BSD-3-Clause
"""Stale hosts: a guest with shares of a former host gets an event and finds the successor."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import eal
from tests.hotplug import EventLog, until


def test_retired_segment_is_reported_within_a_second(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    metadata = lab.metadata("vm0", lab.segment(), lab.segment("other"))
    lab.plug_all(metadata)
    with guest() as made, made.watch(log := EventLog()):
        ring = made.ring_lookup("vm0 ring")
        began = time.monotonic()
        metadata.segments[1].retire()
        event = log.next("stale")
        assert time.monotonic() - began < 1
        assert event.metadata == "vm0"
        assert ("ring", "vm0 ring") in event.objects
        assert "retired" in event.reason
        assert ring.enqueue(1)  # without stale=True operations continue
        assert made.ring_lookup("vm0 ring") is ring
        time.sleep(0.2)
        assert log.events == []
        with made.watch(late := EventLog()):
            assert late.next("stale") == event


def test_operations_raise_stale_if_requested(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    metadata = lab.metadata("vm0")
    lab.plug_all(metadata)
    with guest() as made, made.watch(log := EventLog(), stale=True):
        ring, pool = made.ring_lookup("vm0 ring"), made.mempool_lookup("vm0 pool")
        zone = made.memzone_lookup("vm0 zone")
        view, burst, indices = zone.buf, ring.burst(2), np.zeros(2, np.uint32)
        assert pool.get_bulk(indices) == 2
        metadata.segments[0].retire()
        log.next("stale")
        for use in (
            *(lambda: ring.enqueue(1), ring.dequeue, lambda: ring.count, burst.dequeue, lambda: ring.wait(0.1)),
            *(pool.get, lambda: pool.put(1), lambda: pool.put_bulk(indices), lambda: pool.available),
            *(lambda: zone.buf, lambda: zone.array("u1"), lambda: made.ring_lookup("vm0 ring")),
            *(lambda: made.mempool_lookup("vm0 pool"), lambda: made.memzone_lookup("vm0 zone")),
        ):
            with pytest.raises(eal.Stale, match="fresh start"):
                use()
        assert (made.rings(), made.mempools(), made.memzones()) == ([], [], [])
        view[:2] = b"ok"  # raw views stay usable
        assert bytes(metadata.zone("vm0 zone").buf[:2]) == b"ok"


def test_later_watch_with_stale_refuses_operations(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    metadata = lab.metadata("vm0")
    lab.plug_all(metadata)
    with guest() as made, made.watch(log := EventLog()):
        ring = made.ring_lookup("vm0 ring")
        metadata.segments[0].retire()
        log.next("stale")
        assert ring.enqueue(1)
        with made.watch(late := EventLog(), stale=True):
            late.next("stale")
            until(lambda: raises(eal.Stale, ring.dequeue))


def raises(kind: type[Exception], call: Callable[[], object]) -> bool:
    try:
        call()
    except kind:
        return True
    return False


@pytest.mark.parametrize("ask", [False, True])
def test_lookup_returns_the_successors_objects(lab: Any, guest: Callable[..., eal.Eal], ask: bool) -> None:
    """The new metadata file is plugged while the old devices are present, with the same names."""
    old = lab.metadata("vm0")
    lab.plug_all(old)
    with guest() as made, made.watch(log := EventLog(), stale=ask):
        ring, view = made.ring_lookup("vm0 ring"), made.memzone_lookup("vm0 zone").buf
        old.segments[0].retire()
        log.next("stale")
        new = lab.metadata("vm0", epoch=6)
        lab.plug_all(new)
        assert log.next("plugged").address == new.addresses[0]
        assert log.events == []  # the event was sent once
        fresh = made.ring_lookup("vm0 ring")
        assert fresh is not ring
        assert fresh.enqueue(3)
        assert new.ring("vm0 ring").dequeue() == 3
        lab.unplug(old)
        log.next("unplugged")
        with pytest.raises(eal.Detached):
            ring.enqueue(1)
        assert bytes(view) == bytes(4096)
        assert made.ring_lookup("vm0 ring") is fresh
        assert fresh.enqueue(4)
        assert [share.address for share in made.shares] == [new.addresses[0]]


def test_successor_marks_the_old_share_stale(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    """A killed host marks nothing retired: the higher epoch of a metadata file of the same name shows the restart."""
    old = lab.metadata("vm0", entries=(lab.zone("old"),))
    lab.plug_all(old)
    with guest() as made, made.watch(log := EventLog()):
        same = lab.metadata("vm0", entries=(lab.zone("beside"),))
        lab.plug_all(same)
        log.next("plugged")
        new = lab.metadata("vm0", entries=(lab.zone("new"),), epoch=6)
        lab.plug_all(new)
        log.next("plugged")
        events = [log.next("stale"), log.next("stale")]
        assert {event.address for event in events} == {old.addresses[0], same.addresses[0]}
        assert f"device {new.addresses[0]}" in events[0].reason
        assert len(made.shares) == 3


def test_recovered_host_is_not_stale(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    metadata = lab.metadata("vm0")
    lab.plug_all(metadata)
    with guest() as made, made.watch(log := EventLog(), stale=True):
        metadata.file.publish(replace(metadata.file.read(), epoch=9))
        until(lambda: made.shares[0].table.epoch == 9)
        assert made.ring_lookup("vm0 ring").enqueue(1)
        assert log.events == []
