# SPDX-License-Identifier: BSD-3-Clause
"""Items: the memzones, rings and mempools of a plan, each with the Eal method that creates it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

from eal.errors import Invalid
from eal.lifecycle.eal import Eal
from eal.mbuf.format import DEFAULT_DATA_ROOM, mbuf_pool_memsize
from eal.memory.heap import CACHE_LINE, check_align
from eal.memory.memzone import Memzone
from eal.memory.socket_id import SOCKET_ID_ANY
from eal.mempool.format import MempoolFlag, mempool_memsize
from eal.mempool.mempool import Mempool
from eal.metadata.records import Kind
from eal.ring.format import RingFlag, ring_memsize
from eal.ring.ring import Ring
from eal.text import dtypes, names
from ivshmem.plan.reader import Fault, Reader, key_path, suggest

Key = tuple[Kind, str]  # kind and name of an object; unique in a file_prefix


class _Creation(NamedTuple):
    """How an object is created: bytes it occupies, method of Eal, arguments after the name, keywords, and the values
    by which an existing object is compared (see Item.values).
    """

    length: int
    method: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    values: Mapping[str, object]


@dataclass(frozen=True)
class Item:
    """An object of a plan. `where` is its key path; `values` maps each key of the plan that an existing object of that
    name must match to the planned value.
    """

    key: Key
    where: str
    group: str
    creation: _Creation

    @property
    def length(self) -> int:
        """Bytes that the object occupies."""
        return self.creation.length

    @property
    def align(self) -> int:
        align: int = self.creation.keywords.get("align", CACHE_LINE)
        return align

    def create(self, app: Eal, socket_id: int) -> None:
        """Create the object in its group."""
        _, method, arguments, keywords, _ = self.creation
        method(app, self.key[1], *arguments, group=self.group, socket_id=socket_id, **keywords)

    def compare(self, app: Eal, socket_id: int) -> Fault | None:
        """Return the first difference between the existing object of that name and the plan; None if they match.

        Raises Corrupt if the existing object fails validation.
        """
        existing = lookup(app, self.key)
        zone = existing if isinstance(existing, Memzone) else existing.memzone
        actual = _existing_values(existing)
        for key, planned in self.creation.values.items():
            if actual.get(key) != planned:
                return self.difference(key, actual.get(key), planned)
        if socket_id not in (SOCKET_ID_ANY, zone.host_socket_id):
            return self.difference("socket_id", zone.host_socket_id, socket_id)
        return None

    def difference(self, key: str, existing: object, planned: object) -> Fault:
        """Return the fault of an existing object whose value of `key` is not the planned one."""
        return mismatch(f"{self.where}.{key}", f"existing {kind_name(self.key[0])}", existing, planned)


RESIZE = "existing objects cannot be changed; remove it from the plan, run `ivshmem up`, then add it again"


def mismatch(path: str, noun: str, existing: object, planned: object) -> Fault:
    """Return the fault of an object that exists with another value than the plan has at `path`."""
    return Fault(path, f"must be {existing}, as in the {noun}, got {planned}; {RESIZE}")


def kind_name(kind: Kind) -> str:
    """Return the noun of messages: "memzone", "ring" or "mempool"."""
    return kind.name.lower()


def lookup(app: Eal, key: Key) -> Any:
    """Return the existing Memzone, Ring or Mempool. Raises NotFound or Corrupt."""
    kind, name = key
    match kind:
        case Kind.MEMZONE:
            return app.memzone_lookup(name)
        case Kind.RING:
            return app.ring_lookup(name)
        case Kind.MEMPOOL:
            return app.mempool_lookup(name)


def _existing_values(existing: Memzone | Ring | Mempool) -> dict[str, object]:
    """Return the values of an existing object by the keys that a plan has for it."""
    if isinstance(existing, Memzone):
        entry = existing.entry
        return {"length": entry.length, "dtype": entry.dtype, "shape": entry.shape, "flags": existing.flags}
    if isinstance(existing, Ring):
        exact = existing.flags & RingFlag.EXACT_SZ
        count = existing.capacity if exact else existing.capacity + 1
        return {"count": count, "elem_size": existing.elem_size, "flags": int(existing.flags)}
    keys = ("n", "elt_size", "cache_size", "private_size", "data_room")
    return {"flags": int(existing.flags), **{key: getattr(existing, key, None) for key in keys}}


def read(reader: Reader, groups: Collection[str]) -> dict[Key, Item | None]:
    """Return the objects of a plan; None for an object with a fault."""
    items: dict[Key, Item | None] = {}
    paths: dict[Key, str] = {}
    for section, kind, read_one in _SECTIONS:
        for name, table in reader.tables(section):
            group = table.text("group", "default")
            if group not in groups:
                table.fault(f"the plan has no group {group!r}; {suggest(group, groups)}", "group")
            key = (kind, name)
            if key in paths:
                table.fault(f"name is already used by {paths[key]}")
                continue
            paths[key] = key_path(section, name)
            items[key] = None
            if table.check(lambda key=key: _check_name(key)) is None:  # type: ignore[misc]
                continue  # the checks of sizes take a valid name
            creation = read_one(name, table)
            table.reject_unknown_keys()
            if creation is not None:
                items[key] = Item(key, paths[key], group, creation)
    return items


def _check_name(key: Key) -> str:
    kind, name = key
    return names.check_user_zone(name) if kind == Kind.MEMZONE else names.check_name(name, kind_name(kind))


def _zone(name: str, table: Reader) -> _Creation | None:
    align = table.integer("align", CACHE_LINE)
    table.check(lambda: check_align(align), "align")
    length = table.size("length", None)
    dtype, shape = table.raw("dtype"), table.raw("shape")
    if table.has("length") == table.has("dtype"):
        table.fault("must have either `length` in bytes, or `dtype` and `shape` of an array")
        return None
    if table.has("length"):
        if shape is not None:
            table.fault("is only allowed with `dtype`, not with `length`", "shape")
        if length is None:
            return None
        if not 1 <= length < 1 << 47:
            table.fault(f"must be from 1 to 2**47 - 1 bytes, got {length}", "length")
        return _Creation(length, Eal.memzone_reserve, (length,), {"align": align}, {"length": length, "flags": 0})
    made = table.check(lambda: _dtype(dtype), "dtype")
    dims = table.check(lambda: _shape(() if shape is None else shape), "shape")
    if made is None or dims is None:
        return None
    values = {"dtype": dtypes.describe(made), "shape": dims, "flags": 0}
    return _Creation(prod(dims) * made.itemsize, Eal.array_reserve, (dims, made), {"align": align}, values)


def _dtype(dtype: Any) -> Any:
    """Return the numpy dtype that a plan describes. Raises Invalid."""
    import numpy as np

    if isinstance(dtype, list):  # fields: TOML has no tuples, numpy requires them
        dtype = [tuple(tuple(p) if isinstance(p, list) else p for p in f) if isinstance(f, list) else f for f in dtype]
    try:
        made = np.dtype(dtype)
        dtypes.describe(made)
    except (TypeError, ValueError) as error:
        raise Invalid(f"must be a numpy dtype without Python objects, got {dtype!r}: {error}") from error
    if made.itemsize == 0:
        raise Invalid(f"must have an item size of at least 1 byte, got {dtype!r}")
    return made


def _shape(shape: Any) -> tuple[int, ...]:
    """Return the dimensions that a plan describes. Raises Invalid."""
    dims = tuple(shape) if isinstance(shape, list | tuple) else (shape,)
    if not all(isinstance(d, int) and not isinstance(d, bool) and d > 0 for d in dims):
        raise Invalid(f"must be a positive integer or a list of them, got {shape!r}")
    return dims


def _ring(name: str, table: Reader) -> _Creation | None:
    table.require("count")
    count = table.integer("count", 2)
    elem_size = table.integer("elem_size", 8)
    flags = table.flags("flags", RingFlag)
    # Check each value beside valid ones, so that every fault is found and gets its own key.
    checks = (
        table.check(lambda: ring_memsize(name, 2, elem_size, 0), "elem_size"),
        table.check(lambda: ring_memsize(name, 2, 8, flags), "flags"),
        table.check(lambda: ring_memsize(name, count, 8, flags & RingFlag.EXACT_SZ), "count"),
    )
    length = None if None in checks else table.check(lambda: ring_memsize(name, count, elem_size, flags))
    if length is None:
        return None
    keywords = {"elem_size": elem_size, "flags": flags}
    return _Creation(length, Eal.ring_create, (count,), keywords, {**keywords, "count": count})


def _mempool(name: str, table: Reader) -> _Creation | None:
    table.require("n")
    table.require("elt_size")
    n, elt_size = table.integer("n", 1), table.size("elt_size", 8)
    cache_size = table.integer("cache_size", 0)
    flags = table.flags("flags", MempoolFlag)
    checks = (
        table.check(lambda: mempool_memsize(name, 1, elt_size, 0, 0), "elt_size"),
        table.check(lambda: mempool_memsize(name, 1, 8, 0, flags), "flags"),
        table.check(lambda: mempool_memsize(name, n, 8, 0, 0), "n")
        and table.check(lambda: mempool_memsize(name, n, 8, cache_size, 0), "cache_size"),
    )
    length = None if None in checks else table.check(lambda: mempool_memsize(name, n, elt_size, cache_size, flags))
    if length is None:
        return None
    keywords = {"cache_size": cache_size, "flags": flags}
    values = {"flags": flags, "n": n, "elt_size": elt_size, "cache_size": cache_size}
    return _Creation(length, Eal.mempool_create, (n, elt_size), keywords, values)


def _pktmbuf_pool(name: str, table: Reader) -> _Creation | None:
    table.require("n")
    n = table.integer("n", 1)
    cache_size = table.integer("cache_size", 0)
    data_room = table.size("data_room", DEFAULT_DATA_ROOM)
    private_size = table.size("private_size", 0)
    flags = table.flags("flags", MempoolFlag)

    def size(
        n: int, cache_size: int = 0, data_room: int = DEFAULT_DATA_ROOM, private_size: int = 0, flags: int = 0
    ) -> Any:
        return mbuf_pool_memsize(name, n, cache_size, data_room, private_size, flags)

    checks = (
        table.check(lambda: size(1, data_room=data_room), "data_room"),
        table.check(lambda: size(1, private_size=private_size), "private_size"),
        table.check(lambda: size(1, flags=flags), "flags"),
        table.check(lambda: size(n), "n") and table.check(lambda: size(n, cache_size), "cache_size"),
    )
    keywords = {"cache_size": cache_size, "data_room": data_room, "private_size": private_size, "flags": flags}
    sizes = None if None in checks else table.check(lambda: size(n, **keywords))
    if sizes is None:
        return None
    length, pool_flags = sizes
    return _Creation(length, Eal.pktmbuf_pool_create, (n,), keywords, {**keywords, "flags": pool_flags, "n": n})


_SECTIONS: tuple[tuple[str, Kind, Callable[[str, Reader], _Creation | None]], ...] = (
    ("zones", Kind.MEMZONE, _zone),
    ("rings", Kind.RING, _ring),
    ("mempools", Kind.MEMPOOL, _mempool),
    ("pktmbuf_pools", Kind.MEMPOOL, _pktmbuf_pool),
)
