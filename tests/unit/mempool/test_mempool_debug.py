# SPDX-License-Identifier: BSD-3-Clause
"""Pools that watch their users: cookies, holders, audits that name, object init, iteration."""

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
    """Writes a byte at `at`, counted from an object's first byte, where no view of the object reaches."""
    zone = pool.memzone.buf
    first = pool.memzone.length - pool.n * pool.elt_stride + index * pool.elt_stride
    pool.object(index)[:8] = b"it is me"
    assert bytes(zone[first : first + 8]) == b"it is me"
    zone[first + at] ^= 0xFF


def test_objects_do_not_overlap_cookies(pool: Mempool) -> None:
    pool.array[:] = 0xFF
    indices = np.zeros(64, np.uint32)
    assert pool.get_bulk(indices) == 64
    pool.put_bulk(indices)
    assert pool.array.shape == (64, 100)


def test_a_double_put_is_named(pool: Mempool) -> None:
    first, second = pool.get(), pool.get()
    assert first is not None
    assert second is not None
    pool.put(first)
    with pytest.raises(eal.Invalid, match=rf"object {first} was free already"):
        pool.put(first)
    with pytest.raises(eal.Invalid, match=rf"object {first} was free already"):
        pool.put_bulk(np.array([second, first], np.uint32))
    assert pool.in_use == 1
    pool.put(second)
    assert pool.audit().ok


def test_one_object_twice_in_a_bulk_puts_nothing_back(pool: Mempool) -> None:
    first, second = pool.get(), pool.get()
    with pytest.raises(eal.Invalid, match=f"object {second} was free already"):
        pool.put_bulk(np.array([first, second, second], np.uint32))
    assert pool.in_use == 2


@pytest.mark.parametrize("at", [100, 107, -64, -57], ids=["behind", "behind, last", "before", "before, last"])
def test_an_overrun_is_named_once(pool: Mempool, at: int) -> None:
    index = pool.get()
    assert index is not None
    spoil(pool, index, at)
    with pytest.raises(eal.Corrupt, match=f"object {index} were overwritten"):
        pool.put(index)
    assert pool.in_use == 1
    pool.put(index)
    assert pool.in_use == 0


def test_what_is_overwritten_while_free_is_named_by_get(pool: Mempool) -> None:
    index = pool.get()
    assert index is not None
    pool.put(index)
    spoil(pool, index, 103)
    with pytest.raises(eal.Corrupt, match=f"object {index} were overwritten"):
        pool.get_bulk(np.zeros(64, np.uint32))
    assert pool.in_use == 0
    assert pool.get_bulk(np.zeros(64, np.uint32)) == 64


def test_the_audit_says_who_has_what(pool: Mempool) -> None:
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
    assert f"1 of {audit.who(process.owner_word())}: {mine}" in str(audit)


KILLED = """
import os, signal, sys, eal
eal.init(file_prefix=sys.argv[1])
pool = eal.mempool_lookup("d")
held = [pool.get() for _ in range(3)]
print(*held, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_held_is_named(pool: Mempool, prefix: str) -> None:
    done = subprocess.run([sys.executable, "-P", "-c", KILLED, prefix], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    held = [int(word) for word in done.stdout.split()]
    audit = pool.audit()
    assert audit.in_hand == sorted(held)
    (dead,) = [p for p in audit.participants if p.dead]
    assert audit.holders == {dead.owner: sorted(held)}
    assert pool.available + 3 == pool.n, "the dead one's cache counts as available"
    assert sum(map(len, audit.cached.values())) + len(audit.free) + 3 == pool.n
    assert "(dead)" in str(audit)


def test_a_lost_object_is_counted(app: eal.Eal) -> None:
    pool = eal.mempool_create("d", 64, 64)
    pool.memzone.buf[192] &= 0xF0  # four bits of the free bitmap
    audit = pool.audit()
    assert (audit.lost, audit.in_hand, audit.ok) == (4, [0, 1, 2, 3], False)
    assert "4 lost" in str(audit)


def test_an_index_in_two_places_and_a_foreign_one_are_found(app: eal.Eal) -> None:
    pool = eal.mempool_create("d", 64, 64, cache_size=8)
    index = pool.get()
    assert index is not None
    pool.put(index)
    caches = 192 + 64  # header, one line of bitmap
    stride = (pool.memzone.length - caches - 64 * 64) // 64
    slot = next(iter(pool.audit().cached))
    record = pool.memzone.buf[caches + slot * stride :]
    cached = np.frombuffer(record[64:], np.uint32)
    cached[0], cached[1] = 63, 7777
    audit = pool.audit()
    assert audit.twice == [63]
    assert audit.foreign == 1
    assert not audit.ok


def test_obj_init_sees_every_object_before_the_pool_is_there(app: eal.Eal) -> None:
    seen = []

    def init(memory: memoryview, index: int) -> None:
        seen.append(index)
        memory[0] = index
        assert "d" not in [p.name for p in eal.mempools()]

    pool = eal.mempool_create("d", 32, 48, obj_init=init)
    assert seen == list(range(32))
    assert pool.array[:, 0].tolist() == seen


def test_a_failing_obj_init_leaves_no_pool(app: eal.Eal) -> None:
    def init(memory: memoryview, index: int) -> None:
        raise KeyError(index)

    with pytest.raises(KeyError):
        eal.mempool_create("d", 32, 48, obj_init=init)
    with pytest.raises(eal.NotFound):
        eal.mempool_lookup("d")
    eal.mempool_create("d", 32, 48)


def test_iteration_gives_views_of_all_objects(pool: Mempool) -> None:
    for index, memory in enumerate(pool):
        memory[:4] = index.to_bytes(4, "little")
    assert pool.view("<u4")[:].tolist() == list(range(64))


def test_a_peer_sees_the_cookies_too(pool: Mempool, prefix: str) -> None:
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
    assert f"object {index} was free already" in done.stdout
    assert pool.available == 64
