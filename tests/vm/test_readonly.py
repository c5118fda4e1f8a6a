# SPDX-License-Identifier: BSD-3-Clause
"""A share with readonly=True: the guest reads the host's values and cannot change them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import eal
import ivshmem

REFUSED = {
    "buf": "TypeError",
    "array": "ValueError",
    "frame": "TypeError",
    "enqueue": "Denied",
    "dequeue": "Denied",
    "enqueue_bulk": "Denied",
    "dequeue_burst": "Denied",
    "burst": "Denied",
    "reset": "Denied",
    "get": "Denied",
    "put": "Denied",
    "free": "Denied",
}


def test_readonly_share_is_readable_and_cannot_be_changed(primary: eal.Eal, guest: Callable[..., Any]) -> None:
    facts = eal.memzone_reserve("facts", 8192)
    ring, pool = eal.ring_create("bulletin", 8), eal.mempool_create("frames", 10, 100)
    facts.buf[:8] = b"old news"
    pool.object(0)[:5] = b"frame"
    for value in (1, 2, 3):
        ring.enqueue(value)
    metadata = ivshmem.metadata_create("slides")
    metadata.add_memzone(facts, readonly=True)
    metadata.add_ring(ring, readonly=True)
    metadata.add_mempool(pool, readonly=True)
    files = [Path(device.path) for device in metadata.devices()]
    before = [file.read_bytes() for file in files]

    running = guest("readonly", metadata)

    assert running.hear() == {
        "facts": "old news",
        "readonly": [True, True, True],
        "writeable": [False, False],
        "in_ring": 3,
        "available": 10,
        "first_frame": "frame",
    }
    assert running.hear() == REFUSED
    assert running.hear() == {"segment": "as before", "metadata": "as before"}
    assert [file.read_bytes() for file in files] == before
    facts.buf[:8] = b"news now"
    assert running.hear() == {"facts": "news now"}
    running.end()
    assert [ring.dequeue() for _ in range(4)] == [1, 2, 3, None]
    assert pool.in_use == 0
