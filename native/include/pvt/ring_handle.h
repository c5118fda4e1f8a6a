/* SPDX-License-Identifier: BSD-3-Clause */
/* ring_handle.h: the private handle through which a process uses a ring. */
#ifndef IVS_RING_HANDLE_H
#define IVS_RING_HANDLE_H

#include "pvt/compiler.h"
#include "layout.h"

/* State of one side in a handle, on a cache line of its own: one thread may use one side and another thread the other.
 */
struct ivs_ring_side {
    /* Element size + sync type: element sizes are multiples of 4 and there are 4 sync types. One comparison with the
     * caller's element size decides whether the operation may proceed and how. IVS_STATE_SHUT equals no element size.
     */
    _Atomic uint64_t state_word;
    /* ST: limit << 32 | head: where this handle left the head, and the highest head that the opposite tail, as last
     * read, permits. One word, so that it takes one load and one store. */
    uint64_t cached;
    uint32_t begun_at; /* peek: the first index that ivs_ring_*_start reserved */
    uint32_t begun;    /* peek: the number of reserved elements */
    /* slow paths only (ring_stall.h) */
    _Atomic uint64_t stalled_at; /* the tail's word at the time of the stall */
    /* MT: the tail's word when a peer was first seen inside while there was nothing to do */
    _Atomic uint64_t suspected_at;
    _Atomic uint64_t suspected_since; /* and the time of that; 0: never */
    uint8_t pad[IVS_CACHE_LINE - 48];
};

#define IVS_STATE_SHUT UINT64_MAX           /* refused, for the reason in `refuse` */
#define IVS_STATE_PEEKING (UINT64_MAX - 8)  /* an ST side between start and finish */
#define IVS_STATE_STALLED (UINT64_MAX - 16) /* a wait for a peer timed out, and its tail may not have moved since */

/* Filled by ivs_ring_attach. The geometry was validated then and is never read again. */
struct ivs_ring {
    struct ivs_ring_shared *shared;
    uint64_t stall_ns; /* maximum wait for a peer */
    uint32_t size;
    uint32_t mask;
    uint32_t capacity;
    uint32_t elem_size;
    uint32_t prod_sync; /* enum ivs_sync */
    uint32_t cons_sync;
    _Atomic int32_t refuse; /* 0, or the negative errno that every operation returns */
    /* The process that uses ST sides through this handle: machine << 32 | process id, which is ivs_participant.owner of
     * its main thread. Written to the ring when a side is acquired, so that incomplete operations of a dead process can
     * be rolled back. 0: not recorded. */
    uint64_t owner;
    uint8_t pad[IVS_CACHE_LINE - 56];
    struct ivs_ring_side prod;
    struct ivs_ring_side cons;
};

enum ivs_ring_role { IVS_PRODUCER = 0, IVS_CONSUMER = 1 };
enum ivs_ring_behavior { IVS_BULK = 0, IVS_BURST = 1 }; /* all or none; as many as possible (rte_ring_queue_behavior) */

/* The elements that a move of the head has reserved. */
struct ivs_ring_span {
    uint32_t head; /* index of the first element, not masked */
    uint32_t n;
    uint32_t left; /* remaining slots (or elements): on an ST side only if requested */
    /* ST: the side's word once these elements are visible. RTS: the head's word as set by this operation */
    uint64_t new_word;
    uint64_t old_word; /* RTS: the head's previous word */
};

/* The word of an ST or HTS side without an operation in progress. */
IVS_INLINE uint64_t ivs_ring_word(uint32_t tail)
{
    return (uint64_t)tail << 32 | tail;
}

IVS_INLINE struct ivs_ring_side *ivs_ring_side(struct ivs_ring *r, enum ivs_ring_role role)
{
    return role == IVS_PRODUCER ? &r->prod : &r->cons;
}

/* By offset, not as a member: the slots are derived from it, and for the compiler a member ends where its type does. */
IVS_INLINE union ivs_ring_end *ivs_ring_own(const struct ivs_ring *r, enum ivs_ring_role role)
{
    size_t at = role == IVS_PRODUCER ? offsetof(struct ivs_ring_shared, prod) : offsetof(struct ivs_ring_shared, cons);
    return (union ivs_ring_end *)((unsigned char *)r->shared + at);
}

/* The opposite side, and the slots, from the address of a side: an operation has it in a register, which saves a load.
 */
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

/* The tail of a side. acquire: pairs with ivs_ring_publish() in pvt/ring_update_tail.h: elements before the tail.
 * ThreadSanitizer matches atomic operations by address and size, so it is shown the whole word that all sync types but
 * MT store. */
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
