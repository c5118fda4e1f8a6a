# SPDX-License-Identifier: BSD-3-Clause
"""Topology compared with lscpu and lstopo: on this machine, captures of real machines, and synthetic machines."""

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
CAPTURES = sorted((ROOT.parent / "shared/topologies").glob("*.tar.bz2"))  # empty if the directory does not exist

# Shapes for which lstopo reports other values, with the difference; docs/cpu-layout.md lists them too.
LSTOPO_DIFFERS = {
    "ids-without-masks": "lstopo fails without sibling masks; eal uses the ids",
    "no-topology-files": "lstopo omits CPUs without topology files; eal lists them without a core",
}
# Shapes for which lscpu reports other values, with the difference.
LSCPU_DIFFERS = {
    "kernel-without-numa": "lscpu reports no node; eal and lstopo report node 0",
    "compute-units": "lscpu reports a compute unit as one core; eal and lstopo as two",
    "ids-without-masks": "lscpu reports no cores without sibling masks; eal uses the ids",
}


# One table, so that no test is empty on a machine without captures.
TREES: dict[str, Path | Callable[[], Machine]] = {**SHAPES, **{path.name.partition(".")[0]: path for path in CAPTURES}}


@pytest.fixture(scope="session")
def root_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that writes or unpacks a tree once and returns the parent directory of its sys/."""
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
class TopologySets:
    """The topology as one tool reports it, as sets of CPUs; `nodes` maps a node to (CPUs, bytes of memory)."""

    cpus: frozenset[int]
    allowed: frozenset[int]
    cores: frozenset[frozenset[int]]
    sockets: frozenset[frozenset[int]]
    nodes: dict[int, tuple[frozenset[int], int]]
    caches: frozenset[tuple[int, frozenset[int]]]


def lstopo(root: Path | None) -> TopologySets:
    """Return the report of lstopo on a tree, None: this machine."""
    # The x86 component reads CPUID of this machine even for a captured tree.
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
    return TopologySets(
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
    """Return the CPU sets of these objects."""
    return frozenset(bits(each.attrib["cpuset"]) for each in found)


def bits(text: str) -> frozenset[int]:
    """Return the CPUs of an hwloc mask: words of 32 bits, the highest first; an empty word is 0."""
    words = [int(word or "0", 16) for word in text.split(",")]
    value = sum(word << 32 * index for index, word in enumerate(reversed(words)))
    return frozenset(bit for bit in range(value.bit_length()) if value >> bit & 1)


def eal_report(topology: Topology) -> TopologySets:
    """Return the same report from eal.topology."""
    return TopologySets(
        cpus=frozenset(cpu.cpu for cpu in topology.cpus if cpu.online),
        allowed=frozenset(cpu.cpu for cpu in topology.cpus if cpu.allowed),
        cores=frozenset(frozenset(core.cpus) for core in topology.cores),
        sockets=frozenset(frozenset(socket.cpus) for socket in topology.sockets),
        nodes={node.node: (frozenset(node.cpus), node.memory) for node in topology.nodes},
        caches=frozenset((cache.level, frozenset(cache.cpus)) for cache in topology.caches),
    )


def lscpu(root: Path | None) -> list[list[str]]:
    """Return the rows of lscpu -e: CPU, core, socket, node, online."""
    sysroot = [] if root is None else ["--sysroot", str(root)]
    command = ["lscpu", *sysroot, "-e=CPU,CORE,SOCKET,NODE,ONLINE"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.split() for line in text.splitlines()[1:]]


def eal_rows(topology: Topology) -> list[list[str]]:
    """Return the same rows from eal.topology."""
    return [
        [
            *("-" if n is None else str(n) for n in (cpu.cpu, cpu.core, cpu.socket, cpu.node)),
            "yes" if cpu.online else "no",
        ]
        for cpu in topology.cpus
    ]


needs_lstopo = pytest.mark.skipif(not shutil.which("lstopo-no-graphics"), reason="apt-get install hwloc")


@needs_lstopo
def test_this_machine_matches_lstopo() -> None:
    assert eal_report(Topology()) == lstopo(None)


def test_this_machine_matches_lscpu() -> None:
    assert eal_rows(Topology()) == lscpu(None)


@needs_lstopo
@pytest.mark.parametrize("tree", sorted(TREES.keys() - LSTOPO_DIFFERS.keys()))
def test_tree_matches_lstopo(tree: str, root_of: Callable[[str], Path]) -> None:
    root = root_of(tree)
    assert eal_report(Topology(root)) == lstopo(root)


@pytest.mark.parametrize("tree", sorted(TREES.keys() - LSCPU_DIFFERS.keys()))
def test_tree_matches_lscpu(tree: str, root_of: Callable[[str], Path]) -> None:
    root = root_of(tree)
    if (root / "sys/devices/system/cpu/possible").exists():
        assert eal_rows(Topology(root)) == lscpu(root)
    else:  # old kernel: lscpu fails, eal does not
        with pytest.raises(subprocess.CalledProcessError):
            lscpu(root)
        assert Topology(root).cpus


@needs_lstopo
def test_lstopo_omits_cpus_without_topology_files(tmp_path: Path) -> None:
    SHAPES["no-topology-files"]().write(tmp_path)
    assert lstopo(tmp_path).cpus < eal_report(Topology(tmp_path)).cpus == {0, 1, 2, 3}


@pytest.mark.parametrize("shape", LSCPU_DIFFERS)
def test_documented_difference_from_lscpu_still_exists(shape: str, tmp_path: Path) -> None:
    SHAPES[shape]().write(tmp_path)
    assert eal_rows(Topology(tmp_path)) != lscpu(tmp_path)
