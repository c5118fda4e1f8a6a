/* SPDX-License-Identifier: BSD-3-Clause */
/* ring_update_tail.h: update the tail of a side, which publishes reserved elements. One function per sync type.
 */
#ifndef IVS_RING_UPDATE_TAIL_H
#define IVS_RING_UPDATE_TAIL_H

#include <errno.h>

#include "pvt/ring_handle.h"
#include "pvt/ring_stall.h"
#include "pvt/spin_wait.h"

/* ST and HTS: only one operation is in progress, so the head is known too. One store for both halves: the next
 * operation reads them as one word. */
IVS_INLINE void ivs_ring_publish_whole(union ivs_ring_end *own, uint32_t tail)
{
    /* release: pairs with ivs_ring_tail() in pvt/ring_handle.h: elements before the tail */
    atomic_store_explicit(&own->hts.raw, ivs_ring_word(tail), memory_order_release);
}

/* Wait for the peers that reserved earlier. If they do not finish, return the reservation if no peer reserved behind
 * it: then a peer that was only slow finds the side as it left it, and no element is lost. */
IVS_COLD int ivs_ring_wait_mt(struct ivs_ring *r, union ivs_ring_end *own, uint32_t head, uint32_t n)
{
    struct ivs_wait wait = IVS_WAIT_INIT(r->stall_ns);
    do {
        if (!ivs_wait_step(&wait)) {
            uint32_t next = head + n;
            /* release: pairs with ivs_ring_reserve_mt() in pvt/ring_move_head.h: the next reservation of these slots
             * comes after this copy */
            (void)atomic_compare_exchange_strong_explicit(&own->head, &next, head, memory_order_release,
                                                          memory_order_relaxed);
            return ivs_ring_stall(r, own == &r->shared->prod ? IVS_PRODUCER : IVS_CONSUMER);
        }
    } while (ivs_ring_tail(own, IVS_SYNC_MT) != head);
    return 0;
}

/* MT: tails move in the order of heads. The acquire in ivs_ring_tail orders the elements of earlier peers before this
 * tail. */
IVS_INLINE int ivs_ring_publish_mt(struct ivs_ring *r, union ivs_ring_end *own, uint32_t head, uint32_t n)
{
    if (IVS_UNLIKELY(ivs_ring_tail(own, IVS_SYNC_MT) != head)) {
        int result = ivs_ring_wait_mt(r, own, head, n);
        if (result != 0)
            return result;
    }
    /* release: pairs with ivs_ring_tail() in pvt/ring_handle.h: elements before the tail */
    atomic_store_explicit(&own->tail, head + n, memory_order_release);
    return 0;
}

/* RTS: the tail's word after one more operation. The operation that makes the counts equal moves the tail to the head,
 * so that both words are equal. */
IVS_INLINE uint64_t ivs_ring_rts_next(const union ivs_ring_end *own, uint64_t tail)
{
    uint64_t head = atomic_load_explicit(&own->rts.head, memory_order_relaxed);
    uint32_t count = (uint32_t)tail + 1;
    if (IVS_LIKELY(count == (uint32_t)head))
        return head;
    return (tail & ~UINT64_C(0xffffffff)) | count;
}

/* Other operations are in progress: count this one. Each failure is the success of another participant; the limit is
 * for a peer that overwrites the word. */
IVS_INLINE int ivs_ring_count_rts(const struct ivs_ring *r, union ivs_ring_end *own, uint64_t tail)
{
    struct ivs_wait wait = IVS_WAIT_INIT(r->stall_ns);
    /* acquire, release: pairs with ivs_ring_tail() in pvt/ring_handle.h and ivs_ring_publish_rts() in
     * pvt/ring_update_tail.h: the last of several operations publishes the elements of all */
    while (!atomic_compare_exchange_strong_explicit(&own->rts.tail, &tail, ivs_ring_rts_next(own, tail),
                                                    memory_order_acq_rel, memory_order_acquire))
        if (!ivs_wait_step(&wait))
            return -ETIMEDOUT;
    return 0;
}

/* RTS: a tail equal to the head's previous word proves that all earlier operations are complete and no later one is.
 * The tail then becomes the head's word of this operation, without another read. */
IVS_INLINE int ivs_ring_publish_rts(const struct ivs_ring *r, union ivs_ring_end *own, const struct ivs_ring_span *span)
{
    uint64_t tail = span->old_word;
    /* acquire, release: pairs with ivs_ring_tail() in pvt/ring_handle.h and ivs_ring_count_rts() in
     * pvt/ring_update_tail.h: publishes the elements of earlier operations too */
    if (IVS_LIKELY(atomic_compare_exchange_strong_explicit(&own->rts.tail, &tail, span->new_word, memory_order_acq_rel,
                                                           memory_order_acquire)))
        return 0;
    return ivs_ring_count_rts(r, own, tail);
}

IVS_INLINE int ivs_ring_publish(struct ivs_ring *r, enum ivs_sync sync, union ivs_ring_end *own,
                                const struct ivs_ring_span *span)
{
    switch (sync) {
    case IVS_SYNC_MT:
        return ivs_ring_publish_mt(r, own, span->head, span->n);
    case IVS_SYNC_RTS:
        return ivs_ring_publish_rts(r, own, span);
    case IVS_SYNC_ST:
        /* release: pairs with ivs_ring_tail() in pvt/ring_handle.h: elements before the tail */
        atomic_store_explicit(&own->hts.raw, span->new_word, memory_order_release);
        return 0;
    default:
        ivs_ring_publish_whole(own, span->head + span->n);
        return 0;
    }
}

#endif
