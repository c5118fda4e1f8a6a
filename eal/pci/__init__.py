# SPDX-License-Identifier: BSD-3-Clause
"""PCI: ivshmem devices in sysfs and their BARs (DPDK: drivers/bus/pci)."""
