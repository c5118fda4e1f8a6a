# SPDX-License-Identifier: BSD-3-Clause
"""The same machine as lscpu and lstopo see it: this one, the captures of real ones, and made-up ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from eal.topology.model import Topology
from tests.machines import SHAPES, Machine

ROOT = Path(__file__).parents[2]
CAPTURES = sorted((ROOT.parent / "shared/topologies").glob("*.tar.bz2"))  # none on machines without that folder

# Where lstopo says something else, and why; docs/cpu-layout.md tells the same.
LSTOPO_DIFFERS = {
    "ids-without-masks": "lstopo gives up without sibling masks; we go by the ids",
    "no-topology-files": "lstopo leaves out CPUs without topology files; we show them without a core",
}
# Where lscpu says something else, and why.
LSCPU_DIFFERS = {
    "kernel-without-numa": "lscpu shows no node; we and lstopo show node 0",
    "compute-units": "lscpu joins the two cores of a compute unit; we and lstopo do not",
    "ids-without-masks": "lscpu shows no cores without sibling masks; we go by the ids",
}


# Captures and made-up machines in one table, so that a machine without captures has no empty test.
TREES: dict[str, Path | Callable[[], Machine]] = {**SHAPES, **{path.name.partition(".")[0]: path for path in CAPTURES}}


@pytest.fixture(scope="session")
def root_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes or unpacks a tree once and gives the directory that holds its sys/."""
    roots: dict[str, Path] = {}

    def root(name: str) -> Path:
        if name not in roots:
            folder = tmp_path_factory.mktemp("tree")
            tree = TREES[name]
            if not isinstance(tree, Path):
                tree().write(folder / "machine")
            else:
                with tarfile.open(tree) as tar:
                    tar.extractall(folder, filter="fully_trusted")  # captures have links to absolute paths
            roots[name] = next(path.parent for path in folder.glob("*/sys"))
        return roots[name]

    return root


@dataclass(frozen=True)
class Seen:
    """What a tool says: sets of CPUs, and for nodes number -> (CPUs, bytes)."""

    cpus: frozenset[int]
    allowed: frozenset[int]
    cores: frozenset[frozenset[int]]
    sockets: frozenset[frozenset[int]]
    nodes: dict[int, tuple[frozenset[int], int]]
    caches: frozenset[tuple[int, frozenset[int]]]


def lstopo(root: Path | None) -> Seen:
    """What lstopo says of a tree, or of this machine. Its x86 part would ask this machine's CPUID."""
    env = {**os.environ, "HWLOC_COMPONENTS": "-x86"}
    if root is not None:
        env |= {"HWLOC_FSROOT": str(root), "HWLOC_THISSYSTEM": "0"}
    command = ["lstopo-no-graphics", "--disallowed", "--no-io", "--of", "xml"]
    text = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    kinds: dict[str, list[ElementTree.Element]] = {}
    for found in ElementTree.fromstring(text).iter("object"):
        kinds.setdefault(found.attrib["type"], []).append(found)
    caches = [found for kind in kinds if kind.endswith("Cache") for found in kinds[kind]]
    cpus = frozenset().union(*sets(kinds["PU"]))
    return Seen(
        cpus=cpus,
        allowed=bits(kinds["Machine"][0].attrib["allowed_cpuset"]) & cpus,
        cores=sets(kinds.get("Core", [])),
        sockets=sets(kinds.get("Package", [])),
        nodes={
            int(node.attrib["os_index"]): (bits(node.attrib["cpuset"]), int(node.get("local_memory", "0")))
            for node in kinds["NUMANode"]
        },
        caches=frozenset((int(cache.attrib["depth"]), bits(cache.attrib["cpuset"])) for cache in caches),
    )


def sets(found: list[ElementTree.Element]) -> frozenset[frozenset[int]]:
    """The CPU sets of some objects."""
    return frozenset(bits(each.attrib["cpuset"]) for each in found)


def bits(text: str) -> frozenset[int]:
    """hwloc's masks: words of 32 bits, the highest first, empty ones left out."""
    words = [int(word or "0", 16) for word in text.split(",")]
    value = sum(word << 32 * index for index, word in enumerate(reversed(words)))
    return frozenset(bit for bit in range(value.bit_length()) if value >> bit & 1)


def ours(topology: Topology) -> Seen:
    """The same of our own facts."""
    return Seen(
        cpus=frozenset(cpu.cpu for cpu in topology.cpus if cpu.online),
        allowed=frozenset(cpu.cpu for cpu in topology.cpus if cpu.allowed),
        cores=frozenset(frozenset(core.cpus) for core in topology.cores),
        sockets=frozenset(frozenset(socket.cpus) for socket in topology.sockets),
        nodes={node.node: (frozenset(node.cpus), node.memory) for node in topology.nodes},
        caches=frozenset((cache.level, frozenset(cache.cpus)) for cache in topology.caches),
    )


def lscpu(root: Path | None) -> list[list[str]]:
    """The lines of lscpu -e: CPU, core, socket, node, online."""
    where = [] if root is None else ["--sysroot", str(root)]
    command = ["lscpu", *where, "-e=CPU,CORE,SOCKET,NODE,ONLINE"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.split() for line in text.splitlines()[1:]]


def our_lines(topology: Topology) -> list[list[str]]:
    """The same lines of our own facts."""
    return [
        [
            *("-" if n is None else str(n) for n in (cpu.cpu, cpu.core, cpu.socket, cpu.node)),
            "yes" if cpu.online else "no",
        ]
        for cpu in topology.cpus
    ]


needs_lstopo = pytest.mark.skipif(not shutil.which("lstopo-no-graphics"), reason="apt-get install hwloc")


@needs_lstopo
def test_this_machine_as_lstopo_sees_it() -> None:
    assert ours(Topology()) == lstopo(None)


def test_this_machine_as_lscpu_sees_it() -> None:
    assert our_lines(Topology()) == lscpu(None)


@needs_lstopo
@pytest.mark.parametrize("tree", sorted(TREES.keys() - LSTOPO_DIFFERS.keys()))
def test_trees_as_lstopo_sees_them(tree: str, root_of: Callable[[str], Path]) -> None:
    root = root_of(tree)
    assert ours(Topology(root)) == lstopo(root)


@pytest.mark.parametrize("tree", sorted(TREES.keys() - LSCPU_DIFFERS.keys()))
def test_trees_as_lscpu_sees_them(tree: str, root_of: Callable[[str], Path]) -> None:
    root = root_of(tree)
    if (root / "sys/devices/system/cpu/possible").exists():
        assert our_lines(Topology(root)) == lscpu(root)
    else:  # an old kernel: lscpu reads nothing, we do
        with pytest.raises(subprocess.CalledProcessError):
            lscpu(root)
        assert Topology(root).cpus


@needs_lstopo
def test_lstopo_leaves_out_cpus_without_topology_files(tmp_path: Path) -> None:
    SHAPES["no-topology-files"]().write(tmp_path)
    assert lstopo(tmp_path).cpus < ours(Topology(tmp_path)).cpus == {0, 1, 2, 3}


@pytest.mark.parametrize("shape", LSCPU_DIFFERS)
def test_explained_differences_from_lscpu_are_still_there(shape: str, tmp_path: Path) -> None:
    SHAPES[shape]().write(tmp_path)
    assert our_lines(Topology(tmp_path)) != lscpu(tmp_path)
