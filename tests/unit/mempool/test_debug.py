# SPDX-License-Identifier: BSD-3-Clause
"""Mempools with MempoolFlag.DEBUG: cookies and holders; audit text, obj_init and iteration of all mempools."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

import eal
from eal.linux import process
from eal.mempool.mempool import Mempool


@pytest.fixture
def app(prefix: str, runtime_dir: object) -> Iterator[eal.Eal]:
    with eal.init(file_prefix=prefix, no_huge=True) as made:
        yield made


@pytest.fixture(params=[0, 8], ids=["no-cache", "cache"])
def pool(app: eal.Eal, request: pytest.FixtureRequest) -> Mempool:
    return eal.mempool_create("d", 64, 100, cache_size=request.param, flags=eal.MempoolFlag.DEBUG)


def spoil(pool: Mempool, index: int, at: int) -> None:
    """Change the byte at offset `at` from the start of an object, outside of its views."""
    zone = pool.memzone.buf
    first = pool.memzone.length - pool.n * pool.elt_stride + index * pool.elt_stride
    pool.object(index)[:8] = b"marker 1"
    assert bytes(zone[first : first + 8]) == b"marker 1"
    zone[first + at] ^= 0xFF


def test_write_of_whole_object_leaves_cookies_intact(pool: Mempool) -> None:
    pool.array[:] = 0xFF
    indices = np.zeros(64, np.uint32)
    assert pool.get_bulk(indices) == 64
    pool.put_bulk(indices)
    assert pool.array.shape == (64, 100)


def test_double_put_raises_with_object(pool: Mempool) -> None:
    first, second = pool.get(), pool.get()
    assert first is not None
    assert second is not None
    pool.put(first)
    with pytest.raises(eal.Invalid, match=rf"object {first} is already free"):
        pool.put(first)
    with pytest.raises(eal.Invalid, match=rf"object {first} is already free"):
        pool.put_bulk(np.array([second, first], np.uint32))
    assert pool.in_use == 1
    pool.put(second)
    assert pool.audit().ok


def test_put_bulk_duplicate_puts_no_object(pool: Mempool) -> None:
    first, second = pool.get(), pool.get()
    with pytest.raises(eal.Invalid, match=f"object {second} is already free"):
        pool.put_bulk(np.array([first, second, second], np.uint32))
    assert pool.in_use == 2


@pytest.mark.parametrize("at", [100, 107, -64, -57], ids=["after", "after, last byte", "before", "before, last byte"])
def test_overrun_is_reported_once(pool: Mempool, at: int) -> None:
    index = pool.get()
    assert index is not None
    spoil(pool, index, at)
    with pytest.raises(eal.Corrupt, match=f"object {index} were overwritten"):
        pool.put(index)
    assert pool.in_use == 1
    pool.put(index)
    assert pool.in_use == 0


def test_overrun_of_free_object_is_reported_by_get(pool: Mempool) -> None:
    index = pool.get()
    assert index is not None
    pool.put(index)
    spoil(pool, index, 103)
    with pytest.raises(eal.Corrupt, match=f"object {index} were overwritten"):
        pool.get_bulk(np.zeros(64, np.uint32))
    assert pool.in_use == 0
    assert pool.get_bulk(np.zeros(64, np.uint32)) == 64


def test_audit_lists_holder_of_each_object(pool: Mempool) -> None:
    mine = pool.get()
    taken: list[int | None] = []
    done = threading.Event()
    go_on = threading.Event()

    def other() -> None:
        taken.extend([pool.get(), process.owner_word()])
        done.set()
        go_on.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    assert done.wait(10)
    audit = pool.audit()
    go_on.set()
    thread.join()
    theirs, owner = taken
    assert mine is not None
    assert theirs is not None
    assert audit.holders == {process.owner_word(): [mine], owner: [theirs]}
    assert sorted(audit.in_hand) == sorted([mine, theirs])
    assert audit.ok
    assert f"1 by {audit.who(process.owner_word())}: {mine}" in str(audit)


KILLED = """
import os, signal, sys, eal
eal.init(file_prefix=sys.argv[1])
pool = eal.mempool_lookup("d")
held = [pool.get() for _ in range(3)]
print(*held, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_audit_lists_objects_of_killed_process(pool: Mempool, prefix: str) -> None:
    done = subprocess.run([sys.executable, "-P", "-c", KILLED, prefix], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    held = [int(word) for word in done.stdout.split()]
    audit = pool.audit()
    assert audit.in_hand == sorted(held)
    (dead,) = [p for p in audit.participants if p.dead]
    assert audit.holders == {dead.owner: sorted(held)}
    assert pool.available + 3 == pool.n, "objects in the cache of the dead process count as available"
    assert sum(map(len, audit.cached.values())) + len(audit.free) + 3 == pool.n
    assert "(dead)" in str(audit)


def test_audit_counts_lost_objects(app: eal.Eal) -> None:
    pool = eal.mempool_create("d", 64, 64)
    pool.memzone.buf[192] &= 0xF0  # clear four bits of the free bitmap
    audit = pool.audit()
    assert (audit.lost, audit.in_hand, audit.ok) == (4, [0, 1, 2, 3], False)
    assert "4 lost" in str(audit)


def test_audit_finds_duplicate_and_foreign_indices(app: eal.Eal) -> None:
    pool = eal.mempool_create("d", 64, 64, cache_size=8)
    index = pool.get()
    assert index is not None
    pool.put(index)
    caches = 192 + 64  # header and one cache line of bitmap
    stride = (pool.memzone.length - caches - 64 * 64) // 64
    slot = next(iter(pool.audit().cached))
    record = pool.memzone.buf[caches + slot * stride :]
    cached = np.frombuffer(record[64:], np.uint32)
    cached[0], cached[1] = 63, 7777
    audit = pool.audit()
    assert audit.twice == [63]
    assert audit.foreign == 1
    assert not audit.ok


def test_obj_init_is_called_per_object_before_pool_is_listed(app: eal.Eal) -> None:
    seen = []

    def init(memory: memoryview, index: int) -> None:
        seen.append(index)
        memory[0] = index
        assert "d" not in [p.name for p in eal.mempools()]

    pool = eal.mempool_create("d", 32, 48, obj_init=init)
    assert seen == list(range(32))
    assert pool.array[:, 0].tolist() == seen


def test_failing_obj_init_creates_no_pool(app: eal.Eal) -> None:
    def init(memory: memoryview, index: int) -> None:
        raise KeyError(index)

    with pytest.raises(KeyError):
        eal.mempool_create("d", 32, 48, obj_init=init)
    with pytest.raises(eal.NotFound):
        eal.mempool_lookup("d")
    eal.mempool_create("d", 32, 48)


def test_iteration_yields_writable_view_per_object(pool: Mempool) -> None:
    for index, memory in enumerate(pool):
        memory[:4] = index.to_bytes(4, "little")
    assert pool.view("<u4")[:].tolist() == list(range(64))


def test_double_put_by_peer_is_detected(pool: Mempool, prefix: str) -> None:
    index = pool.get()
    code = f"""
import sys, eal
eal.init(file_prefix=sys.argv[1])
pool = eal.mempool_lookup("d")
pool.put({index})
try:
    pool.put({index})
except eal.Invalid as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-P", "-c", code, prefix], capture_output=True, text=True, check=True)
    assert f"object {index} is already free" in done.stdout
    assert pool.available == 64
