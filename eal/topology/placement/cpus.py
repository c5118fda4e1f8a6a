# SPDX-License-Identifier: BSD-3-Clause
"""Assignment of one node's CPUs to workloads that fit the node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product

from eal.topology.placement.plan import Placement
from eal.topology.placement.request import Workload

Core = tuple[int, ...]


def place_on_node(node: int, cores: Sequence[Core], workloads: Sequence[Workload]) -> list[Placement]:
    """Return a placement of each workload on the node; `cores` are its usable CPUs by core.

    While there are enough cores, each lcore has a core of its own and VMs share no core.
    """
    n_lcores = sum(workload.lcores for workload in workloads)
    n_vcpus = sum(workload.vcpus for workload in workloads)
    polling_cores = lcore_cores(cores, n_lcores, n_vcpus)
    lcore_cpus = _thread_by_thread(polling_cores)
    vm_cores = [core for core in cores if core not in polling_cores]
    vcpus_of = _assign_vcpus(vm_cores, {w.name: w.vcpus for w in workloads if w.vcpus})
    unused = tuple(sorted(set().union(*vm_cores) - {cpu for cpus in vcpus_of.values() for cpu in cpus}))
    placements = []
    for workload in workloads:
        lcores, lcore_cpus = lcore_cpus[: workload.lcores], lcore_cpus[workload.lcores :]
        vcpus = tuple(vcpus_of.get(workload.name, ()))
        threads = _guest_threads(vcpus, vm_cores)
        emulator = (unused or tuple(sorted(vcpus))) if vcpus else ()
        placements.append(Placement(workload, node, vcpus, tuple(lcores), threads, emulator))
    return placements


def lcore_cores(cores: Sequence[Core], lcores: int, vcpus: int) -> list[Core]:
    """Return the cores for polling lcores: as many as possible up to `lcores`, while the other cores hold `vcpus`.

    Every combination of core sizes is tried, so a solution is found if there is one.
    """
    if not lcores:
        return []
    by_size: dict[int, list[Core]] = {}
    for core in reversed(cores):  # prefer the last cores: the first ones handle most interrupts
        by_size.setdefault(len(core), []).append(core)
    sizes = sorted(by_size)
    spare = sum(map(len, cores)) - vcpus
    best: tuple[tuple[int, int], tuple[int, ...]] | None = None
    for counts in product(*(range(min(len(by_size[size]), lcores) + 1) for size in sizes)):
        capacity = sum(size * count for size, count in zip(sizes, counts, strict=True))
        if lcores <= capacity <= spare and sum(counts) <= lcores:
            rank = (sum(counts), -capacity)
            if best is None or rank > best[0]:
                best = (rank, counts)
    if best is None:
        sizes_text = dict(Counter(map(len, cores)))
        raise AssertionError(f"{lcores} lcores and {vcpus} vCPUs do not fit cores of {sizes_text} (size: count)")
    chosen = [core for size, count in zip(sizes, best[1], strict=True) for core in by_size[size][:count]]
    return sorted(chosen)


def _thread_by_thread(cores: Sequence[Core]) -> list[int]:
    """Return all CPUs of these cores: the first hyperthread of each core, then the second of each, and so on."""
    most_threads = max(map(len, cores), default=0)
    return [core[thread] for thread in range(most_threads) for core in cores if thread < len(core)]


def _assign_vcpus(cores: Sequence[Core], vcpus: dict[str, int]) -> dict[str, list[int]]:
    """Return the CPUs of each VM. `vcpus` maps the VM's name to its number of vCPUs.

    Each VM starts on an unused core while enough CPUs remain, so that VMs share no core.
    """
    remaining_vcpus = sum(vcpus.values())
    queue = list(cores)
    remaining_cpus = sum(map(len, queue))
    assigned: dict[str, list[int]] = {}
    for name, count in sorted(vcpus.items(), key=lambda item: -item[1]):
        cpus: list[int] = []
        while len(cpus) < count:
            core = queue.pop(0)
            taken = core[: count - len(cpus)]
            cpus += taken
            remaining_vcpus -= len(taken)
            rest = core[len(taken) :]
            remaining_cpus -= len(core)
            if rest and remaining_cpus < remaining_vcpus:  # the next VM needs the rest of this core
                queue.insert(0, rest)
                remaining_cpus += len(rest)
        assigned[name] = cpus
    return assigned


def _guest_threads(vcpus: tuple[int, ...], cores: Sequence[Core]) -> int:
    """Return threads per guest core: the host's number if the VM has whole cores of one size, otherwise 1."""
    own = set(vcpus)
    used_cores = [core for core in cores if own & set(core)]
    sizes = {len(core) for core in used_cores}
    whole = all(set(core) <= own for core in used_cores)
    return sizes.pop() if whole and len(sizes) == 1 else 1
