# SPDX-License-Identifier: BSD-3-Clause
"""Placement request: the VMs and host lcores to place, and the parser of its text form, SPEC."""

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
    """One VM with its host lcores, or host lcores without a VM (`vcpus` 0).

    `memory`, `segments` and `pages` are in bytes. `pages` is the size of the hugepages for memory and segments, None
    for normal pages. Workloads of one `group` are placed on one node. `node` requires a node, None allows every node.
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
    """The workloads to place, and the CPUs to leave unused."""

    workloads: tuple[Workload, ...]
    exclude: frozenset[int] = frozenset()


def parse_spec(spec: str) -> Request:
    """Return the request described by a SPEC; "@FILE" reads the SPEC from a file. Raise Invalid for a malformed part.

    Parts are separated by ";" or newlines, "#" starts a comment:
        vm=NAME,vcpus=N,memory=SIZE[,lcores=N][,segments=SIZE][,pages=2M|1G][,group=G][,node=N][,count=N]
        lcores=N[,name=NAME][,segments=SIZE][,pages=...][,group=G][,node=N]
        exclude=CPU+CPU-CPU (CPUs to leave unused; "+" replaces the comma of a CPU list)
    """
    if spec.startswith("@"):
        try:
            spec = Path(spec[1:]).read_text(encoding="utf-8")
        except OSError as error:
            raise Invalid(f"cannot read SPEC file {spec[1:]!r}: {error.strerror}") from None
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
            raise Invalid(f"{part!r}: field must be KEY=VALUE with a key of {', '.join(_KEYS)}, got {pair.strip()!r}")
        if key in fields:
            raise Invalid(f"{part!r}: key {key!r} must occur once, got it twice")
        fields[key] = value
    if "exclude" in fields and len(fields) > 1:
        raise Invalid(f"{part!r}: exclude must be the only key of its part and join CPUs by +, such as exclude=0-1+8")
    return fields


def _workloads(part: str, fields: dict[str, str]) -> list[Workload]:
    """Return the workloads of a part: `count` of them."""
    is_vm = "vm" in fields
    if is_vm and not {"vcpus", "memory"} <= fields.keys():
        raise Invalid(f"{part!r}: vm=NAME must have vcpus=N and memory=SIZE")
    if not is_vm and ("vcpus" in fields or "memory" in fields or "lcores" not in fields):
        raise Invalid(f"{part!r}: part must start with vm=NAME for a VM or lcores=N for host lcores")
    if is_vm and "name" in fields:
        raise Invalid(f"{part!r}: name= must be used with host lcores only; the name of a VM is the value of vm=")
    count = _count(part, fields, "count", 1)
    name = fields.get("vm") or fields.get("name") or "host"
    if not re.fullmatch(r"[A-Za-z][\w.-]*", name, re.ASCII):
        raise Invalid(f"{part!r}: name must be a letter, then letters, digits, -, _ and . (QEMU ids), got {name!r}")
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
        raise Invalid(f"{part!r}: {key} must be an integer from {least} to 65536, got {text!r}")
    return int(text)


def _size(fields: dict[str, str], key: str) -> int:
    return _bytes(fields[key]) if key in fields else 0


def _bytes(text: str) -> int:
    try:
        if text.strip().isdecimal():
            raise ValueError("no unit")
        return parse_size(text)
    except ValueError:
        raise Invalid(f"size must be a number with a unit, such as 512M or 8G, got {text!r}") from None


def _check_names(workloads: list[Workload]) -> None:
    if not workloads:
        raise Invalid("SPEC must have at least one workload, such as vm=web,vcpus=4,memory=8G, got none")
    names = [workload.name for workload in workloads]
    for name in names:
        if names.count(name) > 1:
            raise Invalid(f"workload names must be unique, got {name!r} twice; change one vm= or name=")
