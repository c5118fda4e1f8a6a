"""PCI: ivshmem devices in sysfs and their BARs (DPDK: drivers/bus/pci)."""
