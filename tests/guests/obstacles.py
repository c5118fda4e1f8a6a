# SPDX-License-Identifier: BSD-3-Clause
"""Guest that creates one obstacle after another in one boot, and prints the results of eal.init and the doctor.

Arguments: the PCI address to claim, the udev rule, and the kernel modules of vfio-pci in loading order.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import eal
import eal.lifecycle.startup  # import before the fork, so that it is imported only once
from eal.pci.device import scan
from ivshmem.doctor import examine

DEVICES = Path("/sys/bus/pci/devices")
NOBODY = 65534
# linux/vfio.h
VFIO_SET_IOMMU, VFIO_GROUP_SET_CONTAINER, VFIO_GROUP_GET_DEVICE_FD = 0x3B66, 0x3B68, 0x3B6A
VFIO_TYPE1_IOMMU, VFIO_BAR2_OFFSET = 1, 2 << 40


def look(prefix: str, *, diagnose: bool = True, **options: Any) -> dict[str, Any]:
    """Return the shares that eal.init found, and the checks that the doctor reports as failed."""
    with eal.init(file_prefix=prefix, **options) as me:
        own = me.memzone_reserve("own", 4096)
        found = {
            "rejections": {rejection.address: rejection.reason for rejection in me.rejections},
            "shares": [share.name for share in me.shares],
            "relocated": [zone.name for zone in eal.memzones() if zone.relocated],
            "own": {"page_size": own.segment.page_size, "path": own.segment.path},
            "fallbacks": me.bar_access.fallbacks,
        }
        for share in me.shares:
            eal.memzone_lookup(share.name).buf[: len(prefix)] = prefix.encode()
    if diagnose:
        checks = examine().checks
        found["failed"] = {check.subject: check.remedy for check in checks if check.verdict == "fail"}
        found["warned"] = {check.check: check.value for check in checks if check.verdict == "warn"}
    return found


def say(step: str, **found: Any) -> None:
    print(json.dumps({"step": step, **found}), flush=True)


@contextmanager
def claimed(address: str, modules: list[str]) -> Iterator[None]:
    """Bind the device to vfio-pci and read its BAR2 through vfio: this claims the BAR."""
    for module in modules:
        subprocess.run(["insmod", module], check=True)
    device = DEVICES / address
    (device / "driver_override").write_text("vfio-pci")
    Path("/sys/bus/pci/drivers_probe").write_text(address)
    number = os.path.basename(os.readlink(device / "iommu_group"))
    with open("/dev/vfio/vfio", "r+b", 0) as container, open(f"/dev/vfio/{number}", "r+b", 0) as group:
        fcntl.ioctl(group, VFIO_GROUP_SET_CONTAINER, container.fileno().to_bytes(4, "little"))
        fcntl.ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU)
        bar = fcntl.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, bytearray(address.encode() + b"\0"))
        os.pread(bar, 8, VFIO_BAR2_OFFSET)
        yield
        os.close(bar)
    (Path("/sys/bus/pci/drivers/vfio-pci") / "unbind").write_text(address)


def as_nobody(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the result of `work` in a child process of another user."""
    hear, tell = os.pipe()
    if os.fork() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        os.write(tell, json.dumps(work()).encode())
        os._exit(0)
    os.close(tell)
    with open(hear) as pipe:
        return dict(json.loads(pipe.read() or '{"failed": "it died"}'))


def apply_rule(rule: Path) -> None:
    """Run udevd with the rule; nogroup replaces the group ivshmem, which this guest does not have."""
    for device in scan():
        if (device.path / "enable").read_text().strip() != "0":
            (device.path / "enable").write_text("0")  # the rule must enable it
    rules = Path("/run/udev/rules.d")
    rules.mkdir(parents=True)
    (rules / rule.name).write_text(rule.read_text().replace("chgrp ivshmem", "chgrp nogroup"))
    env = {**os.environ, "SYSTEMD_IGNORE_CHROOT": "1"}
    subprocess.run(["/lib/systemd/systemd-udevd", "--daemon"], check=True, env=env)
    for words in (["trigger", "--subsystem-match=pci", "--action=add"], ["settle", "--timeout=30"]):
        subprocess.run(["udevadm", *words], check=True, env=env)


def main() -> None:
    address, rule, *modules = sys.argv[1:]
    say("nothing", **look("nothing", no_huge=False))
    say("below 4 GiB", **look("low", diagnose=False, bar_access="devmem"))
    with claimed(address, modules):
        say("claimed", **look("claimed"))
    say("let go", **look("letgo", diagnose=False))

    known = len(scan())
    say("plug")
    while len(scan()) == known:
        time.sleep(0.05)
    say("no address", **look("noaddress"))

    say("nobody", **as_nobody(lambda: look("nobody", diagnose=False)))
    apply_rule(Path(rule))
    say("rule", **as_nobody(lambda: look("rule", diagnose=False)))

    subprocess.run(["mount", "-t", "securityfs", "none", "/sys/kernel/security"], check=True)
    Path("/sys/kernel/security/lockdown").write_text("integrity")
    say("lockdown", **look("lockdown"))


main()
