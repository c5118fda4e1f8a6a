# SPDX-License-Identifier: BSD-3-Clause
"""Guest that reads every zone: prints the number of segments and devices, and a checksum of each zone."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import eal

DEVICES = Path(os.environ.get("EAL_SYSFS_ROOT", "/sys")) / "bus/pci/devices"


def main() -> None:
    with eal.init(["--no-huge"]) as app:
        report = {
            "segments": len(eal.segments()),
            "shares": [share.name for share in app.shares],
            "rejections": [vars(rejection) for rejection in app.rejections],
            "foreign": app.findings.foreign,
            "devices": sorted(device.name for device in DEVICES.iterdir()),
            "sums": {zone.name: zlib.crc32(zone.buf) for zone in eal.memzones()},
        }
    print(json.dumps(report))


main()
