# SPDX-License-Identifier: BSD-3-Clause
"""Guest of two processes, a primary and a secondary, that find the same objects of the host."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import eal
import eal.lifecycle.startup  # import before the fork, so that it is imported only once


def what_is_here(me: eal.Eal) -> dict[str, Any]:
    eal.memzone_lookup("board").array()[f"guest_{me.proc_type}"] = os.getpid()
    return {
        "proc_type": me.proc_type,
        "memzones": [zone.name for zone in eal.memzones()],
        "rings": [ring.name for ring in eal.rings()],
        "mempools": [pool.name for pool in eal.mempools()],
        "card": eal.ring_lookup("cards").dequeue(),
        "object": eal.mempool_lookup("objects").get(),
        "message": bytes(eal.memzone_lookup("guests_own").buf[:5]).decode(),
    }


def second_primary() -> str:
    try:
        eal.init(proc_type="primary").close()
    except eal.InUse as error:
        return str(error)
    return "not refused"


def run_secondary() -> None:
    refusal = second_primary()
    with eal.init() as secondary:
        print(json.dumps({**what_is_here(secondary), "second_primary": refusal}), flush=True)


def main() -> int:
    started, tell = os.pipe()
    if (child := os.fork()) == 0:
        os.close(tell)
        os.read(started, 1)
        run_secondary()
        return 0
    with eal.init() as primary:
        eal.memzone_reserve("guests_own", 100).buf[:5] = b"hello"
        os.write(tell, b"!")
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps(what_is_here(primary)), flush=True)
        return status


sys.exit(main())
