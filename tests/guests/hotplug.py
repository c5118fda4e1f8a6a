# SPDX-License-Identifier: BSD-3-Clause
"""Guest that reports each plug and unplug of many shares, and tests the objects of each share.

At the same time it echoes messages through rings of a share that stays. Another ring carries the host's orders for a
child process, which receives the same events.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

import eal

CHILD = sys.argv[1:] == ["child"]
CHECKS: dict[str, Callable[[Any], list[Callable[[], object]]]] = {
    "memzone": lambda zone: [lambda: zone.buf],
    "ring": lambda ring: [lambda: ring.enqueue(1), ring.dequeue, lambda: ring.count],
    "mempool": lambda pool: [pool.get, lambda: pool.available, lambda: pool.array],
}
LOOKUPS: dict[str, Callable[[str], Any]] = {
    "memzone": eal.memzone_lookup,
    "ring": eal.ring_lookup,
    "mempool": eal.mempool_lookup,
}


class Held:
    """Objects of one share that this process holds, and raw views of them."""

    def __init__(self) -> None:
        self.objects: list[tuple[str, Any]] = []
        self.views: list[Any] = []

    def take(self, kind: str, name: str) -> dict[str, int]:
        """Look up an object and use it; return its content."""
        found = LOOKUPS[kind](name)
        self.objects.append((kind, found))
        if kind == "memzone":
            self.views.append(found.buf)
            return {name: zlib.crc32(found.buf)}
        if kind == "mempool":
            self.views.append(memoryview(found.array).cast("B"))
            return {name: found.n}
        if CHILD:
            return {}
        number = found.dequeue()
        assert number is not None
        assert found.enqueue(number + 1)
        return {name: number}

    def left(self) -> dict[str, bool]:
        """After the unplug: check that each use raises Detached, and that each view reads zeros and can be written."""
        detached = [refused(use) for kind, one in self.objects for use in CHECKS[kind](one)]
        zeros = [not any(view) for view in self.views]
        for view in self.views:
            view[-1] = 1
        return {"detached": bool(detached) and all(detached), "zeros": bool(zeros) and all(zeros)}


def refused(use: Callable[[], object]) -> bool:
    try:
        use()
    except eal.Detached:
        return True
    return False


held: dict[str, Held] = {}
last = Held()


def say(**what: Any) -> None:
    print(json.dumps({"who": "child" if CHILD else "parent", **what}), flush=True)


def told(event: eal.Event) -> None:
    found: dict[str, Any] = {"kind": event.kind, "metadata": event.metadata, "address": event.address}
    found["reason"] = event.reason
    global last
    if event.kind in ("plugged", "added"):
        last = held.setdefault(event.metadata, Held())
        found["content"] = {}
        for kind, name in event.objects:
            found["content"] |= last.take(kind, name)
    elif event.kind == "unplugged":
        found |= held.pop(event.metadata).left()
    say(**found)


def send_back(over: threading.Event) -> None:
    """Echo messages while reading views of shares that may be unplugged at any moment."""
    ping, pong = eal.ring_lookup("ping"), eal.ring_lookup("pong")
    while not over.is_set():
        for view in last.views:
            view[0]
        if (number := ping.dequeue()) is None:
            time.sleep(0.0005)
        else:
            while not pong.enqueue(number):
                time.sleep(0.0005)


def main() -> None:
    """Execute orders: 0 ends the guest, 1 starts a child, any other number is a signal for the child."""
    with eal.init(["--no-huge"]) as app, app.watch(told):
        if CHILD:
            say(kind="ready")
            threading.Event().wait()
        over = threading.Event()
        thread = threading.Thread(target=send_back, args=(over,), daemon=True)
        thread.start()
        orders = eal.ring_lookup("orders")
        child: subprocess.Popen[bytes] | None = None
        say(kind="ready")
        while (order := orders.dequeue()) != 0:
            if order is None:
                time.sleep(0.005)
            elif order == 1:
                child = subprocess.Popen([sys.executable, "-P", __file__, "child"])
            else:
                assert child is not None
                assert isinstance(order, int)
                child.send_signal(order)
                if order == signal.SIGKILL:
                    child.wait()
                say(kind="signalled")
        over.set()
        thread.join()


main()
