# SPDX-License-Identifier: BSD-3-Clause
"""Immutable records of the topology: CPU, core, socket, NUMA node, cache, PCI device, pinned thread, lcore."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cpu:
    """One logical CPU.

    `core`, `socket` and `node` are the numbers of `lscpu -e`: cores and sockets are counted from 0 in ascending order
    of their CPUs, nodes have the kernel's number. `core_id` and `package_id` are the hardware's ids as reported by the
    kernel: they can repeat, have gaps, or be -1. None means that the kernel reports no value (an offline CPU, or a
    machine without topology files).
    """

    cpu: int
    core: int | None
    socket: int | None
    node: int | None
    online: bool
    allowed: bool
    core_id: int | None
    package_id: int | None


@dataclass(frozen=True)
class Core:
    """One core and its online CPUs, which are hyperthreads of each other."""

    core: int
    socket: int | None
    cpus: tuple[int, ...]
    core_id: int | None


@dataclass(frozen=True)
class Socket:
    """One processor package and its online CPUs. DPDK's `socket_id` is a NUMA node, not this number."""

    socket: int
    package_id: int | None
    cpus: tuple[int, ...]
    nodes: tuple[int, ...]


@dataclass(frozen=True)
class HugePages:
    """The hugepages of one size on one node: `size` in bytes, `total` and `free` in pages."""

    size: int
    total: int
    free: int


@dataclass(frozen=True)
class Node:
    """One NUMA node, DPDK's `socket_id`, with its online CPUs. A node can lack CPUs or memory.

    `memory`, `free` and `available` are in bytes; `available` includes the page cache that the kernel can reclaim.
    """

    node: int
    cpus: tuple[int, ...]
    memory: int
    free: int
    available: int
    hugepages: tuple[HugePages, ...]


@dataclass(frozen=True)
class Cache:
    """One cache and the online CPUs that share it. `kind` is the type in sysfs, such as "Data"; `size` is in bytes."""

    level: int
    kind: str
    size: int
    cpus: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name in lscpu: L1d, L1i, L2, L3."""
        return f"L{self.level}" + {"Data": "d", "Instruction": "i"}.get(self.kind, "")


@dataclass(frozen=True)
class PciDevice:
    """One PCI function. `node` is None if the firmware reports no NUMA node.

    `metadata` names the content of an ivshmem device: a metadata file by its name, or a segment by its group.
    """

    address: str
    vendor: int
    device: int
    class_code: int
    node: int | None
    driver: str | None
    interfaces: tuple[str, ...]
    metadata: str | None


@dataclass(frozen=True)
class PinnedThread:
    """One thread and the CPUs that it may run on. `kind` is "qemu", or "app" for a process that has loaded eal."""

    pid: int
    tid: int
    program: str
    thread: str
    kind: str
    cpus: tuple[int, ...]


@dataclass(frozen=True)
class Lcore:
    """One lcore (EAL worker): its id, the CPU that it runs on, and the CPU's NUMA node as `socket_id`."""

    lcore_id: int
    cpu: int
    socket_id: int
