# SPDX-License-Identifier: BSD-3-Clause
"""Watches: shares that are plugged, extended and unplugged while a guest runs."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import eal
from eal import Mempool, RingFlag
from eal._native import lib
from eal.pci.device import scan
from eal.probe.prober import Prober
from eal.probe.unplug_ack import MonitorSlot
from tests.hotplug import EventLog, until

OBJECTS = {("memzone", "vm0 zone"), ("ring", "vm0 ring"), ("mempool", "vm0 pool")}


# --- plug ---------------------------------------------------------------------------------------------------


def test_plugged_share_can_be_looked_up(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    with guest() as made, made.watch(log := EventLog()):
        metadata = lab.metadata("vm0")
        address = lab.plug_all(metadata)
        event = log.next("plugged")
        assert (event.metadata, event.address, set(event.objects)) == ("vm0", address, OBJECTS)
        assert made.ring_lookup("vm0 ring").enqueue(7)
        assert metadata.ring("vm0 ring").dequeue() == 7
        assert [share.name for share in made.shares] == ["vm0"]
        assert made.rejections == []


def test_unplugged_share_is_removed_and_acknowledged(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    metadata = lab.metadata("vm0")
    lab.plug_all(metadata)
    with guest() as made, made.watch(log := EventLog()):
        ring = made.ring_lookup("vm0 ring")
        zone = made.memzone_lookup("vm0 zone")
        view = zone.buf
        view[:4] = b"data"
        (slot,) = metadata.monitor_slots()
        metadata.announce(3)
        until(lambda: not metadata.monitor_slots())
        event = log.next("unplugged")
        assert (event.metadata, event.reason, set(event.objects)) == ("vm0", "announced", OBJECTS)
        assert bytes(view[:8]) == bytes(8)
        view[:4] = b"lost"
        assert bytes(metadata.zone("vm0 zone").buf[:4]) == b"data"
        with pytest.raises(eal.Detached):
            ring.enqueue(1)
        with pytest.raises(eal.Detached):
            _ = zone.buf
        with pytest.raises(eal.NotFound):
            made.ring_lookup("vm0 ring")
        assert slot.ack == 0
        assert np.array(view)[0] == ord("l")


# --- pending, added, rejected -------------------------------------------------------------------------------


def test_share_is_pending_until_its_segments_are_present(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    metadata = lab.metadata("vm0", first := lab.segment(), second := lab.segment("other"))
    with guest() as made, made.watch(log := EventLog()):
        address = lab.plug(metadata.path)
        event = log.next("pending")
        assert (event.metadata, event.address) == ("vm0", address)
        assert str(first.uuid) in event.reason
        assert [found.reason for found in made.rejections] == [event.reason]
        lab.plug(first.path)
        assert str(second.uuid) in log.next("pending").reason
        lab.plug(second.path)
        assert log.next("plugged").metadata == "vm0"
        assert made.rejections == []
        assert made.ring_lookup("vm0 ring").enqueue(1)
        assert log.events == []


def test_share_rejected_at_init_for_a_segment_is_pending(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    metadata = lab.metadata("vm0")
    lab.plug(metadata.path)
    with guest() as made:
        (found,) = made.rejections
        assert "but no device carries it" in found.reason
        with made.watch(log := EventLog()):
            assert log.next("pending").reason == found.reason
            lab.plug(metadata.segments[0].path)
            log.next("plugged")
            assert (len(made.shares), made.rejections) == (1, [])
            with made.watch(late := EventLog()):
                lab.plug(lab.metadata("vm1").path)
                assert late.next("pending").metadata == "vm1"
                assert log.next("pending").metadata == "vm1"


def test_added_objects_can_be_looked_up(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    metadata = lab.metadata("vm0")
    lab.plug_all(metadata)
    with guest() as made, made.watch(log := EventLog()):
        old = made.ring_lookup("vm0 ring")
        table = metadata.file.read()
        more = lab.ring(metadata.segments[0], "more", 32768)
        metadata.file.publish(replace(table, entries=(*table.entries, more)))
        event = log.next("added")
        assert (event.metadata, event.objects) == ("vm0", (("ring", "more"),))
        assert made.ring_lookup("more").enqueue(5)
        assert made.ring_lookup("vm0 ring") is old
        assert old.enqueue(1)
        assert len(metadata.monitor_slots()) == 1


def test_added_objects_are_pending_until_their_segment_is_present(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    metadata = lab.metadata("vm0")
    lab.plug_all(metadata)
    with guest() as made, made.watch(log := EventLog()):
        table = metadata.file.read()
        second = lab.segment("second")
        record = replace(second.record, path="")
        more = (*table.entries, lab.ring(second, "more", index=1))
        metadata.file.publish(replace(table, segments=(*table.segments, record), entries=more))
        assert str(second.uuid) in log.next("pending").reason
        assert made.ring_lookup("vm0 ring").enqueue(1)
        with pytest.raises(eal.NotFound):
            made.ring_lookup("more")
        lab.plug(second.path)
        assert log.next("added").objects == (("ring", "more"),)
        assert made.ring_lookup("more").enqueue(1)


def test_removed_object_is_detached(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    metadata = lab.metadata("vm0")
    lab.plug_all(metadata)
    with guest() as made, made.watch(log := EventLog()):
        ring, zone = made.ring_lookup("vm0 ring"), made.memzone_lookup("vm0 zone")
        table = metadata.file.read()
        metadata.file.publish(replace(table, entries=(table.entries[0],)))
        until(lambda: raises(eal.Detached, lambda: ring.enqueue(1)))
        assert len(zone.buf) == 4096
        assert [z.name for z in made.memzones()] == ["vm0 zone"]
        assert log.events == []


def test_conflicting_share_is_rejected(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    """The second share is rejected while the first one is present."""
    first, second = lab.metadata("vm0"), lab.metadata("again")
    table = second.file.read()
    second.file.publish(replace(table, entries=lab.objects(second.segments[0], "vm0")))
    lab.plug_all(first)
    with guest() as made, made.watch(log := EventLog()):
        lab.plug_all(second)
        event = log.next("rejected")
        assert event.metadata == "again"
        assert "metadata 'vm0'" in event.reason
        assert [found.name for found in made.rejections] == ["again"]
        lab.unplug(first)
        log.next("unplugged")
        assert log.next("plugged").metadata == "again"
        assert made.ring_lookup("vm0 ring").enqueue(9)
        assert second.ring("vm0 ring").dequeue() == 9


def test_device_that_becomes_complete_late_is_used(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    """The kernel reports a device before its BAR can be mapped."""
    metadata = lab.metadata("vm0")
    with guest() as made, made.watch(log := EventLog()):
        lab.plug(metadata.segments[0].path)
        address = lab.plug(metadata.path, whole=False)
        time.sleep(0.2)
        assert log.events == []
        lab.complete(address, metadata.path)
        assert log.next("plugged").address == address
        assert made.rejections == []


# --- unplug -------------------------------------------------------------------------------------------------


def raises(kind: type[Exception], call: Callable[[], object]) -> bool:
    try:
        call()
    except kind:
        return True
    return False


def test_every_operation_after_unplug_raises_detached(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    metadata = lab.metadata("vm0")
    lab.plug_all(metadata)
    with guest() as made, made.watch(log := EventLog()):
        ring, pool = made.ring_lookup("vm0 ring"), made.mempool_lookup("vm0 pool")
        zone = made.memzone_lookup("vm0 zone")
        burst, values, indices = ring.burst(4), np.zeros(4, np.uint64), np.zeros(4, np.uint32)
        assert pool.get_bulk(indices) == 4
        ring_handle, pool_handle = ring.handle, pool.handle
        segment = zone.segment
        lab.unplug(metadata)
        log.next("unplugged")
        for use in (
            *(lambda: ring.enqueue(1), ring.dequeue, lambda: ring.enqueue_bulk(values), ring.reset),
            *(lambda: ring.dequeue_burst(values), lambda: burst.enqueue(4), lambda: burst.enqueue(1, 2)),
            *(burst.dequeue, lambda: ring.count, lambda: ring.wait(0.1), lambda: ring.handle, lambda: len(ring)),
            *(lambda: ring.enqueue_zc(1).__enter__(), lambda: ring.burst(2).enqueue(1)),
            *(pool.get, lambda: pool.put(1), lambda: pool.get_bulk(indices), lambda: pool.put_bulk(indices)),
            *(lambda: pool.available, lambda: pool.array, lambda: pool.object(0), pool.audit, lambda: pool.handle),
            *(lambda: zone.buf, lambda: zone.array("u1"), lambda: segment.view(0, 64), lambda: segment.retired),
        ):
            with pytest.raises(eal.Detached, match="unplugged"):
                use()
        assert lib.ivs_jit_enqueue_bulk(ring_handle, values.ctypes.data, 32, 4) == -errno.ENODEV
        assert lib.ivs_jit_get_bulk(pool_handle, indices.ctypes.data, 16, 4) == -errno.ENODEV
        for look in (lambda: made.ring_lookup("vm0 ring"), lambda: made.memzone_lookup("RG_vm0 ring")):
            with pytest.raises(eal.NotFound):
                look()
        assert (made.rings(), made.mempools(), made.memzones(), made.segments()) == ([], [], [], [])


def test_unplug_is_acknowledged_after_everything_is_detached(
    lab: Any, guest: Callable[..., eal.Eal], monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = lab.metadata("vm0", lab.segment(), lab.segment("other"))
    lab.plug_all(metadata)
    acknowledge = MonitorSlot.acknowledge
    at_acknowledgement: list[object] = []
    with guest() as made, made.watch(log := EventLog()):
        (share,) = made.shares
        ring = made.ring_lookup("vm0 ring")

        def record(slot: MonitorSlot, announcement: int) -> None:
            detached = [mapping.detached for mapping in (share.file.mapping, *(s.mapping for s in share.segments))]
            at_acknowledgement.append((detached, made.shares, raises(eal.Detached, ring.dequeue)))
            acknowledge(slot, announcement)

        monkeypatch.setattr(MonitorSlot, "acknowledge", record)
        lab.unplug(metadata)
        log.next("unplugged")
    assert at_acknowledgement == [([True] * 3, [], True)]


def test_unplug_during_zero_copy_raises_detached(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    segment = lab.segment()
    entry = lab.ring(segment, "st", flags=RingFlag.SP_ENQ)
    metadata = lab.metadata("vm0", segment, entries=(entry,))
    lab.plug_all(metadata)
    with guest() as made, made.watch(log := EventLog()):
        ring = made.ring_lookup("st")
        slots = ring.enqueue_zc(4).__enter__()
        lab.unplug(metadata)
        log.next("unplugged")
        slots.first[:] = 7
        with pytest.raises(eal.Detached):
            slots.commit(4)
        assert ring.memzone is not None
        assert metadata.ring("st").count == 0


def test_cached_objects_return_to_the_pool_before_unplug(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    metadata = lab.metadata("vm0")
    lab.plug_all(metadata)
    with guest() as made, made.watch(log := EventLog()):
        pool = made.mempool_lookup("vm0 pool")
        index = pool.get()
        assert index is not None
        pool.put(index)
        lab.unplug(metadata)
        log.next("unplugged")
    host = Mempool(metadata.zone("vm0 pool"), "vm0 pool")
    assert host.available == 64
    assert host.audit().cached == {}
    assert metadata.segments[0].participants() == []


def test_surprise_removal_detaches_the_share(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    metadata = lab.metadata("vm0")
    address = lab.plug_all(metadata)
    with guest() as made, made.watch(log := EventLog()):
        ring, view = made.ring_lookup("vm0 ring"), made.memzone_lookup("vm0 zone").buf
        view[:4] = b"data"
        lab.pull(*metadata.addresses)
        event = log.next("unplugged")
        assert f"device {address} is gone" in event.reason
        assert bytes(view[:4]) == bytes(4)
        with pytest.raises(eal.Detached):
            ring.dequeue()


def test_surprise_removal_of_a_segment_detaches_the_share(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    metadata = lab.metadata("vm0", lab.segment(), lab.segment("other"))
    lab.plug_all(metadata)
    with guest() as made, made.watch(log := EventLog()):
        ring = made.ring_lookup("vm0 ring")
        lab.pull(metadata.addresses[2])
        event = log.next("unplugged")
        assert f"segment {metadata.segments[1].uuid} is gone" in event.reason
        assert log.next("pending").metadata == "vm0"
        with pytest.raises(eal.Detached):
            ring.dequeue()
        lab.plug(metadata.segments[1].path)
        log.next("plugged")
        assert made.ring_lookup("vm0 ring").enqueue(3)
        assert metadata.ring("vm0 ring").dequeue() == 3


def test_file_with_other_content_counts_as_removed(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    """A mapping of a removed device shows zeros or the next device before the kernel reports the removal."""
    metadata = lab.metadata("vm0")
    lab.plug_all(metadata)
    with guest() as made, made.watch(log := EventLog()):
        view = made.memzone_lookup("vm0 zone").buf
        page = metadata.file.mapping.view(0, 4096)
        before = bytes(page)
        page[:] = bytes(4096)
        assert log.next("unplugged").metadata == "vm0"
        assert log.events == []
        until(lambda: made.findings.foreign == [metadata.addresses[0]])
        page[:] = before
        view[0] = 1
        assert metadata.zone("vm0 zone").buf[0] == 0


def test_file_with_another_uuid_is_another_share(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    """A mapping of a removed device shows the metadata file of the next device at that address."""
    metadata, other = lab.metadata("vm0"), lab.metadata("vm1")
    lab.plug_all(metadata)
    lab.plug(other.segments[0].path)
    with guest() as made, made.watch(log := EventLog()):
        metadata.file.mapping.view()[:] = other.path.read_bytes()
        assert log.next("unplugged").metadata == "vm0"
        assert log.next("plugged").metadata == "vm1"
        assert made.ring_lookup("vm1 ring").enqueue(1)


def test_cancelled_unplug_is_adopted_again(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    metadata = lab.metadata("vm0")
    lab.plug_all(metadata)
    with guest() as made:  # without a watch
        ring = made.ring_lookup("vm0 ring")
        metadata.announce(1)
        until(lambda: not metadata.monitor_slots())
        with pytest.raises(eal.Detached):
            ring.enqueue(1)
        assert "about to unplug" in made.rejections[0].reason
        with made.watch(log := EventLog()):
            metadata.announce(0)
            event = log.next("added")
            assert (event.metadata, set(event.objects)) == ("vm0", OBJECTS)
        assert made.ring_lookup("vm0 ring").enqueue(4)
        assert metadata.ring("vm0 ring").dequeue() == 4
        with pytest.raises(eal.Detached):
            ring.enqueue(1)
        metadata.announce(2)
        until(lambda: not metadata.monitor_slots())
        metadata.announce(0)
        until(lambda: made.shares)
        assert made.rejections == []


def test_leaving_share_is_not_accepted(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    metadata = lab.metadata("vm0")
    metadata.announce(1)
    lab.plug_all(metadata)
    with guest() as made:
        assert made.shares == []
        assert "about to unplug" in made.rejections[0].reason
        assert metadata.monitor_slots() == []


# --- several devices of one segment -------------------------------------------------------------------------


def test_segment_on_another_device_stays_usable(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    segment = lab.segment()
    one = lab.metadata("one", segment, entries=(lab.ring(segment, "first"), lab.zone("both")))
    two = lab.metadata("two", segment, entries=(lab.ring(segment, "second", 32768), lab.zone("both")))
    for metadata in (one, two):
        # each has devices of its own, as on a command line
        metadata.addresses = [lab.plug(metadata.path), lab.plug(segment.path)]
    with guest() as made, made.watch(log := EventLog()):
        first, second, both = made.ring_lookup("first"), made.ring_lookup("second"), made.memzone_lookup("both")
        view = both.buf
        assert one.addresses[1] in both.segment.path
        lab.unplug(one)
        assert log.next("unplugged").objects == (("ring", "first"), ("memzone", "both"))
        with pytest.raises(eal.Detached):
            first.enqueue(1)
        assert second.enqueue(2)
        assert two.ring("second").dequeue() == 2
        assert both.buf is not None
        assert two.addresses[1] in both.segment.path
        view[:3] = b"new"
        assert bytes(two.zone("both").buf[:3]) == b"new"
        moved = made.shares[0].slot
        assert moved is not None
        assert moved.carrier.address == two.addresses[1]
        (slot,) = two.monitor_slots()
        heartbeat = slot.heartbeat
        until(lambda: two.monitor_slots()[0].heartbeat > heartbeat + 3)


@pytest.mark.parametrize("which", [0, 1])
def test_surprise_removal_of_one_of_two_devices_moves_the_segment(
    lab: Any, guest: Callable[..., eal.Eal], which: int
) -> None:
    metadata = lab.metadata("vm0")
    lab.plug_all(metadata)
    carriers = [metadata.addresses[1], lab.plug(metadata.segments[0].path)]
    with guest() as made:
        ring, view = made.ring_lookup("vm0 ring"), made.memzone_lookup("vm0 zone").buf
        lab.pull(carriers[which])
        until(lambda: carriers[1 - which] in made.segments()[0].path)
        assert ring.enqueue(1)
        view[0] = 5
        assert metadata.zone("vm0 zone").buf[0] == 5
        lab.pull(carriers[1 - which])
        until(lambda: not made.shares)
        assert view[0] == 0


def test_slot_reused_with_other_content_is_a_new_device(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    with guest() as made, made.watch(log := EventLog()):
        views = []
        for number in range(5):
            metadata = lab.metadata(f"vm{number}")
            metadata.addresses = [
                lab.plug(metadata.segments[0].path, "0000:02:01.0"),
                lab.plug(metadata.path, "0000:02:02.0"),
            ]
            log.next("plugged", metadata=f"vm{number}")
            views.append(made.memzone_lookup(f"vm{number} zone").buf)
            views[-1][:4] = bytes([number + 1] * 4)
            assert bytes(metadata.zone(f"vm{number} zone").buf[:4]) == bytes([number + 1] * 4)
            for old in views[:-1]:
                assert bytes(old) == bytes(4096)
            if number % 2:
                lab.unplug(metadata)
            else:
                lab.pull(*metadata.addresses)  # and the next device is present before the poll
                continue
            log.next("unplugged", metadata=f"vm{number}")


def test_two_devices_exchange_their_slots(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    metadata = lab.metadata("vm0")
    lab.plug(metadata.segments[0].path, "0000:02:01.0")
    lab.plug(metadata.path, "0000:02:02.0")
    with guest() as made, made.watch(log := EventLog()):
        lab.pull("0000:02:01.0", "0000:02:02.0")
        lab.plug(metadata.segments[0].path, "0000:02:02.0")
        lab.plug(metadata.path, "0000:02:01.0")
        log.next("unplugged")
        assert log.next("plugged").address == "0000:02:01.0"
        assert made.ring_lookup("vm0 ring").enqueue(1)


def test_removed_segment_that_the_table_no_longer_lists_keeps_the_share(lab: Any) -> None:
    """A host that withdraws a segment publishes the table without it, then removes its device. A slow guest sees the
    removal first.
    """
    metadata = lab.metadata("vm0", lab.segment(), lab.segment("other"))
    lab.plug_all(metadata)
    table = metadata.file.read()
    prober = Prober()
    prober.probe(scan(lab.root))
    (share,) = prober.findings.shares
    kept, withdrawn = share.segments
    metadata.file.publish(replace(table, segments=table.segments[:1]))
    lab.pull(metadata.addresses[2])
    prober.lose(prober.devices.update(scan(lab.root)))
    (share,) = prober.findings.shares
    assert share.segments == [kept]
    assert (kept.mapping.detached, withdrawn.mapping.detached) == (False, True)
    prober.close()
