# SPDX-License-Identifier: BSD-3-Clause
"""NUMA placement of segments: check a node, bind a mapping to it, verify where the kernel allocated the pages."""

from __future__ import annotations

import os
from pathlib import Path

from eal._native import lib
from eal.errors import Invalid, NoMemory, from_errno
from eal.linux.mapping import Mapping
from eal.topology.model import Topology


def free_hugepages(node: int, page_size: int) -> int:
    """Return the number of free hugepages of `page_size` bytes on a NUMA node."""
    pools = (pool for found in Topology().nodes if found.node == node for pool in found.hugepages)
    return next((pool.free for pool in pools if pool.size == page_size), 0)


def nodes_with_memory() -> frozenset[int]:
    """Return the NUMA nodes that memory can be bound to."""
    return frozenset(node.node for node in Topology().nodes if node.memory)


def check_node(node: int) -> None:
    """Raise Invalid if a NUMA node does not exist or has no memory."""
    nodes = nodes_with_memory()
    if node not in nodes:
        names = ", ".join(map(str, sorted(nodes))) or "this kernel reports none"
        raise Invalid(f"socket_id must be a NUMA node with memory ({names}), got {node}")


def bind(mapping: Mapping, node: int, path: Path) -> None:
    """Bind a mapping to a NUMA node before its pages are allocated (mbind, MPOL_BIND); `path` is for messages."""
    result = lib.ivs_bind(mapping.address, mapping.length, node)
    if result < 0:
        reason = os.strerror(-result)
        raise from_errno(result, f"cannot bind {path} to NUMA node {node}: {reason}; is the node in the cpuset?")


def check_placement(mapping: Mapping, page_size: int, node: int) -> None:
    """Raise NoMemory if any allocated page of a mapping is on another NUMA node: the kernel may ignore the binding."""
    remote = lib.ivs_count_remote_pages(mapping.address, mapping.length, page_size, node)
    if remote < 0:
        raise from_errno(remote, f"cannot read the NUMA nodes of the pages: {os.strerror(-remote)}")
    if remote:
        raise NoMemory(f"{remote} pages were allocated on other NUMA nodes")
