# SPDX-License-Identifier: BSD-3-Clause
"""Pools of mbufs shared by processes: concurrent reference counts, packets in rings, guests, read-only shares."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eal
import ivshmem

N = 256
JOIN = """
    import sys
    import numpy as np
    import eal

    app = eal.init(["--no-pci"], file_prefix=sys.argv[1], proc_type="secondary", no_huge=True)
    pool = eal.mempool_lookup("p")
    assert type(pool) is eal.MbufPool, pool
"""


@pytest.fixture(params=[0, 16], ids=["uncached", "cached"])
def pool(request: pytest.FixtureRequest, primary: eal.Eal) -> eal.MbufPool:
    return primary.pktmbuf_pool_create("p", N, cache_size=request.param, data_room=512, private_size=8)


def packet(pool: eal.MbufPool, data: bytes) -> int:
    index = pool.alloc()
    assert index is not None
    room = pool.append(index, len(data))
    assert room is not None
    room[:] = data
    return index


def test_concurrent_reference_counts_of_two_processes_are_exact(pool: eal.MbufPool, peer: Callable[..., Any]) -> None:
    rounds = 20_000
    head = packet(pool, b"shared")
    other = peer(
        JOIN
        + """
    head, rounds = int(sys.argv[2]), int(sys.argv[3])
    print("here", flush=True)
    sys.stdin.readline()
    for number in range(rounds):
        if number % 2:
            pool.free(pool.clone(head))
        else:
            pool.refcnt_update(head, 3)
            pool.refcnt_update(head, -3)
    pool.free(head)
""",
        head,
        rounds,
    )
    pool.refcnt_update(head, 1)  # the reference of the other process
    assert other.hear() == "here"
    other.say()
    for number in range(rounds):
        if number % 2:
            clone = pool.clone(head)
            assert clone is not None
            pool.free(clone)
        else:
            pool.refcnt_update(head, 5)
            pool.refcnt_update(head, -5)
    other.end()
    assert (pool.refcnt_read(head), pool.read(head)) == (1, b"shared")
    pool.free(head)
    assert (pool.available, pool.audit().ok) == (N, True)


def test_receiver_frees_packets_of_sender(primary: eal.Eal, pool: eal.MbufPool, peer: Callable[..., Any]) -> None:
    """Send bursts of chained packets to another process, which checks and frees them, and returns clones."""
    there = primary.ring_create("there", 64, elem_size=4, flags=eal.RingFlag.SP_ENQ | eal.RingFlag.SC_DEQ)
    back = primary.ring_create("back", 64, elem_size=4, flags=eal.RingFlag.SP_ENQ | eal.RingFlag.SC_DEQ)
    packets = 20_000
    other = peer(
        JOIN
        + """
    there, back, packets = eal.ring_lookup("there"), eal.ring_lookup("back"), int(sys.argv[2])
    burst = np.zeros(32, np.uint32)
    done = 0
    while done < packets:
        n = there.dequeue_burst(burst)
        for head in burst[:n]:
            assert pool.read(head) == b"head%08d" % done, (pool.read(head), done)
            assert pool.is_contiguous(head) == (done % 3 != 0)
            clone = pool.clone(head) if done % 100 == 0 else None
            if clone is not None:
                while not back.enqueue(clone):
                    pass
            done += 1
        pool.free_bulk(burst[:n])
    while not back.enqueue(0xFFFFFFFF):
        pass
""",
        packets,
    )
    clones: list[int] = []
    sent = 0
    while not clones or clones[-1] != 0xFFFF_FFFF:
        if sent < packets and pool.available > 8:
            head = packet(pool, b"%08d" % sent)
            if sent % 3 == 0:
                first = packet(pool, b"head")
                pool.chain(first, head)
                head = first
            else:
                room = pool.prepend(head, 4)
                assert room is not None
                room[:] = b"head"
            while not there.enqueue(head):
                assert other.poll() is None, other.error()
            sent += 1
        clone = back.dequeue()
        if isinstance(clone, int):
            clones.append(clone)
            if clone != 0xFFFF_FFFF:
                assert pool.read(clone) is not None
                pool.free(clone)
        assert other.poll() in (None, 0), other.error()
    other.end()
    assert len(clones) > 10
    assert (pool.available, pool.audit().ok) == (N, True)
    assert not pool.mbufs["refcnt"].any()


def test_guest_uses_mbuf_pool_of_metadata_share(primary: eal.Eal, pool: eal.MbufPool, tmp_path: Path) -> None:
    head = packet(pool, b"from the host")
    pool.private[head] = 7
    ring = primary.ring_create("r", 8, elem_size=4)
    ring.enqueue(head)
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_mempool(pool)
    metadata.add_ring(ring)
    run_guest(
        tmp_path,
        """
        index = eal.ring_lookup("r").dequeue()
        assert pool.read(index) == b"from the host", pool.read(index)
        assert (pool.private[index] == 7).all()
        assert (pool.data_room, pool.private_size) == (512, 8)
        reply = pool.copy(index)
        pool.mtod(reply)[:4] = b"back"
        pool.free(index)
        eal.ring_lookup("r").enqueue(reply)
        """,
    )
    reply = ring.dequeue()
    assert isinstance(reply, int)
    assert pool.read(reply) == b"back the host"
    pool.free(reply)
    assert (pool.available, pool.audit().ok) == (N, True)


def run_guest(tmp_path: Path, body: str) -> None:
    """Run `body` in an emulated guest with the share vm0; `pool` is its pool."""
    import textwrap

    script = tmp_path / "guest.py"
    start = 'import eal\n\neal.init()\npool = eal.mempool_lookup("p")\nassert type(pool) is eal.MbufPool\n'
    script.write_text(start + textwrap.dedent(body))
    command = "from ivshmem.cli import main; main()"
    subprocess.run(
        [sys.executable, "-P", "-c", command, "emulate", "vm0", "--", sys.executable, "-P", str(script)],
        check=True,
        timeout=60,
    )


def test_read_only_share_allows_reads_and_denies_writes(pool: eal.MbufPool) -> None:
    head = packet(pool, b"read")
    pool.chain(head, packet(pool, b" only"))
    clone = pool.clone(head)
    assert clone is not None
    seen = read_only(pool)
    assert (seen.read(clone), bytes(seen.mtod(head)), seen.refcnt_read(head)) == (b"read only", b"read", 2)
    assert seen.segments(head).tolist() == pool.segments(head).tolist()
    assert (seen.headroom(head), seen.is_contiguous(head), seen.is_direct(clone)) == (128, False, False)
    assert seen.mtod(head).readonly
    assert not seen.mbufs.flags.writeable
    assert not seen.data.flags.writeable
    seen.sanity_check(clone)
    burst = np.array([head], np.uint32)
    for change in (
        seen.alloc,
        lambda: seen.alloc_bulk(burst),
        lambda: seen.free(head),
        lambda: seen.free_bulk(burst),
        lambda: seen.append(head, 1),
        lambda: seen.trim(head, 1),
        lambda: seen.clone(head),
        lambda: seen.linearize(head),
        lambda: seen.detach(clone),
        lambda: seen.refcnt_update(head, 1),
    ):
        with pytest.raises(eal.Denied, match="read-only"):
            change()
    assert pool.available == N - 4


def read_only(pool: eal.MbufPool) -> eal.MbufPool:
    """Return the same pool over a read-only mapping."""
    import os

    from eal.linux.mapping import Mapping
    from eal.memory.memzone import Memzone
    from eal.memory.segment import Segment

    segment = pool.memzone.segment
    fd = os.open(segment.path, os.O_RDONLY)
    try:
        mapping = Mapping(fd, segment.size, writable=False)
    finally:
        os.close(fd)
    return eal.MbufPool(Memzone(pool.memzone.entry, Segment(segment.record, mapping, "", socket_id=-1)), "p")
