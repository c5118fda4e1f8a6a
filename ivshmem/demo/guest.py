# SPDX-License-Identifier: BSD-3-Clause
"""Guest side of the demo, started by `ivshmem demo` in a VM or on an emulated bus. It finds all objects by name.

It prints one line of JSON: the devices and objects that it found, and the faults of messages.
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
MESSAGE_TIMEOUT = 20.0  # seconds without a message until the host counts as dead


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
    """Check and answer each message and free its object, until the number of messages in `control` is reached.

    Return the first 20 faults and the number of messages received.
    """
    messages, size = int(control["messages"]), int(control["size"])
    headers = pool.view([("sequence", "<u8"), ("checksum", "<u4"), ("length", "<u4")])
    objects = pool.array
    indices = np.zeros(BATCH, np.uint32)
    answers = np.zeros(BATCH, [("sequence", "<u8"), ("checksum", "<u4"), ("fault", "<u4")])
    faults: list[str] = []
    received = expected = 0
    deadline = time.monotonic() + MESSAGE_TIMEOUT
    while received < messages and not control["host_done"]:
        n = to_guest.dequeue_burst(indices)
        if n == 0:
            if not to_guest.wait(0.1) and time.monotonic() > deadline:
                faults.append(f"no message for {MESSAGE_TIMEOUT:g} s")
                break
            continue
        deadline = time.monotonic() + MESSAGE_TIMEOUT
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
        return f"message {expected} is missing: {sequence} arrived"
    if sequence < expected:
        return f"message {sequence} arrived after {expected - 1}"
    if checksum != header["checksum"]:
        return f"message {sequence} is corrupted"
    return ""


def _send(ring: eal.Ring, answers: np.ndarray[Any, Any]) -> None:
    sent = 0
    while sent < len(answers):
        sent += ring.enqueue_burst(answers[sent:])


if __name__ == "__main__":
    sys.exit(main())
