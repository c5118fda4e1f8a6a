# SPDX-License-Identifier: BSD-3-Clause
"""Placement of VMs and lcores on NUMA nodes and CPUs."""
