"""Two workers of a crowd that shares one ring and one pool: the host runs this script too, with numbers of its own.

Arguments: the numbers of the workers, such as 2,3, then EAL options. Each worker is a process of its own that takes
objects, stamps them and sends them, and all the while takes objects of anybody from the ring and puts them back.
"""

from __future__ import annotations

import os
import sys
import time

import numpy as np

import eal
import eal.eal  # loaded before the fork, so that it is loaded once

PATIENCE = 100.0
BURST = 64
# All are to meet from start to end, however the machine schedules them: a producer may be so many objects ahead of
# the slowest, and so many stay in the ring, more than one producer can have put there alone.
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
        assert time.monotonic() < deadline, f"worker {me}: not all came"
        time.sleep(0.005)

    taken, unsent = np.zeros(BURST, np.uint32), np.zeros(0, np.uint32)
    made = got = size = 0
    while (everything := int(control["received"].sum())) < total:
        size = size % BURST + 1
        slowest = int(control["made"].min())
        if len(unsent) == 0 and made < min(share, slowest + LEAD):
            unsent = np.zeros(min(size, share - made), np.uint32)
            if pool.get_bulk(unsent):
                stamps[unsent] = (me << 32) + made + np.arange(len(unsent), dtype=np.uint64)
                mine["made"] = made = made + len(unsent)
            else:
                unsent = unsent[:0]
        sent = ring.enqueue_burst(unsent) if len(unsent) else 0
        unsent = unsent[sent:]
        n = ring.dequeue_burst(taken[:size]) if slowest == share or ring.count > BACKLOG else 0
        if n:
            received[got : got + n] = stamps[taken[:n]]
            pool.put_bulk(taken[:n])
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
