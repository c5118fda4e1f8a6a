# SPDX-License-Identifier: BSD-3-Clause
"""Fork: the child inherits no usable Eal, may open its own, and never changes the Eal of its parent."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import eal
from tests.multiprocess.child import in_child


def test_inherited_handles_raise_closed_in_child(primary: eal.Eal) -> None:
    zone = primary.memzone_reserve("z", 64)
    ring, pool = primary.ring_create("r", 8), primary.mempool_create("p", 64, 8, cache_size=8)
    burst = ring.burst(4)
    ring.enqueue(5)
    pool.get()

    def child() -> None:
        for call in (
            *(lambda: ring.enqueue(1), ring.dequeue, lambda: ring.count, lambda: burst.enqueue(1), burst.dequeue),
            *(pool.get, lambda: pool.put(0), lambda: pool.available, pool.audit, lambda: pool.array),
            *(lambda: zone.buf, eal.current, eal.memzones, primary.rings, lambda: primary.epoch),
            *(lambda: eal.ring_create("s", 8), lambda: primary.memzone_reserve("y", 64)),
        ):
            with pytest.raises(eal.Closed):
                call()
        with pytest.raises(eal.Closed, match="parent process"):
            ring.enqueue(1)
        primary.close()

    in_child(child)
    assert (ring.dequeue(), pool.in_use) == (5, 1)
    assert primary.memzone_lookup("z") is zone


def test_views_stay_shared_with_child(primary: eal.Eal) -> None:
    zone = primary.memzone_reserve("z", 64)
    view, array = zone.buf, primary.array_reserve("a", 10, "<u4").array()
    view[:5] = b"hello"

    def child() -> None:
        assert bytes(view[:5]) == b"hello"
        array[3] = 77

    in_child(child)
    assert array[3] == 77


def test_close_in_child_keeps_slots_and_caches_of_parent(primary: eal.Eal) -> None:
    pool = primary.mempool_create("p", 64, 8, cache_size=8)
    taken = pool.get()
    before = pool.audit()

    def child() -> None:
        primary.close()
        gc.collect()

    in_child(child)
    assert pool.audit() == before
    assert [p.owner & 0xFFFFFFFF for p in before.participants] == [threading.get_native_id()]
    assert taken is not None
    pool.put(taken)
    assert pool.available == 64


def test_child_can_open_its_own_eal(primary: eal.Eal, runtime_dir: Path) -> None:
    ring = primary.ring_create("r", 8)

    def child() -> None:
        with eal.init(file_prefix=f"{primary.file_prefix}child", proc_type="primary", no_huge=True) as own:
            own.ring_create("r", 8).enqueue(9)
            assert own.mempool_create("p", 8, 8, cache_size=4).get() is not None
            assert own.ring_lookup("r").dequeue() == 9
        assert not (runtime_dir / f"{primary.file_prefix}child").exists()

    in_child(child)
    assert ring.empty
    assert [name for name in os.listdir("/dev/shm") if f".{primary.file_prefix}child." in name] == []
    assert primary.mempools() == []


def test_child_can_join_file_prefix_of_parent_as_secondary(primary: eal.Eal) -> None:
    ring = primary.ring_create("r", 8)
    pool = primary.mempool_create("p", 64, 8, cache_size=8)

    def child() -> None:
        with pytest.raises(eal.InUse, match=f"pid {os.getppid()}"):
            eal.init(file_prefix=primary.file_prefix, proc_type="primary", no_huge=True)
        with eal.init(file_prefix=primary.file_prefix, no_huge=True) as own:
            assert own.proc_type == "secondary"
            own.ring_lookup("r").enqueue(11)
            assert own.mempool_lookup("p").get() is not None

    in_child(child)
    assert ring.dequeue() == 11
    assert pool.in_use == 1
    primary.memzone_reserve("still primary", 64)


def test_locks_of_primary_are_held_after_children_exit(primary: eal.Eal, peer: Callable[..., object]) -> None:
    in_child(primary.close)
    in_child(lambda: None)
    script = """
    import sys, eal
    try:
        eal.init(file_prefix=sys.argv[1], proc_type="primary", no_huge=True)
    except eal.InUse:
        print("refused")
    """
    assert peer(script).end() == "refused\n"  # type: ignore[attr-defined]


def test_child_that_exits_with_atexit_removes_no_files(peer: Callable[..., object]) -> None:
    other = peer(
        """
        import os, sys, eal
        made = eal.init(file_prefix=sys.argv[1], no_huge=True)
        ring = eal.ring_create("r", 8)
        if os.fork() == 0:
            sys.exit(0)  # runs atexit handlers, unlike children of multiprocessing
        assert os.wait()[1] == 0
        assert ring.enqueue(1) and eal.ring_lookup("r") is ring
        assert os.path.exists(ring.memzone.segment.path)
        print("exists")
        """
    )
    assert other.end() == "exists\n"  # type: ignore[attr-defined]


def test_fork_while_other_thread_changes_registry_does_not_block_child(primary: eal.Eal) -> None:
    """The child inherits locks held by a thread that fork did not copy; no call in the child may block on them."""
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            primary.memzone_free(primary.memzone_reserve("z", 64))

    thread = threading.Thread(target=change)
    thread.start()

    def child() -> None:
        with pytest.raises(eal.Closed):
            primary.memzone_reserve("y", 64)
        with eal.init(file_prefix=f"{primary.file_prefix}c", proc_type="primary", no_huge=True) as own:
            own.memzone_reserve("z", 64)

    try:
        for _ in range(20):
            in_child(child)
    finally:
        stop.set()
        thread.join()


def test_inherited_handles_raise_closed_in_grandchild(primary: eal.Eal) -> None:
    ring = primary.ring_create("r", 8)

    def grandchild() -> None:
        with pytest.raises(eal.Closed):
            ring.enqueue(1)

    in_child(lambda: in_child(grandchild))
    assert ring.enqueue(1)
