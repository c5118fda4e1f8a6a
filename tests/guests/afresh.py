# SPDX-License-Identifier: BSD-3-Clause
"""Guest that echoes messages of successive hosts: each killed host is followed by one that makes a fresh start.

It prints its events and whether objects of stale shares raise Stale. The message 0 ends it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

import eal

Rings = tuple[eal.Ring, eal.Ring]

ended = threading.Event()
living: list[Rings] = []  # objects of the live host, if there is one
older: list[Rings] = []  # objects of dead hosts


def rings() -> Rings:
    return eal.ring_lookup("down"), eal.ring_lookup("up")


def refused(uses: list[Callable[[], object]], error: type[Exception]) -> bool:
    for use in uses:
        try:
            use()
        except error:
            continue
        return False
    return True


def send_back() -> None:
    down, up = rings()
    while True:
        try:
            number = down.dequeue()
            if number is None:
                time.sleep(0.0005)
            elif number == 0:
                ended.set()
            else:
                up.enqueue(number)
        except (eal.Stale, eal.Detached):
            time.sleep(0.005)
            down, up = living[0] if living else (down, up)


def told(event: eal.Event) -> None:
    found: dict[str, object] = {"kind": event.kind, "reason": event.reason, "address": event.address}
    if event.kind == "plugged":
        living.append(rings())
    elif event.kind == "stale":
        down, up = living.pop()
        older.append((down, up))
        found["refused"] = refused([down.dequeue, lambda: up.enqueue(1), lambda: up.count], eal.Stale)
    elif event.kind == "unplugged":
        down, up = older.pop(0)
        found["refused"] = refused([down.dequeue, lambda: up.enqueue(1)], eal.Detached)
    print(json.dumps(found), flush=True)


def main() -> None:
    with eal.init(["--no-huge"]) as app:
        living.append(rings())
        threading.Thread(target=send_back, daemon=True).start()
        with app.watch(told, stale=True):
            print(json.dumps({"kind": "ready"}), flush=True)
            ended.wait()


main()
