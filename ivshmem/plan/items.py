# SPDX-License-Identifier: BSD-3-Clause
"""Items: the zones, rings and pools of a plan, each with the call that makes it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import prod
from typing import Any

from eal.errors import EalError, Exists, Invalid
from eal.lifecycle.eal import Eal
from eal.mbuf.format import DEFAULT_DATA_ROOM, mbuf_pool_memsize
from eal.memory.heap import check_align
from eal.mempool.mempool import MempoolFlag, mempool_memsize
from eal.metadata.records import Kind
from eal.ring.format import RingFlag, ring_memsize
from eal.text import dtypes, names
from ivshmem.plan.reader import Reader, closest, key_path

Key = tuple[Kind, str]  # the kind and name of an object, which are unique in a prefix


@dataclass(frozen=True)
class Item:
    """An object of a plan. `length` is what it takes in bytes, `where` its key path. `make` is the method of an Eal
    that makes it, called with `arguments` and `keywords`.
    """

    key: Key
    where: str
    group: str
    length: int
    align: int
    make: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    def create(self, app: Eal, socket_id: int) -> Any:
        """Makes the object, in its group."""
        return self.make(app, self.key[1], *self.arguments, group=self.group, socket_id=socket_id, **self.keywords)

    def compare(self, app: Eal, socket_id: int) -> str | None:
        """What is wrong with an object of that name that is there, with its key path; None if it is this one."""
        try:
            where = {"group": self.group, "socket_id": socket_id}
            self.make(app, self.key[1], *self.arguments, exist_ok=True, **where, **self.keywords)
        except Exists as error:
            _, _, difference = str(error).rpartition("exists with another ")
            what, _, values = difference.partition(": ")
            if what == "capacity":
                what, values = "count", f"a capacity of {values}"
            return f"{self.where}.{what}: {values}"
        except Invalid as error:  # a zone that is no array, or one whose memory a peer has damaged
            return f"{self.where}: {error}"
        return None


def read(reader: Reader, groups: Collection[str]) -> dict[Key, Item | None]:
    """The objects of a plan; None for one with a fault, which is noted."""
    found: dict[Key, Item | None] = {}
    wheres: dict[Key, str] = {}
    for section, kind, read_one in _SECTIONS:
        for name, table in reader.tables(section):
            group = table.text("group", "default")
            if group not in groups:
                table.fault(f"the plan has no group {group!r}; {closest(group, groups)}", "group")
            check = names.check_user_zone if kind == Kind.MEMZONE else _check_name(kind)
            table.check(lambda name=name, check=check: check(name))  # type: ignore[misc]
            made = read_one(name, table)
            table.end()
            key = (kind, name)
            if key in found:
                table.fault(f"{wheres[key]} has that name already")
                continue
            wheres[key] = key_path(section, name)
            found[key] = None
            if made is not None:
                length, make, arguments, keywords = made
                align = keywords.get("align", 64)
                found[key] = Item(key, wheres[key], group, length, align, make, arguments, keywords)
    return found


def _check_name(kind: Kind) -> Callable[[str], str]:
    return lambda name: names.check_name(name, kind.name.lower())


Made = tuple[int, Callable[..., Any], tuple[Any, ...], dict[str, Any]]  # length, method, arguments, keywords


def _zone(name: str, table: Reader) -> Made | None:
    align = table.integer("align", 64)
    table.check(lambda: check_align(align), "align")
    length = table.size("length", None)
    dtype, shape = table.raw("dtype"), table.raw("shape")
    if table.has("length") == table.has("dtype"):
        table.fault("give either its length in bytes, or dtype and shape of an array")
        return None
    if table.has("length"):
        if shape is not None:
            table.fault("goes with dtype, not with length", "shape")
        if length is None:
            return None
        if not 1 <= length < 1 << 47:
            table.fault(f"{length} bytes cannot be reserved: at least 1 and less than 2**47", "length")
        return length, Eal.memzone_reserve, (length,), {"align": align}
    found = table.check(lambda: _array(dtype, () if shape is None else shape))
    return None if found is None else (found[0], Eal.array_reserve, found[1:], {"align": align})


def _array(dtype: Any, shape: Any) -> tuple[int, tuple[int, ...], Any]:
    """Bytes, shape and dtype of an array. Raises Invalid with the key in its message."""
    import numpy as np

    if isinstance(dtype, list):  # fields: TOML has no tuples, and numpy wants them
        dtype = [tuple(tuple(p) if isinstance(p, list) else p for p in f) if isinstance(f, list) else f for f in dtype]
    try:
        made = np.dtype(dtype)
        dtypes.describe(made)
    except (TypeError, ValueError) as error:
        raise Invalid(f"dtype {dtype!r} is none that numpy knows, or has objects in it: {error}") from error
    if not isinstance(shape, list | tuple | int) or isinstance(shape, bool):
        raise Invalid(f"shape {shape!r} is not a list of whole numbers")
    dims = (shape,) if isinstance(shape, int) else tuple(shape)
    if not all(isinstance(d, int) and not isinstance(d, bool) and d > 0 for d in dims) or made.itemsize == 0:
        raise Invalid(f"shape {shape!r} is not a list of whole numbers above 0")
    return prod(dims) * made.itemsize, dims, made


def _ring(name: str, table: Reader) -> Made | None:
    table.need("count")
    count = table.integer("count", 2)
    elem_size = table.integer("elem_size", 8)
    flags = table.flags("flags", RingFlag)
    # one by one, for each of them may be wrong
    table.check(lambda: ring_memsize(name, 2, elem_size, 0))
    table.check(lambda: ring_memsize(name, 2, 8, flags))
    length = table.check(lambda: ring_memsize(name, count, 8, flags & RingFlag.EXACT_SZ)) and _quietly(
        lambda: ring_memsize(name, count, elem_size, flags)
    )
    return None if length is None else (length, Eal.ring_create, (count,), {"elem_size": elem_size, "flags": flags})


def _quietly(call: Callable[[], int]) -> int | None:
    """What a call gives, or None where that it fails was noted before."""
    try:
        return call()
    except EalError:
        return None


def _mempool(name: str, table: Reader) -> Made | None:
    table.need("n")
    table.need("elt_size")
    n, elt_size = table.integer("n", 1), table.size("elt_size", 8)
    how = {"cache_size": table.integer("cache_size", 0), "flags": table.flags("flags", MempoolFlag)}
    table.check(lambda: mempool_memsize(name, 1, elt_size, 0, 0))
    sound = table.check(lambda: mempool_memsize(name, n, 8, 0, 0))
    length = (
        sound
        and table.check(lambda: mempool_memsize(name, n, 8, **how))
        and _quietly(lambda: mempool_memsize(name, n, elt_size, **how))
    )
    return None if length is None else (length, Eal.mempool_create, (n, elt_size), how)


def _pktmbuf_pool(name: str, table: Reader) -> Made | None:
    table.need("n")
    n = table.integer("n", 1)
    how: dict[str, Any] = {
        "cache_size": table.integer("cache_size", 0),
        "data_room": table.size("data_room", DEFAULT_DATA_ROOM),
        "private_size": table.size("private_size", 0),
        "flags": table.flags("flags", MempoolFlag),
    }
    size = table.check(lambda: mbuf_pool_memsize(name, n, *how.values()))
    return None if size is None else (size[0], Eal.pktmbuf_pool_create, (n,), how)


_SECTIONS: tuple[tuple[str, Kind, Callable[[str, Reader], Made | None]], ...] = (
    ("zones", Kind.MEMZONE, _zone),
    ("rings", Kind.RING, _ring),
    ("mempools", Kind.MEMPOOL, _mempool),
    ("pktmbuf_pools", Kind.MEMPOOL, _pktmbuf_pool),
)
