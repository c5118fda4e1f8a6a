# SPDX-License-Identifier: BSD-3-Clause
"""Guest that initialises an application several times at random addresses and reports the address of each segment.

Argument: the number of runs. Each run starts without other mappings, then with a mapping of its own at the addresses
that the host uses for its segments.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import subprocess
import sys
from typing import Any

import eal

MAP_FIXED_NOREPLACE = 0x100000
AT_ONCE = 2


def occupy(start: int, length: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
    assert libc.mmap(start, length, mmap.PROT_READ, flags, -1, 0) == start, ctypes.get_errno()


def work() -> dict[str, Any]:
    """Use one object of each kind; ring and pool carry values to the next run."""
    ring, pool = eal.ring_lookup("count"), eal.mempool_lookup("objects")
    counted = ring.dequeue()
    assert isinstance(counted, int)
    assert ring.enqueue(counted + 1)
    index = pool.get()
    assert index is not None
    pool.object(index)[:4] = b"seen"
    pool.put(index)
    return {
        "relocated": [zone.name for zone in eal.memzones() if zone.relocated],
        "zones": len(eal.memzones()),
        "text": bytes(eal.memzone_lookup("text").buf[:5]).decode(),
    }


def app(prefix: str) -> None:
    with eal.init(file_prefix=prefix) as me:
        free = work()
        wanted = [(segment.host_address, segment.size) for segment in me.segments()]
    for start, size in wanted:
        occupy(start + size // 2, 4096)  # one page in the middle blocks the whole range
    with eal.init(file_prefix=prefix) as me:
        taken = work()
    stack = ctypes.addressof(ctypes.c_int())  # address of the heap, which is random
    print(json.dumps({"free": free, "taken": taken, "random": stack}), flush=True)


def main() -> None:
    if len(sys.argv) > 2:
        app(sys.argv[2])
        return
    runs = range(int(sys.argv[1]))
    waiting = list(runs)
    while waiting:
        some, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
        started = [
            subprocess.Popen([sys.executable, "-P", __file__, "0", f"app{run}"], stdout=subprocess.PIPE, text=True)
            for run in some
        ]
        for process in started:
            print(process.communicate()[0], end="", flush=True)


main()
