# SPDX-License-Identifier: BSD-3-Clause
"""Segments on NUMA nodes: a VM with two nodes runs a primary process, which creates segments on each node."""

from __future__ import annotations

import json
import sys

import pytest

from ivshmem.vm.vm import run

pytestmark = [pytest.mark.vm]

# Runs in the guest as a primary process and prints JSON.
PRIMARY = """
import json, sys, eal
from eal.memory import numa
def outcome(call):
    try:
        return call()
    except eal.EalError as error:
        return f"{type(error).__name__}: {error}"
with eal.init(["--no-pci"], file_prefix="numa", no_huge=True) as app:
    report = {}
    for node in (1, 0):
        segment = app.segment_create(4 << 20, group=f"g{node}", socket_id=node)
        (line,) = [l for l in open("/proc/self/numa_maps") if l.startswith(f"{segment.address:08x} ")]
        report[str(node)] = line.split()
    report["absent"] = outcome(lambda: app.segment_create(4 << 20, group="absent", socket_id=2))
    bind, numa.bind = numa.bind, lambda mapping, node, path: bind(mapping, 1 - node, path)
    report["remote"] = outcome(lambda: app.segment_create(4 << 20, group="remote", socket_id=1))
    report["segments"] = len(app.segments())
print(json.dumps(report))
"""


def test_segments_are_allocated_on_their_node() -> None:
    qemu_args = []
    for node in (0, 1):
        qemu_args += ["-object", f"memory-backend-ram,id=m{node},size=256M"]
        qemu_args += ["-numa", f"node,nodeid={node},memdev=m{node},cpus={node}"]
    result = run([sys.executable, "-P", "-c", PRIMARY], qemu_args=qemu_args, memory=512)
    assert result.status == 0, result.output
    report = json.loads(result.output.splitlines()[-1])
    for number in ("0", "1"):
        assert f"bind:{number}" in report[number], report
        assert [word for word in report[number] if word[0] == "N"] == [f"N{number}=1024"]  # all pages of the segment
    assert report["absent"] == "Invalid: socket_id must be a NUMA node with memory (0, 1), got 2"
    assert report["remote"].startswith("NoMemory: ")
    assert "(1024 pages were allocated on other NUMA nodes)" in report["remote"]
    assert report["segments"] == 2
