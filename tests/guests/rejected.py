# SPDX-License-Identifier: BSD-3-Clause
"""Guest that prints the rejected shares with the reasons, and uses the accepted ones."""

from __future__ import annotations

import json

import eal

with eal.init() as guest:
    good = eal.memzone_lookup("good")
    found = bytes(good.buf[:5]).decode()
    good.buf[:5] = b"works"
    print(
        json.dumps(
            {
                "rejections": {
                    rejection.address: {"name": rejection.name, "reason": rejection.reason}
                    for rejection in eal.current().rejections
                },
                "shares": [share.name for share in guest.shares],
                "foreign": guest.findings.foreign,
                "memzones": [zone.name for zone in eal.memzones()],
                "found": found,
            }
        )
    )
