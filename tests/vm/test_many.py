# SPDX-License-Identifier: BSD-3-Clause
"""1,000 zones in 64 segments for one VM, beside user devices with fixed addresses."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import eal
import ivshmem

SEGMENTS, ZONES = 64, 1000
OTHERS = {"e1000,addr=0x3": "0000:00:03.0", "virtio-rng-pci,addr=0x2": "0000:00:02.0"}


def test_thousand_zones_in_64_segments_are_all_found(
    primary: eal.Eal, guest: Callable[..., Any], tmp_path: Path
) -> None:
    zones = [eal.memzone_reserve(f"zone{n}", 2048 + n, group=f"group{n % SEGMENTS}") for n in range(ZONES)]
    for zone in zones:
        zone.buf[:] = os.urandom(len(zone.buf))
    metadata = ivshmem.metadata_create("many")
    metadata.add(*zones)
    foreign = tmp_path / "foreign"
    foreign.write_bytes(os.urandom(65536))

    running = guest("many", metadata, files=[foreign], others=list(OTHERS))
    found = running.hear()
    running.end()

    assert (found["segments"], found["shares"], found["rejections"]) == (SEGMENTS, ["many"], [])
    assert found["sums"] == {zone.name: zlib.crc32(zone.buf) for zone in zones}
    assert found["foreign"] == [running.addresses[foreign]]
    if running.in_vm:
        assert set(OTHERS.values()) < set(found["devices"])
