/* SPDX-License-Identifier: BSD-3-Clause */
/* ring_tail.h: moving the tail of an end: what was reserved becomes visible. One function a sync type.
 *
 * Every release here pairs with the acquire in ivs_ring_tail: elements before tail.
 */
#ifndef IVS_RING_TAIL_H
#define IVS_RING_TAIL_H

#include <errno.h>

#include "pvt/ring_handle.h"
#include "pvt/ring_stall.h"
#include "pvt/spin_wait.h"

/* ST and HTS: nobody else is inside, so the head is known too. Both in one store: they are read as one word by the next
 * operation, and a store is saved. */
IVS_INLINE void ivs_ring_publish_whole(union ivs_ring_end *own, uint32_t tail)
{
    atomic_store_explicit(&own->hts.raw, ivs_ring_word(tail), memory_order_release);
}

/* Waits for the peers that were inside before us. Where they do not come out, what we reserved is given back if nobody
 * reserved more behind it: then a peer that was only slow finds the end as it left it, and nothing is lost. */
IVS_COLD int ivs_ring_wait_mt(struct ivs_ring *r, union ivs_ring_end *own, uint32_t head, uint32_t n)
{
    struct ivs_wait wait = IVS_WAIT_INIT(r->stall_ns);
    do {
        if (!ivs_wait_step(&wait)) {
            uint32_t next = head + n;
            /* release: pairs with the acquire in ivs_ring_reserve_mt: who reserves this anew comes after our copying */
            (void)atomic_compare_exchange_strong_explicit(&own->head, &next, head, memory_order_release,
                                                          memory_order_relaxed);
            return ivs_ring_stall(r, own == &r->shared->prod ? IVS_PRODUCER : IVS_CONSUMER);
        }
    } while (ivs_ring_tail(own, IVS_SYNC_MT) != head);
    return 0;
}

/* MT: tails move in the order of heads. The acquire in ivs_ring_tail makes who sees our tail also see the elements of
 * the peers before us. */
IVS_INLINE int ivs_ring_publish_mt(struct ivs_ring *r, union ivs_ring_end *own, uint32_t head, uint32_t n)
{
    if (IVS_UNLIKELY(ivs_ring_tail(own, IVS_SYNC_MT) != head)) {
        int result = ivs_ring_wait_mt(r, own, head, n);
        if (result != 0)
            return result;
    }
    atomic_store_explicit(&own->tail, head + n, memory_order_release);
    return 0;
}

/* RTS: the tail's word after one more operation. The one that makes the counts equal moves the tail to where the head
 * is: then the words are equal too. */
IVS_INLINE uint64_t ivs_ring_rts_next(const union ivs_ring_end *own, uint64_t tail)
{
    uint64_t head = atomic_load_explicit(&own->rts.head, memory_order_relaxed);
    uint32_t count = (uint32_t)tail + 1;
    if (IVS_LIKELY(count == (uint32_t)head))
        return head;
    return (tail & ~UINT64_C(0xffffffff)) | count;
}

/* Others are inside too: counts this operation. Each failure is a success of somebody's; the limit is for a peer that
 * scribbles. */
IVS_INLINE int ivs_ring_count_rts(const struct ivs_ring *r, union ivs_ring_end *own, uint64_t tail)
{
    struct ivs_wait wait = IVS_WAIT_INIT(r->stall_ns);
    while (!atomic_compare_exchange_strong_explicit(&own->rts.tail, &tail, ivs_ring_rts_next(own, tail),
                                                    memory_order_acq_rel, memory_order_acquire))
        if (!ivs_wait_step(&wait))
            return -ETIMEDOUT;
    return 0;
}

/* RTS: a tail that is what the head was before this operation says that all operations before it are finished and none
 * after it: its position was reached, and no more were counted. Then it becomes what this operation made of the head,
 * without a look at anything. acquire: pairs with the release of the operations counted before, which carries their
 * elements. */
IVS_INLINE int ivs_ring_publish_rts(const struct ivs_ring *r, union ivs_ring_end *own, const struct ivs_ring_span *span)
{
    uint64_t tail = span->old_word;
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
        atomic_store_explicit(&own->hts.raw, span->new_word, memory_order_release);
        return 0;
    default:
        ivs_ring_publish_whole(own, span->head + span->n);
        return 0;
    }
}

#endif
