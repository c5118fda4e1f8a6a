# SPDX-License-Identifier: BSD-3-Clause
"""Two workers of a group that shares one ring and one pool; the host runs this script too, with other numbers.

Arguments: the numbers of the workers, such as 2,3, then EAL options. Each worker is a process that allocates, stamps
and
sends objects, and at the same time receives and frees objects of any worker. An element is an index and 31 times the
stamp of its object, so that a premature copy is detected.
"""

from __future__ import annotations

import os
import sys
import time

import numpy as np

import eal
import eal.lifecycle.startup  # import before the fork, so that it is imported only once

PATIENCE = 100.0
BURST = 64
WORDS = 32  # 8-byte words per element
# Keep the workers close together however the machine schedules them: a producer may lead the slowest one by this many
# objects, and the ring holds more than one producer can have sent alone.
LEAD, BACKLOG = 128, 200


def work(me: int) -> None:
    ring, pool = eal.ring_lookup("crowd"), eal.mempool_lookup("stamps")
    control = eal.memzone_lookup("control").array()
    received = eal.memzone_lookup("received").array()[me]
    mine, stamps = control[me], pool.view("<u8")
    share = int(mine["share"])
    total = int(control["share"].sum())
    deadline = time.monotonic() + PATIENCE
    mine["ready"] = 1
    while not control["ready"].all():
        assert time.monotonic() < deadline, f"worker {me}: not all workers arrived"
        time.sleep(0.005)

    out, taken = np.zeros((BURST, WORDS), np.uint64), np.zeros((BURST, WORDS), np.uint64)
    indices = np.zeros(BURST, np.uint32)
    made = got = size = start = end = 0  # elements `start` to `end` of `out` are not sent yet
    while (everything := int(control["received"].sum())) < total:
        size = size % BURST + 1
        slowest = int(control["made"].min())
        if start == end and made < min(share, slowest + LEAD):
            n = min(size, share - made)
            if pool.get_bulk(indices[:n]):
                out[:n] = ((me << 32) + made + np.arange(n, dtype=np.uint64))[:, None]
                out[:n, 0] = indices[:n]
                stamps[indices[:n]] = out[:n, 1]
                mine["made"] = made = made + n
                start, end = 0, n
        sent = ring.enqueue_burst(out[start:end]) if start < end else 0
        start += sent
        n = ring.dequeue_burst(taken[:size]) if slowest == share or ring.count > BACKLOG else 0
        if n:
            indices[:n] = taken[:n, 0]
            assert (taken[:n, 1:] == stamps[indices[:n], None]).all(), f"worker {me}: torn elements {taken[:n]}"
            received[got : got + n] = taken[:n, 1]
            pool.put_bulk(indices[:n])
            mine["received"] = got = got + n
        elif not sent:
            assert time.monotonic() < deadline, f"worker {me}: made {made}, received {got} of {everything}"
            time.sleep(0)


def main() -> int:
    children = []
    for number in map(int, sys.argv[1].split(",")):
        pid = os.fork()
        if pid == 0:
            with eal.init(sys.argv[2:], stall_timeout=20.0):
                work(number)
            return 0
        children.append(pid)
    return max([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children])


sys.exit(main())
