# SPDX-License-Identifier: BSD-3-Clause
"""Cloud Hypervisor: the option that gives a VM a shared file, as far as its format can express one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from eal.errors import Invalid
from ivshmem.vmm.device import Device

_PLAIN = re.compile(r"[\w./+@%:-]+", re.ASCII)  # what its option parser takes as it stands


def args(devices: Sequence[Device], what: str) -> list[str]:
    """Cloud Hypervisor's `--ivshmem path=...,size=...` for the one device of `what`.

    It gives a VM one such device, which the VM may write to. A metadata is read-only and comes beside at least one
    segment, so no metadata with anything in it can be given: raises Invalid with all reasons.
    """
    reasons = []
    if len(devices) != 1:
        reasons.append(f"it has one ivshmem device for a VM, and this takes {len(devices)}")
    if reads := [device for device in devices if device.readonly]:
        files = ", ".join(device.path for device in reads)
        reasons.append(f"its device is always writable, and the VM must not write to {files}")
    if odd := [device.path for device in devices if not _PLAIN.fullmatch(device.path)]:
        reasons.append(f"its option cannot carry {', '.join(map(repr, odd))}")
    if reasons:
        raise Invalid(f"Cloud Hypervisor cannot be given {what}: {'; '.join(reasons)}. Use QEMU: ivshmem cmdline")
    return ["--ivshmem", f"path={devices[0].path},size={devices[0].size}"]
