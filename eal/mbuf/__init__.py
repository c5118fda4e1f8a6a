"""Mbufs: packet buffers in a mempool (DPDK: lib/mbuf)."""
