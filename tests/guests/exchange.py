# SPDX-License-Identifier: BSD-3-Clause
"""Guest that uses everything its host shares: zones, arrays, rings and a pool. It knows only their names.

Arguments: START:LENGTH of address ranges to occupy before init, so that no segment can be mapped there.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import sys
from typing import Any

import numpy as np

import eal

MAP_FIXED_NOREPLACE = 0x100000
PATIENCE = 60.0


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def occupy(start: int, length: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
    assert libc.mmap(start, length, mmap.PROT_READ, flags, -1, 0) == start, ctypes.get_errno()


def tell_what_is_here() -> None:
    say(
        memzones=[zone.name for zone in eal.memzones()],
        rings=[ring.name for ring in eal.rings()],
        mempools=[pool.name for pool in eal.mempools()],
        relocated=[zone.relocated for zone in eal.memzones()],
        addresses=[zone.address for zone in eal.memzones()],
        host_addresses=[zone.host_address for zone in eal.memzones()],
        page_sizes=[segment.page_size for segment in eal.segments()],
    )


def turn_bytes_round() -> None:
    inbox, outbox = eal.memzone_lookup("inbox"), eal.memzone_lookup("outbox")
    assert (inbox.buf.format, len(inbox.buf)) == ("B", inbox.length)
    outbox.buf[:] = bytes(inbox.buf)[::-1]


def work_arrays() -> None:
    matrix = eal.memzone_lookup("matrix").array()
    records = eal.memzone_lookup("records").array()
    scalar = eal.memzone_lookup("scalar").array()
    found = {
        name: {"dtype": np.lib.format.dtype_to_descr(array.dtype), "shape": array.shape, "bytes": array.tobytes().hex()}
        for name, array in (("matrix", matrix), ("records", records), ("scalar", scalar))
    }
    matrix *= -1
    records["place"] += 1
    records["name"] = b"guest"
    scalar[...] = scalar + 0.5
    say(**found)


def echo() -> None:
    """Return each number twice, unchanged and complemented, in bursts of all sizes."""
    to_guest, to_host = eal.ring_lookup("to_guest"), eal.ring_lookup("to_host")
    total = int(eal.memzone_lookup("control").array()["numbers"])
    numbers = np.zeros(61, np.uint64)
    answers = np.zeros((61, 2), np.uint64)
    heard = size = 0
    in_order = True
    while heard < total:
        assert to_guest.wait(PATIENCE), f"no number arrives after {heard}"
        size = size % len(numbers) + 1
        n = to_guest.dequeue_burst(numbers[:size])
        in_order &= numbers[:n].tolist() == [*range(heard + 1, heard + n + 1)]
        heard += n
        answers[:n, 0], answers[:n, 1] = numbers[:n], ~numbers[:n]
        sent = 0
        while sent < n:
            sent += to_host.enqueue_burst(answers[sent:n])
    say(heard=heard, in_order=in_order)


def trade_objects() -> None:
    """Free the host's objects, and send objects of this guest for the host to free."""
    pool = eal.mempool_lookup("frames")
    from_host, from_guest = eal.ring_lookup("from_host"), eal.ring_lookup("from_guest")
    rounds = int(eal.memzone_lookup("control").array()["rounds"])
    objects = pool.array
    indices = np.zeros(32, np.uint32)
    wrong = 0
    for number in range(rounds):
        while from_host.dequeue_bulk(indices) == 0:
            assert from_host.wait(PATIENCE)
        wrong += int((objects[indices] != number % 251).sum())
        pool.put_bulk(indices)
        while pool.get_bulk(indices) == 0:
            pass
        objects[indices] = (number + 100) % 251
        while from_guest.enqueue_bulk(indices) == 0:
            pass
    index = pool.get()
    assert index is not None
    pool.put(index)  # fill this thread's cache if it is empty
    say(wrong_bytes=wrong)
    # The host reads the caches while this thread still has its own.
    assert from_host.wait(PATIENCE)


def still_mapped() -> list[str]:
    """Return the mappings of this process that belong to BARs, or to the files that emulate them."""
    with open("/proc/self/maps") as maps:
        return [line.rstrip() for line in maps if "/resource2" in line or "/ivshmem." in line]


def main() -> None:
    for word in sys.argv[1:]:
        start, length = word.split(":")
        occupy(int(start, 16), int(length, 16))
    with eal.init():
        tell_what_is_here()
        turn_bytes_round()
        work_arrays()
        echo()
        trade_objects()
    say(still_mapped=still_mapped())


main()
