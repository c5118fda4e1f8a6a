# SPDX-License-Identifier: BSD-3-Clause
"""eal.memory.numa: segments bound to a NUMA node."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import eal
from eal._native import lib
from eal.memory import numa
from eal.text.sizes import MIB


def test_zone_on_node_is_bound_to_it(primary: eal.Eal) -> None:
    zone = primary.memzone_reserve("z", 64, socket_id=0)
    assert (zone.socket_id, zone.host_socket_id, zone.segment.socket_id) == (0, 0, 0)
    assert lib.ivs_node_of(zone.address) == 0
    policies = Path("/proc/self/numa_maps").read_text()
    (line,) = [line for line in policies.splitlines() if line.startswith(f"{zone.segment.address:08x} ")]
    assert "bind:0" in line
    anywhere = primary.memzone_reserve("y", 64)
    assert anywhere.segment is zone.segment  # without socket_id any segment is suitable


def test_zone_on_node_is_not_placed_in_unbound_segment(primary: eal.Eal) -> None:
    anywhere = primary.memzone_reserve("y", 64)
    assert primary.memzone_reserve("z", 64, socket_id=0).segment is not anywhere.segment
    assert len(primary.segments()) == 2


@pytest.mark.parametrize("socket_id", [99, 1023, 1024, 1 << 40, -2])
def test_missing_node_raises_invalid_and_leaves_no_file(primary: eal.Eal, socket_id: int) -> None:
    with pytest.raises(eal.Invalid, match=rf"got {socket_id}|socket_id {socket_id}"):
        primary.memzone_reserve("z", 64, socket_id=socket_id)
    assert (primary.segments(), primary.memzones()) == ([], [])
    assert [name for name in os.listdir("/dev/shm") if primary.file_prefix in name] == []


def test_pages_allocated_on_another_node_raise_no_memory(primary: eal.Eal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numa, "nodes_with_memory", lambda: {0, 1})
    monkeypatch.setattr(numa, "bind", lambda *_: None)
    message = r"512 pages of 4 KiB .* on NUMA node 1, .*\(512 pages were allocated on other NUMA nodes"
    with pytest.raises(eal.NoMemory, match=message):
        primary.memzone_reserve("z", 64, socket_id=1)
    assert (primary.segments(), primary.memzones()) == ([], [])
    assert [name for name in os.listdir("/dev/shm") if primary.file_prefix in name] == []


def test_missing_node_error_lists_nodes_with_memory(primary: eal.Eal) -> None:
    with pytest.raises(eal.Invalid, match=r"^socket_id must be a NUMA node with memory \(0.*\), got 7"):
        primary.segment_create(2 * MIB, socket_id=7)
