/* SPDX-License-Identifier: BSD-3-Clause */
/* bench_pool_ours.c: the timed loops with ivs_mempool. */
#include "bench_pool_kernels.h"
#include "mempool.h"

BENCH_INLINE int ours_get(void *pool, void *objects, uint32_t at, uint32_t n)
{
    return ivs_mempool_get_bulk(pool, (uint32_t *)objects + at, n) != (int)n;
}

BENCH_INLINE int ours_put(void *pool, void *objects, uint32_t at, uint32_t n)
{
    return ivs_mempool_put_bulk(pool, (uint32_t *)objects + at, n) != (int)n;
}

POOL_SUBJECT(ours)
