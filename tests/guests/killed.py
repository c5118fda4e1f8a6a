"""A guest whose primary is killed by SIGKILL, again and again, with all that it had; then one ends in order."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import eal
import eal.eal  # loaded before the fork, so that it is loaded once
from eal.runtime import file_stem, runtime_dir

KILLS = 4


def files() -> list[str]:
    """All files that the guest's prefixes have, in the runtime directory and in shared memory."""
    root = runtime_dir()
    own = [path for path in root.rglob("*") if not path.is_dir() or path.is_symlink()]
    return sorted(map(str, [*own, *Path("/dev/shm").glob(f"{file_stem(root)}.*")]))


def live_and_wait(ready: int) -> None:
    with eal.init(proc_type="primary") as primary:
        eal.memzone_reserve("own", 1 << 20)
        eal.ring_create("own", 64)
        cards = eal.ring_lookup("cards")
        cards.enqueue(cards.dequeue() + 1)
        os.write(ready, primary.proc_type.encode())
        signal.pause()


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
    role = os.read(ready, 16).decode()  # empty where it failed
    refused = second_primary()
    os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"role": role, "second": refused, "status": status, "files": len(files())}


def main() -> int:
    print(json.dumps({"kills": [kill_one() for _ in range(KILLS)]}), flush=True)
    with eal.init() as last:
        found = [zone.name for zone in eal.memzones()]
        cards = eal.ring_lookup("cards")
        print(json.dumps({"role": last.proc_type, "memzones": found, "card": cards.dequeue(), "left": cards.count}))
    print(json.dumps({"files": files()}))
    return 0


sys.exit(main())
