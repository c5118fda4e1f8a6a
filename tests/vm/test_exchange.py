# SPDX-License-Identifier: BSD-3-Clause
"""Host and guest share every kind of object, and each sees the changes of the other."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eal
import ivshmem
from eal import RingFlag

MIB, GIB = 1 << 20, 1 << 30
ONE_TO_ONE = RingFlag.SP_ENQ | RingFlag.SC_DEQ
RECORD = [("name", "S7"), ("place", "<f4", (2,)), ("inner", [("id", ">u2"), ("when", "<M8[ns]")])]
CONTROL = [("numbers", "<u8"), ("rounds", "<u8")]
NUMBERS = 20_000
ROUNDS = 400  # of 32 objects in each direction
OBJECTS = 512


def make(metadata: ivshmem.Metadata) -> None:
    """All objects of the exchange, in one metadata file."""
    noise = np.random.default_rng(1).bytes(MIB + 13)
    zones = [
        eal.memzone_reserve("inbox", len(noise)),
        eal.memzone_reserve("outbox", len(noise), align=4096),
        eal.array_reserve("matrix", (3, 5, 7), "<i4"),
        eal.array_reserve("records", 4, RECORD),
        eal.array_reserve("scalar", (), "<f8"),
        eal.array_reserve("control", (), CONTROL),
    ]
    zones[0].buf[:] = noise
    zones[2].array()[...] = np.arange(105).reshape(3, 5, 7)
    zones[3].array()["place"] = [[1, 2], [3, 4], [5, 6], [7, 8]]
    zones[4].array()[...] = 2.25
    zones[5].array()[...] = (NUMBERS, ROUNDS)
    for zone in zones:
        metadata.add_memzone(zone)
    for name, elem_size in {"to_guest": 8, "to_host": 16, "from_host": 4, "from_guest": 4}.items():
        metadata.add_ring(eal.ring_create(name, 128, elem_size=elem_size, flags=ONE_TO_ONE))
    metadata.add_mempool(eal.mempool_create("frames", OBJECTS, 96, cache_size=64))


def check_what_it_found(found: dict[str, Any], *, relocated: bool) -> None:
    zones = eal.memzones()
    assert found["memzones"] == [zone.name for zone in zones]
    assert found["rings"] == ["from_guest", "from_host", "to_guest", "to_host"]
    assert found["mempools"] == ["frames"]
    assert found["relocated"] == [relocated] * len(zones)
    assert found["host_addresses"] == [zone.address for zone in zones]
    assert (found["addresses"] == found["host_addresses"]) is not relocated
    assert found["page_sizes"] == [segment.page_size for segment in eal.segments()]


def describe(name: str) -> dict[str, Any]:
    array = eal.memzone_lookup(name).array()
    dtype = json.loads(json.dumps(np.lib.format.dtype_to_descr(array.dtype)))
    return {"dtype": dtype, "shape": list(array.shape), "bytes": array.tobytes().hex()}


def check_arrays(found: dict[str, Any], before: dict[str, Any]) -> None:
    """Check the values that the guest read without knowing dtypes and shapes, and the values that it wrote."""
    assert found == before
    matrix, records, scalar = (eal.memzone_lookup(name).array() for name in ("matrix", "records", "scalar"))
    assert (matrix == -np.arange(105).reshape(3, 5, 7)).all()
    assert records["place"].tolist() == [[2, 3], [4, 5], [6, 7], [8, 9]]
    assert records["name"].tolist() == [b"guest"] * 4
    assert scalar == 2.75


def pump_numbers(guest: Any) -> None:
    """Send 1, 2, 3 and so on, receive the answers at the same time, and check their order."""
    to_guest, to_host = eal.ring_lookup("to_guest"), eal.ring_lookup("to_host")
    numbers = np.arange(1, NUMBERS + 1, dtype=np.uint64)
    answers = np.zeros((NUMBERS, 2), np.uint64)
    sent = heard = 0

    def step() -> bool:
        nonlocal sent, heard
        sent += to_guest.enqueue_burst(numbers[sent : sent + 37])
        heard += to_host.dequeue_burst(answers[heard : heard + 41])
        return heard == NUMBERS

    guest.while_alive(step)
    assert (answers[:, 0] == numbers).all()
    assert (answers[:, 1] == ~numbers).all()
    assert to_guest.empty
    assert to_host.empty


def trade_objects(guest: Any) -> None:
    """Each side frees the other side's objects; there are enough of them to reuse each object many times."""
    pool = eal.mempool_lookup("frames")
    from_host, from_guest = eal.ring_lookup("from_host"), eal.ring_lookup("from_guest")
    objects = pool.array
    mine, its = np.zeros(32, np.uint32), np.zeros(32, np.uint32)
    for number in range(ROUNDS):
        guest.while_alive(lambda: pool.get_bulk(mine) > 0)
        objects[mine] = number % 251
        guest.while_alive(lambda: from_host.enqueue_bulk(mine) > 0)
        guest.while_alive(lambda: from_guest.dequeue_bulk(its) > 0)
        assert (objects[its] == (number + 100) % 251).all(), f"round {number}"
        pool.put_bulk(its)


def check_pool(guest: Any) -> None:
    """Both sides have caches and every object is in one place; after the guest has ended, its cache is free."""
    assert guest.hear() == {"wrong_bytes": 0}
    pool = eal.mempool_lookup("frames")
    audit = pool.audit()
    assert audit.ok
    assert audit.in_hand == []
    assert len([cache for cache in audit.cached.values() if cache]) == 2
    assert len({participant.owner for participant in audit.participants}) == 2
    assert (pool.in_use, pool.available) == (0, OBJECTS)
    eal.ring_lookup("from_host").enqueue(0)
    assert guest.end() == [{"still_mapped": []}]
    audit = pool.audit()
    assert audit.ok
    assert sorted(audit.free + [index for cache in audit.cached.values() for index in cache]) == [*range(OBJECTS)]
    assert (pool.in_use, pool.available) == (0, OBJECTS)


def exchange(guest: Callable[..., Any], *, relocated: bool = False) -> None:
    with ivshmem.metadata_create("everything") as metadata:
        make(metadata)
        taken = [f"{s.address:x}:{s.size:x}" for s in eal.segments()] if relocated else []
        before = {name: describe(name) for name in ("matrix", "records", "scalar")}
        running = guest("exchange", metadata, arguments=taken)
        check_what_it_found(running.hear(), relocated=relocated)
        check_arrays(running.hear(), before)
        assert zlib.crc32(eal.memzone_lookup("outbox").buf) == zlib.crc32(bytes(eal.memzone_lookup("inbox").buf)[::-1])
        pump_numbers(running)
        assert running.hear() == {"heard": NUMBERS, "in_order": True}
        trade_objects(running)
        check_pool(running)


def test_exchange_on_tmpfs(primary: eal.Eal, guest: Callable[..., Any]) -> None:
    exchange(guest)
    assert {segment.page_size for segment in eal.segments()} == {4096}
    assert all(segment.path.startswith("/dev/shm/") for segment in eal.segments())


def test_exchange_where_the_hosts_addresses_are_in_use(primary: eal.Eal, guest: Callable[..., Any]) -> None:
    exchange(guest, relocated=True)


@pytest.fixture
def on_hugepages(
    runtime_dir: Path, prefix: str, hugepages: Callable[..., Path]
) -> Iterator[Callable[[int, int], eal.Eal]]:
    """`on_hugepages(count, page_size)`: this process as a primary with exactly this many hugepages."""

    def start(count: int, page_size: int) -> eal.Eal:
        folder = hugepages(count, page_size)
        return eal.init(["--no-pci"], file_prefix=prefix, proc_type="primary", huge_dir=str(folder))

    yield start
    eal.current().close()


def test_exchange_on_hugepages(on_hugepages: Callable[[int, int], eal.Eal], guest: Callable[..., Any]) -> None:
    huge_dir = on_hugepages(4, 2 * MIB).options.huge_dir
    exchange(guest)
    segments = eal.segments()
    assert {segment.page_size for segment in segments} == {2 * MIB}
    assert all(segment.path.startswith(f"{huge_dir}/") for segment in segments)


@pytest.mark.parametrize("guest", ["emulated"], indirect=True)
def test_exchange_on_one_gib_page(on_hugepages: Callable[[int, int], eal.Eal], guest: Callable[..., Any]) -> None:
    on_hugepages(1, GIB)
    exchange(guest)
    (segment,) = eal.segments()
    assert (segment.size, segment.page_size) == (GIB, GIB)
