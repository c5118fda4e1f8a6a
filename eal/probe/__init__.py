# SPDX-License-Identifier: BSD-3-Clause
"""Probing: ivshmem devices from PCI scan to shares, and hot plug."""
