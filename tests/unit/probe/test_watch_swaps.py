# SPDX-License-Identifier: BSD-3-Clause
"""Mappings that are replaced under running threads: no crash, no store to other memory, other shares unaffected."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eal
from eal.linux.mapping import Mapping
from tests.hotplug import EventLog

SWAPS = 500
ROUNDS = 50


def mapped(path: Path) -> Mapping:
    with path.open("r+b") as file:
        return Mapping(file.fileno(), path.stat().st_size)


def test_five_hundred_swaps_under_readers_and_writers(tmp_path: Path) -> None:
    """Pages of a file are mapped and unmapped under views; a store reaches the file or no memory at all."""
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    ended = threading.Event()
    current: list[Any] = [mapped(path)]

    def read() -> int:
        times = 0
        while not ended.is_set():
            np.frombuffer(views[0], np.uint8).sum()
            times += 1
        return times

    def write() -> int:
        times = 0
        while not ended.is_set():
            np.frombuffer(views[0], np.uint8)[:] = 1
            times += 1
        return times

    views = [current[0].view()]
    with ThreadPoolExecutor(4) as threads:
        work = [threads.submit(job) for job in (read, write, read, write)]
        for number in range(SWAPS):
            if number % 2:
                current[0].detach()
                current[0] = mapped(path)
                views[0] = current[0].view()
            else:
                current[0].replace(mapped(path))
        ended.set()
        assert all(job.result(60) > 0 for job in work)
    assert set(path.read_bytes()) <= {0, 1}


def test_detached_mapping_keeps_its_range_and_is_unmapped_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 4096)
    mapping = mapped(path)
    view = mapping.view()
    mapping.detach()
    mapping.detach()
    assert bytes(view) == bytes(4096)
    view[:] = b"y" * 4096
    assert path.read_bytes() == b"x" * 4096
    with pytest.raises(eal.Detached, match="unplugged"):
        mapping.view()
    address = f"{mapping.address:x}-"
    assert address in Path("/proc/self/maps").read_text()
    del view
    assert address not in Path("/proc/self/maps").read_text()
    mapping.detach()  # nothing is mapped over a range that another mapping may use
    assert address not in Path("/proc/self/maps").read_text()


def test_replaced_mapping_shows_the_other_file(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1" * 4096)
    two.write_bytes(b"2" * 4096)
    mapping, other = mapped(one), mapped(two)
    view, left = mapping.view(), f"{other.address:x}-"
    mapping.replace(other)
    assert bytes(view[:1]) == b"2"
    view[:1] = b"3"
    assert (one.read_bytes()[:1], two.read_bytes()[:1]) == (b"1", b"3")
    assert left not in Path("/proc/self/maps").read_text()
    with pytest.raises(eal.Closed):
        other.view()


def exchange(ring: eal.Ring, host: eal.Ring, ended: threading.Event) -> int:
    """Send numbers through a ring; its host dequeues each before the next is sent."""
    number = 0
    while not ended.is_set():
        assert ring.enqueue(number)
        assert host.dequeue() == number
        number += 1
    return number


def work_until_detached(ring: eal.Ring, pool: eal.Mempool, array: Any) -> str:
    """Use everything of vm0 as fast as possible until the event unplugged."""
    indices = np.zeros(4, np.uint32)
    try:
        burst = ring.burst(8)
        while True:
            array += 1
            burst.enqueue(8)
            burst.dequeue()
            if pool.get_bulk(indices):
                pool.put_bulk(indices)
    except eal.Detached as error:
        return str(error)


def test_fifty_plugs_with_data_flowing_on_another_share(lab: Any, guest: Callable[..., eal.Eal]) -> None:
    """Every second unplug is a surprise removal; the slots stay the same, the content differs each time."""
    stays = lab.metadata("stays")
    lab.plug_all(stays)
    ended = threading.Event()
    with guest() as made, made.watch(log := EventLog()), ThreadPoolExecutor(3) as threads:
        ring = made.ring_lookup("stays ring")
        flow = threads.submit(exchange, ring, stays.ring("stays ring"), ended)
        old: list[memoryview] = []
        try:
            for number in range(ROUNDS):
                metadata = lab.metadata("vm0")
                segment = lab.plug(metadata.segments[0].path, "0000:02:01.0")
                metadata.addresses = [lab.plug(metadata.path, "0000:02:02.0"), segment]
                log.next("plugged", 10)
                assert not any(any(view[:64]) for view in old)
                old = [made.memzone_lookup("vm0 zone").buf[2048:]]
                old[0][:64] = metadata.zone("vm0 zone").buf[2048 : 2048 + 64] = b"this round's" + bytes(52)
                objects = (made.ring_lookup("vm0 ring"), made.mempool_lookup("vm0 pool"))
                array = made.memzone_lookup("vm0 zone").array(np.uint32, 512)
                jobs = [threads.submit(work_until_detached, *objects, array) for _ in range(2)]
                if number % 2:
                    lab.pull(*metadata.addresses)
                else:
                    lab.unplug(metadata)
                log.next("unplugged", 10)
                assert all(job.result(10) for job in jobs)
                assert bytes(metadata.zone("vm0 zone").buf[2048 : 2048 + 12]) == b"this round's"
        finally:
            ended.set()
        assert flow.result(10) > ROUNDS
        assert [share.name for share in made.shares] == ["stays"]
