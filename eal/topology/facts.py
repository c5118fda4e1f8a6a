# SPDX-License-Identifier: BSD-3-Clause
"""Facts about a machine as immutable values: CPUs, cores, sockets, nodes, caches, devices, pinned threads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cpu:
    """One logical CPU, what DPDK calls an lcore's CPU.

    `core`, `socket` and `node` are numbered as `lscpu -e` numbers them: cores and sockets count up from 0
    in the order in which CPUs first show them, nodes keep the kernel's number. `core_id` and `package_id` are
    the numbers the kernel reads from the hardware: they may repeat, have holes, or be -1. None: the kernel
    does not say (an offline CPU, a machine without topology files).
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
    """The online CPUs that share one core: hyperthreads of each other."""

    core: int
    socket: int | None
    cpus: tuple[int, ...]
    core_id: int | None


@dataclass(frozen=True)
class Socket:
    """One processor package and its online CPUs. Not DPDK's `socket_id`: that is a NUMA node."""

    socket: int
    package_id: int | None
    cpus: tuple[int, ...]
    nodes: tuple[int, ...]


@dataclass(frozen=True)
class HugePages:
    """The pool of one hugepage size on one node: `size` in bytes, `total` and `free` in pages."""

    size: int
    total: int
    free: int


@dataclass(frozen=True)
class Node:
    """One NUMA node, DPDK's `socket_id`. `cpus` are its online CPUs; a node may have none, or no memory.

    `memory`, `free` and `available` are bytes; `available` counts what the page cache would give back.
    """

    node: int
    cpus: tuple[int, ...]
    memory: int
    free: int
    available: int
    hugepages: tuple[HugePages, ...]


@dataclass(frozen=True)
class Cache:
    """One cache and the online CPUs that share it. `kind` is sysfs's "Data", ...; `size` is bytes."""

    level: int
    kind: str
    size: int
    cpus: tuple[int, ...]

    @property
    def name(self) -> str:
        """L1d, L1i, L2, L3, as lscpu writes it."""
        return f"L{self.level}" + {"Data": "d", "Instruction": "i"}.get(self.kind, "")


@dataclass(frozen=True)
class PciDevice:
    """One PCI function. `node` is None where firmware did not tell.

    `metadata` names what an ivshmem device carries: a metadata, or a segment by its group.
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
    """A thread of QEMU or of an app of ours, and the CPUs it may run on."""

    pid: int
    tid: int
    program: str
    thread: str
    kind: str
    cpus: tuple[int, ...]


@dataclass(frozen=True)
class Lcore:
    """A numbered worker of the EAL, the CPU it runs on, and that CPU's node as `socket_id`."""

    lcore_id: int
    cpu: int
    socket_id: int
