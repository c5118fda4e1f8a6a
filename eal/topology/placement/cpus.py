# SPDX-License-Identifier: BSD-3-Clause
"""Which CPUs of a node each workload gets, once it is known that they suffice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product

from eal.topology.placement.plan import Placement
from eal.topology.placement.request import Workload

Core = tuple[int, ...]


def place_on_node(node: int, cores: Sequence[Core], workloads: Sequence[Workload]) -> list[Placement]:
    """CPUs for all workloads of a node. Lcores get whole cores where there is room; so do VMs."""
    n_lcores = sum(workload.lcores for workload in workloads)
    n_vcpus = sum(workload.vcpus for workload in workloads)
    polling = lcore_cores(cores, n_lcores, n_vcpus)
    lcore_cpus = _spread(polling)
    for_vms = [core for core in cores if core not in polling]
    shares = _pack(for_vms, {w.name: w.vcpus for w in workloads if w.vcpus})
    free = tuple(sorted(set().union(*for_vms) - {cpu for share in shares.values() for cpu in share}))
    placements = []
    for workload in workloads:
        own, lcore_cpus = lcore_cpus[: workload.lcores], lcore_cpus[workload.lcores :]
        vcpus = tuple(shares.get(workload.name, ()))
        threads = _guest_threads(vcpus, for_vms)
        emulator = (free or tuple(sorted(vcpus))) if vcpus else ()
        placements.append(Placement(workload, node, vcpus, tuple(own), threads, emulator))
    return placements


def lcore_cores(cores: Sequence[Core], lcores: int, vcpus: int) -> list[Core]:
    """Cores that poll: as many as possible, one lcore each at best, while the rest still holds the vCPUs.

    Tries every number of cores of each size, so it finds a choice whenever there is one.
    """
    if not lcores:
        return []
    by_size: dict[int, list[Core]] = {}
    for core in reversed(cores):  # the last cores poll: the first ones have most interrupts
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
        raise AssertionError(f"{lcores} lcores and {vcpus} vCPUs were said to fit cores of {Counter(map(len, cores))}")
    chosen = [core for size, count in zip(sizes, best[1], strict=True) for core in by_size[size][:count]]
    return sorted(chosen)


def _spread(cores: Sequence[Core]) -> list[int]:
    """All CPUs of these cores: the first thread of each, then the second of each, and so on."""
    deepest = max(map(len, cores), default=0)
    return [core[thread] for thread in range(deepest) for core in cores if thread < len(core)]


def _pack(cores: Sequence[Core], wanted: dict[str, int]) -> dict[str, list[int]]:
    """CPUs for each VM. While enough CPUs remain a VM begins on a fresh core, so that VMs share no core."""
    left = sum(wanted.values())
    queue = list(cores)
    room = sum(map(len, queue))
    shares: dict[str, list[int]] = {}
    for name, count in sorted(wanted.items(), key=lambda item: -item[1]):
        share: list[int] = []
        while len(share) < count:
            core = queue.pop(0)
            taken = core[: count - len(share)]
            share += taken
            left -= len(taken)
            rest = core[len(taken) :]
            room -= len(core)
            if rest and room < left:  # the next VM cannot do without this core's other threads
                queue.insert(0, rest)
                room += len(rest)
        shares[name] = share
    return shares


def _guest_threads(vcpus: tuple[int, ...], cores: Sequence[Core]) -> int:
    """Threads a guest core: the host's, where the VM has whole cores of one size; 1 otherwise."""
    mine = set(vcpus)
    touched = [core for core in cores if mine & set(core)]
    sizes = {len(core) for core in touched}
    whole = all(set(core) <= mine for core in touched)
    return sizes.pop() if whole and len(sizes) == 1 else 1
