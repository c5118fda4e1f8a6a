# SPDX-License-Identifier: BSD-3-Clause
"""Mbufs: packet buffers in a mempool (DPDK: lib/mbuf)."""
