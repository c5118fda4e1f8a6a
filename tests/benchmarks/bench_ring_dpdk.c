/* SPDX-License-Identifier: BSD-3-Clause */
/* bench_ring_dpdk.c: the timed loops with rte_ring, from the headers of libdpdk. */
#include <rte_ring.h>

#include "bench_ring_kernels.h"

BENCH_INLINE int dpdk_enqueue(void *ring, void *objects, uint32_t esize, uint32_t n)
{
    return (int)rte_ring_enqueue_bulk_elem(ring, objects, esize, n, NULL);
}

BENCH_INLINE int dpdk_dequeue(void *ring, void *objects, uint32_t esize, uint32_t n)
{
    return (int)rte_ring_dequeue_bulk_elem(ring, objects, esize, n, NULL);
}

RING_SUBJECT(dpdk)
