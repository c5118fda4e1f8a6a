# SPDX-License-Identifier: BSD-3-Clause
"""NUMA for real: a guest with two nodes is a host itself, makes segments on node 1, and looks where their pages are."""

from __future__ import annotations

import json
import sys

import pytest

from ivshmem.vm.vm import run

pytestmark = [pytest.mark.vm]

# Runs in the guest, as a primary there.
PRIMARY = """
import json, sys, eal
from eal.memory import numa
def outcome(call):
    try:
        return call()
    except eal.EalError as error:
        return f"{type(error).__name__}: {error}"
with eal.init(["--no-pci"], file_prefix="numa", no_huge=True) as app:
    said = {}
    for node in (1, 0):
        segment = app.segment_create(4 << 20, group=f"g{node}", socket_id=node)
        (line,) = [l for l in open("/proc/self/numa_maps") if l.startswith(f"{segment.address:08x} ")]
        said[str(node)] = line.split()
    said["absent"] = outcome(lambda: app.segment_create(4 << 20, group="absent", socket_id=2))
    bind, numa.bind = numa.bind, lambda mapping, node, path: bind(mapping, 1 - node, path)
    said["elsewhere"] = outcome(lambda: app.segment_create(4 << 20, group="elsewhere", socket_id=1))
    said["segments"] = len(app.segments())
print(json.dumps(said))
"""


def test_segments_lie_on_their_node() -> None:
    qemu_args = []
    for node in (0, 1):
        qemu_args += ["-object", f"memory-backend-ram,id=m{node},size=256M"]
        qemu_args += ["-numa", f"node,nodeid={node},memdev=m{node},cpus={node}"]
    result = run([sys.executable, "-P", "-c", PRIMARY], qemu_args=qemu_args, memory=512)
    assert result.status == 0, result.output
    said = json.loads(result.output.splitlines()[-1])
    for number in ("0", "1"):
        assert f"bind:{number}" in said[number], said
        assert [word for word in said[number] if word[0] == "N"] == [f"N{number}=1024"]  # every page, and nowhere else
    assert said["absent"] == "Invalid: socket_id must be a NUMA node with memory (0, 1), got 2"
    assert said["elsewhere"].startswith("NoMemory: ")
    assert "(1024 pages were allocated on other NUMA nodes)" in said["elsewhere"]
    assert said["segments"] == 2
