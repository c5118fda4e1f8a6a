"""Probing: ivshmem devices from PCI scan to shares, and hot plug."""
