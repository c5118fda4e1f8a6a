# SPDX-License-Identifier: BSD-3-Clause
"""Command lines and XML for QEMU, libvirt and Cloud Hypervisor."""
