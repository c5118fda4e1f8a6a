# SPDX-License-Identifier: BSD-3-Clause
"""The functions of `eal` that act on this process's Eal: each calls the method of the same name of `eal.current()`.

The first call imports the modules of the Eal; importing this module does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

from eal.memory.socket_id import SOCKET_ID_ANY

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from eal.lifecycle.eal import Eal
    from eal.mbuf.pool import MbufPool
    from eal.memory.memzone import Memzone
    from eal.memory.segment import Segment
    from eal.memory.segment_file import Progress
    from eal.mempool.mempool import Mempool
    from eal.probe.events import Event, Watch
    from eal.ring.ring import Ring


def _current() -> Eal:
    from eal.lifecycle.startup import current

    return current()


def memzone_reserve(
    name: str,
    length: int,
    *,
    socket_id: int = SOCKET_ID_ANY,
    align: int = 64,
    group: str = "default",
    flags: int = 0,
    exist_ok: bool = False,
) -> Memzone:
    """Reserve `length` zeroed bytes in a segment of `group` (DPDK: rte_memzone_reserve_aligned).

    `align` is a power of two in bytes, 64 at least. With `exist_ok`, return an existing zone of the same name, length
    and placement. Raise Exists, Invalid, or NoMemory if there are too few free pages.
    """
    return _current().memzone_reserve(
        name, length, socket_id=socket_id, align=align, group=group, flags=flags, exist_ok=exist_ok
    )


def array_reserve(
    name: str,
    shape: int | tuple[int, ...],
    dtype: Any,
    *,
    socket_id: int = SOCKET_ID_ANY,
    align: int = 64,
    group: str = "default",
    flags: int = 0,
    exist_ok: bool = False,
) -> Memzone:
    """Reserve a zone for a numpy array. The zone records dtype and shape, so `Memzone.array()` needs no arguments.

    Raise the errors of `memzone_reserve`, and Invalid for a dtype with Python objects or an array without bytes.
    """
    return _current().array_reserve(
        name, shape, dtype, socket_id=socket_id, align=align, group=group, flags=flags, exist_ok=exist_ok
    )


def memzone_lookup(name: str) -> Memzone:
    """Return the zone of that name (DPDK: rte_memzone_lookup). Raise NotFound.

    The zone of a ring is named RG_ plus the ring's name, the zone of a mempool MP_ plus the mempool's name.
    """
    return _current().memzone_lookup(name)


def memzone_free(zone: Memzone) -> None:
    """Free a zone (DPDK: rte_memzone_free). Existing views stay readable and show the next object at that address.

    Raise InUse while a metadata file lists the zone, NotFound if it was freed before, Denied for a zone of a share.
    """
    _current().memzone_free(zone)


def memzones() -> list[Memzone]:
    """Return all zones, including those of rings and mempools, sorted by name (DPDK: rte_memzone_walk)."""
    return _current().memzones()


def memzone_dump(file: TextIO) -> None:
    """Write one line per zone to `file` (DPDK: rte_memzone_dump)."""
    _current().memzone_dump(file)


def segments() -> list[Segment]:
    """Return all segments: those of the file_prefix, then those of shares (DPDK: rte_memseg_list_walk)."""
    return _current().segments()


def segment_create(
    size: int,
    *,
    group: str = "default",
    socket_id: int = SOCKET_ID_ANY,
    mode: int = 0o600,
    user: str | int | None = None,
    user_group: str | int | None = None,
    page_size: int | None = None,
    huge_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Segment:
    """Create a segment of `size` bytes (a power of two) for a group, before zones are reserved in the group.

    `mode`, `user` and `user_group` set the permissions of the file, since QEMU often runs as another user. `page_size`
    (bytes) or `huge_dir` selects the pages; the default is the choice of `eal.init`. `socket_id` is the node. Later
    segments of the group inherit all of these. `progress` is called with the number of bytes after each allocation.
    Raise Invalid, NoMemory, Denied, or NotFound for an unknown user or unavailable pages.
    """
    return _current().segment_create(
        size,
        group=group,
        socket_id=socket_id,
        mode=mode,
        user=user,
        user_group=user_group,
        page_size=page_size,
        huge_dir=huge_dir,
        progress=progress,
    )


def ring_create(
    name: str,
    count: int,
    *,
    elem_size: int = 8,
    flags: int = 0,
    socket_id: int = SOCKET_ID_ANY,
    group: str = "default",
    exist_ok: bool = False,
) -> Ring:
    """Create a ring for `count - 1` elements, or exactly `count` with RingFlag.EXACT_SZ (DPDK: rte_ring_create_elem).

    `count` is a power of two, or any number with EXACT_SZ; `elem_size` is a multiple of 4 in bytes; `flags` are of
    RingFlag. With `exist_ok`, return an existing ring of the same name and geometry. Raise Exists, Invalid, NoMemory.
    """
    return _current().ring_create(
        name, count, elem_size=elem_size, flags=flags, socket_id=socket_id, group=group, exist_ok=exist_ok
    )


def ring_lookup(name: str) -> Ring:
    """Return the ring of that name (DPDK: rte_ring_lookup). Raise NotFound, or Corrupt if its header is damaged."""
    return _current().ring_lookup(name)


def ring_free(ring: Ring) -> None:
    """Free a ring; handles in this process raise Closed from then on (DPDK: rte_ring_free).

    Raise InUse while a metadata file lists the ring, NotFound if it was freed before, Denied for a ring of a share.
    """
    _current().ring_free(ring)


def rings() -> list[Ring]:
    """Return all rings, sorted by name (DPDK: rte_ring_list_dump)."""
    return _current().rings()


def mempool_create(
    name: str,
    n: int,
    elt_size: int,
    *,
    cache_size: int = 0,
    socket_id: int = SOCKET_ID_ANY,
    group: str = "default",
    flags: int = 0,
    obj_init: Callable[[memoryview, int], object] | None = None,
    exist_ok: bool = False,
) -> Mempool:
    """Create a mempool of `n` zeroed objects of `elt_size` bytes (DPDK: rte_mempool_create).

    `cache_size` is the number of objects in each thread's cache: up to 512, and up to `n` / 1.5. `flags` are of
    MempoolFlag. `obj_init` is called with the bytes and the index of each object before the mempool becomes visible.
    With `exist_ok`, return an existing mempool of the same name and geometry. Raise Exists, Invalid, NoMemory.
    """
    return _current().mempool_create(
        name,
        n,
        elt_size,
        cache_size=cache_size,
        socket_id=socket_id,
        group=group,
        flags=flags,
        obj_init=obj_init,
        exist_ok=exist_ok,
    )


def pktmbuf_pool_create(
    name: str,
    n: int,
    *,
    cache_size: int = 0,
    data_room: int = 2176,
    private_size: int = 0,
    socket_id: int = SOCKET_ID_ANY,
    group: str = "default",
    flags: int = 0,
    exist_ok: bool = False,
) -> MbufPool:
    """Create a pool of `n` mbufs (DPDK: rte_pktmbuf_pool_create).

    `data_room` is the size of each buffer in bytes (up to 65535), including the headroom of 128. `private_size` is the
    size of the application's private area in each mbuf, a multiple of 8 in bytes. The rest is as in `mempool_create`.
    """
    return _current().pktmbuf_pool_create(
        name,
        n,
        cache_size=cache_size,
        data_room=data_room,
        private_size=private_size,
        socket_id=socket_id,
        group=group,
        flags=flags,
        exist_ok=exist_ok,
    )


def mempool_lookup(name: str) -> Mempool:
    """Return the mempool of that name, an MbufPool if its objects are mbufs (DPDK: rte_mempool_lookup).

    Raise NotFound, or Corrupt if its header is damaged.
    """
    return _current().mempool_lookup(name)


def mempool_free(pool: Mempool) -> None:
    """Free a mempool; handles in this process raise Closed from then on (DPDK: rte_mempool_free).

    Raise InUse while a metadata file lists the mempool, NotFound if it was freed before, Denied for one of a share.
    """
    _current().mempool_free(pool)


def mempools() -> list[Mempool]:
    """Return all mempools, sorted by name (DPDK: rte_mempool_list_dump)."""
    return _current().mempools()


def watch(callback: Callable[[Event], object] | None = None, *, stale: bool = False) -> Watch:
    """Report shares that are plugged, extended and unplugged (DPDK: rte_dev_event_callback_register).

    Each `Event` is passed to `callback` in a thread of the watch, or returned by `async for event in watch`. While a
    watch is open, lookups also find the objects of new shares and objects that hosts add. The watch first reports the
    metadata files that still miss a segment; shares that `eal.init` found are not reported.

    With `stale`, using an object of a host that has restarted raises Stale. Raise Closed, and Invalid after --no-pci.
    """
    return _current().watch(callback, stale=stale)
