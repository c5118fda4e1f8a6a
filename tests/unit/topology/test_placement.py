# SPDX-License-Identifier: BSD-3-Clause
"""Placement plans: the rules against brute force, misfits, the SPEC parser, and the generated options."""

from __future__ import annotations

import json
import random
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import pytest

from eal.errors import Invalid, NotFound
from eal.topology.cli import main
from eal.topology.model import Topology
from eal.topology.placement.plan import Misfit, PlacementPlan
from eal.topology.placement.request import Request, Workload, parse_spec
from eal.topology.placement.solver import solve
from eal.topology.placement.view_text import eal_args, libvirt_xml, plan_as_dict, qemu_args, taskset
from tests.machines import SHAPES, Machine, regular

MIB, GIB = 1 << 20, 1 << 30


@pytest.fixture
def plan(tmp_path: Path) -> Callable[[str, str], PlacementPlan]:
    """Return a function that solves a SPEC on a machine of SHAPES."""

    def solve_spec(shape: str, spec: str) -> PlacementPlan:
        return solve(Topology(SHAPES[shape]().write(tmp_path / shape)), parse_spec(spec))

    return solve_spec


# --- rules, by brute force ----------------------------------------------------------------------------------


def random_machine(rng: random.Random) -> Machine:
    """Return a machine with 1 to 3 nodes, up to 4 cores per node, 1 to 3 threads per core, and 1 to 6 GiB per node."""
    cpus: dict[int, tuple[int, int]] = {}
    nodes: dict[int, list[int]] = {}
    for node in range(rng.randint(1, 3)):
        nodes[node * 2] = []
        for core in range(rng.randint(0 if node else 1, 4)):
            for _ in range(rng.randint(1, 3)):
                nodes[node * 2].append(len(cpus))
                cpus[len(cpus)] = (node, core)
    memory = {node: rng.randint(1, 6) * GIB for node in nodes}
    pools = {node: {2 * MIB: (512, rng.choice((0, 256, 512)))} for node in nodes}
    offline = frozenset(cpu for cpu in cpus if cpu and rng.random() < 0.1)
    return Machine(cpus, nodes, memory=memory, hugepages=pools, offline=offline)


def child(parent: ElementTree.Element, path: str) -> ElementTree.Element:
    """Return the element at this path; it must exist."""
    found = parent.find(path)
    assert found is not None
    return found


def random_request(rng: random.Random, cpus: list[int]) -> Request:
    """Return up to six workloads, some in one group, with up to two excluded CPUs."""
    workloads = []
    small = rng.random() < 0.5
    for index in range(rng.randint(4, 6) if small else rng.randint(1, 4)):
        is_vm = rng.random() < 0.8
        workloads.append(
            Workload(
                name=f"w{index}",
                vcpus=rng.randint(1, 3 if small else 5) if is_vm else 0,
                memory=rng.choice((256 * MIB, GIB, 3 * GIB)) if is_vm else 0,
                segments=rng.choice((0, 64 * MIB)),
                lcores=rng.randint(0 if is_vm else 1, 1 if small else 3),
                pages=rng.choice((None, None, None, 2 * MIB)),
                group=rng.choice((None, None, "a")),
                node=None,
            )
        )
    return Request(tuple(workloads), frozenset(rng.sample(cpus, rng.randint(0, min(2, len(cpus))))))


def groups_of(request: Request) -> list[list[Workload]]:
    """Return the workloads of each group."""
    named: dict[str, list[Workload]] = {}
    for workload in request.workloads:
        named.setdefault(workload.group or f"alone {workload.name}", []).append(workload)
    return list(named.values())


def node_holds(topology: Topology, node: int, request: Request, workloads: list[Workload]) -> bool:
    """Return whether the workloads fit the node: try every set of cores for the lcores, and add up the memory."""
    cores: dict[int | None, set[int]] = {}
    for cpu in topology.cpus:
        if cpu.node == node and cpu.online and cpu.cpu not in request.exclude:
            cores.setdefault(cpu.core, set()).add(cpu.cpu)
    lcores, vcpus = sum(w.lcores for w in workloads), sum(w.vcpus for w in workloads)
    sizes = [len(core) for core in cores.values()]
    fits = any(
        sum(chosen) >= lcores and sum(sizes) - sum(chosen) >= vcpus
        for count in range(len(sizes) + 1)
        for chosen in combinations(sizes, count)
    )
    resources = topology.node(node)
    normal = sum(w.memory + w.segments for w in workloads if w.pages is None)
    pages = sum(-(-size // (2 * MIB)) for w in workloads if w.pages for size in (w.memory, w.segments))
    (pool,) = resources.hugepages
    return fits and normal <= resources.available and pages <= pool.free


def fewest_left_out(topology: Topology, request: Request) -> int:
    """Return the smallest possible number of misfits: try every node, and no node, for every group."""
    groups = groups_of(request)
    nodes = [node.node for node in topology.nodes]
    best = len(groups)
    for homes in product([None, *nodes], repeat=len(groups)):
        placed = list(zip(groups, homes, strict=True))
        if homes.count(None) < best and all(
            node_holds(topology, node, request, [w for group, home in placed if home == node for w in group])
            for node in nodes
        ):
            best = homes.count(None)
    return best


def check_rules(topology: Topology, request: Request, plan: PlacementPlan) -> None:
    """Check the rules of docs/cpu-layout.md without the solver's code."""
    cpus = {cpu.cpu: cpu for cpu in topology.cpus}
    polling = [cpu for placed in plan.placements for cpu in placed.lcores]
    running = [cpu for placed in plan.placements for cpu in placed.vcpus]
    assert len(set(polling + running)) == len(polling + running), "two users of one CPU"
    assert not request.exclude & set(polling + running)
    assert all(cpus[cpu].online and cpus[cpu].allowed for cpu in polling + running)
    assert not {cpus[cpu].core for cpu in polling} & {cpus[cpu].core for cpu in running}, "lcore and vCPU on one core"
    for placed in plan.placements:
        assert (len(placed.vcpus), len(placed.lcores)) == (placed.workload.vcpus, placed.workload.lcores)
        assert {cpus[cpu].node for cpu in (*placed.vcpus, *placed.lcores, *placed.emulator)} <= {placed.node}
        assert not {cpus[cpu].core for cpu in placed.emulator} & {cpus[cpu].core for cpu in polling}
    homes: dict[str, set[int]] = {}
    for placed in plan.placements:
        homes.setdefault(placed.workload.group or placed.workload.name, set()).add(placed.node)
    assert all(len(nodes) == 1 for nodes in homes.values()), "group on two nodes"
    for node in topology.nodes:
        assigned = [placed.workload for placed in plan.placements if placed.node == node.node]
        assert node_holds(topology, node.node, request, assigned)


@pytest.mark.parametrize("seed", range(200))
def test_solve_random_machine_matches_brute_force(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    topology = Topology(random_machine(rng).write(tmp_path))
    request = random_request(rng, [cpu.cpu for cpu in topology.cpus])
    plan = solve(topology, request)
    check_rules(topology, request, plan)
    placed = {placement.workload for placement in plan.placements}
    left_out = {workload for misfit in plan.misfits for workload in misfit.workloads}
    assert placed | left_out == set(request.workloads)
    assert not placed & left_out
    assert len(plan.misfits) == fewest_left_out(topology, request)
    for misfit in plan.misfits:
        check_largest_part(topology, request, plan, misfit)


def check_largest_part(topology: Topology, request: Request, plan: PlacementPlan, misfit: Misfit) -> None:
    """Check that the reported part fits beside the placed workloads, and that no node has room for one more vCPU."""
    pages = {w.pages for w in misfit.workloads}

    def fits(node: int, vcpus: int, memory: int) -> bool:
        assigned = [placed.workload for placed in plan.placements if placed.node == node]
        extra = Workload("extra", vcpus, memory, lcores=misfit.lcores, pages=next(iter(pages)))
        return node_holds(topology, node, request, [*assigned, extra])

    wanted = sum(w.vcpus for w in misfit.workloads)
    if misfit.node is not None and len(pages) == 1:
        assert fits(misfit.node, misfit.vcpus, misfit.memory)
    if misfit.node is not None and misfit.vcpus < wanted:
        assert not any(fits(node.node, misfit.vcpus + 1, 0) for node in topology.nodes)


# --- choice of nodes and CPUs -------------------------------------------------------------------------------


def test_solve_vm_lcores_and_segments_share_a_node(plan: Callable[[str, str], PlacementPlan]) -> None:
    found = plan("two-sockets-smt", "vm=web,vcpus=4,memory=256M,segments=64M,lcores=1; vm=db,vcpus=6,memory=256M")
    web = next(placed for placed in found.placements if placed.workload.name == "web")
    db = next(placed for placed in found.placements if placed.workload.name == "db")
    assert found.fits
    assert (db.node, db.vcpus, db.threads) == (0, (0, 8, 1, 9, 2, 10), 2)
    assert (web.node, web.vcpus, web.lcores, web.emulator) == (1, (4, 12, 5, 13), (7,), (6, 14))


def test_solve_lcores_share_cores_only_if_cores_are_scarce(plan: Callable[[str, str], PlacementPlan]) -> None:
    (free,) = plan("two-sockets-smt", "lcores=3").placements
    assert free.lcores == (1, 2, 3)
    tight = plan("two-sockets-smt", "vm=big,vcpus=4,memory=64M,node=0,lcores=4").placements[0]
    assert tight.lcores == (2, 3, 10, 11)
    assert tight.vcpus == (0, 8, 1, 9)


def test_solve_vms_use_separate_cores(plan: Callable[[str, str], PlacementPlan]) -> None:
    found = plan("two-sockets-smt", "vm=a,vcpus=1,memory=64M,node=0; vm=b,vcpus=1,memory=64M,node=0")
    assert [placed.vcpus for placed in found.placements] == [(0,), (1,)]


def test_solve_group_shares_a_node(plan: Callable[[str, str], PlacementPlan]) -> None:
    spec = "vm=a,vcpus=3,memory=64M,group=chain; vm=b,vcpus=3,memory=64M,group=chain; lcores=1,group=chain"
    found = plan("two-sockets-smt", spec)
    assert {placed.node for placed in found.placements} == {0}
    assert len(found.placements) == 3


def test_solve_memory_limits_placement(plan: Callable[[str, str], PlacementPlan]) -> None:
    found = plan("node-without-memory", "vm=a,vcpus=2,memory=1G; vm=b,vcpus=1,memory=1G")
    assert [placed.node for placed in found.placements] == [0]
    (misfit,) = found.misfits
    assert misfit.workloads[0].name == "b"
    assert (misfit.node, misfit.vcpus, misfit.memory) == (1, 1, 0)


def test_solve_hugepages_limit_placement(tmp_path: Path) -> None:
    pools = {0: {2 * MIB: (512, 10)}, 1: {2 * MIB: (512, 512)}}
    machine = replace(SHAPES["two-sockets-smt"](), hugepages=pools)
    topology = Topology(machine.write(tmp_path))
    found = solve(topology, parse_spec("vm=a,vcpus=2,memory=1000M,segments=1M,pages=2M"))
    assert [placed.node for placed in found.placements] == [1]
    assert not solve(topology, parse_spec("vm=a,vcpus=2,memory=1023M,segments=2M,pages=2M")).fits
    assert not solve(topology, parse_spec("vm=a,vcpus=2,memory=1G,pages=1G")).fits


def test_solve_misfit_reports_reasons_and_largest_part(plan: Callable[[str, str], PlacementPlan]) -> None:
    found = plan("two-sockets-smt", "vm=big,vcpus=12,memory=256M,lcores=1")
    (misfit,) = found.misfits
    assert (misfit.vcpus, misfit.lcores, misfit.memory) == (6, 1, 256 * MIB)
    assert misfit.reasons == (
        "node 0 has 8 usable CPUs, too few for 12 vCPUs and 1 lcores on separate cores",
        "node 1 has 8 usable CPUs, too few for 12 vCPUs and 1 lcores on separate cores",
    )


def test_solve_dead_end_backtracks(tmp_path: Path) -> None:
    """The least loaded node first places one 3-vCPU VM on each node; then the third 2-vCPU VM does not fit."""
    topology = Topology(regular(2, 6, 1).write(tmp_path))
    found = solve(topology, parse_spec("vm=a,vcpus=3,memory=1M,count=2; vm=b,vcpus=2,memory=1M,count=3"))
    assert found.fits
    homes = {placed.workload.name: placed.node for placed in found.placements}
    assert homes["a0"] == homes["a1"] != homes["b0"] == homes["b1"] == homes["b2"]


def test_solve_overload_leaves_out_fewest_groups(plan: Callable[[str, str], PlacementPlan]) -> None:
    """A greedy choice, the largest VM first, would leave out two VMs."""
    found = plan("two-sockets-smt", "vm=w,vcpus=5,memory=64M,count=2; vm=x,vcpus=8,memory=64M")
    assert [misfit.workloads[0].name for misfit in found.misfits] in (["x"], ["w1"])
    assert len(found.misfits) == 1


@pytest.mark.parametrize("shape", ["offline-cpus", "cgroup-v2"])
def test_solve_offline_and_forbidden_cpus_stay_unused(plan: Callable[[str, str], PlacementPlan], shape: str) -> None:
    found = plan(shape, "lcores=1; lcores=1,name=other")
    used = {cpu for placed in found.placements for cpu in placed.lcores}
    assert used <= ({0, 2, 3, 6, 7} if shape == "offline-cpus" else {1, 2})
    assert not plan(shape, "vm=a,vcpus=4,memory=1M").fits


def test_solve_60_equal_vms_ends_quickly(plan: Callable[[str, str], PlacementPlan]) -> None:
    found = plan("power-smt8", "vm=v,vcpus=3,memory=8M,count=60")
    assert len(found.placements) == 10
    assert len(found.misfits) == 50


def test_solve_excluded_cpus_stay_unused(plan: Callable[[str, str], PlacementPlan]) -> None:
    found = plan("hybrid", "vm=a,vcpus=4,memory=64M; exclude=0-1+5")
    assert not {0, 1, 5} & set(found.placements[0].vcpus)


# --- SPEC ---------------------------------------------------------------------------------------------------


def test_parse_spec_returns_workloads_and_excluded_cpus() -> None:
    request = parse_spec("vm=web,vcpus=4,memory=8G,count=2,lcores=1 # two\n lcores=2,name=app;exclude=0+4-5")
    assert request == Request(
        (
            Workload("web0", 4, 8 * GIB, lcores=1),
            Workload("web1", 4, 8 * GIB, lcores=1),
            Workload("app", lcores=2),
        ),
        frozenset({0, 4, 5}),
    )


def test_parse_spec_reads_file(tmp_path: Path) -> None:
    (tmp_path / "plan").write_text("# the lab\nvm=a,vcpus=1,memory=512M,pages=2M,node=1,group=g,segments=1M\n")
    assert parse_spec(f"@{tmp_path}/plan").workloads == (
        Workload("a", 1, 512 * MIB, MIB, pages=2 * MIB, node=1, group="g"),
    )


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "at least one workload"),
        ("vm=a", "vcpus=N"),
        ("vm=a,vcpus=0,memory=1G", "integer from 1"),
        ("vm=a,vcpus=x,memory=1G", "integer from 1"),
        ("vm=a,vcpus=1,memory=1", "unit"),
        ("vm=a,vcpus=1,memory=1G,colour=red", "colour"),
        ("vm=a,vcpus=1,vcpus=2,memory=1G", "twice"),
        ("vm=a,vcpus=1,memory=1G;vm=a,vcpus=1,memory=1G", "unique"),
        ("vm=../a,vcpus=1,memory=1G", "QEMU ids"),
        ("memory=1G", "vm=NAME"),
        ("lcores=0", "integer from 1"),
        ("exclude=0,lcores=2", "only key"),
        ("exclude=x", "CPU list"),
        ("@/no/such/file", "/no/such/file"),
    ],
)
def test_parse_spec_malformed_raises_invalid(spec: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        parse_spec(spec)


def test_solve_missing_node_or_cpu_raises_not_found(plan: Callable[[str, str], PlacementPlan]) -> None:
    with pytest.raises(NotFound, match=r"NUMA node must be .* got 5"):
        plan("two-sockets-smt", "lcores=1,node=5")
    with pytest.raises(NotFound, match=r"CPU must be .* got 99"):
        plan("two-sockets-smt", "lcores=1;exclude=99")


def test_solve_group_on_two_nodes_raises_invalid(plan: Callable[[str, str], PlacementPlan]) -> None:
    with pytest.raises(Invalid, match="group 'g' must name the same node"):
        plan("two-sockets-smt", "lcores=1,node=0,group=g;lcores=1,name=b,node=1,group=g")


# --- options ------------------------------------------------------------------------------------------------


def test_options_of_vm_pin_cpus_and_bind_memory(plan: Callable[[str, str], PlacementPlan]) -> None:
    found = plan("two-sockets-smt", "vm=web,vcpus=4,memory=512M,segments=100M,lcores=2,node=1")
    (placed,) = found.placements
    assert qemu_args(placed) == [
        *("-name", "web,debug-threads=on"),
        *("-smp", "4,sockets=1,cores=2,threads=2"),
        *("-m", "524288K"),
        *("-object", "memory-backend-ram,id=ram-web,size=524288K,host-nodes=1,policy=bind,prealloc=on"),
        *("-numa", "node,nodeid=0,cpus=0-3,memdev=ram-web"),
    ]
    assert eal_args(placed, found.nodes) == ["-l", "6-7", "--socket-mem", "0,100"]
    assert '"CPU 1/"*) taskset -pc 12 "${t##*/}";;' in taskset(placed)
    domain = ElementTree.fromstring(f"<domain>{libvirt_xml(placed)}</domain>")
    assert {pin.get("vcpu"): pin.get("cpuset") for pin in domain.iter("vcpupin")} == {
        "0": "4",
        "1": "12",
        "2": "5",
        "3": "13",
    }
    assert child(domain, "numatune/memory").attrib == {"mode": "strict", "nodeset": "1"}
    assert child(domain, "vcpu").text == "4"


def test_options_of_vm_with_hugepages_use_memfd(tmp_path: Path) -> None:
    machine = replace(SHAPES["one-core"](), hugepages={0: {2 * MIB: (512, 512)}})
    found = solve(Topology(machine.write(tmp_path)), parse_spec("vm=a,vcpus=1,memory=512M,pages=2M"))
    backend = qemu_args(found.placements[0])[7]
    assert backend.startswith("memory-backend-memfd,id=ram-a,hugetlb=on,hugetlbsize=2048K,size=524288K,host-nodes=0")
    domain = ElementTree.fromstring(f"<domain>{libvirt_xml(found.placements[0])}</domain>")
    assert child(domain, "memoryBacking/hugepages/page").attrib == {"size": "2048", "unit": "KiB"}


def test_options_of_host_lcores_are_for_eal_only(plan: Callable[[str, str], PlacementPlan]) -> None:
    found = plan("two-sockets-smt", "lcores=2,node=0")
    (placed,) = found.placements
    assert (qemu_args(placed), taskset(placed), libvirt_xml(placed)) == ([], "", "")
    assert eal_args(placed, found.nodes) == ["-l", "2-3"]


def test_cli_plan_prints_table_and_misfits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(SHAPES["two-sockets-smt"]().write(tmp_path))
    assert main(["--sysfs", root, "--plan", "vm=web,vcpus=4,memory=256M,lcores=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["web", "0", "0,8,1,9", "3", "2,10", "256", "MiB", "-"]
    assert "-l 3" in lines
    assert main(["--sysfs", root, "--plan", "vm=big,vcpus=9,memory=256M"]) == 1
    assert "big does not fit: the largest part that fits is 8 vCPUs" in capsys.readouterr().out
    assert main(["--sysfs", root, "--plan", "vm=big"]) == 2
    assert "cpu-layout: " in capsys.readouterr().err


def test_cli_plan_json_contains_misfits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(SHAPES["two-sockets-smt"]().write(tmp_path))
    assert main(["--sysfs", root, "--json", "--plan", "vm=web,vcpus=20,memory=256M;lcores=1"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert (data["fits"], data["misfits"][0]["vcpus"], data["placements"][0]["lcores"]) == (False, 8, [3])


def test_plan_as_dict_is_json_serializable(plan: Callable[[str, str], PlacementPlan]) -> None:
    data = plan_as_dict(plan("hybrid", "vm=web,vcpus=2,memory=256M"))
    assert json.loads(json.dumps(data))["placements"][0]["vcpus"] == [0, 1]
