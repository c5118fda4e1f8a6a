# SPDX-License-Identifier: BSD-3-Clause
"""Mempools: fixed-size objects, allocated and freed by index (DPDK: lib/mempool)."""
