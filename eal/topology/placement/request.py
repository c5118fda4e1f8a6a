# SPDX-License-Identifier: BSD-3-Clause
"""What is to be placed: VMs with vCPUs and memory, host lcores, and the plan that says where they go."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from eal.errors import Invalid
from eal.text.sizes import parse_size
from eal.topology.cpulist import parse_list

_KEYS = ("vm", "name", "vcpus", "memory", "segments", "lcores", "pages", "group", "node", "count", "exclude")


@dataclass(frozen=True)
class Workload:
    """One VM with its host lcores, or host lcores alone (`vcpus` 0).

    `memory`, `segments` and `pages` are bytes; `pages` is the hugepage size that backs both, None for normal
    pages. Workloads of one `group` share segments or lcores, so they go to one node. `node` forces a node.
    """

    name: str
    vcpus: int = 0
    memory: int = 0
    segments: int = 0
    lcores: int = 0
    pages: int | None = None
    group: str | None = None
    node: int | None = None


@dataclass(frozen=True)
class Request:
    """All workloads, and the CPUs that nobody may have."""

    workloads: tuple[Workload, ...]
    exclude: frozenset[int] = frozenset()


def parse_spec(spec: str) -> Request:
    """The request that a SPEC describes; "@FILE" reads it from a file. Raises Invalid: which part is wrong.

    Parts are separated by ";" or lines, "#" begins a comment:
        vm=NAME,vcpus=N,memory=SIZE[,lcores=N][,segments=SIZE][,pages=2M|1G][,group=G][,node=N][,count=N]
        lcores=N[,name=NAME][,segments=SIZE][,pages=...][,group=G][,node=N]
        exclude=CPU+CPU-CPU (CPUs to be left alone; "+" stands for the comma of a CPU list)
    """
    if spec.startswith("@"):
        try:
            spec = Path(spec[1:]).read_text(encoding="utf-8")
        except OSError as error:
            raise Invalid(f"cannot read the plan's SPEC from {spec[1:]!r}: {error.strerror}") from None
    workloads: list[Workload] = []
    exclude: frozenset[int] = frozenset()
    for line in spec.splitlines():
        for part in line.partition("#")[0].split(";"):
            if part.strip():
                fields = _fields(part.strip())
                if "exclude" in fields:
                    exclude |= parse_list(fields["exclude"].replace("+", ","))
                else:
                    workloads += _workloads(part.strip(), fields)
    _check_names(workloads)
    return Request(tuple(workloads), exclude)


def _fields(part: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for pair in part.split(","):
        key, equals, value = (word.strip() for word in pair.partition("="))
        if key not in _KEYS or not equals or not value:
            raise Invalid(f"{pair.strip()!r} in {part!r} is not KEY=VALUE with one of the keys {', '.join(_KEYS)}")
        if key in fields:
            raise Invalid(f"{key!r} stands twice in {part!r}")
        fields[key] = value
    if "exclude" in fields and len(fields) > 1:
        raise Invalid(
            f"{part!r}: exclude stands alone in its part, and joins numbers with +, for example exclude=0-1+8"
        )
    return fields


def _workloads(part: str, fields: dict[str, str]) -> list[Workload]:
    """A part's workloads: several where it has a count."""
    is_vm = "vm" in fields
    if is_vm and not {"vcpus", "memory"} <= fields.keys():
        raise Invalid(f"{part!r}: a vm needs vcpus=N and memory=SIZE")
    if not is_vm and ("vcpus" in fields or "memory" in fields or "lcores" not in fields):
        raise Invalid(f"{part!r}: begin a VM with vm=NAME, host lcores of their own with lcores=N")
    if is_vm and "name" in fields:
        raise Invalid(f"{part!r}: a VM's name is what follows vm=")
    count = _count(part, fields, "count", 1)
    name = fields.get("vm") or fields.get("name") or "host"
    if not re.fullmatch(r"[A-Za-z][\w.-]*", name, re.ASCII):
        raise Invalid(f"{part!r}: the name {name!r} goes into QEMU ids: letters, digits, -, _ and . after a letter")
    return [
        Workload(
            name=name if count == 1 else f"{name}{index}",
            vcpus=_count(part, fields, "vcpus", 1) if is_vm else 0,
            memory=_size(fields, "memory"),
            segments=_size(fields, "segments"),
            lcores=_count(part, fields, "lcores", 0 if is_vm else 1),
            pages=_bytes(fields["pages"]) if "pages" in fields else None,
            group=fields.get("group"),
            node=_count(part, fields, "node", 0) if "node" in fields else None,
        )
        for index in range(count)
    ]


def _count(part: str, fields: dict[str, str], key: str, least: int) -> int:
    text = fields.get(key, str(least))
    if not text.isdecimal() or not least <= int(text) <= 65536:
        raise Invalid(f"{part!r}: {key}={text} must be a whole number, {least} or more")
    return int(text)


def _size(fields: dict[str, str], key: str) -> int:
    return _bytes(fields[key]) if key in fields else 0


def _bytes(text: str) -> int:
    try:
        if text.strip().isdecimal():
            raise ValueError("no unit")
        return parse_size(text)
    except ValueError:
        raise Invalid(f"size must be a number and a unit, such as 512M or 8G, got {text!r}") from None


def _check_names(workloads: list[Workload]) -> None:
    if not workloads:
        raise Invalid("the plan's SPEC is empty: write at least one part such as vm=web,vcpus=4,memory=8G")
    names = [workload.name for workload in workloads]
    for name in names:
        if names.count(name) > 1:
            raise Invalid(f"two workloads are called {name!r}: give one of them another vm= or name=")
