# SPDX-License-Identifier: BSD-3-Clause
"""One of two guests that exchange messages without their host. Argument: sender or receiver."""

from __future__ import annotations

import json
import sys

import numpy as np

import eal

PATIENCE = 100.0
BURST = 48


def send(wire: eal.Ring, back: eal.Ring, count: int) -> bool:
    """Send 1 to `count` and receive their doubles; return whether all arrived in order."""
    numbers = np.arange(1, count + 1, dtype=np.uint64)
    doubles = np.zeros(count, np.uint64)
    sent = heard = 0
    while heard < count:
        sent += wire.enqueue_burst(numbers[sent : sent + BURST])
        n = back.dequeue_burst(doubles[heard : heard + BURST])
        heard += n
        if n == 0 and (sent == count or wire.full):
            assert back.wait(PATIENCE), f"sent {sent}, heard {heard}"
    return bool((doubles == 2 * numbers).all())


def double(wire: eal.Ring, back: eal.Ring, count: int) -> bool:
    """Return the double of each number; report whether all arrived in order."""
    numbers = np.zeros(BURST, np.uint64)
    in_order, heard = True, 0
    while heard < count:
        assert wire.wait(PATIENCE), f"heard {heard}"
        n = wire.dequeue_burst(numbers)
        in_order &= numbers[:n].tolist() == [*range(heard + 1, heard + n + 1)]
        heard += n
        doubles, done = 2 * numbers[:n], 0
        while done < n:
            done += back.enqueue_burst(doubles[done:])
    return in_order


def main() -> None:
    role = sys.argv[1]
    with eal.init() as guest:
        board = eal.memzone_lookup("board").array()
        count = int(board["count"])
        board[role] = True  # tell the host that this guest runs
        work = send if role == "sender" else double
        in_order = work(eal.ring_lookup("wire"), eal.ring_lookup("back"), count)
        print(json.dumps({"in_order": in_order, "metadata": [share.name for share in guest.shares]}))


main()
