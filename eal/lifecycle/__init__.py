"""Start-up and shut-down of an Eal (DPDK: rte_eal_init, rte_eal_cleanup)."""
