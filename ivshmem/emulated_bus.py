# SPDX-License-Identifier: BSD-3-Clause
"""Public alias of ivshmem.emulate.bus: `ivshmem.emulated_bus.EmulatedBus`."""

from ivshmem.emulate.bus import EmulatedBus

__all__ = ["EmulatedBus"]
