/* SPDX-License-Identifier: BSD-3-Clause */
/* ring_handle.h: the private handle through which a process works a ring. */
#ifndef IVS_RING_HANDLE_H
#define IVS_RING_HANDLE_H

#include "pvt/compiler.h"
#include "layout.h"

/* What a handle keeps of one end, on a line of its own: one thread may work one end and another thread the other. */
struct ivs_ring_side {
    /* Element size + sync type: element sizes are multiples of 4 and there are 4 sync types. So one comparison with the
     * caller's element size tells whether he may go on and how. IVS_STATE_SHUT fits no element size. */
    _Atomic uint64_t state_word;
    /* ST: limit << 32 | head: where this handle left the head, and how far it may go by the opposite tail as last read.
     * One word, so that it takes one load and one store. */
    uint64_t cached;
    uint32_t begun_at; /* peek: the first index that ivs_ring_*_start reserved */
    uint32_t begun;    /* peek: how many */
    /* slow paths alone (ring_stall.h) */
    _Atomic uint64_t stalled_at; /* the tail's word when a wait for a peer was given up */
    _Atomic uint64_t suspected_at; /* MT: the same when a peer was first seen inside while there was nothing to do */
    _Atomic uint64_t suspected_since; /* and the time of that; 0: never */
    uint8_t pad[IVS_CACHE_LINE - 48];
};

#define IVS_STATE_SHUT UINT64_MAX           /* refused, for the reason in `refuse` */
#define IVS_STATE_PEEKING (UINT64_MAX - 8)    /* an ST end between start and finish */
#define IVS_STATE_STALLED (UINT64_MAX - 16) /* a peer inside was given up, and its tail may not have moved since */

/* Filled by ivs_ring_attach. What it says of the ring's geometry was checked then and is never read again. */
struct ivs_ring {
    struct ivs_ring_shared *shared;
    uint64_t stall_ns; /* longest wait for a peer */
    uint32_t size;
    uint32_t mask;
    uint32_t capacity;
    uint32_t elem_size;
    uint32_t prod_sync; /* enum ivs_sync */
    uint32_t cons_sync;
    _Atomic int32_t refuse; /* 0, or the negative errno that every operation returns */
    /* Who works ST ends by this handle: machine << 32 | process id, which is ivs_participant.owner of its main thread.
     * Written to the ring when an end is taken over, so that what a dead one left half done can be undone. 0: not said. */
    uint64_t owner;
    uint8_t pad[IVS_CACHE_LINE - 56];
    struct ivs_ring_side prod;
    struct ivs_ring_side cons;
};

enum ivs_ring_role { IVS_PRODUCER = 0, IVS_CONSUMER = 1 };
enum ivs_ring_behavior { IVS_BULK = 0, IVS_BURST = 1 }; /* all or nothing; as many as there are */

/* What a moved head entitles its holder to. */
struct ivs_ring_span {
    uint32_t head; /* index of the first element, not yet masked */
    uint32_t n;
    uint32_t left; /* slots (or elements) that remain: at an ST end only if they were asked for */
    uint64_t new_word; /* ST: the end's word once these elements are visible. RTS: the head's word, as this operation set it */
    uint64_t old_word; /* RTS: the head's word before */
};

/* The word of an ST or HTS end at which nobody is inside. */
IVS_INLINE uint64_t ivs_ring_word(uint32_t tail)
{
    return (uint64_t)tail << 32 | tail;
}

IVS_INLINE struct ivs_ring_side *ivs_ring_side(struct ivs_ring *r, enum ivs_ring_role role)
{
    return role == IVS_PRODUCER ? &r->prod : &r->cons;
}

/* By its offset, not as a member: the slots are found from it, and to a compiler a member ends where its type does. */
IVS_INLINE union ivs_ring_end *ivs_ring_own(const struct ivs_ring *r, enum ivs_ring_role role)
{
    size_t at = role == IVS_PRODUCER ? offsetof(struct ivs_ring_shared, prod) : offsetof(struct ivs_ring_shared, cons);
    return (union ivs_ring_end *)((unsigned char *)r->shared + at);
}

/* The other end, and the slots, from the address of an end: an operation has that at hand, and saves a load. */
IVS_INLINE union ivs_ring_end *ivs_ring_other(union ivs_ring_end *own, enum ivs_ring_role role)
{
    ptrdiff_t apart = offsetof(struct ivs_ring_shared, cons) - offsetof(struct ivs_ring_shared, prod);
    return (union ivs_ring_end *)((unsigned char *)own + (role == IVS_PRODUCER ? apart : -apart));
}

IVS_INLINE unsigned char *ivs_ring_slots(union ivs_ring_end *own, enum ivs_ring_role role)
{
    size_t end = role == IVS_PRODUCER ? offsetof(struct ivs_ring_shared, prod) : offsetof(struct ivs_ring_shared, cons);
    return (unsigned char *)own + (sizeof(struct ivs_ring_shared) - end);
}

IVS_INLINE uint32_t ivs_ring_sync(const struct ivs_ring *r, enum ivs_ring_role role)
{
    return role == IVS_PRODUCER ? r->prod_sync : r->cons_sync;
}

/* An end's tail. acquire: pairs with the releases of ring_tail.h: who sees a tail sees the elements before it.
 * ThreadSanitizer pairs atomic operations by their address, so it is shown the whole word that all but MT store. */
IVS_INLINE uint32_t ivs_ring_tail(const union ivs_ring_end *end, uint32_t sync)
{
#ifdef IVS_TSAN
    if (sync != IVS_SYNC_MT)
        return (uint32_t)(atomic_load_explicit(&end->hts.raw, memory_order_acquire) >> 32);
#endif
    (void)sync;
    return atomic_load_explicit(&end->tail, memory_order_acquire);
}

IVS_INLINE uint32_t ivs_ring_other_tail(const struct ivs_ring *r, enum ivs_ring_role role, union ivs_ring_end *own)
{
    return ivs_ring_tail(ivs_ring_other(own, role), role == IVS_PRODUCER ? r->cons_sync : r->prod_sync);
}

#endif
