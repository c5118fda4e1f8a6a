# SPDX-License-Identifier: BSD-3-Clause
"""One side of a pool whose objects are freed on the other side: starts PROCESSES of free_anywhere.c.

Arguments: the program, SIDE (0: the host, which runs this script too; 1: the guest), then EAL options. The name of a
ring states the side that allocated its objects.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

import eal
from eal.linux.process import machine_id


def main() -> int:
    program, side = sys.argv[1], int(sys.argv[2])
    with eal.init(sys.argv[3:]):
        plan = eal.memzone_lookup("plan").array()
        tally, pool = eal.memzone_lookup("tally"), eal.mempool_lookup("objects").memzone
        rings = [eal.ring_lookup(name).memzone for name in ("of_host", "of_guest")]
        out, into = rings[side], rings[1 - side]
        places = [zone.offset for zone in (pool, out, into, tally)]
        threads, processes = int(plan["threads"]), int(plan["processes"])
        each = int(plan["objects"][side]) // (threads * processes)
        words = [*places, machine_id(), side, threads, each, int(plan["objects"][1 - side])]
        begin = time.monotonic()
        running = [
            subprocess.Popen([program, pool.segment.path, *map(str, words)], stderr=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        faults = [fault for process in running if (fault := process.communicate()[1])]
        status = max(abs(process.returncode) for process in running)
        print(json.dumps({"side": side, "seconds": round(time.monotonic() - begin, 2), "faults": faults}), flush=True)
    return status


sys.exit(main())
