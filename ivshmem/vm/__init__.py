# SPDX-License-Identifier: BSD-3-Clause
"""Virtual machines: boot stock QEMU with the host's root and run one command in the guest."""

from ivshmem.vm.config import VmConfig
from ivshmem.vm.vm import VM, run

__all__ = ["VM", "VmConfig", "run"]
