# SPDX-License-Identifier: BSD-3-Clause
"""The placement check of running VMs and host applications, with a fake QMP server."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ivshmem.hotplug.qmp
from eal.errors import NotFound, Stalled
from eal.topology import Topology
from eal.topology.facts import PinnedThread
from eal.topology.tree import Tree
from ivshmem.placement import (
    Memory,
    RunningApp,
    RunningVm,
    SharedFile,
    Vcpu,
    check,
    read_apps,
    read_vm,
    shared_files,
    violations,
)
from tests.machines import SHAPES, put, regular

SEGMENT = "/dev/hugepages/ivshmem_segment"


@pytest.fixture
def topology(tmp_path: Path) -> Topology:
    """Return a topology of two nodes, where CPUs n and n + 8 are hyperthreads of one core."""
    return Topology(SHAPES["two-sockets-smt"]().write(tmp_path / "machine"))


def vm(**changes: Any) -> RunningVm:
    """Return a VM that keeps the rules, with changes: vCPUs on CPUs 4 and 12, memory on node 1, one segment."""
    valid = RunningVm(
        "web",
        100,
        (Vcpu(0, 101, (4,)), Vcpu(1, 102, (12,))),
        (Memory("ram", 1 << 30, "bind", (1,)),),
        (SharedFile(SEGMENT, ((1, 512),)),),
    )
    return replace(valid, **changes)


def app(*cpus: int, **changes: Any) -> RunningApp:
    """Return a host application with a polling lcore on each of these CPUs."""
    lcores = tuple(PinnedThread(200, 200 + cpu, "app.py", "python3", "app", (cpu,)) for cpu in cpus)
    return replace(RunningApp(200, "app.py", lcores, (SharedFile(SEGMENT, ((1, 512),)),)), **changes)


def broken(topology: Topology, *running: RunningVm | RunningApp) -> list[str]:
    """Return the texts of the broken rules."""
    vms = [each for each in running if isinstance(each, RunningVm)]
    apps = [each for each in running if isinstance(each, RunningApp)]
    return [str(each) for each in violations(topology, vms, apps)]


def test_valid_placement_breaks_no_rule(topology: Topology) -> None:
    assert broken(topology, vm(), app(5, 6)) == []


def test_unpinned_vcpu_breaks_pinned(topology: Topology) -> None:
    assert broken(topology, vm(vcpus=(Vcpu(0, 101, (4, 5, 12)), Vcpu(1, 102, (6,))))) == [
        "web vCPU 0: may run on CPUs 4-5,12; pin it to one: taskset -pc CPU 101 [pinned]"
    ]


def test_vcpus_on_two_nodes_break_one_node(topology: Topology) -> None:
    assert broken(topology, vm(vcpus=(Vcpu(0, 101, (0,)), Vcpu(1, 102, (4,))))) == [
        "web: its vCPUs may run on nodes 0-1; pin them to CPUs of one node [one-node]"
    ]


@pytest.mark.parametrize(
    ("policy", "nodes", "text"),
    [("default", (), "memory ram is not bound"), ("bind", (0,), "memory ram is on nodes 0, its vCPUs on 1")],
)
def test_unbound_or_remote_memory_breaks_one_node(
    topology: Topology, policy: str, nodes: tuple[int, ...], text: str
) -> None:
    (found,) = broken(topology, vm(memory=(Memory("ram", 1 << 30, policy, nodes),)))
    assert text in found
    assert "[one-node]" in found


def test_two_users_of_cpu_break_one_user(topology: Topology) -> None:
    found = broken(topology, vm(), vm(name="db", vcpus=(Vcpu(0, 301, (4,)),)), app(12, 5))
    assert "web vCPU 0 and db vCPU 0: share CPU 4; pin each to a CPU of its own [one-user]" in found
    assert "web vCPU 1 and app.py lcore 212: share CPU 12; pin each to a CPU of its own [one-user]" in found


def test_lcore_and_vcpu_on_one_core_break_siblings(topology: Topology) -> None:
    assert broken(topology, vm(vcpus=(Vcpu(0, 101, (4,)),)), app(12)) == [
        "app.py lcore 212 and web vCPU 0: poll and run on CPUs 12 and 4, hyperthreads of one core; "
        "pin one of them to another core [siblings]"
    ]


def test_lcores_on_other_node_than_vm_break_near(topology: Topology) -> None:
    (found,) = broken(topology, vm(), app(0))
    text = "shares memory with web on node 1, but none of its lcores polls there; pin one to a CPU of node 1"
    assert found == f"app.py: {text} [near]"
    assert broken(topology, vm(files=()), app(0)) == []


def test_segment_pages_on_other_node_than_vm_break_near(topology: Topology) -> None:
    files = (SharedFile(SEGMENT, ((0, 12), (1, 500))),)
    (found,) = broken(topology, vm(files=files), app(5, files=files))
    assert f"12 pages of {SEGMENT} are on nodes 0, web on 1; reserve with socket_id=1 [near]" in found


def test_machine_with_one_node_keeps_node_rules(tmp_path: Path) -> None:
    one = Topology(regular(1, 4, 1).write(tmp_path))
    unbound = vm(vcpus=(Vcpu(0, 101, (0,)), Vcpu(1, 102, (1,))), memory=(Memory("ram", 1 << 30, "default", ()),))
    assert broken(one, unbound, app(2)) == []


# --- reading ------------------------------------------------------------------------------------------------

MAPS = f"""\
7f00-7f10 rw-s 00000000 00:2a 7 {SEGMENT}
7f10-7f20 r--s 00000000 00:2a 8 /dev/shm/read only
7f20-7f30 rw-p 00000000 00:2a 9 /usr/lib/private.so
7f30-7f40 rw-s 00000000 00:01 0 anon_inode:kvm
"""
NUMA_MAPS = f"""\
7f00 bind:1 file={SEGMENT} huge dirty=512 N0=2 N1=510 kernelpagesize_kB=2048
7f10 default file=/dev/shm/read\\040only mapped=1 N0=1
7f20 default file=/usr/lib/private.so mapped=9 N0=9
"""


def test_shared_files_lists_pages_by_node(topology: Topology, tmp_path: Path) -> None:
    put(tmp_path / "machine/proc/100/maps", MAPS)
    put(tmp_path / "machine/proc/100/numa_maps", NUMA_MAPS)
    assert shared_files(topology.tree, 100) == (
        SharedFile(SEGMENT, ((0, 2), (1, 510))),
        SharedFile("/dev/shm/read only", ((0, 1),)),
    )


def test_read_apps_counts_pinned_threads_as_lcores(topology: Topology, tmp_path: Path) -> None:
    proc = tmp_path / "machine/proc/200"
    put(proc / "cmdline", "python3\0/srv/app.py")
    put(proc / "maps", "7f00-7f01 r-xp 0 0:0 1 /venv/lib/eal/_native.abi3.so\n")
    for tid, cpus in ((200, "0-15"), (201, "5"), (202, "6")):
        put(proc / f"task/{tid}/status", f"Name:\tpython3\nCpus_allowed_list:\t{cpus}\n")
    (found,) = read_apps(topology.tree, None)
    assert (found.program, [thread.cpus for thread in found.lcores]) == ("app.py", [(5,), (6,)])
    with pytest.raises(NotFound, match="process 999"):
        read_apps(topology.tree, [999])


@pytest.fixture
def qmp(tmp_path: Path) -> Iterator[Callable[[dict[str, dict[str, object]]], str]]:
    """Return a function that starts a QMP server, which sends an event before each of the prepared answers."""
    servers: list[socket.socket] = []

    def serve(answers: dict[str, dict[str, object]]) -> str:
        path = str(tmp_path / f"qmp{len(servers)}")
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen()
        servers.append(server)

        def answer_requests() -> None:
            connection, _ = server.accept()
            with connection:
                greeting = {"QMP": {"version": {"qemu": {}, "package": ""}, "capabilities": []}}
                connection.sendall(json.dumps(greeting).encode() + b"\n")
                while request := connection.recv(65536):  # the client sends one request at a time
                    command = json.loads(request)
                    if command["execute"] != "qmp_capabilities":  # QEMU sends no events before this command
                        connection.sendall(b'{"event": "RESUME", "timestamp": {"seconds": 1, "microseconds": 0}}\n')
                    answer = {**answers[command["execute"]], "id": command.get("id")}
                    connection.sendall(json.dumps(answer).encode() + b"\n")

        threading.Thread(target=answer_requests, daemon=True).start()
        return path

    yield serve
    for server in servers:
        server.close()


ANSWERS: dict[str, dict[str, object]] = {
    "qmp_capabilities": {"return": {}},
    "query-name": {"return": {"name": "web"}},
    "query-cpus-fast": {"return": [{"cpu-index": 0, "thread-id": os.getpid(), "target": "x86_64"}]},
    "query-memdev": {"return": [{"id": "ram-web", "size": 64, "policy": "bind", "host-nodes": [1]}]},
}


def test_read_vm_returns_vcpus_and_memory(qmp: Callable[[dict[str, dict[str, object]]], str]) -> None:
    found = read_vm(qmp(ANSWERS), Tree())
    assert (found.name, found.pid) == ("web", os.getpid())
    assert found.memory == (Memory("ram-web", 64, "bind", (1,)),)
    assert [(vcpu.index, vcpu.tid) for vcpu in found.vcpus] == [(0, os.getpid())]


def test_check_missing_qmp_socket_raises_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="missing"):
        check([tmp_path / "missing"])


def test_check_busy_qmp_socket_raises_stalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ivshmem.hotplug.qmp, "TIMEOUT", 0.1)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "busy"))
        server.listen()
        with pytest.raises(Stalled, match="another client"):
            check([tmp_path / "busy"])
