# SPDX-License-Identifier: BSD-3-Clause
"""The placement plan: nodes and CPUs of the placed workloads, and the workloads that do not fit."""

from __future__ import annotations

from dataclasses import dataclass

from eal.topology.placement.request import Workload


@dataclass(frozen=True)
class Placement:
    """The node and CPUs of one workload. `vcpus[i]` is the CPU of vCPU i, `lcores[i]` the CPU of polling lcore i.

    `threads` is the number of vCPUs per guest core: above 1 if the VM has whole cores with hyperthreads. `emulator`
    contains the CPUs for QEMU's other threads: unused CPUs of the node, or the VM's own CPUs if none is unused.
    """

    workload: Workload
    node: int
    vcpus: tuple[int, ...]
    lcores: tuple[int, ...]
    threads: int
    emulator: tuple[int, ...]


@dataclass(frozen=True)
class Misfit:
    """A group of workloads that was left out, the reason for each node, and the largest part of it that fits.

    `vcpus`, `lcores` and `memory` (bytes, including segments) are sums over `workloads` and describe the largest part
    that fits on `node` beside the placed workloads. `node` is None if no part fits.
    """

    workloads: tuple[Workload, ...]
    reasons: tuple[str, ...]
    node: int | None
    vcpus: int
    lcores: int
    memory: int


@dataclass(frozen=True)
class PlacementPlan:
    """Placements of as many groups as possible, the other groups as `misfits`, and all node numbers as `nodes`."""

    placements: tuple[Placement, ...]
    misfits: tuple[Misfit, ...] = ()
    nodes: tuple[int, ...] = ()

    @property
    def fits(self) -> bool:
        """True if every workload has a placement."""
        return not self.misfits

    @property
    def owners(self) -> dict[int, str]:
        """CPU -> user of the CPU: "web vCPU 0", "web lcore"."""
        owners = {}
        for placement in self.placements:
            name = placement.workload.name
            owners.update({cpu: f"{name} vCPU {index}" for index, cpu in enumerate(placement.vcpus)})
            owners.update(dict.fromkeys(placement.lcores, f"{name} lcore"))
        return owners
