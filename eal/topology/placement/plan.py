# SPDX-License-Identifier: BSD-3-Clause
"""The placement plan: where workloads go, and which are left out."""

from __future__ import annotations

from dataclasses import dataclass

from eal.topology.placement.request import Workload


@dataclass(frozen=True)
class Placement:
    """Where one workload goes. `vcpus[i]` is the CPU of vCPU i, `lcores[i]` that of its i-th polling lcore.

    `threads` is how many vCPUs share a guest core: more than 1 where the VM has whole cores with threads.
    `emulator` is where QEMU's other threads belong: free CPUs of the node, the VM's own where none is free.
    """

    workload: Workload
    node: int
    vcpus: tuple[int, ...]
    lcores: tuple[int, ...]
    threads: int
    emulator: tuple[int, ...]


@dataclass(frozen=True)
class Misfit:
    """Workloads of one group that were left out, why, and the most of them that fits beside the rest.

    `vcpus`, `lcores` and `memory` (bytes, segments included) are sums over `workloads`, on `node`. Node None:
    nothing fits.
    """

    workloads: tuple[Workload, ...]
    reasons: tuple[str, ...]
    node: int | None
    vcpus: int
    lcores: int
    memory: int


@dataclass(frozen=True)
class PlacementPlan:
    """A placement of as many groups of workloads as fit; `misfits` are the others."""

    placements: tuple[Placement, ...]
    misfits: tuple[Misfit, ...] = ()
    nodes: tuple[int, ...] = ()

    @property
    def fits(self) -> bool:
        """Is everything placed?"""
        return not self.misfits

    @property
    def owners(self) -> dict[int, str]:
        """CPU -> what runs there: "web vCPU 0", "web lcore"."""
        owners = {}
        for placement in self.placements:
            name = placement.workload.name
            owners.update({cpu: f"{name} vCPU {index}" for index, cpu in enumerate(placement.vcpus)})
            owners.update(dict.fromkeys(placement.lcores, f"{name} lcore"))
        return owners
