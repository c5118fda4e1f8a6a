# SPDX-License-Identifier: BSD-3-Clause
"""Guests whose devices come from libudev, by umockdev: devices that no QEMU here provides."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import eal
import ivshmem

DEVICE = """P: /devices/pci0001:00/{address}
E: SUBSYSTEM=pci
E: DRIVER={driver}
A: vendor={vendor}\\n
A: device=0x1110\\n
A: numa_node={node}\\n
{more}
"""

# Runs below umockdev-run, which provides /sys. Links files as BARs, then runs as a guest.
GUEST = """
import json, os, sys
from pathlib import Path
import eal
from eal.doctor.devices import device_checks
from eal.pci.device import scan

real = Path(os.environ["UMOCKDEV_DIR"]) / "sys/devices/pci0001:00"
for address, file in json.loads(sys.argv[1]).items():
    (real / address / "resource2").symlink_to(file)
(real / "0001:00:06.0/enable").mkdir()  # no write to it comes through
drivers = real.parents[1] / "bus/pci/drivers"
(drivers / "vfio-pci").mkdir(parents=True)
(real / "0001:00:04.0/driver").symlink_to(drivers / "vfio-pci")
with eal.init(no_huge=True) as me:
    print(json.dumps({
        "devices": [device.address for device in scan()],
        "paths": [str(device.path) for device in scan()],
        "shares": [share.name for share in me.shares],
        "rejections": {rejection.address: rejection.reason for rejection in me.rejections},
        "foreign": me.findings.foreign,
        "nodes": {zone.name: zone.socket_id for zone in eal.memzones()},
        "text": bytes(eal.memzone_lookup("text").buf[:5]).decode(),
        "access": me.bar_access.access,
        "enabled": {d.address: (real / d.address / "enable").read_text().strip() for d in scan()
                    if (real / d.address / "enable").is_file()},
    }))
    checks = device_checks(scan(), Path("/sys"))
    print(json.dumps([[c.check, c.subject, c.verdict, c.value] for c in checks]))
"""


def described(address: str, *more: str, vendor: str = "0x1af4", node: int = -1, driver: str = "") -> str:
    text = DEVICE.format(address=address, vendor=vendor, node=node, driver=driver, more="\n".join(more))
    return "\n".join(line for line in text.splitlines() if line not in ("", "E: DRIVER=")) + "\n"


def run_below_umockdev(folder: Path, devices: Sequence[str], bars: dict[str, str]) -> list[Any]:
    """Return the JSON values that the guest prints, one per line."""
    (folder / "devices").write_text("\n".join(devices))
    runtime = folder / "guest"
    runtime.mkdir(mode=0o700)
    env = {key: value for key, value in os.environ.items() if key != "EAL_SYSFS_ROOT"}
    command = ["umockdev-run", "--device", str(folder / "devices"), "--", sys.executable, "-P", "-c", GUEST]
    done = subprocess.run(
        [*command, json.dumps(bars)],
        env={**env, "EAL_RUNTIME_DIR": str(runtime)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_devices_of_libudev_are_probed(primary: eal.Eal, tmp_path: Path) -> None:
    metadata = ivshmem.metadata_create("vm0")
    zone = eal.memzone_reserve("text", 4096)
    zone.buf[:5] = b"hello"
    metadata.add_memzone(zone)
    segment, table = metadata.devices()
    noise = tmp_path / "noise"
    noise.write_bytes(os.urandom(65536))
    off, on = "A: enable=0\\n", "A: enable=1\\n"

    found, checks = run_below_umockdev(
        tmp_path,
        [
            described("0001:00:03.0", off, node=1),
            described("0001:00:04.0", off, node=1, driver="vfio-pci"),
            described("0001:00:05.0", off),  # without BAR2
            described("0001:00:06.0"),
            described("0001:00:07.0", on, vendor="0x8086"),
            described("0001:00:08.0", off),
        ],
        {
            "0001:00:03.0": table.path,
            "0001:00:04.0": segment.path,
            "0001:00:06.0": str(noise),
            "0001:00:07.0": str(noise),
            "0001:00:08.0": str(noise),
        },
    )

    assert found["devices"] == [f"0001:00:{slot:02x}.0" for slot in (3, 4, 5, 6, 8)]
    assert all(
        path.startswith("/sys/devices/pci0001:00/") for path in found["paths"]
    )  # by libudev, as on a real machine
    assert (found["shares"], found["text"], found["nodes"]) == (["vm0"], "hello", {"text": 1})
    assert sorted(found["rejections"]) == ["0001:00:05.0", "0001:00:06.0"]
    assert "BAR2 has no address" in found["rejections"]["0001:00:05.0"]
    assert "cannot enable the device" in found["rejections"]["0001:00:06.0"]
    assert found["foreign"] == ["0001:00:08.0"]
    assert found["access"] == "sysfs"
    assert found["enabled"] == {
        "0001:00:03.0": "1",
        "0001:00:04.0": "1",
        "0001:00:05.0": "0",
        "0001:00:08.0": "0",  # restored
    }
    drivers = [check for check in checks if check[0] == "driver"]
    assert drivers == [["driver", "0001:00:04.0", "warn", "bound to vfio-pci, which may claim BAR2"]]
    assert [check[1] for check in checks if check[2] == "fail"] == ["0001:00:05.0", "0001:00:06.0"]
