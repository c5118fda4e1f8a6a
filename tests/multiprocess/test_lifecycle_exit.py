# SPDX-License-Identifier: BSD-3-Clause
"""Interpreter exit with live views, threads and exit handlers: no error output, no stale files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.hotplug import Lab, Metadata

START = """
import atexit, gc, sys, threading, time, weakref
def early():  # registered before the exit handler of eal, so it runs after that handler
    touch()
atexit.register(early)
import numpy as np
import eal, ivshmem
made = eal.init(file_prefix=sys.argv[1], no_huge=True, sysfs_root=sys.argv[2] if sys.argv[2:] else None)
GUEST = sys.argv[2:] != []
if GUEST:
    ring, pool, zone = made.ring_lookup("vm0 ring"), made.mempool_lookup("vm0 pool"), made.memzone_lookup("vm0 zone")
    watch = made.watch(lambda event: None)
else:
    ring, zone = made.ring_create("r", 64), made.memzone_reserve("z", 4096)
    pool = made.mempool_create("p", 64, 32, cache_size=8)
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_memzone(zone)
burst = ring.burst(8)
views = [zone.buf, zone.array("u1"), pool.array, np.frombuffer(burst.array, np.uint8), zone.buf[3:9]]
def touch():
    for view in views:
        np.frombuffer(view, np.uint8) if view is not views[2] else view.sum()
        view[-1] = view[0]
def work():
    while True:
        try:
            ring.enqueue(1); ring.dequeue(); burst.enqueue(4); burst.dequeue(); pool.put(pool.get())
        except eal.Closed:
            pass
        touch()
"""

EXITS = {
    "views in globals": "touch()",
    "views referenced by sys.modules": "sys.kept = views; sys.modules['kept'] = views",
    "a reference cycle": """
class Node:
    pass
node = Node()
node.self, node.views, node.made, node.ring = node, views, made, ring""",
    "a finalizer": "class Last:\n    def __del__(self): touch()\nlast = Last(); last.self = last",
    "daemon threads": "for _ in range(2): threading.Thread(target=work, daemon=True).start()\ntime.sleep(0.05)",
    "a non-daemon thread": """
threading.Thread(target=lambda: (time.sleep(0.1), touch(), ring.enqueue(1))).start()""",
    "an atexit handler": """
def handler():
    touch()
    try:
        ring.enqueue(1); pool.put(pool.get())
    except eal.Closed:
        pass
    made.close(); made.close(); made.detach(); touch()
atexit.register(handler)""",
    "close before exit": "made.close(); touch(); atexit.register(touch)",
    "a burst and an unfinished iteration": "iterator = iter(views); next(iterator); burst.enqueue(8); burst.dequeue()",
    "an exception": "kept = views\nraise SystemExit(0)",
    "a wait in a daemon thread": """
threading.Thread(target=lambda: ring.wait(30), daemon=True).start()
time.sleep(0.05)""",
}


@pytest.fixture
def plugged(tmp_path: Path) -> tuple[Lab, Metadata]:
    lab = Lab(tmp_path)
    vm0 = lab.metadata("vm0")
    lab.plug_all(vm0)
    return lab, vm0


def check_clean_exit(other: Any) -> None:
    assert other.wait(60) == 0, other.error()
    output = other.error()
    for word in ("Exception ignored", "Traceback", "Error", "Fatal"):
        assert word not in output, output


@pytest.mark.parametrize("name", EXITS)
def test_host_interpreter_exits_cleanly(name: str, peer: Callable[..., Any], runtime_dir: Path, prefix: str) -> None:
    check_clean_exit(peer(START + EXITS[name]))
    assert [name for name in os.listdir("/dev/shm") if f".{prefix}." in name] == []
    assert list(runtime_dir.iterdir()) == []


@pytest.mark.parametrize("name", EXITS)
def test_guest_interpreter_exits_cleanly(
    name: str, peer: Callable[..., Any], runtime_dir: Path, plugged: tuple[Lab, Metadata]
) -> None:
    """Exit while the hotplug monitor runs and a watch is open."""
    lab, vm0 = plugged
    check_clean_exit(peer(START + EXITS[name], lab.root))
    assert vm0.monitor_slots() == []
    assert list(runtime_dir.iterdir()) == []
