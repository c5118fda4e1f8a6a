# SPDX-License-Identifier: BSD-3-Clause
"""PlanRecord: the objects that `ivshmem up` created in a file_prefix, the only ones that a changed plan may remove."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from eal.errors import EalError
from eal.linux import atomic_file
from eal.memory.registry import open_registry
from eal.metadata.records import Kind
from eal.runtime.prefix_dir import PrefixDir
from ivshmem.plan.items import Key
from ivshmem.plan.schema import Plan

_FILE = "plan.json"


@dataclass
class PlanRecord:
    """The objects of the last plan, and those that each of its metadata files lists.

    A record is valid for one registry: after a fresh start of a program the record of the old registry is ignored.
    """

    directory: PrefixDir
    objects: set[Key] = field(default_factory=set)
    metadata: dict[str, set[Key]] = field(default_factory=dict)

    @classmethod
    def load(cls, directory: PrefixDir) -> PlanRecord:
        """Return the record of a file_prefix; an empty one if there is none, or it belongs to another registry."""
        try:
            data = json.loads((directory.path / _FILE).read_text("utf-8"))
            if data["registry"] != _registry_of(directory):
                return cls(directory)
            metadata = {name: set(map(_key_from_json, keys)) for name, keys in data["metadata"].items()}
            return cls(directory, set(map(_key_from_json, data["objects"])), metadata)
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return cls(directory)

    def save(self, plan: Plan) -> None:
        """Write the record of a plan that was applied, if it differs from this one."""
        metadata = {name: set(planned.objects) for name, planned in plan.metadata.items()}
        if (set(plan.items), metadata) == (self.objects, self.metadata):
            return
        path = self.directory.path / _FILE
        data = {
            "registry": _registry_of(self.directory),
            "objects": sorted(_key_to_json(key) for key in plan.items),
            "metadata": {name: sorted(map(_key_to_json, keys)) for name, keys in metadata.items()},
        }
        atomic_file.write_text(path, json.dumps(data))


def _registry_of(directory: PrefixDir) -> str:
    """Return the uuid of the registry; "" if it cannot be read."""
    try:
        registry = open_registry(directory.registry, writable=False)
    except EalError:
        return ""
    try:
        return str(registry.uuid)
    finally:
        registry.close()


def _key_to_json(key: Key) -> list[Any]:
    return [key[0].name, key[1]]


def _key_from_json(data: list[str]) -> Key:
    return Kind[data[0]], data[1]
