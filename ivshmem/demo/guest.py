# SPDX-License-Identifier: BSD-3-Clause
"""The demo's guest: it knows names and nothing else. Run in a VM or on an emulated bus by `ivshmem demo`.

It prints one line of JSON: what it found, and what it saw go wrong.
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from typing import Any

import numpy as np

import eal

BATCH = 64
PATIENCE = 20.0  # seconds without a message after which the host is taken to be dead


def main() -> int:
    with eal.init() as guest:
        control = eal.memzone_lookup("demo_control").array()
        pool = eal.mempool_lookup("demo_pool")
        to_guest = eal.ring_lookup("demo_to_guest")
        to_host = eal.ring_lookup("demo_to_host")
        control["guest_ready"] = 1
        faults, received = exchange(control, pool, to_guest, to_host)
        report = {
            "devices": [{"metadata": share.name, "address": share.address} for share in guest.shares],
            "rejected": [vars(rejection) for rejection in guest.rejections],
            "memzones": [zone.name for zone in eal.memzones()],
            "rings": [ring.name for ring in eal.rings()],
            "mempools": [pool.name for pool in eal.mempools()],
            "relocated": any(segment.relocated for segment in eal.segments()),
            "received": received,
            "faults": faults,
        }
    print(json.dumps(report))
    return 1 if faults else 0


def exchange(
    control: np.ndarray[Any, Any], pool: eal.Mempool, to_guest: eal.Ring, to_host: eal.Ring
) -> tuple[list[str], int]:
    """Checks every message, answers it, and puts its object back; until all have come that the control zone tells."""
    messages, size = int(control["messages"]), int(control["size"])
    headers = pool.view([("sequence", "<u8"), ("checksum", "<u4"), ("length", "<u4")])
    objects = pool.array
    indices = np.zeros(BATCH, np.uint32)
    answers = np.zeros(BATCH, [("sequence", "<u8"), ("checksum", "<u4"), ("fault", "<u4")])
    faults: list[str] = []
    received = expected = 0
    patience = time.monotonic() + PATIENCE
    while received < messages and not control["host_done"]:
        n = to_guest.dequeue_burst(indices)
        if n == 0:
            if not to_guest.wait(0.1) and time.monotonic() > patience:
                faults.append(f"no message for {PATIENCE:g} s")
                break
            continue
        patience = time.monotonic() + PATIENCE
        for i, index in enumerate(indices[:n].tolist()):
            header = headers[index]
            checksum = zlib.crc32(objects[index, 16 : 16 + size].data)
            fault = _fault(int(header["sequence"]), expected, checksum, header)
            if fault:
                faults.append(fault)
            expected = int(header["sequence"]) + 1
            answers[i] = (header["sequence"], checksum, bool(fault))
        _send(to_host, answers[:n].view(np.uint8).reshape(n, 16))
        pool.put_bulk(indices[:n])
        received += n
    return faults[:20], received


def _fault(sequence: int, expected: int, checksum: int, header: Any) -> str:
    if sequence > expected:
        return f"message {expected} is missing: {sequence} came"
    if sequence < expected:
        return f"message {sequence} came after {expected - 1}"
    if checksum != header["checksum"]:
        return f"message {sequence} is corrupted"
    return ""


def _send(ring: eal.Ring, answers: np.ndarray[Any, Any]) -> None:
    done = 0
    while done < len(answers):
        done += ring.enqueue_burst(answers[done:])


if __name__ == "__main__":
    sys.exit(main())
