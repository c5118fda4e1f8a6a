# SPDX-License-Identifier: BSD-3-Clause
"""cpu-layout in VMs with several sockets and NUMA nodes, compared with lscpu and lstopo in the same VM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eal.topology.model import Topology
from eal.topology.placement.request import parse_spec
from eal.topology.placement.solver import solve
from eal.topology.placement.view_text import qemu_args, taskset
from ivshmem.placement import check
from ivshmem.vm.config import VmConfig
from ivshmem.vm.vm import VM, run

pytestmark = [pytest.mark.vm]

ROOT = Path(__file__).parents[2]
MIB = 1 << 20

# Runs in the guest and prints the output of the three tools as JSON, once per step.
PROBE = """
import json, subprocess, sys
import xml.etree.ElementTree as ElementTree

def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout

def cpus(mask):
    value = sum(int(word or "0", 16) << 32 * i for i, word in enumerate(reversed(mask.split(","))))
    return [bit for bit in range(value.bit_length()) if value >> bit & 1]

def lstopo():
    found = list(ElementTree.fromstring(run("lstopo-no-graphics", "--disallowed", "--of", "xml")).iter("object"))
    sets = lambda kind: sorted(cpus(o.get("cpuset")) for o in found if o.get("type") == kind)
    nodes = {o.get("os_index"): cpus(o.get("cpuset")) for o in found if o.get("type") == "NUMANode"}
    return {"cores": sets("Core"), "sockets": sets("Package"), "nodes": nodes}

rounds = []
for setup, prefix in json.loads(sys.argv[2]):
    subprocess.run(setup, shell=True, check=True)
    rounds.append({
        "layout": json.loads(run(*prefix.split(), sys.executable, "-I", sys.argv[1], "--json", "--pci")),
        "lscpu": [line.split() for line in run("lscpu", "-e=CPU,CORE,SOCKET,NODE,ONLINE").splitlines()[1:]],
        "lstopo": lstopo(),
    })
print(json.dumps(rounds))
"""


def probe(steps: list[tuple[str, str]], qemu_args: list[str], **options: Any) -> list[dict[str, Any]]:
    """Return the output of the tools in a guest for each step: (shell command to run first, prefix of cpu-layout)."""
    script = str(ROOT / "tools/cpu_layout.py")
    command = [sys.executable, "-I", "-c", PROBE, script, json.dumps(steps)]
    result = run(command, qemu_args=qemu_args, **options)
    assert result.status == 0, result.output
    return list(json.loads(result.output.splitlines()[-1]))


def check_against_lscpu_and_lstopo(output: dict[str, Any]) -> None:
    layout = output["layout"]
    keys = ("cpu", "core", "socket", "node")
    lines = [
        [*("-" if cpu[key] is None else str(cpu[key]) for key in keys), "yes" if cpu["online"] else "no"]
        for cpu in layout["cpus"]
    ]
    assert lines == output["lscpu"]
    assert sorted(core["cpus"] for core in layout["cores"]) == output["lstopo"]["cores"]
    assert sorted(socket["cpus"] for socket in layout["sockets"]) == output["lstopo"]["sockets"]
    assert {str(node["node"]): node["cpus"] for node in layout["nodes"]} == output["lstopo"]["nodes"]


def test_two_sockets_with_ivshmem_device_match_lscpu_and_lstopo(tmp_path: Path) -> None:
    """Three steps: all CPUs online, one CPU offline, and cpu-layout under taskset."""
    bar = tmp_path / "metadata"
    bar.write_bytes((b"IVSHMMET".ljust(40, b"\0") + b"camera").ljust(MIB, b"\0"))
    qemu_args = [
        *("-cpu", "max,vendor=GenuineIntel", "-smp", "8,sockets=2,cores=2,threads=2"),
        *("-object", "memory-backend-ram,id=m0,size=256M", "-object", "memory-backend-ram,id=m1,size=256M"),
        *("-numa", "node,nodeid=0,cpus=0-3,memdev=m0", "-numa", "node,nodeid=1,cpus=4-7,memdev=m1"),
        *("-numa", "dist,src=0,dst=1,val=31"),
        *("-device", "pxb-pcie,id=far,bus_nr=128,numa_node=1,bus=pcie.0"),
        *("-device", "pcie-root-port,id=slot1,bus=far,chassis=9"),
        *("-object", f"memory-backend-file,id=bar,size=1M,share=on,mem-path={bar}"),
        *("-device", "ivshmem-plain,memdev=bar,bus=slot1"),
    ]
    enable = "echo 1 > $(dirname $(grep -l 0x1110 /sys/bus/pci/devices/*/device))/enable"
    offline = "echo 0 > /sys/devices/system/cpu/cpu5/online"
    all_online, one_offline, pinned = probe([(enable, ""), (offline, ""), ("true", "taskset -c 2,6")], qemu_args, smp=8)

    for output in (all_online, one_offline, pinned):
        check_against_lscpu_and_lstopo(output)
    layout = all_online["layout"]
    assert [core["cpus"] for core in layout["cores"]] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert [node["cpus"] for node in layout["nodes"]] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert layout["distances"] == {"0": {"0": 10, "1": 31}, "1": {"0": 31, "1": 10}}
    ivshmem_devices = [(device["node"], device["metadata"]) for device in layout["pci"] if device["device"] == 0x1110]
    assert ivshmem_devices == [(1, "metadata 'camera'")]
    assert one_offline["layout"]["cpus"][5] == {"cpu": 5, "core": None, "socket": None, "node": None, "online": False}
    assert pinned["layout"]["allowed"] == [2, 6]


def test_nodes_without_cpus_match_lscpu_and_lstopo() -> None:
    qemu_args = []
    for node, cpus in enumerate((",cpus=0-1", "", ",cpus=2-3")):
        qemu_args += ["-object", f"memory-backend-ram,id=m{node},size=256M"]
        qemu_args += ["-numa", f"node,nodeid={node},memdev=m{node}{cpus}"]
    (output,) = probe([("true", "")], qemu_args, smp=4, memory=768)
    check_against_lscpu_and_lstopo(output)
    nodes = output["layout"]["nodes"]  # Linux numbers nodes without CPUs last
    assert [node["cpus"] for node in nodes] == [[0, 1], [2, 3], []]
    assert all(node["memory"] > 128 * MIB for node in nodes)


def test_one_cpu_matches_lscpu_and_lstopo() -> None:
    """VmConfig requires two CPUs, so a second -smp option, which takes precedence in QEMU, sets one."""
    (output,) = probe([("true", "")], ["-smp", "1"], smp=2)
    check_against_lscpu_and_lstopo(output)
    assert output["layout"]["cpus"] == [{"cpu": 0, "core": 0, "socket": 0, "node": 0, "online": True}]


def test_plan_applied_to_vm_passes_placement_check(tmp_path: Path) -> None:
    """QEMU accepts the options, the taskset command pins its vCPUs, and check() reports the state before and after."""
    usable = sum(cpu.allowed for cpu in Topology().cpus)
    plan = solve(Topology(), parse_spec(f"vm=web,vcpus={min(usable, 2)},memory=512M"))
    (placed,) = plan.placements
    qmp = tmp_path / "qmp"
    config = VmConfig(
        ["sh", "-c", "nproc; grep -c . /sys/devices/system/node/node0/cpumap; sleep 300"],
        smp=2,
        qmp=qmp,
        qemu_args=qemu_args(placed),
    )
    with VM(config) as vm:
        lines = vm.lines()
        assert next(lines) == str(len(placed.vcpus))
        assert next(lines) == "1"
        assert {each.rule for each in check([qmp], apps=[])} == {"pinned"}
        subprocess.run(["sh", "-ec", taskset(placed)], env={**os.environ, "PID": str(vm.pid)}, check=True)
        assert check([qmp], apps=[]) == []
        pinned = {thread.thread: thread.cpus for thread in Topology().pinned if thread.pid == vm.pid}
        assert sorted(pinned.values()) == sorted((cpu,) for cpu in placed.vcpus)
