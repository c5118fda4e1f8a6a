# SPDX-License-Identifier: BSD-3-Clause
"""Two producers and two consumers on each side of one ring and one pool: no element is lost or duplicated."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eal
import ivshmem

pytestmark = pytest.mark.vm_alone  # threads of host and guest poll at the same time

SCRIPT = Path(__file__).parents[1] / "guests/crowd.py"
WORKERS = 4  # 0 and 1 on the host, 2 and 3 in the guest
TOTAL = 200_000
SHARE = TOTAL // WORKERS
CONTROL = [(name, "<u8") for name in ("share", "ready", "made", "received")] + [("pad", "<u8", (4,))]


def make(metadata: ivshmem.Metadata) -> None:
    control = eal.array_reserve("control", WORKERS, CONTROL)
    control.array()["share"] = SHARE
    metadata.add_memzone(control)
    metadata.add_memzone(eal.array_reserve("received", (WORKERS, TOTAL), "<u8"))
    metadata.add_ring(eal.ring_create("crowd", 512, elem_size=256))
    metadata.add_mempool(eal.mempool_create("stamps", 1024, 64, cache_size=32))


def test_two_producers_and_consumers_per_side_exchange_all_objects(primary: eal.Eal, guest: Callable[..., Any]) -> None:
    metadata = ivshmem.metadata_create("crowd")
    make(metadata)
    options = ["--file-prefix", primary.file_prefix, "--proc-type", "secondary"]
    there = guest("crowd", metadata, arguments=["2,3"])
    here = subprocess.run([sys.executable, "-P", SCRIPT, "0,1", *options], capture_output=True, text=True, timeout=200)
    assert here.returncode == 0, here.stderr
    there.end()

    counts = eal.memzone_lookup("control").array()["received"].tolist()
    lists = [eal.memzone_lookup("received").array()[me, :n].copy() for me, n in enumerate(counts)]
    expected = np.concatenate([(np.uint64(me) << np.uint64(32)) + np.arange(SHARE, dtype=np.uint64) for me in range(4)])
    assert (np.sort(np.concatenate(lists)) == expected).all()
    for consumer, stamps in enumerate(lists):
        for producer in range(WORKERS):
            sequence = stamps[stamps >> np.uint64(32) == producer]
            assert len(sequence), f"consumer {consumer} received nothing of producer {producer}"
            assert (np.diff(sequence.astype(np.int64)) > 0).all(), f"consumer {consumer}, producer {producer}: order"

    pool = eal.mempool_lookup("stamps")
    audit = pool.audit()
    assert audit.ok
    assert audit.in_hand == []
    assert (pool.in_use, pool.available) == (0, pool.n)
    assert eal.ring_lookup("crowd").empty
