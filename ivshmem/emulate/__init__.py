# SPDX-License-Identifier: BSD-3-Clause
"""Emulated guests: run a guest application without a VM, on a sysfs tree whose BARs are the segment files."""

from ivshmem.emulate.bus import EmulatedBus
from ivshmem.emulate.runner import guest_environment, run

__all__ = ["EmulatedBus", "guest_environment", "run"]
