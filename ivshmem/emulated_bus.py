# SPDX-License-Identifier: BSD-3-Clause
"""The public name of the emulated bus: `ivshmem.emulated_bus.EmulatedBus`."""

from ivshmem.emulate.bus import EmulatedBus

__all__ = ["EmulatedBus"]
