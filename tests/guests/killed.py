# SPDX-License-Identifier: BSD-3-Clause
"""Guest whose primary is killed repeatedly by SIGKILL, with everything it holds; the last one closes regularly.

At the same time secondaries start and end: one beside each primary, which continues after the primary's death.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import eal
import eal.lifecycle.startup  # import before the fork, so that it is imported only once
from eal.runtime.prefix_dir import file_stem, runtime_dir

KILLS = 4


def files() -> list[str]:
    """Return all files of the guest's prefixes in the runtime directory and in shared memory."""
    root = runtime_dir()
    own = [path for path in root.rglob("*") if not path.is_dir() or path.is_symlink()]
    return sorted(map(str, [*own, *Path("/dev/shm").glob(f"{file_stem(root)}.*")]))


def raise_by(ring: eal.Ring, step: int) -> None:
    value = ring.dequeue()
    assert isinstance(value, int)
    assert ring.enqueue(value + step)


def live_and_wait(ready: int) -> None:
    with eal.init(proc_type="primary") as primary:
        eal.memzone_reserve("own", 1 << 20)
        eal.ring_create("own", 64)
        cards = eal.ring_lookup("cards")
        raise_by(cards, 1)
        os.write(ready, primary.proc_type.encode())
        signal.pause()


def live_on(ready: int, go: int) -> None:
    """Secondary that uses the host's objects after its primary is dead."""
    with eal.init() as secondary:
        os.write(ready, secondary.proc_type.encode())
        os.read(go, 1)
        cards = eal.ring_lookup("cards")
        raise_by(cards, 1000)
        pool = eal.mempool_lookup("objects")
        index = pool.get()
        assert index is not None
        pool.put(index)
        assert "own" in [zone.name for zone in eal.memzones()]  # reserved by the dead primary
        os.write(ready, b" lived on")


def second_primary() -> str:
    try:
        eal.init(proc_type="primary").close()
    except eal.InUse:
        return "InUse"
    return "not refused"


def kill_one() -> dict[str, Any]:
    ready, tell = os.pipe()
    if (child := os.fork()) == 0:
        live_and_wait(tell)
        os._exit(1)
    os.close(tell)
    role = os.read(ready, 16).decode()  # empty if it failed
    refused = second_primary()
    secondary, heard, go = start_secondary()
    told = os.read(heard, 16).decode()
    os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(go, b"!")
    told += os.read(heard, 16).decode()
    os.waitpid(secondary, 0)
    os.close(heard)
    os.close(go)
    return {"role": role, "second": refused, "status": status, "secondary": told, "files": len(files())}


def start_secondary() -> tuple[int, int, int]:
    """Its process id, the pipe it prints to, and the pipe that lets it continue."""
    heard, tell = os.pipe()
    wait, go = os.pipe()
    if (child := os.fork()) == 0:
        live_on(tell, wait)
        os._exit(0)
    os.close(tell)
    os.close(wait)
    return child, heard, go


def main() -> int:
    print(json.dumps({"kills": [kill_one() for _ in range(KILLS)]}), flush=True)
    with eal.init() as last:
        found = [zone.name for zone in eal.memzones()]
        cards = eal.ring_lookup("cards")
        print(json.dumps({"role": last.proc_type, "memzones": found, "card": cards.dequeue(), "left": cards.count}))
    print(json.dumps({"files": files()}))
    return 0


sys.exit(main())
