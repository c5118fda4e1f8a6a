/* SPDX-License-Identifier: BSD-3-Clause */
/* ring_prefetch.h: prefetch the cache lines that the next operation needs.
 *
 * Enqueue: if a peer waits for each element, it has read both lines that the next enqueue writes, the element's and the
 * tail's. Stores become visible in order, and each waits for the ownership of its line: two transfers between the
 * cores. Prefetched, both transfers run at the same time. It costs a nanosecond, so code that moves bursts between busy
 * cores does without.
 *
 * Dequeue: prefetch the next burst: it arrives while the caller processes this one.
 *
 * For ST sides; no effect on others, whose next slot is not known. */
#ifndef IVS_RING_PREFETCH_H
#define IVS_RING_PREFETCH_H

#include "ring.h"

/* A hint that the caller will write to this address; it never faults. */
IVS_INLINE void ivs_early_line(const void *address)
{
#if defined(__x86_64__)
    /* __builtin_prefetch compiles to a read prefetch unless the compiler may assume the instruction; processors without
     * it ignore it */
    __asm__ volatile("prefetchw %0" : : "m"(*(const unsigned char *)address));
#else
    __builtin_prefetch(address, 1);
#endif
}

/* Call before an enqueue that a peer is waiting for. */
IVS_INLINE void ivs_ring_prefetch_enqueue(const struct ivs_ring *r)
{
    if (r->prod_sync != IVS_SYNC_ST)
        return;
    union ivs_ring_end *own = ivs_ring_own(r, IVS_PRODUCER);
    ivs_early_line(ivs_ring_slots(own, IVS_PRODUCER) + (size_t)((uint32_t)r->prod.cached & r->mask) * r->elem_size);
    ivs_early_line(own);
}

#define IVS_EARLY_MOST 4096u /* bytes: data prefetched too early evicts other data */

/* Call after a dequeue of `n`: prefetch as many more if they are known to be present. */
IVS_INLINE void ivs_ring_prefetch_dequeue(const struct ivs_ring *r, uint32_t n)
{
    uint32_t head = (uint32_t)r->cons.cached, there = (uint32_t)(r->cons.cached >> 32) - head, at = head & r->mask;
    uint64_t bytes = (uint64_t)n * r->elem_size;
    if (r->cons_sync != IVS_SYNC_ST || n > there || n > r->size - at || bytes > IVS_EARLY_MOST)
        return;
    const unsigned char *slots = ivs_ring_slots(ivs_ring_own(r, IVS_CONSUMER), IVS_CONSUMER);
    for (uint64_t offset = 0; offset < bytes; offset += IVS_CACHE_LINE)
        __builtin_prefetch(slots + (uint64_t)at * r->elem_size + offset);
}

#endif
