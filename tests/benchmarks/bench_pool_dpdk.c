/* SPDX-License-Identifier: BSD-3-Clause */
/* bench_pool_dpdk.c: the timed loops with rte_mempool, from the headers of libdpdk. */
#include <rte_mempool.h>

#include "bench_pool_kernels.h"

BENCH_INLINE int dpdk_get(void *pool, void *objects, uint32_t at, uint32_t n)
{
    return rte_mempool_get_bulk(pool, (void **)objects + at, n);
}

BENCH_INLINE int dpdk_put(void *pool, void *objects, uint32_t at, uint32_t n)
{
    rte_mempool_put_bulk(pool, (void **)objects + at, n);
    return 0; /* rte_mempool_put_bulk returns void */
}

POOL_SUBJECT(dpdk)
