# SPDX-License-Identifier: BSD-3-Clause
"""Virtual machines: boot stock QEMU with the host's root and run a command in the guest."""

from ivshmem.vm.vm import VM, VmConfig, run

__all__ = ["VM", "VmConfig", "run"]
