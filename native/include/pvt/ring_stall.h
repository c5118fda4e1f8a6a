/* SPDX-License-Identifier: BSD-3-Clause */
/* ring_stall.h: ends whose tail a peer does not move: how they are noticed, remembered, and taken up again.
 *
 * A peer that dies (or is stopped) between the move of a head and that of the tail leaves the end half moved. Who meets
 * that waits once, for `stall_ns` at most, and gets -ETIMEDOUT. The handle then remembers the tail it stalled at and shuts
 * its gate at that end: further operations fail at once until that tail has moved. The gate is looked at anyway, so none
 * of this costs an operation anything that does not stall.
 *
 * ST ends: our own operations move head and tail by one store, so nobody of ours leaves one half moved; DPDK's do. A
 * handle that finds such an end when it takes it over from another one would publish elements that were never written.
 */
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

/* The word that changes whenever an operation at this end is finished. acquire: as ivs_ring_tail. */
IVS_INLINE uint64_t ivs_ring_tail_word(const union ivs_ring_end *own, uint32_t sync)
{
    return sync == IVS_SYNC_RTS ? atomic_load_explicit(&own->rts.tail, memory_order_acquire) : ivs_ring_tail(own, sync);
}

/* Whether somebody is between the move of this end's head and that of its tail. */
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

/* Gives a peer up: shuts the gate until its tail moves. Always -ETIMEDOUT. */
IVS_COLD int ivs_ring_stall(struct ivs_ring *r, enum ivs_ring_role role)
{
    struct ivs_ring_side *side = ivs_ring_side(r, role);
    uint64_t gate = ivs_ring_open_state(r, role);
    uint64_t at = ivs_ring_tail_word(ivs_ring_own(r, role), ivs_ring_sync(r, role));

    atomic_store_explicit(&side->stalled_at, at, memory_order_relaxed);
    /* release: pairs with the acquire in ivs_ring_resumes; unless the handle was closed meanwhile, or is in a peek */
    (void)atomic_compare_exchange_strong_explicit(&side->state_word, &gate, IVS_STATE_STALLED, memory_order_release,
                                                  memory_order_relaxed);
    return -ETIMEDOUT;
}

/* Whether the gate was shut by a stall that is over: opens it again then. */
IVS_COLD bool ivs_ring_resumes(struct ivs_ring *r, enum ivs_ring_role role)
{
    struct ivs_ring_side *side = ivs_ring_side(r, role);
    const union ivs_ring_end *own = ivs_ring_own(r, role);
    uint32_t sync = ivs_ring_sync(r, role);
    uint64_t gate = atomic_load_explicit(&side->state_word, memory_order_acquire);

    if (gate != IVS_STATE_STALLED)
        return false;
    if (ivs_ring_is_incomplete(own, sync) &&
        ivs_ring_tail_word(own, sync) == atomic_load_explicit(&side->stalled_at, memory_order_relaxed))
        return false;
    return atomic_compare_exchange_strong_explicit(&side->state_word, &gate, ivs_ring_open_state(r, role),
                                                   memory_order_relaxed, memory_order_relaxed);
}

/* An MT end where there is nothing to take while somebody is inside: he may have taken all of it and died, and then it
 * stays so. 0, or -ETIMEDOUT once it has been so for `stall_ns`. */
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
    /* another thread of this handle may just have looked at the clock later than this one */
    return now > since && now - since >= r->stall_ns ? ivs_ring_stall(r, role) : 0;
}

/* This handle takes an ST end over from another one, or works it for the first time: says by whom the end is worked from
 * now on, where its head is, and that nothing is known of the opposite end (side->cached). 0, or -ETIMEDOUT where the other
 * one does not finish what it began. */
IVS_COLD int ivs_ring_acquire_end(struct ivs_ring *r, enum ivs_ring_role role)
{
    struct ivs_ring_side *side = ivs_ring_side(r, role);
    union ivs_ring_end *own = ivs_ring_own(r, role);
    struct ivs_wait wait = IVS_WAIT_INIT(r->stall_ns);
    /* acquire: pairs with the release in ivs_ring_publish_whole: what the other one did at this end was before */
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
