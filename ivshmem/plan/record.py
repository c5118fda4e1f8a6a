# SPDX-License-Identifier: BSD-3-Clause
"""PlanRecord: what `ivshmem up` has made in a prefix, so that a changed plan takes away that and nothing else."""

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
    """The objects of the last plan, and those in each of its metadata. It holds for one registry: a program that
    started afresh has made its own.
    """

    directory: PrefixDir
    objects: set[Key] = field(default_factory=set)
    metadata: dict[str, set[Key]] = field(default_factory=dict)

    @classmethod
    def load(cls, directory: PrefixDir) -> PlanRecord:
        """What was recorded; nothing where there is no record, or it is of another registry."""
        try:
            data = json.loads((directory.path / _FILE).read_text("utf-8"))
            if data["registry"] != _registry_of(directory):
                return cls(directory)
            metadata = {name: set(map(_key, keys)) for name, keys in data["metadata"].items()}
            return cls(directory, set(map(_key, data["objects"])), metadata)
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return cls(directory)

    def save(self, plan: Plan) -> None:
        """Writes down what a plan has made, if it differs."""
        metadata = {name: set(planned.objects) for name, planned in plan.metadata.items()}
        if (set(plan.items), metadata) == (self.objects, self.metadata):
            return
        path = self.directory.path / _FILE
        data = {
            "registry": _registry_of(self.directory),
            "objects": sorted(_text(key) for key in plan.items),
            "metadata": {name: sorted(map(_text, keys)) for name, keys in metadata.items()},
        }
        atomic_file.write_text(path, json.dumps(data))


def _registry_of(directory: PrefixDir) -> str:
    try:
        registry = open_registry(directory.registry, writable=False)
    except EalError:
        return ""
    try:
        return str(registry.uuid)
    finally:
        registry.close()


def _text(key: Key) -> list[Any]:
    return [key[0].name, key[1]]


def _key(text: list[str]) -> Key:
    return Kind[text[0]], text[1]
