# SPDX-License-Identifier: BSD-3-Clause
"""Placement: a plan of CPUs and memory for apps and VMs."""
