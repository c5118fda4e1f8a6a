# SPDX-License-Identifier: BSD-3-Clause
"""Topology: expected values for every machine of SHAPES, malformed trees, and this machine."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from eal.errors import Invalid, NotFound
from eal.topology.model import Topology, lcores, pin, socket_id_of
from tests.machines import SHAPES

GIB = 1 << 30

# Shape -> CPU -> (core, socket, node), None for an offline CPU.
EXPECTED = {
    "one-core": {0: (0, 0, 0)},
    "two-sockets-smt": {
        **{cpu: (cpu % 8, cpu % 8 // 4, cpu % 8 // 4) for cpu in range(16)},
    },
    "sub-numa-clusters": {cpu: (cpu, cpu // 4, cpu // 2) for cpu in range(8)},
    "power-smt8": {cpu: (cpu // 8, cpu // 16, cpu // 16) for cpu in range(32)},
    "holes-in-numbering": {cpu: (cpu // 2, cpu // 8, cpu // 8) for cpu in range(0, 16, 2)},
    "offline-cpus": {
        0: (0, 0, 0),
        1: None,
        2: (1, 0, 0),
        3: (1, 0, 0),
        4: None,
        5: None,
        6: (2, 1, 1),
        7: (2, 1, 1),
    },
    "memory-only-nodes": {cpu: (cpu, 0, 0) for cpu in range(4)},
    "node-without-memory": {cpu: (cpu, cpu // 2, cpu // 2) for cpu in range(4)},
    "kernel-without-numa": {cpu: (cpu // 2, 0, 0) for cpu in range(4)},
    "hybrid": {
        0: (0, 0, 0),
        1: (0, 0, 0),
        2: (1, 0, 0),
        3: (1, 0, 0),
        4: (2, 0, 0),
        5: (3, 0, 0),
        6: (4, 0, 0),
    },
    "cgroup-v2": {cpu: (cpu, cpu // 2, cpu // 2) for cpu in range(4)},
    "cgroup-v1": {cpu: (cpu, cpu // 2, cpu // 2) for cpu in range(4)},
    "repeated-core-ids": {0: (0, 0, 0), 1: (0, 0, 0), 2: (1, 1, 1), 3: (1, 1, 1)},
    "compute-units": {cpu: (cpu, 0, 0) for cpu in range(4)},
    "masks-against-core-ids": {cpu: (cpu // 2, 0, 0) for cpu in range(4)},
    "ids-without-masks": {cpu: (cpu // 2, cpu // 4, cpu // 4) for cpu in range(8)},
    "no-topology-files": {0: (0, 0, 0), 1: (1, 0, 0), 2: (None, None, 0), 3: (None, None, 0)},
}


def test_expected_covers_every_shape() -> None:
    assert EXPECTED.keys() == SHAPES.keys()


@pytest.mark.parametrize("shape", EXPECTED)
def test_cpus_of_shape_match_expected_numbers(shape: str, tmp_path: Path) -> None:
    topology = Topology(SHAPES[shape]().write(tmp_path))
    found = {cpu.cpu: (cpu.core, cpu.socket, cpu.node) if cpu.online else None for cpu in topology.cpus}
    assert found == EXPECTED[shape]
    assert all(not cpu.online for cpu in topology.cpus if found[cpu.cpu] is None)


@pytest.mark.parametrize("shape", EXPECTED)
def test_sockets_nodes_and_cores_contain_their_cpus(shape: str, tmp_path: Path) -> None:
    topology = Topology(SHAPES[shape]().write(tmp_path))
    online = {cpu.cpu: cpu for cpu in topology.cpus if cpu.online}
    for core in topology.cores:
        assert {online[cpu].core for cpu in core.cpus} == {core.core}
    for socket in topology.sockets:
        assert {online[cpu].socket for cpu in socket.cpus} == {socket.socket}
        assert set(socket.nodes) == {online[cpu].node for cpu in socket.cpus}
    assert sorted(cpu for node in topology.nodes for cpu in node.cpus) == sorted(online)


@pytest.mark.parametrize("below", ["", "sys"])
def test_open_capture_accepts_root_or_sys(below: str, tmp_path: Path) -> None:
    SHAPES["offline-cpus"]().write(tmp_path)
    assert [node.cpus for node in Topology(tmp_path / below).nodes] == [(0, 2, 3), (6, 7)]


def test_nodes_without_cpus_keep_sparse_numbers(tmp_path: Path) -> None:
    topology = Topology(SHAPES["memory-only-nodes"]().write(tmp_path))
    assert [(node.node, node.cpus, node.memory) for node in topology.nodes] == [
        (0, (0, 1, 2, 3), GIB),
        (7, (), 16 * GIB),
        (64, (), 16 * GIB),
    ]
    assert topology.distances[64][7] == 20


def test_node_0_of_kernel_without_numa_has_all_memory(tmp_path: Path) -> None:
    (node,) = Topology(SHAPES["kernel-without-numa"]().write(tmp_path)).nodes
    assert (node.memory, node.free) == (GIB, GIB // 2)


def test_available_memory_includes_page_cache(tmp_path: Path) -> None:
    SHAPES["one-core"]().write(tmp_path)
    lines = {"MemTotal": 8000, "MemFree": 1000, "FilePages": 4000, "Shmem": 500, "SReclaimable": 100}
    text = "".join(f"Node 0 {name}: {kib} kB\n" for name, kib in lines.items())
    (tmp_path / "sys/devices/system/node/node0/meminfo").write_text(text)
    (node,) = Topology(tmp_path).nodes
    assert (node.memory, node.free, node.available) == (8000 << 10, 1000 << 10, 4600 << 10)


def test_hugepages_are_listed_by_node_and_size(tmp_path: Path) -> None:
    machine = replace(
        SHAPES["two-sockets-smt"](), hugepages={0: {2 << 20: (8, 3), 1 << 30: (1, 0)}, 1: {2 << 20: (0, 0)}}
    )
    first, second = Topology(machine.write(tmp_path)).nodes
    assert [(pool.size, pool.total, pool.free) for pool in first.hugepages] == [
        (2 << 20, 8, 3),
        (1 << 30, 1, 0),
    ]
    assert [(pool.size, pool.total, pool.free) for pool in second.hugepages] == [(2 << 20, 0, 0)]


def test_distances_match_slit(tmp_path: Path) -> None:
    machine = replace(SHAPES["two-sockets-smt"](), distances={0: (10, 31), 1: (32, 10)})
    distances = Topology(machine.write(tmp_path)).distances
    assert {a: dict(row) for a, row in distances.items()} == {0: {0: 10, 1: 31}, 1: {0: 32, 1: 10}}


def test_distance_row_of_wrong_length_falls_back_to_10_and_20(tmp_path: Path) -> None:
    machine = replace(SHAPES["two-sockets-smt"](), distances={0: (10, 31, 31)})
    assert Topology(machine.write(tmp_path)).distances[0] == {0: 10, 1: 20}


def test_shared_caches_are_listed_once(tmp_path: Path) -> None:
    caches = Topology(SHAPES["two-sockets-smt"]().write(tmp_path)).caches
    assert [(cache.name, cache.size, cache.cpus) for cache in caches] == [
        ("L3", 8 << 20, (0, 1, 2, 3, 8, 9, 10, 11)),
        ("L3", 8 << 20, (4, 5, 6, 7, 12, 13, 14, 15)),
    ]


@pytest.mark.parametrize(("shape", "allowed"), [("cgroup-v2", [1, 2]), ("cgroup-v1", [0, 3]), ("one-core", [0])])
def test_allowed_cpus_of_capture_follow_its_cpuset(shape: str, allowed: list[int], tmp_path: Path) -> None:
    topology = Topology(SHAPES[shape]().write(tmp_path))
    assert [cpu.cpu for cpu in topology.cpus if cpu.allowed] == allowed
    assert [lcore.cpu for lcore in topology.lcores()] == allowed


def test_allowed_cpus_fall_back_to_parent_cgroup(tmp_path: Path) -> None:
    SHAPES["cgroup-v2"]().write(tmp_path)
    (tmp_path / "proc/self/cgroup").write_text("0::/vms/web/vcpus\n")
    assert [cpu.cpu for cpu in Topology(tmp_path).cpus if cpu.allowed] == [1, 2]


def test_capture_padded_with_nul_bytes_is_read(tmp_path: Path) -> None:
    SHAPES["two-sockets-smt"]().write(tmp_path)
    for path in (tmp_path / "sys").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes().ljust(4096, b"\0"))
    assert [node.cpus for node in Topology(tmp_path).nodes] == [
        (0, 1, 2, 3, 8, 9, 10, 11),
        (4, 5, 6, 7, 12, 13, 14, 15),
    ]


def test_old_kernel_without_cpu_lists_uses_directories(tmp_path: Path) -> None:
    """Kernels before 2.6.30 have neither `present` nor `online`, only a directory per CPU."""
    SHAPES["offline-cpus"]().write(tmp_path)
    for name in ("possible", "present", "online"):
        (tmp_path / "sys/devices/system/cpu" / name).unlink()
    (tmp_path / "sys/devices/system/node/online").unlink()
    topology = Topology(tmp_path)
    assert [cpu.cpu for cpu in topology.cpus if cpu.online] == [0, 2, 3, 6, 7]
    assert [node.cpus for node in topology.nodes] == [(0, 2, 3), (6, 7)]


def test_lcores_from_mapping_are_sorted_by_id(tmp_path: Path) -> None:
    topology = Topology(SHAPES["sub-numa-clusters"]().write(tmp_path))
    assert [(lcore.lcore_id, lcore.cpu, lcore.socket_id) for lcore in topology.lcores({0: 6, 1: 2})] == [
        (0, 6, 3),
        (1, 2, 1),
    ]
    assert [lcore.cpu for lcore in topology.lcores([5, 1])] == [1, 5]


@pytest.mark.parametrize(("cpu", "error", "words"), [(9, NotFound, "one of 0-7"), (1, Invalid, "offline")])
def test_lcores_missing_or_offline_cpu_raises(cpu: int, error: type[Exception], words: str, tmp_path: Path) -> None:
    topology = Topology(SHAPES["offline-cpus"]().write(tmp_path))
    with pytest.raises(error, match=words):
        topology.lcores([0, cpu])


def test_lcores_cpu_outside_cpuset_raises_invalid(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"\(1-2\), got 0"):
        Topology(SHAPES["cgroup-v2"]().write(tmp_path)).lcores([0])


def test_socket_id_of_cpu_without_node_is_0(tmp_path: Path) -> None:
    SHAPES["two-sockets-smt"]().write(tmp_path)
    (tmp_path / "sys/devices/system/node/online").write_text("0\n")
    topology = Topology(tmp_path)
    assert topology.cpu(4).node is None
    assert topology.socket_id_of(4) == 0


def test_siblings_returns_hyperthreads_of_core(tmp_path: Path) -> None:
    topology = Topology(SHAPES["two-sockets-smt"]().write(tmp_path))
    assert topology.siblings(13) == (5, 13)
    bare = Topology(SHAPES["no-topology-files"]().write(tmp_path / "bare"))
    assert bare.siblings(3) == (3,)


def test_open_tree_without_cpus_raises_not_found_with_path(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=str(tmp_path)):
        Topology(tmp_path)


def test_open_malformed_mask_raises_invalid_with_file(tmp_path: Path) -> None:
    SHAPES["one-core"]().write(tmp_path)
    (tmp_path / "sys/devices/system/cpu/cpu0/topology/core_siblings").write_text("zz\n")
    with pytest.raises(Invalid, match="core_siblings"):
        Topology(tmp_path)


# --- this machine -------------------------------------------------------------------------------------------


def test_lcores_default_to_affinity_of_process() -> None:
    assert {lcore.cpu for lcore in lcores()} == os.sched_getaffinity(0)
    assert all(lcore.socket_id == socket_id_of(lcore.cpu) for lcore in lcores())


def test_pin_affects_calling_thread_only() -> None:
    cpu = max(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    affinity: list[set[int]] = []

    def pin_and_record() -> None:
        pin(cpu)
        affinity.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=pin_and_record)
    thread.start()
    thread.join()
    assert affinity == [{cpu}]
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("cpu", [100_000, -1])
def test_pin_missing_cpu_raises_not_found(cpu: int) -> None:
    with pytest.raises(NotFound, match=f"got {cpu}"):
        pin(cpu)
