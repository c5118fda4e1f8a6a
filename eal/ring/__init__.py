# SPDX-License-Identifier: BSD-3-Clause
"""Rings: bounded queues of fixed-size elements (DPDK: lib/ring)."""
