# SPDX-License-Identifier: BSD-3-Clause
"""Sysfs: CPUs, cores, sockets, NUMA nodes and caches, read from /sys/devices/system by this module alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from eal.text.sizes import parse_size
from eal.topology.cpulist import bits_of, mask_of
from eal.topology.facts import Cache, Cpu, HugePages, Node
from eal.topology.tree import Tree

_CPU = "sys/devices/system/cpu"
_NODE = "sys/devices/system/node"
_MEMINFO_LINE = re.compile(r"(?:Node\s+\d+\s+)?(\w+)(?:\(\w+\))?:\s+(\d+)")


@dataclass(frozen=True)
class _Ids:
    """A CPU's package id and core id in the kernel; core ids repeat in every package."""

    package: int | None
    core: int | None


def _read_ids(tree: Tree, cpu: int) -> _Ids:
    directory = f"{_CPU}/cpu{cpu}/topology"
    return _Ids(tree.number(f"{directory}/physical_package_id"), tree.number(f"{directory}/core_id"))


def read_cpus(tree: Tree, node_masks: Mapping[int, int], allowed: frozenset[int] | None) -> tuple[Cpu, ...]:
    """Return every present CPU, ascending. `node_masks`: node -> CPU mask; `allowed`: CPUs of the cpuset, None: all.

    An offline CPU has no core and no socket, because the kernel removes its topology files.
    """
    present = _present_cpus(tree)
    online = _online_cpus(tree, present)
    ids = {cpu: _read_ids(tree, cpu) for cpu in online}
    cores = _core_numbers(tree, online, ids)
    sockets = _socket_numbers(tree, online, ids)
    nodes = {cpu: node for node, mask in sorted(node_masks.items(), reverse=True) for cpu in bits_of(mask)}
    return tuple(
        Cpu(
            cpu=cpu,
            core=cores.get(cpu),
            socket=sockets.get(cpu),
            node=nodes.get(cpu),
            online=cpu in ids,
            allowed=cpu in ids and (allowed is None or cpu in allowed),
            core_id=ids[cpu].core if cpu in ids else None,
            package_id=ids[cpu].package if cpu in ids else None,
        )
        for cpu in present
    )


def _present_cpus(tree: Tree) -> list[int]:
    """Return the present CPUs, by the directories cpuN on old kernels without the file `present`."""
    present = tree.numbers(f"{_CPU}/present") or frozenset()
    online = tree.numbers(f"{_CPU}/online") or frozenset()
    return sorted(present | online) or tree.numbered(_CPU, "cpu")


def _online_cpus(tree: Tree, present: list[int]) -> list[int]:
    """Return the online CPUs. A missing cpuN/online means online: cpu0 often cannot go offline."""
    online = tree.numbers(f"{_CPU}/online")
    if online:
        return [cpu for cpu in present if cpu in online]
    return [cpu for cpu in present if tree.text(f"{_CPU}/cpu{cpu}/online") != "0"]


def _number_groups(online: list[int], mask_of_group: Callable[[int], int | None]) -> dict[int, int]:
    """Return CPU -> number of its group, counted from 0 in ascending order of the CPUs.

    `mask_of_group` returns the CPU mask of the group that a CPU belongs to, or None if the group is unknown.
    """
    numbers: dict[int, int] = {}
    online_mask = mask_of(online)
    count = 0
    for cpu in online:
        if cpu not in numbers and (mask := mask_of_group(cpu)) is not None:
            members = {cpu, *bits_of(mask & online_mask)}
            numbers.update(dict.fromkeys(members - numbers.keys(), count))
            count += 1
    return numbers


def _core_numbers(tree: Tree, online: list[int], ids: Mapping[int, _Ids]) -> dict[int, int]:
    """Return CPU -> core. CPUs of one core have the same thread mask or, without masks, the same package and core id.

    The two cores of an AMD compute unit also have one thread mask. They are two cores here, as in lstopo.
    """

    def core_mask(cpu: int) -> int | None:
        directory = f"{_CPU}/cpu{cpu}/topology"
        mask = tree.mask(f"{directory}/core_cpus", f"{directory}/thread_siblings")
        if mask is None and ids[cpu].core is not None:
            return mask_of(other for other in online if ids[other] == ids[cpu])
        threads = [other for other in bits_of(mask or 0) if other in ids]
        same_core = [other for other in threads if ids[other].core == ids[cpu].core]
        return mask_of(same_core) if len(same_core) < len(threads) and _has_compute_units(tree) else mask

    return _number_groups(online, core_mask)


def _has_compute_units(tree: Tree) -> bool:
    """Return whether this is an AMD processor of family 15h or 16h."""
    cpuinfo = tree.text("proc/cpuinfo") or ""
    return "AuthenticAMD" in cpuinfo and re.search(r"^cpu family\s*:\s*2[12]$", cpuinfo, re.MULTILINE) is not None


def _socket_numbers(tree: Tree, online: list[int], ids: Mapping[int, _Ids]) -> dict[int, int]:
    """Return CPU -> socket. CPUs of one socket have the same package mask or, without masks, the same package id."""

    def socket_mask(cpu: int) -> int | None:
        directory = f"{_CPU}/cpu{cpu}/topology"
        mask = tree.mask(f"{directory}/package_cpus", f"{directory}/core_siblings")
        package = ids[cpu].package
        if mask is None and package is not None and package >= 0:
            return mask_of(other for other in online if ids[other].package == package)
        return mask

    return _number_groups(online, socket_mask)


def node_masks(tree: Tree, fallback: int) -> dict[int, int]:
    """Return node -> CPU mask. A kernel without NUMA has node 0 with the mask `fallback`."""
    online = tree.numbers(f"{_NODE}/online")
    nodes = [node for node in tree.numbered(_NODE, "node") if not online or node in online]
    if not nodes:
        return {0: fallback}
    masks = {}
    for node in nodes:
        mask = tree.mask(f"{_NODE}/node{node}/cpumap")
        if mask is None:
            mask = mask_of(tree.numbers(f"{_NODE}/node{node}/cpulist") or ())
        masks[node] = mask
    return masks


def present_mask(tree: Tree) -> int:
    """Return the mask of all present CPUs."""
    return mask_of(_present_cpus(tree))


def read_nodes(tree: Tree, masks: Mapping[int, int], cpus: tuple[Cpu, ...]) -> tuple[Node, ...]:
    """Return every online node with its CPUs, memory and hugepages, ascending. `masks`: node -> CPU mask."""
    members: dict[int, list[int]] = {node: [] for node in masks}
    for cpu in cpus:
        if cpu.online and cpu.node is not None:
            members[cpu.node].append(cpu.cpu)
    return tuple(_read_node(tree, node, tuple(members[node])) for node in sorted(masks))


def _read_node(tree: Tree, node: int, cpus: tuple[int, ...]) -> Node:
    directory = f"{_NODE}/node{node}"
    meminfo = tree.text(f"{directory}/meminfo")
    pools = f"{directory}/hugepages"
    if meminfo is None and not tree.names(directory):  # kernel without NUMA: node 0 has all memory
        meminfo, pools = tree.text("proc/meminfo"), "sys/kernel/mm/hugepages"
    fields = {name: int(kib) * 1024 for name, kib in _MEMINFO_LINE.findall(meminfo or "")}
    total = fields.get("MemTotal", 0)
    free = fields.get("MemFree", total)
    page_cache = fields.get("FilePages", fields.get("Cached", 0)) - fields.get("Shmem", 0)
    available = min(total, free + max(0, page_cache) + fields.get("SReclaimable", 0))
    return Node(node, cpus, total, free, available, _hugepages(tree, pools))


def hugepage_pool(node: int, page_size: int) -> str:
    """Return the sysfs directory, relative to /, of a node's hugepages of `page_size` bytes."""
    return f"{_NODE}/node{node}/hugepages/hugepages-{page_size // 1024}kB"


def _hugepages(tree: Tree, directory: str) -> tuple[HugePages, ...]:
    pools = []
    for name in tree.names(directory):
        size = re.fullmatch(r"hugepages-(\d+)kB", name)
        if size:
            total = tree.number(f"{directory}/{name}/nr_hugepages") or 0
            free = tree.number(f"{directory}/{name}/free_hugepages") or 0
            pools.append(HugePages(int(size[1]) * 1024, total, free))
    return tuple(sorted(pools, key=lambda pool: pool.size))


def read_distances(tree: Tree, nodes: tuple[Node, ...]) -> dict[int, dict[int, int]]:
    """Return distances[a][b] between nodes, from the firmware's SLIT.

    A row has one value for each online node. A row of another length is replaced by the kernel's defaults: 10 for the
    node itself and 20 for other nodes.
    """
    numbers = [node.node for node in nodes]
    table = {}
    for node in numbers:
        row = (tree.text(f"{_NODE}/node{node}/distance") or "").split()
        if len(row) == len(numbers) and all(word.isdigit() for word in row):
            table[node] = dict(zip(numbers, map(int, row), strict=True))
        else:
            table[node] = {other: 10 if other == node else 20 for other in numbers}
    return table


def read_caches(tree: Tree, cpus: tuple[Cpu, ...]) -> tuple[Cache, ...]:
    """Return every cache of the online CPUs, sorted by level, kind and CPUs."""
    online_mask = mask_of(cpu.cpu for cpu in cpus if cpu.online)
    caches: dict[tuple[int, str, int], Cache] = {}
    for cpu in bits_of(online_mask):
        directory = f"{_CPU}/cpu{cpu}/cache"
        for index in tree.numbered(directory, "index"):
            level = tree.number(f"{directory}/index{index}/level")
            kind = tree.text(f"{directory}/index{index}/type")
            shared = tree.mask(f"{directory}/index{index}/shared_cpu_map")
            if level is None or kind is None or (level, kind, shared or 0) in caches:
                continue
            sharers = bits_of(shared & online_mask) if shared else (cpu,)
            key = (level, kind, shared or 1 << cpu)
            caches[key] = Cache(level, kind, _size(tree.text(f"{directory}/index{index}/size")), sharers)
    return tuple(sorted(caches.values(), key=lambda cache: (cache.level, cache.kind, cache.cpus)))


def _size(text: str | None) -> int:
    """Return the bytes of a size in sysfs such as "1024K"; 0 for a missing or malformed file."""
    try:
        return parse_size(text or "")
    except ValueError:
        return 0
