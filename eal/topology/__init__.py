# SPDX-License-Identifier: BSD-3-Clause
"""CPUs, NUMA nodes, caches and PCI devices of this machine or of a captured sysfs (DPDK: usertools/cpu_layout.py)."""

from eal.topology.cli import main
from eal.topology.model import Topology, lcores, pin, socket_id_of

__all__ = ["Topology", "lcores", "main", "pin", "socket_id_of"]
