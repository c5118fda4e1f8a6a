# SPDX-License-Identifier: BSD-3-Clause
"""From /sys to facts: which CPUs, cores, sockets, nodes and caches there are. Nobody else reads that part."""

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
    """What the kernel calls a CPU's package and core; core ids repeat in every package."""

    package: int | None
    core: int | None


def _read_ids(tree: Tree, cpu: int) -> _Ids:
    folder = f"{_CPU}/cpu{cpu}/topology"
    return _Ids(tree.number(f"{folder}/physical_package_id"), tree.number(f"{folder}/core_id"))


def read_cpus(tree: Tree, node_masks: Mapping[int, int], allowed: frozenset[int] | None) -> tuple[Cpu, ...]:
    """Every present CPU, ascending. An offline one has neither core nor socket: the kernel hides them."""
    present = _present(tree)
    online = _online(tree, present)
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


def _present(tree: Tree) -> list[int]:
    """Present CPUs; captures of old kernels have no such file, but a directory for each."""
    listed = tree.numbers(f"{_CPU}/present") or frozenset()
    online = tree.numbers(f"{_CPU}/online") or frozenset()
    return sorted(listed | online) or tree.numbered(_CPU, "cpu")


def _online(tree: Tree, present: list[int]) -> list[int]:
    """Online CPUs. cpu0 often has no `online` file of its own, since it cannot go offline."""
    listed = tree.numbers(f"{_CPU}/online")
    if listed:
        return [cpu for cpu in present if cpu in listed]
    return [cpu for cpu in present if tree.text(f"{_CPU}/cpu{cpu}/online") != "0"]


def _numbered(online: list[int], group_of: Callable[[int], int | None]) -> dict[int, int]:
    """CPU -> number of its group, counted up as CPUs show new ones; `group_of` gives a CPU's group as a mask."""
    numbers: dict[int, int] = {}
    everybody = mask_of(online)
    count = 0
    for cpu in online:
        if cpu not in numbers and (mask := group_of(cpu)) is not None:
            members = {cpu, *bits_of(mask & everybody)}
            numbers.update(dict.fromkeys(members - numbers.keys(), count))
            count += 1
    return numbers


def _core_numbers(tree: Tree, online: list[int], ids: Mapping[int, _Ids]) -> dict[int, int]:
    """CPU -> core. A core is what shares a thread mask; without masks, package id and core id.

    The two cores of an AMD compute unit share a thread mask too. They count as two, as in lstopo.
    """

    def core_mask(cpu: int) -> int | None:
        folder = f"{_CPU}/cpu{cpu}/topology"
        mask = tree.mask(f"{folder}/core_cpus", f"{folder}/thread_siblings")
        if mask is None and ids[cpu].core is not None:
            return mask_of(other for other in online if ids[other] == ids[cpu])
        threads = [other for other in bits_of(mask or 0) if other in ids]
        alike = [other for other in threads if ids[other].core == ids[cpu].core]
        return mask_of(alike) if len(alike) < len(threads) and _has_compute_units(tree) else mask

    return _numbered(online, core_mask)


def _has_compute_units(tree: Tree) -> bool:
    """Is it an AMD processor of family 15h or 16h?"""
    cpuinfo = tree.text("proc/cpuinfo") or ""
    return "AuthenticAMD" in cpuinfo and re.search(r"^cpu family\s*:\s*2[12]$", cpuinfo, re.MULTILINE) is not None


def _socket_numbers(tree: Tree, online: list[int], ids: Mapping[int, _Ids]) -> dict[int, int]:
    """CPU -> socket. A socket is what shares a package mask; without masks, a package id."""

    def socket_mask(cpu: int) -> int | None:
        folder = f"{_CPU}/cpu{cpu}/topology"
        mask = tree.mask(f"{folder}/package_cpus", f"{folder}/core_siblings")
        package = ids[cpu].package
        if mask is None and package is not None and package >= 0:
            return mask_of(other for other in online if ids[other].package == package)
        return mask

    return _numbered(online, socket_mask)


def node_masks(tree: Tree, fallback: int) -> dict[int, int]:
    """Node -> mask of its CPUs. Without NUMA in the kernel node 0 has `fallback`, all CPUs."""
    listed = tree.numbers(f"{_NODE}/online")
    found = [node for node in tree.numbered(_NODE, "node") if not listed or node in listed]
    if not found:
        return {0: fallback}
    masks = {}
    for node in found:
        mask = tree.mask(f"{_NODE}/node{node}/cpumap")
        if mask is None:
            mask = mask_of(tree.numbers(f"{_NODE}/node{node}/cpulist") or ())
        masks[node] = mask
    return masks


def present_mask(tree: Tree) -> int:
    """All present CPUs as a mask."""
    return mask_of(_present(tree))


def read_nodes(tree: Tree, masks: Mapping[int, int], cpus: tuple[Cpu, ...]) -> tuple[Node, ...]:
    """Every online node with its memory and hugepages, ascending."""
    members: dict[int, list[int]] = {node: [] for node in masks}
    for cpu in cpus:
        if cpu.online and cpu.node is not None:
            members[cpu.node].append(cpu.cpu)
    return tuple(_read_node(tree, node, tuple(members[node])) for node in sorted(masks))


def _read_node(tree: Tree, node: int, cpus: tuple[int, ...]) -> Node:
    folder = f"{_NODE}/node{node}"
    meminfo = tree.text(f"{folder}/meminfo")
    pools = f"{folder}/hugepages"
    if meminfo is None and not tree.names(folder):  # no NUMA in this kernel: the machine is the node
        meminfo, pools = tree.text("proc/meminfo"), "sys/kernel/mm/hugepages"
    fields = {name: int(kib) * 1024 for name, kib in _MEMINFO_LINE.findall(meminfo or "")}
    total = fields.get("MemTotal", 0)
    free = fields.get("MemFree", total)
    cache = fields.get("FilePages", fields.get("Cached", 0)) - fields.get("Shmem", 0)
    available = min(total, free + max(0, cache) + fields.get("SReclaimable", 0))
    return Node(node, cpus, total, free, available, _hugepages(tree, pools))


def hugepage_pool(node: int, page_size: int) -> str:
    """The folder of a node's hugepages of a size in bytes, from the root."""
    return f"{_NODE}/node{node}/hugepages/hugepages-{page_size // 1024}kB"


def _hugepages(tree: Tree, folder: str) -> tuple[HugePages, ...]:
    pools = []
    for name in tree.names(folder):
        size = re.fullmatch(r"hugepages-(\d+)kB", name)
        if size:
            total = tree.number(f"{folder}/{name}/nr_hugepages") or 0
            free = tree.number(f"{folder}/{name}/free_hugepages") or 0
            pools.append(HugePages(int(size[1]) * 1024, total, free))
    return tuple(sorted(pools, key=lambda pool: pool.size))


def read_distances(tree: Tree, nodes: tuple[Node, ...]) -> dict[int, dict[int, int]]:
    """distances[a][b] as firmware tells (10: the node itself); where it does not, 10 and 20 as in Linux.

    A row names online nodes in order; one that is too long or too short is not trusted.
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
    """Every cache of the online CPUs once, by level, kind and first CPU."""
    everybody = mask_of(cpu.cpu for cpu in cpus if cpu.online)
    caches: dict[tuple[int, str, int], Cache] = {}
    for cpu in bits_of(everybody):
        folder = f"{_CPU}/cpu{cpu}/cache"
        for index in tree.numbered(folder, "index"):
            level = tree.number(f"{folder}/index{index}/level")
            kind = tree.text(f"{folder}/index{index}/type")
            shared = tree.mask(f"{folder}/index{index}/shared_cpu_map")
            if level is None or kind is None or (level, kind, shared or 0) in caches:
                continue
            sharers = bits_of(shared & everybody) if shared else (cpu,)
            key = (level, kind, shared or 1 << cpu)
            caches[key] = Cache(level, kind, _size(tree.text(f"{folder}/index{index}/size")), sharers)
    return tuple(sorted(caches.values(), key=lambda cache: (cache.level, cache.kind, cache.cpus)))


def _size(text: str | None) -> int:
    """Return the bytes of a size in sysfs such as "1024K"; 0 for a missing or malformed file."""
    try:
        return parse_size(text or "")
    except ValueError:
        return 0
