/* SPDX-License-Identifier: BSD-3-Clause */
/* ring_early.h: asking early for the cache lines that an operation is going to need.
 *
 * Enqueue: where a peer waits for each element, it has read both lines that the next enqueue writes: the element's and the
 * tail's. Stores become visible in order, and each waits until its line is ours: two flights between the cores. Asked
 * for beforehand, both lines come at the same time. It costs a nanosecond, so code that moves bursts between busy cores
 * does without.
 *
 * Dequeue: who works on a burst before he takes the next one leaves that one time to come.
 *
 * For ST ends; nothing is asked for at others, whose next slot is not known.
 */
#ifndef IVS_RING_PREFETCH_H
#define IVS_RING_PREFETCH_H

#include "ring.h"

/* A hint, which never faults: "I am going to write here". */
IVS_INLINE void ivs_early_line(const void *address)
{
#if defined(__x86_64__)
    /* compilers make a mere read of __builtin_prefetch where they may not take the instruction for granted; processors
     * that do not have it do nothing */
    __asm__ volatile("prefetchw %0" : : "m"(*(const unsigned char *)address));
#else
    __builtin_prefetch(address, 1);
#endif
}

/* To be called just before an enqueue that a peer is waiting for. */
IVS_INLINE void ivs_ring_prefetch_enqueue(const struct ivs_ring *r)
{
    if (r->prod_sync != IVS_SYNC_ST)
        return;
    union ivs_ring_end *own = ivs_ring_own(r, IVS_PRODUCER);
    ivs_early_line(ivs_ring_slots(own, IVS_PRODUCER) + (size_t)((uint32_t)r->prod.cached & r->mask) * r->elem_size);
    ivs_early_line(own);
}

#define IVS_EARLY_MOST 4096u /* bytes: what comes early and is not used soon pushes out what is */

/* To be called after a dequeue of `n`: asks for as many more, where they are known to be there. */
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
