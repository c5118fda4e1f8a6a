# SPDX-License-Identifier: BSD-3-Clause
"""Hotplug of shares into a running QEMU by QMP."""
