# SPDX-License-Identifier: BSD-3-Clause
"""Segments at the addresses of the host: 20 applications at random addresses in one boot, with these free or in use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import eal
import ivshmem

RUNS = 20
ELSEWHERE = 0x3300_0000_0000


@pytest.fixture
def elsewhere(runtime_dir: Any, prefix: str) -> Iterator[eal.Eal]:
    """This process as a primary whose segments start at base_virtaddr."""
    argv = ["--no-pci", "--base-virtaddr", hex(ELSEWHERE)]
    with eal.init(argv, file_prefix=prefix, proc_type="primary", no_huge=True) as made:
        yield made


def run(guest: Callable[..., Any], runs: int) -> list[dict[str, Any]]:
    """Return the report of each application in one guest; two groups, so that there are two segments to place."""
    metadata = ivshmem.metadata_create("vm0")
    for name, group in (("text", "default"), ("more", "other")):
        zone = eal.memzone_reserve(name, 4096, group=group)
        zone.buf[:5] = b"hello"
        metadata.add_memzone(zone)
    metadata.add_ring(eal.ring_create("count", 16))
    metadata.add_mempool(eal.mempool_create("objects", 64, 64))
    for _ in range(4):
        eal.ring_lookup("count").enqueue(0)
    started = guest("addresses", metadata, arguments=[runs])
    found = [started.hear() for _ in range(runs)]
    assert started.end() == []
    counted = [eal.ring_lookup("count").dequeue() for _ in range(4)]
    assert sum(value for value in counted if isinstance(value, int)) == 2 * runs  # every application has worked twice
    pool = eal.mempool_lookup("objects")
    assert (pool.in_use, pool.audit().ok) == (0, True)
    return found


def check(found: list[dict[str, Any]]) -> None:
    free, taken = [app["free"] for app in found], [app["taken"] for app in found]
    assert {app["text"] for app in free + taken} == {"hello"}
    assert sum(len(app["relocated"]) for app in free) == 0
    assert all(len(app["relocated"]) == app["zones"] == 4 for app in taken)
    assert len({app["random"] for app in found}) > len(found) // 2  # the random addresses differ


@pytest.mark.parametrize("guest", [pytest.param("vm", marks=pytest.mark.vm)], indirect=True)
def test_twenty_applications_map_segments_at_the_hosts_addresses(primary: eal.Eal, guest: Callable[..., Any]) -> None:
    check(run(guest, RUNS))


@pytest.mark.parametrize("guest", ["emulated"], indirect=True)
def test_base_virtaddr_moves_the_hosts_segments(elsewhere: eal.Eal, guest: Callable[..., Any]) -> None:
    check(run(guest, 2))
    addresses = sorted(segment.address for segment in eal.segments())
    assert addresses[0] == ELSEWHERE
    assert all(ELSEWHERE <= address < ELSEWHERE + (1 << 30) for address in addresses)
