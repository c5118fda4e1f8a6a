# SPDX-License-Identifier: BSD-3-Clause
"""Load: read a plan from a TOML file and check every value that can be checked without the existing objects."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

from eal.errors import Invalid, NotFound
from eal.memory import hugepages, numa, segment_file
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.metadata.records import Kind
from eal.runtime import prefix_dir
from eal.text import names
from eal.text.sizes import KIB, is_power_of_two
from ivshmem.plan import items as plan_items
from ivshmem.plan.items import Item, Key
from ivshmem.plan.reader import Fault, Reader, suggest
from ivshmem.plan.schema import CAPACITY, Faults, Group, Plan, PlannedMetadata, PlannedVm
from ivshmem.vmm.qemu import check_plug

_SECTION = {Kind.MEMZONE: "zones", Kind.RING: "rings", Kind.MEMPOOL: "mempools"}


def load(path: Path) -> Plan:
    """Read and check a plan.

    Raises NotFound if the file cannot be read; Invalid with line and column of a TOML syntax error; Faults.
    """
    faults: list[Fault] = []
    plan = _plan(Reader(parse(path), faults))
    if faults:
        raise Faults(f"{path} has {len(faults)} fault{'s' if len(faults) > 1 else ''}", faults)
    return plan


def load_prefix(path: Path) -> str:
    """Return the file_prefix of a plan and ignore all other keys. Raises as `load`."""
    faults: list[Fault] = []
    prefix = _prefix(Reader(parse(path), faults))
    if faults:
        raise Faults(f"{path} has no valid file_prefix", faults)
    return prefix


def parse(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file. Raises NotFound if it cannot be read, Invalid for a syntax error."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise NotFound(f"cannot read the plan {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise Invalid(f"{path} is not valid TOML: line {line} is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"{path} is not valid TOML: {error}") from error


def _plan(reader: Reader) -> Plan:
    prefix = _prefix(reader)
    no_huge = reader.boolean("no_huge", None)
    huge_dir = reader.text("huge_dir", None)
    reader.check(lambda: _check_pages(huge_dir, no_huge, None), "huge_dir" if huge_dir else "no_huge")
    isolated = reader.boolean("isolated", False)
    groups = {name: _group(name, table) for name, table in reader.tables("groups")}
    groups.setdefault("default", Group("default"))
    items = plan_items.read(reader, groups)
    metadata = {name: _metadata(name, table, items, isolated) for name, table in reader.tables("metadata")}
    vms = {name: _vm(name, table, metadata) for name, table in reader.tables("vms")}
    reader.reject_unknown_keys()
    valid = {key: item for key, item in items.items() if item is not None}
    return Plan(prefix, no_huge, huge_dir, groups, valid, metadata, vms)


def _prefix(reader: Reader) -> str:
    reader.require("file_prefix")
    prefix = reader.text("file_prefix", "")
    if isinstance(reader.raw("file_prefix"), str):
        reader.check(lambda: prefix_dir.check_prefix(prefix), "file_prefix")
    return prefix


def _check_pages(huge_dir: str | None, no_huge: bool | None, page_size: int | None) -> None:
    """Raise if requested hugepages are not available. Without a request there is nothing to check."""
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
        reader.fault(f"must be a power of two >= 8192 (PCI BAR requirement), got {group.size}", "size")
    reader.reject_unknown_keys()
    return group


def _ownership(reader: Reader) -> dict[str, Any]:
    """Return mode, user and user_group of files. The key of the user group is `group`."""
    mode = reader.integer("mode", 0o600)
    user, user_group = reader.owner("user"), reader.owner("group")
    reader.check(lambda: segment_file.check_mode(mode, repr(reader.path[-1])), "mode")
    reader.check(lambda: segment_file.check_owner("user", user), "user")
    reader.check(lambda: segment_file.check_owner("group", user_group), "group")
    return {"mode": mode, "user": user, "user_group": user_group}


def _metadata(name: str, reader: Reader, items: dict[Key, Item | None], isolated: bool) -> PlannedMetadata:
    reader.check(lambda: names.check_name(name, "metadata"))
    objects = dict.fromkeys(_objects(reader, items), False)
    readonly = reader.raw("readonly")
    if readonly is not None:
        table = Reader(readonly, reader.faults, *reader.path, "readonly")
        for key in _objects(table, items):
            if key in objects:
                table.fault(f"{key[1]!r} is also listed as writable in {name!r}: remove one entry", _SECTION[key[0]])
            objects[key] = True
        table.reject_unknown_keys()
    capacity = reader.size("capacity", CAPACITY)
    if not 16384 <= capacity < 1 << 47 or not is_power_of_two(capacity):
        reader.fault(f"must be a power of two from 16384 to 2**46 bytes, got {capacity}", "capacity")
    isolated = reader.boolean("isolated", isolated)
    metadata = PlannedMetadata(name, objects, capacity, isolated=isolated, **_ownership(reader))
    _check_groups(reader, metadata, items)
    reader.reject_unknown_keys()
    return metadata


def _objects(reader: Reader, items: dict[Key, Item | None]) -> list[Key]:
    """Return the objects that a metadata table lists, without those that the plan does not have."""
    keys: list[Key] = []
    for kind, section in _SECTION.items():
        for name in reader.strings(section):
            if (kind, name) in keys:
                reader.fault(f"{name!r} is listed twice", section)
            elif (kind, name) in items:
                keys.append((kind, name))
            else:
                known = [other for other_kind, other in items if other_kind == kind]
                reader.fault(f"the plan has no {plan_items.kind_name(kind)} {name!r}; {suggest(name, known)}", section)
    return keys


def _check_groups(reader: Reader, metadata: PlannedMetadata, items: dict[Key, Item | None]) -> None:
    """Record faults of groups that one VM would get both read-only and writable, or that break isolation.

    A VM gets whole segments, hence all objects of a group with the same access.
    """
    access = defaultdict(set)
    for key, readonly in metadata.objects.items():
        if item := items[key]:
            access[item.group].add(readonly)
    for group in sorted(group for group, both in access.items() if len(both) > 1):
        reader.fault(f"group {group!r} is listed both read-only and writable: put read-only objects into another group")
    if metadata.isolated:
        for key, item in items.items():
            if item and item.group in access and key not in metadata.objects:
                reader.fault(
                    f"isolated, but exposes {item.where}, which is in group {item.group!r} and not listed: put "
                    f"{item.where} into another group, or remove `isolated`"
                )


def _vm(name: str, reader: Reader, metadata: dict[str, PlannedMetadata]) -> PlannedVm:
    listed = reader.strings("metadata")
    reader.require("metadata")
    for each in listed:
        if each not in metadata:
            reader.fault(f"the plan has no metadata {each!r}; {suggest(each, metadata)}", "metadata")
    plug = reader.text("plug", None)
    reader.check(lambda: check_plug(plug), "plug")
    reader.reject_unknown_keys()
    return PlannedVm(name, tuple(listed), plug)
