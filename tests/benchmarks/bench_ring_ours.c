/* SPDX-License-Identifier: BSD-3-Clause */
/* bench_ring_ours.c: the timed loops with ivs_ring. */
#include "bench_ring_kernels.h"
#include "ring.h"

BENCH_INLINE int ours_enqueue(void *ring, void *objects, uint32_t esize, uint32_t n)
{
    return ivs_ring_enqueue_bulk(ring, objects, esize, n, NULL);
}

BENCH_INLINE int ours_dequeue(void *ring, void *objects, uint32_t esize, uint32_t n)
{
    return ivs_ring_dequeue_bulk(ring, objects, esize, n, NULL);
}

RING_SUBJECT(ours)
