/* SPDX-License-Identifier: BSD-3-Clause */
/* ring_move_head.h: move the head of a side, which reserves elements. One function per sync type. */
#ifndef IVS_RING_MOVE_HEAD_H
#define IVS_RING_MOVE_HEAD_H

#include <errno.h>
#include <stdbool.h>

#include "pvt/ring_handle.h"
#include "pvt/ring_stall.h"
#include "pvt/spin_wait.h"

/* Fill `span` for a head at `head` with the opposite tail at `opposite`. A bound above the capacity comes from a peer
 * that overwrote the index, or from a stale head whose compare-and-swap will fail: it is clamped. */
IVS_INLINE void ivs_ring_fit(const struct ivs_ring *r, enum ivs_ring_role role, uint32_t head, uint32_t opposite,
                             uint32_t n, enum ivs_ring_behavior behavior, struct ivs_ring_span *span)
{
    uint32_t bound = (role == IVS_PRODUCER ? r->capacity : 0) + opposite - head;
    if (IVS_UNLIKELY(bound > r->capacity))
        bound = r->capacity;
    span->head = head;
    if (IVS_UNLIKELY(n > bound)) { /* a branch, so that the new head does not depend on the opposite tail */
        IVS_BRANCH();
        n = behavior == IVS_BULK ? 0 : bound;
    }
    span->n = n;
    span->left = bound - n;
}

/* The word of an ST side after `n` more elements. One addition, since the next operation depends on it; except where
 * the head wraps and would carry into the tail, or where head and tail differ. */
IVS_INLINE uint64_t ivs_ring_sum_st(uint64_t word, uint32_t n)
{
    uint64_t sum = word + ivs_ring_word(n);
    if (IVS_UNLIKELY((uint32_t)sum != sum >> 32)) {
        IVS_BRANCH();
        sum = ivs_ring_word((uint32_t)sum);
    }
    return sum;
}

/* Whether the cached limit leaves room for `n`. The limit is never further from where this handle left the head than
 * the capacity; but threads that violate the rule of ST can tear the two apart, so it is used up to the capacity only.
 * One element is never outside the ring. */
IVS_INLINE bool ivs_ring_suffices(const struct ivs_ring *r, uint32_t limit, uint32_t head, uint32_t n)
{
    if (__builtin_constant_p(n) && n == 1)
        return limit != head;
    return n <= limit - head && limit - head <= r->capacity;
}

/* Reload the opposite tail. Returns the new cached word: limit << 32 | head. */
IVS_INLINE uint64_t ivs_ring_reload_st(const struct ivs_ring *r, enum ivs_ring_role role, union ivs_ring_end *own,
                                       uint32_t head, uint32_t n, enum ivs_ring_behavior behavior)
{
    struct ivs_ring_span span;
    ivs_ring_fit(r, role, head, ivs_ring_other_tail(r, role, own), n, behavior, &span);
    return (uint64_t)(head + span.n + span.left) << 32 | (uint32_t)(head + span.n);
}

/* A producer usually has room for many elements and seldom reloads; a consumer usually finds what was just enqueued. */
IVS_NOINLINE uint64_t ivs_ring_reload_producer(const struct ivs_ring *r, union ivs_ring_end *own, uint32_t head,
                                               uint32_t n, enum ivs_ring_behavior behavior)
{
    return ivs_ring_reload_st(r, IVS_PRODUCER, own, head, n, behavior);
}

/* Spin about 120 ns (docs/design/0018); uncalibrated, scales with the clock rate. Not a pause instruction, whose length
 * differs by processor. */
IVS_NOINLINE void ivs_ring_backoff(void)
{
    for (uint32_t turn = 0; turn < 384; turn++)
        __asm__ volatile("");
}

/* Slow path: the cached limit is too small; reload the opposite tail. */
IVS_INLINE void ivs_ring_reserve_new(struct ivs_ring *r, enum ivs_ring_role role, union ivs_ring_end *own,
                                     uint64_t word, uint32_t n, enum ivs_ring_behavior behavior,
                                     struct ivs_ring_span *span)
{
    uint32_t head = (uint32_t)word;
    uint64_t cached = role == IVS_PRODUCER ? ivs_ring_reload_producer(r, own, head, n, behavior)
                                           : ivs_ring_reload_st(r, role, own, head, n, behavior);
    uint32_t limit = (uint32_t)(cached >> 32);

    span->head = head;
    span->left = limit - (uint32_t)cached;
    if (IVS_UNLIKELY(limit < (uint32_t)cached)) /* a limit beyond the wrap would make ivs_ring_reserve_st carry */
        cached |= ~UINT64_C(0) << 32;
    ivs_ring_side(r, role)->cached = cached;
    if (IVS_UNLIKELY((uint32_t)cached == head)) {
        IVS_BRANCH();
        span->n = 0;
        return;
    }
    span->n = behavior == IVS_BULK || (__builtin_constant_p(n) && n == 1) ? n : (uint32_t)cached - head;
    span->new_word = ivs_ring_sum_st(word, span->n);
}

/* Fast path for a consumer that keeps up: ring depth alternates between 0 and 1. */
IVS_INLINE bool ivs_ring_last_one(const struct ivs_ring *r, enum ivs_ring_role role, union ivs_ring_end *own,
                                  uint32_t limit, uint32_t head, uint32_t n)
{
    return __builtin_constant_p(n) && n == 1 && role == IVS_CONSUMER && IVS_LIKELY(limit == head) &&
           IVS_LIKELY(ivs_ring_other_tail(r, role, own) == head + 1);
}

/* The head itself moves with the tail, in ivs_ring_publish: no other thread of this side needs to know it earlier.
 * `exact`: span->left is requested, so the opposite tail is read even if the cached limit suffices. */
IVS_INLINE int ivs_ring_reserve_st(struct ivs_ring *r, enum ivs_ring_role role, union ivs_ring_end *own, uint32_t n,
                                   enum ivs_ring_behavior behavior, bool exact, struct ivs_ring_span *span)
{
    struct ivs_ring_side *side = ivs_ring_side(r, role);
    /* relaxed: only this thread moves this head */
    uint64_t word = atomic_load_explicit(&own->hts.raw, memory_order_relaxed);
    uint64_t cached = side->cached;

    /* If another handle has moved the head, the cached limit is not valid. */
    if (IVS_UNLIKELY((uint32_t)cached != (uint32_t)word)) {
        int result = ivs_ring_acquire_end(r, role);
        if (result != 0)
            return result;
        cached = side->cached;
        word = ivs_ring_word((uint32_t)cached);
    }
    uint32_t head = (uint32_t)word, limit = (uint32_t)(cached >> 32);
    if (ivs_ring_last_one(r, role, own, limit, head, n)) {
        *span = (struct ivs_ring_span){.head = head, .n = 1, .left = 0, .new_word = ivs_ring_sum_st(word, 1)};
        side->cached = span->new_word;
    } else if (IVS_UNLIKELY(exact || !ivs_ring_suffices(r, limit, head, n))) {
        ivs_ring_reserve_new(r, role, own, word, n, behavior, span);
        /* The ring is nearly empty or full, so the tail line ping-pongs on every call. Back off once so the next reload
         * finds a batch. There is no backoff if exactly the requested number is available. */
        if (!exact && IVS_UNLIKELY(span->left - 1 < r->capacity / 4))
            ivs_ring_backoff();
    } else { /* no carry: the limit is not beyond the wrap */
        *span =
            (struct ivs_ring_span){.head = head, .n = n, .left = limit - head - n, .new_word = word + ivs_ring_word(n)};
        side->cached = cached + n;
    }
    return 0;
}

IVS_INLINE void ivs_ring_reserve_mt(const struct ivs_ring *r, enum ivs_ring_role role, union ivs_ring_end *own,
                                    uint32_t n, enum ivs_ring_behavior behavior, struct ivs_ring_span *span)
{
    /* acquire, release: pairs with ivs_ring_reserve_mt() in pvt/ring_move_head.h: the opposite tail read next is at
     * least as new as the one that permitted the last move of this head, so the bound cannot underflow */
    uint32_t head = atomic_load_explicit(&own->head, memory_order_acquire);
    do {
        ivs_ring_fit(r, role, head, ivs_ring_other_tail(r, role, own), n, behavior, span);
        if (IVS_UNLIKELY(span->n == 0))
            return;
    } while (IVS_UNLIKELY(!atomic_compare_exchange_weak_explicit(&own->head, &head, head + span->n,
                                                                 memory_order_release, memory_order_acquire)));
}

/* Wait until the head at *head is not too far ahead of the tail; reload the head on the way. */
IVS_COLD int ivs_ring_wait_rts(struct ivs_ring *r, enum ivs_ring_role role, uint32_t htd_max, uint64_t *head)
{
    const union ivs_ring_end *own = ivs_ring_own(r, role);
    struct ivs_wait wait = IVS_WAIT_INIT(r->stall_ns);
    do {
        if (!ivs_wait_step(&wait))
            return ivs_ring_stall(r, role);
        /* acquire: pairs with ivs_ring_reserve_rts() in pvt/ring_move_head.h */
        *head = atomic_load_explicit(&own->rts.head, memory_order_acquire);
    } while ((uint32_t)(*head >> 32) - ivs_ring_tail(own, IVS_SYNC_RTS) > htd_max);
    return 0;
}

/* The RTS word after one more operation on `n` elements: positions in the high half, operation count in the low half.
 * One addition, since the next compare-and-swap depends on it; a count that wraps must not carry. */
IVS_INLINE uint64_t ivs_ring_rts_sum(uint64_t word, uint32_t n)
{
    uint64_t sum = word + ((uint64_t)n << 32 | 1);
    if (IVS_UNLIKELY((uint32_t)sum == 0)) {
        IVS_BRANCH();
        sum -= UINT64_C(1) << 32;
    }
    return sum;
}

IVS_INLINE int ivs_ring_reserve_rts(struct ivs_ring *r, enum ivs_ring_role role, union ivs_ring_end *own, uint32_t n,
                                    enum ivs_ring_behavior behavior, struct ivs_ring_span *span)
{
    /* a setting that all participants share; a wrong value only affects whether to wait, and waits are bounded */
    uint32_t htd_max = __atomic_load_n(&own->rts.htd_max, __ATOMIC_RELAXED);
    /* acquire, release: pairs with ivs_ring_reserve_rts() in pvt/ring_move_head.h, as in ivs_ring_reserve_mt */
    uint64_t head = atomic_load_explicit(&own->rts.head, memory_order_acquire);
    uint64_t next;
    do {
        if (IVS_UNLIKELY((uint32_t)(head >> 32) - ivs_ring_tail(own, IVS_SYNC_RTS) > htd_max)) {
            int result = ivs_ring_wait_rts(r, role, htd_max, &head);
            if (result != 0)
                return result;
        }
        ivs_ring_fit(r, role, (uint32_t)(head >> 32), ivs_ring_other_tail(r, role, own), n, behavior, span);
        if (IVS_UNLIKELY(span->n == 0))
            return 0;
        next = ivs_ring_rts_sum(head, span->n);
    } while (IVS_UNLIKELY(!atomic_compare_exchange_weak_explicit(&own->rts.head, &head, next, memory_order_release,
                                                                 memory_order_acquire)));
    span->old_word = head;
    span->new_word = next;
    return 0;
}

/* Wait until no operation is in progress on an HTS side, that is until the two halves of its word are equal. */
IVS_COLD int ivs_ring_wait_hts(struct ivs_ring *r, enum ivs_ring_role role, uint64_t *raw)
{
    const union ivs_ring_end *own = ivs_ring_own(r, role);
    struct ivs_wait wait = IVS_WAIT_INIT(r->stall_ns);
    do {
        if (!ivs_wait_step(&wait))
            return ivs_ring_stall(r, role);
        /* acquire: pairs with ivs_ring_publish_whole() in pvt/ring_update_tail.h */
        *raw = atomic_load_explicit(&own->hts.raw, memory_order_acquire);
    } while ((uint32_t)*raw != (uint32_t)(*raw >> 32));
    return 0;
}

/* HTS: head and tail are one word; the head moves only while both are equal, so one thread at a time is inside. */
IVS_INLINE int ivs_ring_reserve_hts(struct ivs_ring *r, enum ivs_ring_role role, union ivs_ring_end *own, uint32_t n,
                                    enum ivs_ring_behavior behavior, struct ivs_ring_span *span)
{
    /* acquire: pairs with ivs_ring_publish_whole() in pvt/ring_update_tail.h by the previous thread */
    uint64_t raw = atomic_load_explicit(&own->hts.raw, memory_order_acquire);
    uint64_t next;
    do {
        if (IVS_UNLIKELY((uint32_t)raw != (uint32_t)(raw >> 32))) {
            int result = ivs_ring_wait_hts(r, role, &raw);
            if (result != 0)
                return result;
        }
        ivs_ring_fit(r, role, (uint32_t)raw, ivs_ring_other_tail(r, role, own), n, behavior, span);
        if (IVS_UNLIKELY(span->n == 0))
            return 0;
        next = (raw & ~UINT64_C(0xffffffff)) | (uint32_t)(span->head + span->n);
        /* acquire, release: pairs with ivs_ring_reserve_hts() in pvt/ring_move_head.h, as in ivs_ring_reserve_mt */
    } while (IVS_UNLIKELY(
        !atomic_compare_exchange_weak_explicit(&own->hts.raw, &raw, next, memory_order_acq_rel, memory_order_acquire)));
    return 0;
}

IVS_INLINE int ivs_ring_reserve(struct ivs_ring *r, enum ivs_sync sync, enum ivs_ring_role role,
                                union ivs_ring_end *own, uint32_t n, enum ivs_ring_behavior behavior, bool exact,
                                struct ivs_ring_span *span)
{
    switch (sync) {
    case IVS_SYNC_ST:
        return ivs_ring_reserve_st(r, role, own, n, behavior, exact, span);
    case IVS_SYNC_MT:
        ivs_ring_reserve_mt(r, role, own, n, behavior, span);
        return 0;
    case IVS_SYNC_RTS:
        return ivs_ring_reserve_rts(r, role, own, n, behavior, span);
    default:
        return ivs_ring_reserve_hts(r, role, own, n, behavior, span);
    }
}

#endif
