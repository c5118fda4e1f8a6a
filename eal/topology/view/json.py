# SPDX-License-Identifier: BSD-3-Clause
"""A topology as JSON. `cpus` has the schema of docs/cpu-layout.md, which does not change."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from eal.topology.model import Topology

VIEWS = ("caches", "pci", "pinned")


def as_dict(topology: Topology, views: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the topology as data for json.dump. `views` adds lists that take longer to read: any of VIEWS.

    Sizes are in bytes; a value that the kernel does not report is null. distances[from][to] has strings as keys.
    """
    data: dict[str, Any] = {
        "cpus": [
            {"cpu": cpu.cpu, "core": cpu.core, "socket": cpu.socket, "node": cpu.node, "online": cpu.online}
            for cpu in topology.cpus
        ],
        "allowed": [cpu.cpu for cpu in topology.cpus if cpu.allowed],
        "cores": [asdict(core) for core in topology.cores],
        "sockets": [asdict(socket) for socket in topology.sockets],
        "nodes": [asdict(node) for node in topology.nodes],
        "distances": {
            str(a): {str(b): distance for b, distance in row.items()} for a, row in topology.distances.items()
        },
    }
    for view in views:
        data[view] = [asdict(record) for record in getattr(topology, view)]
    return data
