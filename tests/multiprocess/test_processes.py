# SPDX-License-Identifier: BSD-3-Clause
"""Primary and secondaries of one file_prefix use the same objects."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import eal

Peers = Callable[..., Any]

# Start of each secondary script below.
SECONDARY = """
import sys
import eal
made = eal.init(file_prefix=sys.argv[1], proc_type="secondary", no_huge=True)
"""


def test_secondary_finds_objects_of_primary(primary: eal.Eal, peer: Peers) -> None:
    primary.array_reserve("image", (3, 4), ">f4").array()[:] = np.arange(12).reshape(3, 4)
    primary.memzone_reserve("plain", 100, group="other").buf[:5] = b"hello"
    ring = primary.ring_create("ring", 8, elem_size=12, flags=eal.RingFlag.MP_HTS_ENQ)
    ring.enqueue(b"twelve bytes")
    pool = primary.mempool_create("pool", 50, 20, cache_size=4)
    taken = pool.get()
    pool.array[taken] = 7
    other = peer(
        SECONDARY
        + """
image = eal.memzone_lookup("image")
print(made.proc_type, image.array().tolist(), image.relocated, image.address)
print(bytes(eal.memzone_lookup("plain").buf[:6]), eal.memzone_lookup("plain").segment.group)
ring = eal.ring_lookup("ring")
print(ring.elem_size, ring.capacity, repr(ring.flags), ring.dequeue(), ring.enqueue(b"back again!!"))
pool = eal.mempool_lookup("pool")
print(pool.n, pool.elt_size, pool.cache_size, pool.available, pool.array[int(sys.argv[2])].tolist())
pool.put(int(sys.argv[2]))
print([zone.name for zone in eal.memzones()], len(eal.segments()), made.epoch)
""",
        taken,
    )
    lines = other.end().splitlines()
    image = primary.memzone_lookup("image")
    assert lines == [
        f"secondary {[[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0], [8.0, 9.0, 10.0, 11.0]]} False {image.address}",
        "b'hello\\x00' other",
        f"12 7 {eal.RingFlag.MP_HTS_ENQ!r} b'twelve bytes' True",
        f"50 20 4 49 {[7] * 20}",
        f"['MP_pool', 'RG_ring', 'image', 'plain'] 2 {primary.epoch}",
    ]
    assert ring.dequeue() == b"back again!!"
    assert pool.available == 50


def test_primary_finds_objects_of_secondary(primary: eal.Eal, peer: Peers) -> None:
    other = peer(
        SECONDARY
        + """
eal.memzone_reserve("zone", 100, group="secondary").buf[:3] = b"abc"
eal.ring_create("ring", 8).enqueue(5)
pool = eal.mempool_create("pool", 16, 8)
pool.get()
print("made")
sys.stdin.readline()
made.close()
print("closed")
sys.stdin.readline()
"""
    )
    assert other.hear() == "made"
    assert bytes(primary.memzone_lookup("zone").buf[:3]) == b"abc"
    assert primary.ring_lookup("ring").dequeue() == 5
    assert primary.mempool_lookup("pool").in_use == 1
    assert sorted(s.group for s in primary.segments()) == ["default", "secondary"]
    other.say()
    assert other.hear() == "closed"
    other.end()
    assert [zone.name for zone in primary.memzones()] == ["MP_pool", "RG_ring", "zone"]
    assert bytes(primary.memzone_lookup("zone").buf[:3]) == b"abc"
    primary.ring_free(primary.ring_lookup("ring"))
    assert [ring.name for ring in primary.rings()] == []


def test_object_freed_by_one_process_is_not_found_by_another(primary: eal.Eal, peer: Peers) -> None:
    zone = primary.memzone_reserve("zone", 64)
    ring = primary.ring_create("ring", 8)
    peer(
        SECONDARY
        + """
eal.memzone_free(eal.memzone_lookup("zone"))
eal.ring_free(eal.ring_lookup("ring"))
eal.ring_create("ring", 8).enqueue(99)
"""
    ).end()
    with pytest.raises(eal.NotFound):
        primary.memzone_lookup("zone")
    with pytest.raises(eal.NotFound):
        primary.memzone_free(zone)
    with pytest.raises(eal.NotFound):
        primary.ring_free(ring)
    assert primary.ring_lookup("ring") is not ring
    assert primary.ring_lookup("ring").dequeue() == 99


def test_second_primary_raises_in_use_with_pid_of_first(primary: eal.Eal, peer: Peers) -> None:
    script = """
    import sys, eal
    for keywords in ({"proc_type": "primary"}, {"recover": True}):
        try:
            eal.init(file_prefix=sys.argv[1], no_huge=True, **keywords)
        except eal.InUse as error:
            print(error)
    with eal.init(file_prefix=sys.argv[1] + "x", proc_type="primary", no_huge=True) as made:
        print(made.proc_type)
    """
    first, second, third = peer(script).end().splitlines()
    for message in (first, second):
        assert f"pid {os.getpid()}" in message
        assert primary.file_prefix in message
    assert third == "primary"
    primary.memzone_reserve("still alive", 64)


def test_auto_is_secondary_while_primary_is_alive(primary: eal.Eal, peer: Peers) -> None:
    script = "import sys, eal; print(eal.init(file_prefix=sys.argv[1], no_huge=True).proc_type)"
    assert peer(script).end() == "secondary\n"
    primary.close()
    assert peer(script).end() == "primary\n"


def test_secondary_without_primary_raises_not_found(runtime_dir: Any, prefix: str) -> None:
    with pytest.raises(eal.NotFound, match=f"file_prefix '{prefix}' has no primary; start one first"):
        eal.init(file_prefix=prefix, proc_type="secondary", no_huge=True)


def test_second_init_in_process_raises_in_use(primary: eal.Eal) -> None:
    with pytest.raises(eal.InUse, match=f"this process already has an open Eal.*{primary.file_prefix}"):
        eal.init(file_prefix="another", no_huge=True)
    assert eal.current() is primary


@pytest.mark.parametrize("sync", ["MP|MC", "HTS", "RTS"])
def test_ring_of_many_processes_loses_and_duplicates_nothing(primary: eal.Eal, peer: Peers, sync: str) -> None:
    flags = {"MP|MC": 0, "HTS": 0x60, "RTS": 0x18}[sync]
    primary.ring_create("ring", 256, flags=flags)
    results = primary.array_reserve("results", (2, 20_000), "<u8").array()
    done = primary.array_reserve("done", (), "<u8").array()
    produce = (
        SECONDARY
        + """
import numpy as np
ring, number = eal.ring_lookup("ring"), int(sys.argv[2])
values = np.arange(number * 10_000, (number + 1) * 10_000, dtype=np.uint64)
print("ready")
sys.stdin.readline()
sent = 0
while sent < len(values):
    sent += ring.enqueue_burst(values[sent:sent + 17])
"""
    )
    consume = (
        SECONDARY
        + """
ring, number = eal.ring_lookup("ring"), int(sys.argv[2])
got = eal.memzone_lookup("results").array()[number]
done = eal.memzone_lookup("done").array()
print("ready")
sys.stdin.readline()
n = 0
while ring.wait(0.01) or not done:
    n += ring.dequeue_burst(got[n:n + 23])
print(n)
"""
    )
    producers = [peer(produce, number) for number in range(2)]
    consumers = [peer(consume, number) for number in range(2)]
    for other in (*producers, *consumers):
        assert other.hear() == "ready"
    for other in (*producers, *consumers):
        other.say()
    for other in producers:
        other.end()
    done[()] = 1
    counts = [int(other.end()) for other in consumers]
    assert sum(counts) == 20_000
    got = [results[number, :n] for number, n in enumerate(counts)]
    assert sorted(np.concatenate(got).tolist()) == list(range(20_000))
    for values in got:  # the elements of each producer are in order
        for lowest in (0, 10_000):
            part = values[(values >= lowest) & (values < lowest + 10_000)]
            assert (np.diff(part.astype(np.int64)) > 0).all()


@pytest.mark.parametrize("cache_size", [0, 8, 32])
def test_objects_allocated_in_one_process_are_freed_in_another(primary: eal.Eal, peer: Peers, cache_size: int) -> None:
    """Allocate in the primary and free in the secondary, then the reverse."""
    pool = primary.mempool_create("pool", 128, 8, cache_size=cache_size)
    outbound = primary.ring_create("outbound", 64, elem_size=4)
    inbound = primary.ring_create("inbound", 64, elem_size=4)
    other = peer(
        SECONDARY
        + """
pool, outbound, inbound = eal.mempool_lookup("pool"), eal.ring_lookup("outbound"), eal.ring_lookup("inbound")
numbers = pool.view("<u8")
print("ready")
for i in range(2000):
    assert outbound.wait(20)
    index = outbound.dequeue()
    assert numbers[index] == i
    pool.put(index)
    index = None
    while index is None:
        index = pool.get()
    numbers[index] = i * 3
    while not inbound.enqueue(index):
        pass
"""
    )
    assert other.hear() == "ready"
    numbers = pool.view("<u8")
    for i in range(2000):
        index = pool.get()
        assert index is not None
        numbers[index] = i
        assert outbound.enqueue(index)
        if i >= 20:
            assert inbound.wait(20)
            received = inbound.dequeue()
            assert isinstance(received, int)
            assert numbers[received] == (i - 20) * 3
            pool.put(received)
    for i in range(1980, 2000):
        assert inbound.wait(20)
        received = inbound.dequeue()
        assert isinstance(received, int)
        assert numbers[received] == i * 3
        pool.put(received)
    other.end()
    assert (pool.available, pool.audit().ok) == (128, True)
    assert [p.dead for p in pool.audit().participants] == [False]  # the secondary released its slot


def test_concurrent_reservations_do_not_overlap(primary: eal.Eal, peer: Peers) -> None:
    script = (
        SECONDARY
        + """
print("ready")
sys.stdin.readline()
for i in range(100):
    zone = eal.memzone_reserve(f"{sys.argv[2]}{i}", 5000)
    zone.buf[:] = sys.argv[2].encode() * 5000
    if i % 3 == 0:
        eal.memzone_free(zone)
"""
    )
    peers = [peer(script, letter) for letter in "ab"]
    for other in peers:
        assert other.hear() == "ready"
    for other in peers:
        other.say()
    for other in peers:
        other.end()
    zones = primary.memzones()
    assert len(zones) == 2 * 66
    assert all(bytes(zone.buf) == zone.name[0].encode() * 5000 for zone in zones)


def test_each_name_is_created_by_one_process(primary: eal.Eal, peer: Peers) -> None:
    script = (
        SECONDARY
        + """
print("ready")
sys.stdin.readline()
won = 0
for i in range(50):
    try:
        eal.ring_create(f"r{i}", 8)
        won += 1
    except eal.Exists:
        pass
print(won)
"""
    )
    peers = [peer(script) for _ in range(2)]
    for other in peers:
        assert other.hear() == "ready"
    for other in peers:
        other.say()
    assert sum(int(other.end()) for other in peers) == 50
    assert len(primary.rings()) == 50


def test_segment_is_relocated_if_its_address_is_occupied(primary: eal.Eal, peer: Peers) -> None:
    zone = primary.memzone_reserve("zone", 64)
    zone.buf[:5] = b"hello"
    ring = primary.ring_create("ring", 8)
    ring.enqueue(7)
    script = (
        """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
taken = int(sys.argv[2])
assert libc.mmap(taken + 4096, 4096, 0, 0x100022, -1, 0) == taken + 4096  # private, anonymous, fixed
"""
        + SECONDARY
        + """
zone = eal.memzone_lookup("zone")
print(zone.relocated, zone.address != zone.host_address, zone.host_address, bytes(zone.buf[:5]))
print(eal.ring_lookup("ring").dequeue(), eal.mempool_create("pool", 8, 8).get() is not None)
"""
    )
    lines = peer(script, zone.segment.address).end().splitlines()
    assert lines == [f"True True {zone.address} b'hello'", "7 True"]
    assert not primary.mempool_lookup("pool").memzone.relocated


def test_unpublished_registry_change_is_not_visible(primary: eal.Eal, peer: Peers) -> None:
    """Simulate a writer that died after filling the unused table slot, before storing the selector."""
    primary.ring_create("ring", 8)
    registry = primary.directory.registry
    size = os.stat(registry).st_size
    room = (size - 4096) // 2
    with registry.open("r+b") as file:
        file.seek(128)
        selector = int.from_bytes(file.read(8), "little")
        file.seek(4096 + (selector + 1 & 1) * room)
        file.write(b"\xa5" * 8192)
    list_rings = SECONDARY + "print([ring.name for ring in eal.rings()])"
    assert peer(list_rings).end() == "['ring']\n"
    primary.ring_create("next", 8)
    assert peer(list_rings).end() == "['next', 'ring']\n"


def test_damaged_registry_raises_corrupt_with_reason(primary: eal.Eal, peer: Peers) -> None:
    with primary.directory.registry.open("r+b") as file:
        file.seek(16)
        file.write(b"\xff" * 8)
    script = """
    import sys, eal
    try:
        eal.init(file_prefix=sys.argv[1], proc_type="secondary", no_huge=True)
    except eal.Corrupt as error:
        print(error)
    """
    assert re.search("registry .*CRC", peer(script).end())


def test_missing_or_truncated_segment_file_is_named_in_error(primary: eal.Eal, peer: Peers) -> None:
    zone = primary.memzone_reserve("zone", 64)
    os.rename(zone.segment.path, zone.segment.path + ".away")
    script = (
        SECONDARY
        + """
try:
    eal.memzone_lookup("zone")
except eal.NotFound as error:
    print(error)
"""
    )
    try:
        assert "removed by hand" in peer(script).end()
        os.truncate(zone.segment.path + ".away", 4096)
        os.rename(zone.segment.path + ".away", zone.segment.path)
        assert "truncated" in peer(script.replace("NotFound", "Corrupt")).end()
    finally:
        for path in (zone.segment.path, zone.segment.path + ".away"):
            if os.path.exists(path):
                os.unlink(path)
