# SPDX-License-Identifier: BSD-3-Clause
"""Cloud Hypervisor: the option for a shared file of a VM, if that option can express it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from eal.errors import Invalid
from ivshmem.vmm.device import Device

_PLAIN = re.compile(r"[\w./+@%:-]+", re.ASCII)  # paths that need no quoting, which the option does not support


def args(devices: Sequence[Device], label: str) -> list[str]:
    """Return Cloud Hypervisor's `--ivshmem path=...,size=...` for the only device of `label`.

    Cloud Hypervisor supports one ivshmem device per VM, and the device is writable. A metadata file with objects needs
    a read-only device beside at least one segment, so it is not supported: raise Invalid with all reasons.
    """
    reasons = []
    if len(devices) != 1:
        reasons.append(f"it supports one ivshmem device per VM, not {len(devices)}")
    if reads := [device for device in devices if device.readonly]:
        files = ", ".join(device.path for device in reads)
        reasons.append(f"its device is writable, but the VM must not write to {files}")
    if odd := [device.path for device in devices if not _PLAIN.fullmatch(device.path)]:
        reasons.append(f"its option cannot represent {', '.join(map(repr, odd))}")
    if reasons:
        raise Invalid(f"Cloud Hypervisor does not support {label}: {'; '.join(reasons)}. Use QEMU: ivshmem cmdline")
    return ["--ivshmem", f"path={devices[0].path},size={devices[0].size}"]
