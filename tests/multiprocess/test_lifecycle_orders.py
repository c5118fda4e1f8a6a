# SPDX-License-Identifier: BSD-3-Clause
"""Close in any order, twice, and in a forked child: live views stay usable, and only they keep pages mapped."""

from __future__ import annotations

import contextlib
import gc
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import eal
import ivshmem
from tests.hotplug import EventLog, Lab, Metadata, until
from tests.multiprocess.child import in_child


@dataclass
class Life:
    """An Eal with an object of each kind: close functions by name, and views that may outlive the objects."""

    closings: dict[str, Callable[[], object]] = field(default_factory=dict)
    views: dict[str, Any] = field(default_factory=dict)

    def close(self, name: str) -> None:
        """Close the object `name`. EalError is allowed: the object may be in use or already closed."""
        with contextlib.suppress(eal.EalError):
            self.closings[name]()

    def touch(self) -> None:
        """Read and write through every view; an unmapped page raises SIGSEGV."""
        for view in self.views.values():
            array = np.frombuffer(view, np.uint8) if isinstance(view, memoryview) else view
            array.reshape(-1)[:1] = array.reshape(-1)[-1:]

    def drop(self, name: str) -> None:
        self.views.pop(name, None)


def open_host(prefix: str) -> Life:
    made = eal.init(["--no-pci"], file_prefix=prefix, proc_type="primary", no_huge=True)
    zone = made.array_reserve("zone", (8, 8), "<u4")
    ring = made.ring_create("ring", 16, flags=eal.RingFlag.SP_ENQ | eal.RingFlag.SC_DEQ)
    pool = made.mempool_create("pool", 64, 32, cache_size=8)
    mbufs = made.pktmbuf_pool_create("mbufs", 16)
    loose = made.memzone_reserve("loose", 4096, group="other")
    metadata = ivshmem.metadata_create("vm0")
    metadata.add_memzone(zone)
    metadata.add_ring(ring)
    assert pool.get() is not None
    burst = ring.burst(4)
    burst.enqueue(4)
    put, got = ring.enqueue_zc(3), ring.dequeue_zc(2)
    put.__enter__()
    got.__enter__()
    life = Life()
    life.closings = {
        "eal": made.close,
        "metadata": metadata.close,
        "zone": lambda: made.memzone_free(zone),
        "loose": lambda: made.memzone_free(loose),
        "ring": lambda: made.ring_free(ring),
        "pool": lambda: made.mempool_free(pool),
        "mbufs": lambda: made.mempool_free(mbufs),
        "put": lambda: put.__exit__(None, None, None),
        "got": lambda: got.__exit__(None, None, None),
        "burst": lambda: burst.enqueue(2),
    }
    life.views = {
        "array": zone.array(),
        "buf": loose.buf,
        "slice": zone.buf[5:9],
        "burst": burst.array,
        "put": put.first,
        "got": got.first,
        "pool": pool.array,
        "records": pool.view("<u8", (4,))[3:5],
        "mbufs": mbufs.data,
    }
    return life


def open_guest(lab: Any, prefix: str) -> Life:
    """Open a guest on an emulated bus, with the hotplug monitor and both forms of watch."""
    made = eal.init(file_prefix=prefix, no_huge=True, sysfs_root=lab.root)
    log = EventLog()
    watch, other = made.watch(log), made.watch()
    until(lambda: made.shares)
    zone, ring = made.memzone_lookup("vm0 zone"), made.ring_lookup("vm0 ring")
    pool = made.mempool_lookup("vm0 pool")
    burst = ring.burst(4)
    taken = pool.get()
    assert taken is not None
    pool.put(taken)
    life = Life()
    life.closings = {
        "eal": made.close,
        "watch": watch.close,
        "other": other.close,
        "burst": lambda: burst.enqueue(2),
        "pool": lambda: pool.put(taken),
    }
    life.views = {"buf": zone.buf, "array": zone.array("<u4"), "burst": burst.array, "pool": pool.array}
    return life


HOST = ["eal", "metadata", "zone", "loose", "ring", "pool", "mbufs", "put", "got", "burst"]
HOST_VIEWS = ["array", "buf", "slice", "burst", "put", "got", "pool", "records", "mbufs"]
GUEST = ["eal", "watch", "other", "burst", "pool"]
GUEST_VIEWS = ["buf", "array", "burst", "pool"]


@st.composite
def orders(draw: st.DrawFn, closings: list[str], views: list[str]) -> list[str]:
    """Draw an order of steps: close each object twice, drop each view once, fork once."""
    words = [f"close {name}" for name in closings * 2] + [f"drop {name}" for name in views]
    return draw(st.permutations([*words, "fork"]))


def held() -> tuple[int, int]:
    """Return the numbers of open descriptors and of threads of this process."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def mapped(*words: str) -> list[str]:
    """Return the lines of /proc/self/maps that contain one of `words`."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if any(word in line for word in words)]


def check_run(make: Callable[[], Life], words: list[str], files: tuple[str, ...]) -> None:
    """Run the steps in this process and check that no mapping, descriptor or thread remains."""
    warnings.simplefilter("ignore")
    gc.freeze()  # exclude the objects of the parent from collection
    before, others = held(), mapped(*files)  # this process also maps the host side of the lab
    run_steps(make, words, files)
    gc.collect()
    assert mapped(*files) == others
    until(lambda: held() == before)  # a joined thread disappears from /proc with a delay


def run_steps(make: Callable[[], Life], words: list[str], files: tuple[str, ...]) -> None:
    before = len(mapped(*files))
    life = make()
    assert len(mapped(*files)) > before
    for at, word in enumerate(words):
        if word == "fork":
            rest = words[at + 1 :]
            in_child(partial(run_rest_in_child, life, rest, files))
        else:
            run_step(life, word)
        life.touch()
    assert not life.views


def run_step(life: Life, word: str) -> None:
    verb, _, name = word.partition(" ")
    (life.close if verb == "close" else life.drop)(name)


def run_rest_in_child(life: Life, words: list[str], files: tuple[str, ...]) -> None:
    """Run the remaining steps in a child: closing inherited objects removes no file of the parent."""
    before = {path for path in Path("/dev/shm").iterdir() if any(word in path.name for word in files)}
    for word in words:
        run_step(life, word)
        life.touch()
    assert before <= set(Path("/dev/shm").iterdir())


ORDERS = settings(
    max_examples=20,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # no shrinking: each example is slow
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@ORDERS
@given(words=orders(HOST, HOST_VIEWS))
def test_host_close_in_any_order_leaves_no_files_or_mappings(words: list[str], runtime_dir: Path, prefix: str) -> None:
    in_child(lambda: check_run(lambda: open_host(prefix), words, (f".{prefix}.", str(runtime_dir))))
    assert [name for name in os.listdir("/dev/shm") if f".{prefix}." in name] == []
    assert list(runtime_dir.iterdir()) == []


@pytest.fixture
def plugged(tmp_path: Path) -> Iterator[tuple[Lab, Metadata]]:
    lab = Lab(tmp_path)
    vm0 = lab.metadata("vm0")
    lab.plug_all(vm0)
    yield lab, vm0
    for segment in vm0.segments:
        segment.close()


@settings(ORDERS, max_examples=10)
@given(words=orders(GUEST, GUEST_VIEWS))
def test_guest_close_in_any_order_leaves_no_files_or_mappings(
    words: list[str], runtime_dir: Path, prefix: str, plugged: tuple[Lab, Metadata]
) -> None:
    lab, vm0 = plugged
    in_child(
        lambda: check_run(lambda: open_guest(lab, prefix), words, (f".{prefix}.", str(runtime_dir), str(lab.folder)))
    )
    assert vm0.monitor_slots() == []
    assert vm0.segments[0].participants() == []
    assert list(runtime_dir.iterdir()) == []
