/* SPDX-License-Identifier: BSD-3-Clause */
/* ring_stall.h: sides whose tail a peer does not move: how a stall is detected, remembered and cleared.
 *
 * A peer that dies (or is stopped) between the move of the head and the update of the tail leaves the side incomplete.
 * The next participant waits once, at most `stall_ns`, and gets -ETIMEDOUT. Its handle then records the tail and shuts
 * the state word of that side: further operations fail at once until the tail has moved. The state word is read anyway,
 * so an operation that does not stall costs nothing more.
 *
 * ST sides: operations of this project move head and tail by one store, so only DPDK's leave a side incomplete. A
 * handle that acquires such a side would publish elements that were never written. */
#ifndef IVS_RING_STALL_H
#define IVS_RING_STALL_H

#include <errno.h>
#include <stdbool.h>

#include "pvt/ring_handle.h"
#include "pvt/spin_wait.h"

IVS_INLINE uint64_t ivs_ring_open_state(const struct ivs_ring *r, enum ivs_ring_role role)
{
    return (uint64_t)r->elem_size + ivs_ring_sync(r, role);
}

/* The word that changes whenever an operation on this side completes. acquire: pairs with ivs_ring_publish_rts() in
 * pvt/ring_update_tail.h, for the other sync types see ivs_ring_tail. */
IVS_INLINE uint64_t ivs_ring_tail_word(const union ivs_ring_end *own, uint32_t sync)
{
    return sync == IVS_SYNC_RTS ? atomic_load_explicit(&own->rts.tail, memory_order_acquire) : ivs_ring_tail(own, sync);
}

/* Whether elements are reserved but not published on this side. */
IVS_INLINE bool ivs_ring_is_incomplete(const union ivs_ring_end *own, uint32_t sync)
{
    if (sync == IVS_SYNC_RTS)
        return (uint32_t)atomic_load_explicit(&own->rts.head, memory_order_relaxed) !=
               (uint32_t)atomic_load_explicit(&own->rts.tail, memory_order_relaxed);
    if (sync == IVS_SYNC_MT)
        return atomic_load_explicit(&own->head, memory_order_relaxed) != ivs_ring_tail(own, sync);
    uint64_t raw = atomic_load_explicit(&own->hts.raw, memory_order_relaxed);
    return (uint32_t)raw != (uint32_t)(raw >> 32);
}

/* Report a stall: shut the side until its tail moves. Always returns -ETIMEDOUT. */
IVS_COLD int ivs_ring_stall(struct ivs_ring *r, enum ivs_ring_role role)
{
    struct ivs_ring_side *side = ivs_ring_side(r, role);
    uint64_t gate = ivs_ring_open_state(r, role);
    uint64_t at = ivs_ring_tail_word(ivs_ring_own(r, role), ivs_ring_sync(r, role));

    atomic_store_explicit(&side->stalled_at, at, memory_order_relaxed);
    /* release: pairs with ivs_ring_resumes() in pvt/ring_stall.h; fails if the handle was closed in between, or is in a
     * peek */
    (void)atomic_compare_exchange_strong_explicit(&side->state_word, &gate, IVS_STATE_STALLED, memory_order_release,
                                                  memory_order_relaxed);
    return -ETIMEDOUT;
}

/* Whether the side was shut by a stall that has cleared: reopens it then. */
IVS_COLD bool ivs_ring_resumes(struct ivs_ring *r, enum ivs_ring_role role)
{
    struct ivs_ring_side *side = ivs_ring_side(r, role);
    const union ivs_ring_end *own = ivs_ring_own(r, role);
    uint32_t sync = ivs_ring_sync(r, role);
    /* acquire: pairs with ivs_ring_stall() in pvt/ring_stall.h: stalled_at is written before the state */
    uint64_t gate = atomic_load_explicit(&side->state_word, memory_order_acquire);

    if (gate != IVS_STATE_STALLED)
        return false;
    if (ivs_ring_is_incomplete(own, sync) &&
        ivs_ring_tail_word(own, sync) == atomic_load_explicit(&side->stalled_at, memory_order_relaxed))
        return false;
    return atomic_compare_exchange_strong_explicit(&side->state_word, &gate, ivs_ring_open_state(r, role),
                                                   memory_order_relaxed, memory_order_relaxed);
}

/* An MT side with nothing to do while a peer is inside: the peer may have reserved everything and died; report a stall
 * after `stall_ns`. Returns 0 before that, then -ETIMEDOUT. */
IVS_COLD int ivs_ring_suspect_stall(struct ivs_ring *r, enum ivs_ring_role role)
{
    struct ivs_ring_side *side = ivs_ring_side(r, role);
    uint64_t at = ivs_ring_tail_word(ivs_ring_own(r, role), IVS_SYNC_MT);
    uint64_t since = atomic_load_explicit(&side->suspected_since, memory_order_relaxed);
    uint64_t now = ivs_now_ns();

    if (since == 0 || atomic_load_explicit(&side->suspected_at, memory_order_relaxed) != at) {
        atomic_store_explicit(&side->suspected_at, at, memory_order_relaxed);
        atomic_store_explicit(&side->suspected_since, now, memory_order_relaxed);
        return 0;
    }
    /* another thread of this handle may have read the clock later than this one */
    return now > since && now - since >= r->stall_ns ? ivs_ring_stall(r, role) : 0;
}

/* Acquire an ST side from another handle, or for the first time: record the owner, read the head, and discard the
 * cached limit. Returns 0, or -ETIMEDOUT if the other handle's operation stays incomplete. */
IVS_COLD int ivs_ring_acquire_end(struct ivs_ring *r, enum ivs_ring_role role)
{
    struct ivs_ring_side *side = ivs_ring_side(r, role);
    union ivs_ring_end *own = ivs_ring_own(r, role);
    struct ivs_wait wait = IVS_WAIT_INIT(r->stall_ns);
    /* acquire: pairs with ivs_ring_publish_whole() in pvt/ring_update_tail.h: operations of the previous handle come
     * first */
    uint64_t raw = atomic_load_explicit(&own->hts.raw, memory_order_acquire);

    while ((uint32_t)raw != (uint32_t)(raw >> 32)) {
        if (!ivs_wait_step(&wait))
            return ivs_ring_stall(r, role);
        raw = atomic_load_explicit(&own->hts.raw, memory_order_acquire);
    }
    atomic_store_explicit(role == IVS_PRODUCER ? &r->shared->prod_owner : &r->shared->cons_owner, r->owner,
                          memory_order_relaxed);
    side->cached = raw;
    return 0;
}

#endif
