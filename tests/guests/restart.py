# SPDX-License-Identifier: BSD-3-Clause
"""Guest that echoes each message and continues across restarts of the host, of which it is not notified."""

from __future__ import annotations

import json
import time

import numpy as np

import eal

BATCH = 8
MESSAGE = np.dtype([("number", "<u8"), ("answer", "<u8"), ("filler", "u1", 48)])


def main() -> None:
    with eal.init(["--no-huge"]) as app:
        (share,) = app.shares
        control = eal.memzone_lookup("control").array()
        down, up, messages = eal.ring_lookup("down"), eal.ring_lookup("up"), eal.mempool_lookup("pool").view(MESSAGE)
        batch = np.zeros(BATCH, np.uint32)
        epochs, expected, faults = [share.file.read().epoch], 0, 0
        print(json.dumps({"ready": True}), flush=True)
        while True:
            got = down.dequeue_burst(batch)
            for index in batch[:got]:
                faults += messages["number"][index] != expected
                messages["answer"][index] = ~messages["number"][index]
                messages["filler"][index] = expected & 0xFF
                expected += 1
            sent = 0
            while sent < got:
                sent += up.enqueue_burst(batch[sent:got])
            if got == 0:
                if control["stop"]:
                    break
                if (epoch := share.file.read().epoch) != epochs[-1]:
                    epochs.append(epoch)
                time.sleep(0.0005)
        retired = any(segment.retired for segment in share.segments)
        print(
            json.dumps({"received": expected, "faults": int(faults), "epochs": epochs, "retired": retired}), flush=True
        )


main()
