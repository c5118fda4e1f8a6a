# SPDX-License-Identifier: BSD-3-Clause
"""Start-up and shut-down of an Eal (DPDK: rte_eal_init, rte_eal_cleanup)."""
