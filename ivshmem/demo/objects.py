# SPDX-License-Identifier: BSD-3-Clause
"""Shared objects of the demo: one control memzone, one mempool and two rings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import eal
from ivshmem.metadata.metadata import Metadata

HEADER = [("sequence", "<u8"), ("checksum", "<u4"), ("length", "<u4")]
HEADER_SIZE = 16
CONTROL = [("messages", "<u8"), ("size", "<u8"), ("guest_ready", "<u4"), ("host_done", "<u4")]
ANSWER = [("sequence", "<u8"), ("checksum", "<u4"), ("fault", "<u4")]
BATCH = 64  # messages per burst
_POOL_SIZE = 2048
_RING_SIZE = 1024


@dataclass
class Objects:
    """The objects that host and guest share. `control` is a zero-dimensional array of dtype CONTROL."""

    control: np.ndarray[Any, Any]
    pool: eal.Mempool
    to_guest: eal.Ring
    to_host: eal.Ring


def create(messages: int, size: int) -> Objects:
    """Create the objects for `messages` messages of `size` bytes in the process's Eal."""
    control = eal.array_reserve("demo_control", (), CONTROL).array()
    control["messages"], control["size"] = messages, size
    flags = eal.RingFlag.SP_ENQ | eal.RingFlag.SC_DEQ
    return Objects(
        control,
        eal.mempool_create("demo_pool", _POOL_SIZE, HEADER_SIZE + size, cache_size=BATCH),
        eal.ring_create("demo_to_guest", _RING_SIZE, elem_size=4, flags=flags),
        eal.ring_create("demo_to_host", _RING_SIZE, elem_size=np.dtype(ANSWER).itemsize, flags=flags),
    )


def share(metadata: Metadata, objects: Objects) -> None:
    """Add the objects to a metadata file."""
    metadata.add(eal.memzone_lookup("demo_control"), objects.pool, objects.to_guest, objects.to_host)


def describe(objects: Objects) -> dict[str, str]:
    """Return a description of each object by its name."""
    rings = {
        r.name: f"ring of {r.capacity} elements of {r.elem_size} bytes" for r in (objects.to_guest, objects.to_host)
    }
    return {
        "demo_control": "memzone with a structured array",
        "demo_pool": f"mempool of {objects.pool.n} objects of {objects.pool.elt_size} bytes",
        **rings,
    }
