"""Rings: bounded queues of fixed-size elements (DPDK: lib/ring)."""
