# SPDX-License-Identifier: BSD-3-Clause
"""Recovery: ring reservations of dead processes, epochs of metadata files, and `exist_ok` in start-up code."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eal
import ivshmem
from eal import RingFlag
from eal.linux import process
from eal.metadata.lookup import open_metadata

Peers = Callable[..., Any]

ST = RingFlag.SP_ENQ | RingFlag.SC_DEQ
FLAGS = {"MT": 0, "RTS": RingFlag.MP_RTS_ENQ | RingFlag.MC_RTS_DEQ, "HTS": RingFlag.MP_HTS_ENQ | RingFlag.MC_HTS_DEQ}
OWNER_AT = {"producer": 80, "consumer": 88}
END_AT = {"producer": 128, "consumer": 256}

# Stop inside a ring operation, as a killed DPDK process can: the head is moved, the tail is not. The ring has 2, 3, 4.
VICTIM = """
import struct, sys
import eal
prefix, role, flags = sys.argv[1], sys.argv[2], int(sys.argv[3])
made = eal.init(file_prefix=prefix, no_huge=True)
ring = eal.ring_create("ring", 64, flags=flags, exist_ok=True)
for number in range(5):
    assert ring.enqueue(number)
assert [ring.dequeue(), ring.dequeue()] == [0, 1]
at = {"producer": 128, "consumer": 256}[role]
buf = ring.memzone.buf
if flags & 0x18:  # RTS: the head word is position << 32 | count
    (head,) = struct.unpack_from("<Q", buf, at + 16)
    struct.pack_into("<Q", buf, at + 16, head + (20 << 32) + 1)
else:
    (head,) = struct.unpack_from("<I", buf, at)
    struct.pack_into("<I", buf, at, head + 3)
print("ready")
sys.stdin.readline()
"""


def init(prefix: str, **keywords: Any) -> eal.Eal:
    return eal.init(["--no-pci"], file_prefix=prefix, no_huge=True, stall_timeout=0.2, **keywords)


def drained(ring: eal.Ring) -> list[int]:
    return [ring.dequeue() for _ in range(ring.count)]  # type: ignore[misc]


def until(deadline: float, operate: Callable[[], Any]) -> None:
    """Call `operate` until the deadline: Stalled is raised late if the dead process reserved every slot."""
    while time.monotonic() < deadline:
        operate()


@pytest.fixture
def start_victim(peer: Peers) -> Callable[..., Any]:
    def start(role: str, flags: int = ST) -> Any:
        victim = peer(VICTIM, role, int(flags))
        victim.hear()
        return victim

    return start


@pytest.mark.parametrize("role", END_AT)
def test_recover_rolls_back_reservation_of_dead_owner(
    runtime_dir: Path, prefix: str, start_victim: Callable[..., Any], role: str
) -> None:
    start_victim(role).crash()
    with init(prefix, recover=True):
        ring = eal.ring_lookup("ring")
        assert not ring.end(role).incomplete
        assert drained(ring) == [2, 3, 4], "only the published elements must be dequeued"
        assert ring.enqueue(5)
        assert ring.dequeue() == 5
        assert ring.end(role).owner == process.process_owner_word()


def test_recover_rolls_back_rings_without_lookup(
    runtime_dir: Path, prefix: str, start_victim: Callable[..., Any]
) -> None:
    start_victim("producer").crash()
    with init(prefix, recover=True) as made:
        path, offset = made.memzone_lookup("RG_ring").segment.path, made.memzone_lookup("RG_ring").offset
        with open(path, "rb") as file:
            file.seek(offset + END_AT["producer"])
            assert file.read(4) == file.read(4)


@pytest.mark.parametrize("role", END_AT)
def test_lookup_rolls_back_reservation_of_dead_owner(
    primary: eal.Eal, start_victim: Callable[..., Any], role: str
) -> None:
    start_victim(role).crash()
    ring = primary.ring_lookup("ring")
    assert drained(ring) == [2, 3, 4]
    assert ring.enqueue(5)


def test_lookup_of_attached_ring_rolls_back_reservation(primary: eal.Eal, start_victim: Callable[..., Any]) -> None:
    ring = primary.ring_create("ring", 64, flags=ST)
    start_victim("consumer").crash()
    with pytest.raises(eal.Stalled):
        ring.dequeue()
    assert primary.ring_lookup("ring") is ring
    assert drained(ring) == [2, 3, 4]


@pytest.mark.parametrize("owner", ["alive", "another machine", "not recorded"])
@pytest.mark.parametrize("role", END_AT)
def test_reservation_of_possibly_live_owner_is_kept(
    primary: eal.Eal, start_victim: Callable[..., Any], role: str, owner: str
) -> None:
    victim = start_victim(role)
    zone = primary.memzone_lookup("RG_ring")
    word = slice(OWNER_AT[role], OWNER_AT[role] + 8)
    if owner != "alive":
        victim.crash()
        other = process.process_owner_word() ^ 1 << 40 if owner == "another machine" else 0
        zone.buf[word] = other.to_bytes(8, "little")
    end = slice(END_AT[role], END_AT[role] + 8)
    before = bytes(zone.buf[end])
    ring = primary.ring_lookup("ring")
    assert bytes(zone.buf[end]) == before
    with pytest.raises(eal.Stalled):
        ring.enqueue(1) if role == "producer" else ring.dequeue()
    assert bytes(zone.buf[end]) == before, "an unfinished reservation must not be published"


def test_reused_process_id_counts_as_dead(primary: eal.Eal, start_victim: Callable[..., Any]) -> None:
    start_victim("producer").crash()
    zone = primary.memzone_lookup("RG_ring")
    init_process = process.machine_id() << 32 | 1  # alive, but does not map the segment
    zone.buf[80:88] = init_process.to_bytes(8, "little")
    assert drained(primary.ring_lookup("ring")) == [2, 3, 4]


def test_moving_side_with_dead_owner_is_kept(primary: eal.Eal, start_victim: Callable[..., Any]) -> None:
    """The owner word names a dead process, but a process that stores no owner word uses the side."""
    start_victim("producer").crash()
    zone = primary.memzone_lookup("RG_ring")
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            tail = int.from_bytes(zone.buf[132:136], "little")
            zone.buf[128:136] = ((tail + 1) << 32 | tail + 5).to_bytes(8, "little")
            time.sleep(0.001)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        ring = primary.ring_lookup("ring")
        assert ring.end("producer").incomplete
    finally:
        stop.set()
        worker.join()


@pytest.mark.parametrize("sync", FLAGS)
@pytest.mark.parametrize("role", END_AT)
def test_multi_producer_side_raises_stalled_after_one_wait(
    runtime_dir: Path, prefix: str, start_victim: Callable[..., Any], sync: str, role: str
) -> None:
    start_victim(role, FLAGS[sync]).crash()
    with init(prefix, recover=True):
        ring = eal.ring_lookup("ring")
        operate: Callable[[], Any] = (lambda: ring.enqueue(9)) if role == "producer" else ring.dequeue
        began = time.monotonic()
        with pytest.raises(eal.Stalled, match="ring 'ring'"):
            until(began + 10, operate)
        assert time.monotonic() - began < 1
        began = time.monotonic()
        for _ in range(20):
            with pytest.raises(eal.Stalled):
                operate()
        assert time.monotonic() - began < 0.15, "only the first operation must wait for stall_timeout"
        assert ring.end(role).incomplete
        assert (ring.dequeue() == 2) if role == "producer" else ring.enqueue(9)
        ring.reset()
        assert ring.enqueue(7)
        assert ring.dequeue() == 7


def test_recover_raises_epoch_of_metadata_file(runtime_dir: Path, prefix: str, peer: Peers) -> None:
    victim = peer(
        """
        import sys, eal, ivshmem
        made = eal.init(file_prefix=sys.argv[1], no_huge=True)
        metadata = ivshmem.metadata_create("vm0")
        metadata.add_ring(eal.ring_create("ring", 8))
        print(made.epoch, metadata.table.epoch)
        sys.stdin.readline()
        """
    )
    epoch, in_metadata = map(int, victim.hear().split())
    assert epoch == in_metadata
    guest_view = open_metadata(runtime_dir / prefix / "metadata" / "vm0.md")
    victim.crash()
    with init(prefix, recover=True) as made:
        metadata = ivshmem.metadata_lookup("vm0")
        assert metadata.table.epoch == made.epoch > epoch
        assert [entry.name for entry in guest_view.read().entries] == ["ring"]
        assert guest_view.read().epoch == made.epoch
        assert guest_view.read().segments[0].epoch == epoch, "a segment must keep the epoch of its creator"


def test_damaged_metadata_file_does_not_prevent_recovery(runtime_dir: Path, prefix: str, peer: Peers) -> None:
    victim = peer(
        """
        import sys, eal, ivshmem
        eal.init(file_prefix=sys.argv[1], no_huge=True)
        print(ivshmem.metadata_create("vm0").path, ivshmem.metadata_create("vm1").path)
        sys.stdin.readline()
        """
    )
    damaged, _ = victim.hear().split()
    victim.crash()
    with open(damaged, "r+b") as file:
        file.seek(16)
        file.write(b"\xff" * 8)
    with init(prefix, recover=True) as made:
        assert ivshmem.metadata_lookup("vm1").table.epoch == made.epoch


# --- exist_ok in start-up code ----------------------------------------------------------------------------


def make_all(**changed: Any) -> list[Any]:
    place = {"group": "g", "socket_id": eal.SOCKET_ID_ANY, **changed}
    align = place.pop("align", 128)
    return [
        eal.memzone_reserve("zone", 256, align=align, exist_ok=True, **place),
        eal.array_reserve("array", (3, 4), "<u4", align=align, exist_ok=True, **place),
        eal.ring_create("ring", 64, exist_ok=True, **place),
        eal.mempool_create("pool", 16, 64, exist_ok=True, **place),
        eal.pktmbuf_pool_create("mbufs", 16, exist_ok=True, **place),
    ]


def test_exist_ok_returns_existing_objects(primary: eal.Eal) -> None:
    made = make_all()
    assert all(found is there for found, there in zip(make_all(), made, strict=True))


@pytest.mark.parametrize("changed", [{"group": "other"}, {"socket_id": 7}])
@pytest.mark.parametrize("number", range(5))
def test_exist_ok_with_other_placement_raises_exists(primary: eal.Eal, changed: Any, number: int) -> None:
    make_all()
    make: list[Callable[[], Any]] = [
        lambda: eal.memzone_reserve("zone", 256, align=128, exist_ok=True, **{"group": "g", **changed}),
        lambda: eal.array_reserve("array", (3, 4), "<u4", align=128, exist_ok=True, **{"group": "g", **changed}),
        lambda: eal.ring_create("ring", 64, exist_ok=True, **{"group": "g", **changed}),
        lambda: eal.mempool_create("pool", 16, 64, exist_ok=True, **{"group": "g", **changed}),
        lambda: eal.pktmbuf_pool_create("mbufs", 16, exist_ok=True, **{"group": "g", **changed}),
    ]
    with pytest.raises(eal.Exists, match=f"exists with {next(iter(changed))} "):
        make[number]()


def test_exist_ok_with_other_align_or_flags_raises_exists(primary: eal.Eal) -> None:
    make_all()
    with pytest.raises(eal.Exists, match="exists with align 128, not 4096"):
        make_all(align=4096)
    with pytest.raises(eal.Exists, match="exists with flags "):
        eal.memzone_reserve("zone", 256, align=128, group="g", flags=1, exist_ok=True)
    with pytest.raises(eal.Invalid, match="align"):
        eal.memzone_reserve("zone", 256, align=3, group="g", exist_ok=True)
