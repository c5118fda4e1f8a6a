# SPDX-License-Identifier: BSD-3-Clause
"""Schema: a plan as data. docs/plan.md describes the TOML format, ivshmem.plan.load reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from eal.errors import Invalid
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.text.sizes import MIB
from ivshmem.plan.items import Item, Key
from ivshmem.plan.reader import Fault

CAPACITY = MIB  # bytes of a metadata file


@dataclass(frozen=True)
class Group:
    """A group and the properties of its segments.

    `page_size` is in bytes. `size` is the size of the first segment in bytes; None: as large as its objects need.
    `owned` is True if the plan sets mode, user or group of the files.
    """

    name: str
    page_size: int | None = None
    huge_dir: str | None = None
    socket_id: int = SOCKET_ID_ANY
    user: str | int | None = None
    user_group: str | int | None = None
    mode: int = 0o600
    size: int | None = None
    owned: bool = False


@dataclass(frozen=True)
class PlannedMetadata:
    """A metadata file: `objects` maps each object to True if a VM gets it read-only; `capacity` is in bytes."""

    name: str
    objects: dict[Key, bool]
    capacity: int = CAPACITY
    user: str | int | None = None
    user_group: str | int | None = None
    mode: int = 0o600
    isolated: bool = False


@dataclass(frozen=True)
class PlannedVm:
    """A VM: the metadata files that it gets, and the size of its window for hotplug ("1G")."""

    name: str
    metadata: tuple[str, ...]
    plug: str | None = None


@dataclass(frozen=True)
class Plan:
    """A whole plan. Its values are valid; conflicts with existing objects are found by ivshmem.plan.diff."""

    file_prefix: str
    no_huge: bool | None = None
    huge_dir: str | None = None
    groups: dict[str, Group] = field(default_factory=dict)
    items: dict[Key, Item] = field(default_factory=dict)
    metadata: dict[str, PlannedMetadata] = field(default_factory=dict)
    vms: dict[str, PlannedVm] = field(default_factory=dict)


class Faults(Invalid):
    """The plan is invalid, or conflicts with existing objects. `faults` lists every fault with its key path."""

    def __init__(self, summary: str, faults: Sequence[Fault]) -> None:
        self.faults = list(faults)
        super().__init__(summary + ":" + "".join(f"\n  {fault}" for fault in faults))
