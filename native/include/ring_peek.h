/* SPDX-License-Identifier: BSD-3-Clause */
/* ring_peek.h: operations in two steps: start reserves elements, finish states how many of them are done.
 *
 * Between the two the caller inspects elements before it dequeues them (peek: rte_ring_peek_elem.h), or reads and
 * writes them in place (zero-copy: rte_ring_peek_zc.h). The number can only be reduced where one thread at a time is
 * inside a side: on ST and HTS sides. Others return -ENOTSUP.
 *
 * The reservation is kept in the handle, so that a finish trusts nothing in shared memory. States of a handle on one
 * side, and the result of each call:
 *
 *              start             finish(n)                          other operations
 *   open       peeking; or open  n = 0: open; else -EINVAL          normal
 *              if it got 0
 *   peek, ST   -EBUSY            n <= reserved: open; else -EINVAL  -EBUSY
 *   peek, HTS  waits for finish  as ST                              wait for finish, then -ETIMEDOUT
 *
 * finish(0) cancels the start: the elements stay as they were. A start returns as in ring.h, a finish n or a negative
 * errno. */
#ifndef IVS_RING_PEEK_H
#define IVS_RING_PEEK_H

#include "ring.h"

/* Reserved elements in place (rte_ring_zc_data): two parts if they wrap. */
struct ivs_ring_zc {
    void *first;
    void *second; /* NULL if n2 is 0 */
    uint32_t n1;  /* elements at `first` */
    uint32_t n2;
};

/* Reopen an ST side, unless it was shut in between. */
IVS_INLINE void ivs_ring_reopen(struct ivs_ring *r, enum ivs_ring_role role)
{
    uint64_t gate = IVS_STATE_PEEKING;
    (void)atomic_compare_exchange_strong_explicit(&ivs_ring_side(r, role)->state_word, &gate,
                                                  ivs_ring_open_state(r, role), memory_order_relaxed,
                                                  memory_order_relaxed);
}

IVS_INLINE int ivs_ring_start_st(struct ivs_ring *r, enum ivs_ring_role role, uint32_t n,
                                 enum ivs_ring_behavior behavior, struct ivs_ring_span *span)
{
    uint64_t gate = ivs_ring_open_state(r, role);
    if (!atomic_compare_exchange_strong_explicit(&ivs_ring_side(r, role)->state_word, &gate, IVS_STATE_PEEKING,
                                                 memory_order_relaxed, memory_order_relaxed))
        return ivs_ring_refused(r, role);
    int result = ivs_ring_reserve_st(r, role, ivs_ring_own(r, role), n, behavior, true, span);
    if (span->n == 0)
        ivs_ring_reopen(r, role);
    return result == 0 ? 0 : ivs_ring_stall(r, role);
}

IVS_INLINE int ivs_ring_start(struct ivs_ring *r, enum ivs_ring_role role, uint32_t esize, uint32_t n,
                              enum ivs_ring_behavior behavior, uint32_t *left, struct ivs_ring_span *span)
{
    struct ivs_ring_side *side = ivs_ring_side(r, role);
    uint64_t gate = atomic_load_explicit(&side->state_word, memory_order_relaxed);
    int result;

    if (IVS_UNLIKELY(gate == IVS_STATE_STALLED) && ivs_ring_resumes(r, role))
        gate = ivs_ring_open_state(r, role);
    uint64_t sync = gate - esize;
    *span = (struct ivs_ring_span){0};
    if (sync == IVS_SYNC_ST)
        result = ivs_ring_start_st(r, role, n, behavior, span);
    else if (sync == IVS_SYNC_HTS)
        result = ivs_ring_reserve_hts(r, role, ivs_ring_own(r, role), n, behavior, span);
    else
        result = sync <= IVS_SYNC_HTS ? -ENOTSUP : ivs_ring_refused(r, role);
    if (result != 0)
        return result;
    if (left)
        *left = span->left;
    if (span->n != 0) {
        side->begun_at = span->head;
        side->begun = span->n;
    }
    return (int)span->n;
}

/* Check that `n` of the reserved elements may be finished. Returns 0, 1 if there is nothing to do, or a negative errno.
 */
IVS_INLINE int ivs_ring_may_finish(struct ivs_ring *r, enum ivs_ring_role role, uint32_t n)
{
    const struct ivs_ring_side *side = ivs_ring_side(r, role);
    int32_t refuse = atomic_load_explicit(&r->refuse, memory_order_relaxed);
    if (refuse != 0)
        return refuse;
    if (side->begun == 0 && n == 0)
        return 1;
    return n > side->begun ? -EINVAL : 0;
}

/* Move head and tail to the end of the finished elements. The reservation is cleared first: the store of the tail
 * admits the next thread that shares this handle. */
IVS_INLINE void ivs_ring_end(struct ivs_ring *r, enum ivs_ring_role role, uint32_t n)
{
    struct ivs_ring_side *side = ivs_ring_side(r, role);
    union ivs_ring_end *own = ivs_ring_own(r, role);
    uint32_t tail = side->begun_at + n;

    side->begun = 0;
    side->cached = ivs_ring_word(tail); /* no limit: an older one could be beyond the wrap for this head */
    ivs_ring_publish_whole(own, tail);
    if (ivs_ring_sync(r, role) == IVS_SYNC_ST)
        ivs_ring_reopen(r, role);
}

IVS_INLINE int ivs_ring_finish(struct ivs_ring *r, enum ivs_ring_role role, uint32_t n)
{
    int result = ivs_ring_may_finish(r, role, n);
    if (result != 0)
        return result < 0 ? result : 0;
    ivs_ring_end(r, role, n);
    return (int)n;
}

/* ---- peek (rte_ring_{enqueue,dequeue}_{bulk,burst}_elem_start, _elem_finish) ----------------------------------- */

IVS_INLINE int ivs_ring_enqueue_bulk_start(struct ivs_ring *r, uint32_t esize, uint32_t n, uint32_t *left)
{
    struct ivs_ring_span span;
    return ivs_ring_start(r, IVS_PRODUCER, esize, n, IVS_BULK, left, &span);
}

IVS_INLINE int ivs_ring_enqueue_burst_start(struct ivs_ring *r, uint32_t esize, uint32_t n, uint32_t *left)
{
    struct ivs_ring_span span;
    return ivs_ring_start(r, IVS_PRODUCER, esize, n, IVS_BURST, left, &span);
}

/* Enqueue the `n` objects, at most as many as were reserved. */
IVS_INLINE int ivs_ring_enqueue_finish(struct ivs_ring *r, const void *objects, uint32_t esize, uint32_t n)
{
    int result = ivs_ring_may_finish(r, IVS_PRODUCER, n);
    if (result != 0)
        return result < 0 ? result : 0;
    if (esize != r->elem_size)
        return -EINVAL;
    ivs_ring_write(r, ivs_ring_slots(ivs_ring_own(r, IVS_PRODUCER), IVS_PRODUCER), r->prod.begun_at, objects, esize, n);
    ivs_ring_end(r, IVS_PRODUCER, n);
    return (int)n;
}

IVS_INLINE void ivs_ring_peeked(const struct ivs_ring *r, const struct ivs_ring_span *span, void *objects,
                                uint32_t esize, int got)
{
    if (got > 0)
        ivs_ring_read(r, ivs_ring_slots(ivs_ring_own(r, IVS_CONSUMER), IVS_CONSUMER), span->head, objects, esize,
                      (uint32_t)got);
}

/* Copy elements and leave them in the ring. */
IVS_INLINE int ivs_ring_dequeue_bulk_start(struct ivs_ring *r, void *objects, uint32_t esize, uint32_t n,
                                           uint32_t *left)
{
    struct ivs_ring_span span;
    int got = ivs_ring_start(r, IVS_CONSUMER, esize, n, IVS_BULK, left, &span);
    ivs_ring_peeked(r, &span, objects, esize, got);
    return got;
}

IVS_INLINE int ivs_ring_dequeue_burst_start(struct ivs_ring *r, void *objects, uint32_t esize, uint32_t n,
                                            uint32_t *left)
{
    struct ivs_ring_span span;
    int got = ivs_ring_start(r, IVS_CONSUMER, esize, n, IVS_BURST, left, &span);
    ivs_ring_peeked(r, &span, objects, esize, got);
    return got;
}

/* Remove the first `n` of the inspected elements. */
IVS_INLINE int ivs_ring_dequeue_finish(struct ivs_ring *r, uint32_t n)
{
    return ivs_ring_finish(r, IVS_CONSUMER, n);
}

/* ---- zero-copy (rte_ring_{enqueue,dequeue}_zc_{bulk,burst}_elem_start, _zc_elem_finish) ------------------------ */

IVS_INLINE int ivs_ring_zc_start(struct ivs_ring *r, enum ivs_ring_role role, uint32_t esize, uint32_t n,
                                 enum ivs_ring_behavior behavior, struct ivs_ring_zc *zc, uint32_t *left)
{
    struct ivs_ring_span span;
    int got = ivs_ring_start(r, role, esize, n, behavior, left, &span);
    *zc = (struct ivs_ring_zc){0};
    if (got > 0) {
        unsigned char *slots = ivs_ring_slots(ivs_ring_own(r, role), role);
        uint32_t at = span.head & r->mask;
        zc->n1 = ivs_ring_first(r, at, span.n);
        zc->n2 = span.n - zc->n1;
        zc->first = slots + (size_t)at * esize;
        zc->second = zc->n2 != 0 ? slots : NULL;
    }
    return got;
}

IVS_INLINE int ivs_ring_enqueue_zc_bulk_start(struct ivs_ring *r, uint32_t esize, uint32_t n, struct ivs_ring_zc *zc,
                                              uint32_t *left)
{
    return ivs_ring_zc_start(r, IVS_PRODUCER, esize, n, IVS_BULK, zc, left);
}

IVS_INLINE int ivs_ring_enqueue_zc_burst_start(struct ivs_ring *r, uint32_t esize, uint32_t n, struct ivs_ring_zc *zc,
                                               uint32_t *left)
{
    return ivs_ring_zc_start(r, IVS_PRODUCER, esize, n, IVS_BURST, zc, left);
}

/* Enqueue the first `n` of the elements written in place. */
IVS_INLINE int ivs_ring_enqueue_zc_finish(struct ivs_ring *r, uint32_t n)
{
    return ivs_ring_finish(r, IVS_PRODUCER, n);
}

IVS_INLINE int ivs_ring_dequeue_zc_bulk_start(struct ivs_ring *r, uint32_t esize, uint32_t n, struct ivs_ring_zc *zc,
                                              uint32_t *left)
{
    return ivs_ring_zc_start(r, IVS_CONSUMER, esize, n, IVS_BULK, zc, left);
}

IVS_INLINE int ivs_ring_dequeue_zc_burst_start(struct ivs_ring *r, uint32_t esize, uint32_t n, struct ivs_ring_zc *zc,
                                               uint32_t *left)
{
    return ivs_ring_zc_start(r, IVS_CONSUMER, esize, n, IVS_BURST, zc, left);
}

/* Remove the first `n` of the elements read in place; they may be overwritten from now on. */
IVS_INLINE int ivs_ring_dequeue_zc_finish(struct ivs_ring *r, uint32_t n)
{
    return ivs_ring_finish(r, IVS_CONSUMER, n);
}

#endif
