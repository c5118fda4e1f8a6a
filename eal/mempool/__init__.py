"""Mempools: fixed-size objects, allocated and freed by index (DPDK: lib/mempool)."""
