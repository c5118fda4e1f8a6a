# SPDX-License-Identifier: BSD-3-Clause
"""Plan: the segments, objects, metadata and VMs that a TOML file describes, as data. docs/plan.md is its format."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eal.errors import Invalid, NotFound
from eal.memory import hugepages, numa, segment_file
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.metadata.records import Kind
from eal.runtime import prefix_dir as runtime
from eal.text import names
from eal.text.sizes import KIB, MIB, is_power_of_two
from ivshmem.plan import items as plan_items
from ivshmem.plan.items import Item, Key
from ivshmem.plan.reader import Reader, closest
from ivshmem.vmm.qemu import check_plug

CAPACITY = MIB


@dataclass(frozen=True)
class Group:
    """A group, and what its segments are made of. `size`: bytes of its first segment; None: as its objects need."""

    name: str
    page_size: int | None = None
    huge_dir: str | None = None
    socket_id: int = SOCKET_ID_ANY
    user: str | int | None = None
    user_group: str | int | None = None
    mode: int = 0o600
    size: int | None = None
    owned: bool = False  # whether the plan says to whom its files belong


@dataclass(frozen=True)
class PlannedMetadata:
    """A metadata: its objects, each with whether the VM gets it read-only."""

    name: str
    objects: dict[Key, bool]
    capacity: int = CAPACITY
    user: str | int | None = None
    user_group: str | int | None = None
    mode: int = 0o600
    isolated: bool = False


@dataclass(frozen=True)
class PlannedVm:
    """A VM: the metadata that it gets, and the window for plugging that it boots with."""

    name: str
    metadata: tuple[str, ...]
    plug: str | None = None


@dataclass(frozen=True)
class Plan:
    """A whole plan, checked as far as it can be without looking at what is there."""

    file_prefix: str
    no_huge: bool | None = None
    huge_dir: str | None = None
    groups: dict[str, Group] = field(default_factory=dict)
    items: dict[Key, Item] = field(default_factory=dict)
    metadata: dict[str, PlannedMetadata] = field(default_factory=dict)
    vms: dict[str, PlannedVm] = field(default_factory=dict)


class Faults(Invalid):
    """A plan that cannot be: `faults` has all of them, each with its key path."""

    def __init__(self, what: str, faults: list[str]) -> None:
        self.faults = faults
        super().__init__(what + ":" + "".join(f"\n  {fault}" for fault in faults))


def load(path: Path) -> Plan:
    """Reads and checks a plan. Raises NotFound, Invalid with line and column of a syntax error, or Faults."""
    faults: list[str] = []
    plan = _plan(Reader(parse(path), faults))
    if faults:
        raise Faults(f"{path} has {len(faults)} fault{'s' if len(faults) > 1 else ''}", faults)
    return plan


def parse(path: Path) -> dict[str, Any]:
    """The TOML in a file. Raises NotFound for a file that cannot be read, Invalid for what is no TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise NotFound(f"cannot read the plan {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise Invalid(f"{path} is no TOML: line {line} is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"{path} is no TOML: {error}") from error


def load_prefix(path: Path) -> str:
    """The file_prefix that a plan is of, whatever else is wrong with it. Raises as `load`."""
    faults: list[str] = []
    prefix = _prefix(Reader(parse(path), faults))
    if faults:
        raise Faults(f"{path} cannot be taken down", faults)
    return prefix


# --- reading ----------------------------------------------------------------------------------------------------


def _plan(reader: Reader) -> Plan:
    prefix = _prefix(reader)
    no_huge = reader.boolean("no_huge", None)
    huge_dir = reader.text("huge_dir", None)
    reader.check(lambda: _check_pages(huge_dir, no_huge, None), "huge_dir" if huge_dir else "no_huge")
    isolated = reader.boolean("isolated", False)
    groups = {name: _group(name, table) for name, table in reader.tables("groups")}
    groups.setdefault("default", Group("default"))
    read = plan_items.read(reader, groups)
    metadata = {name: _metadata(name, table, read, isolated) for name, table in reader.tables("metadata")}
    vms = {name: _vm(name, table, metadata) for name, table in reader.tables("vms")}
    reader.end()
    items = {key: item for key, item in read.items() if item is not None}
    return Plan(prefix, no_huge, huge_dir, groups, items, metadata, vms)


def _prefix(reader: Reader) -> str:
    reader.need("file_prefix")
    prefix = reader.text("file_prefix", "")
    if isinstance(reader.raw("file_prefix"), str):
        reader.check(lambda: runtime.check_prefix(prefix))
    return prefix


def _check_pages(huge_dir: str | None, no_huge: bool | None, page_size: int | None) -> None:
    """Whether such pages can be had at all. That nobody asked for any is no fault."""
    if huge_dir is not None or page_size is not None or no_huge is False:
        hugepages.choose(huge_dir=huge_dir, no_huge=no_huge, page_size=page_size)


def _group(name: str, reader: Reader) -> Group:
    reader.check(lambda: names.check_name(name, "group"))
    group = Group(
        name,
        page_size=reader.size("page_size", None),
        huge_dir=reader.text("huge_dir", None),
        socket_id=reader.integer("socket_id", SOCKET_ID_ANY),
        **_ownership(reader),
        size=reader.size("size", None),
        owned=any(map(reader.has, ("mode", "user", "group"))),
    )
    pages_key = "huge_dir" if group.huge_dir is not None else "page_size"
    reader.check(lambda: _check_pages(group.huge_dir, None, group.page_size), pages_key)
    if group.socket_id != SOCKET_ID_ANY:
        reader.check(lambda: numa.check_node(group.socket_id), "socket_id")
    if group.size is not None and (group.size < 8 * KIB or not is_power_of_two(group.size)):
        reader.fault(f"{group.size} is not a power of two of at least 8192, which the BAR of a segment must be", "size")
    reader.end()
    return group


def _ownership(reader: Reader) -> dict[str, Any]:
    """Mode, user and group of files; `group` of a group's table is the system's."""
    mode = reader.integer("mode", 0o600)
    found = {"user": reader.owner("user"), "user_group": reader.owner("group"), "mode": mode}
    reader.check(lambda: segment_file.check_mode(mode, repr(reader.path[-1])))
    for key, value in (("user", found["user"]), ("group", found["user_group"])):
        reader.check(lambda key=key, value=value: segment_file.check_owner(key, value), key)  # type: ignore[misc]
    return found


def _metadata(name: str, reader: Reader, items: dict[Key, Item | None], isolated: bool) -> PlannedMetadata:
    reader.check(lambda: names.check_name(name, "metadata"))
    objects = dict.fromkeys(_objects(reader, items), False)
    if reader.has("readonly"):
        readonly = Reader(reader.raw("readonly"), reader.faults, *reader.path, "readonly")
        for key in _objects(readonly, items):
            if key in objects:
                readonly.fault(f"{key[1]!r} stands in {name!r} as writable, too: leave one out", _SECTION[key[0]])
            objects[key] = True
        readonly.end()
    reader.raw("readonly")
    capacity = reader.size("capacity", CAPACITY)
    if not 16384 <= capacity < 1 << 47 or not is_power_of_two(capacity):
        reader.fault(f"{capacity} is not a power of two from 16384 to 2**46 bytes", "capacity")
    isolated = reader.boolean("isolated", isolated)
    found = PlannedMetadata(name, objects, capacity, isolated=isolated, **_ownership(reader))
    _check_groups(reader, found, items)
    reader.end()
    return found


_SECTION = {Kind.MEMZONE: "zones", Kind.RING: "rings", Kind.MEMPOOL: "mempools"}


def _objects(reader: Reader, items: dict[Key, Item | None]) -> list[Key]:
    """The objects that a metadata names. Those that the plan does not have are noted and left out."""
    found = []
    for kind, section in _SECTION.items():
        for name in reader.strings(section):
            if (kind, name) in found:
                reader.fault(f"{name!r} stands there twice", section)
            elif (kind, name) in items:
                found.append((kind, name))
            else:
                known = [other for of, other in items if of == kind]
                reader.fault(f"the plan has no {name!r} there; {closest(name, known)}", section)
    return found


def _check_groups(reader: Reader, metadata: PlannedMetadata, items: dict[Key, Item | None]) -> None:
    """A VM gets whole segments, so all of a group: either way, and with nothing else if it is to be isolated."""
    ways = defaultdict(set)
    for key, readonly in metadata.objects.items():
        if item := items[key]:
            ways[item.group].add(readonly)
    for group in sorted(group for group, both in ways.items() if len(both) > 1):
        reader.fault(
            f"group {group!r} would be both read-only and writable: put what is read-only in a group of its own"
        )
    if metadata.isolated:
        for key, item in items.items():
            if item and item.group in ways and key not in metadata.objects:
                reader.fault(
                    f"{item.where} would be exposed: it is in group {item.group!r} too, and not in the metadata; "
                    "put it in another group, or leave isolated out"
                )


def _vm(name: str, reader: Reader, metadata: dict[str, PlannedMetadata]) -> PlannedVm:
    given = reader.strings("metadata")
    reader.need("metadata")
    for each in given:
        if each not in metadata:
            reader.fault(f"the plan has no metadata {each!r}; {closest(each, metadata)}", "metadata")
    plug = reader.text("plug", None)
    reader.check(lambda: check_plug(plug))
    reader.end()
    return PlannedVm(name, tuple(given), plug)
