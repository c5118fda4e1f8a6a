/* SPDX-License-Identifier: BSD-3-Clause */
/* ring.h: a bounded queue in shared memory, byte-compatible with DPDK's rte_ring, safe with hostile peers.
 *
 * A process uses a ring through a private handle (struct ivs_ring), which ivs_ring_attach fills after validation.
 * Geometry comes from the handle, never from shared memory, and every index is masked with the handle's mask: a hostile
 * peer can corrupt elements and indices, but cannot cause an access outside the ring.
 *
 * Each side has a sync type: ST one thread, MT any number, RTS (relaxed tail sync) and HTS (head/tail sync) any number
 * of threads that may be preempted. An operation consists of: move the head (pvt/ring_move_head.h), copy, update the
 * tail (pvt/ring_update_tail.h).
 *
 * Operations return the number of elements (0: full or empty), or a negative errno: -ETIMEDOUT a peer began an
 * operation and did not finish it within `stall_ns`; -EINVAL `esize` is not the ring's; -EBUSY this handle is between
 * start and finish of a peek (ring_peek.h); or the code of ivs_ring_refuse (-EACCES read-only mapping, -ESHUTDOWN
 * closed handle). After -ETIMEDOUT a handle fails at once until that peer has finished (pvt/ring_stall.h).
 *
 * Progress: ST is wait-free, except the first operation after another handle's. MT and HTS block behind a peer between
 * its move of the head and its update of the tail. RTS blocks only when the head is htd_max ahead of the tail. */
#ifndef IVS_RING_H
#define IVS_RING_H

#include "pvt/copy.h"
#include "pvt/ring_handle.h"
#include "pvt/ring_move_head.h"
#include "pvt/ring_update_tail.h"

/* ---- elements --------------------------------------------------------------------------------------------- */

/* Return how many of `n` elements from slot `at` fit before the wrap: at least one. */
IVS_INLINE uint32_t ivs_ring_first(const struct ivs_ring *r, uint32_t at, uint32_t n)
{
    if (__builtin_constant_p(n) && n == 1)
        return 1;
    return IVS_LIKELY(n <= r->size - at) ? n : r->size - at;
}

IVS_INLINE void ivs_ring_write(const struct ivs_ring *r, unsigned char *slots, uint32_t head, const void *objects,
                               uint32_t esize, uint32_t n)
{
    uint32_t at = head & r->mask;
    uint32_t first = ivs_ring_first(r, at, n);
    const unsigned char *from = (const unsigned char *)objects;

    if (IVS_LIKELY(first == n)) {
        ivs_copy(slots + (size_t)at * esize, from, (size_t)n * esize);
    } else {
        memcpy(slots + (size_t)at * esize, from, (size_t)first * esize);
        memcpy(slots, from + (size_t)first * esize, (size_t)(n - first) * esize);
    }
}

IVS_INLINE void ivs_ring_read(const struct ivs_ring *r, const unsigned char *slots, uint32_t head, void *objects,
                              uint32_t esize, uint32_t n)
{
    uint32_t at = head & r->mask;
    uint32_t first = ivs_ring_first(r, at, n);
    unsigned char *to = (unsigned char *)objects;

    if (IVS_LIKELY(first == n)) {
        ivs_copy(to, slots + (size_t)at * esize, (size_t)n * esize);
    } else {
        memcpy(to, slots + (size_t)at * esize, (size_t)first * esize);
        memcpy(to + (size_t)first * esize, slots, (size_t)(n - first) * esize);
    }
}

/* ---- operations (rte_ring_{enqueue,dequeue}_{bulk,burst}_elem) ---------------------------------------------
 * `esize` is the element size; a constant makes the copy shortest. `left`, if not NULL, receives the remaining free
 * slots (or elements). */

/* State word mismatch: return the errno to report, or 0 to retry because a stall has cleared. */
IVS_COLD int ivs_ring_refused(struct ivs_ring *r, enum ivs_ring_role role)
{
    if (ivs_ring_resumes(r, role))
        return 0;
    uint64_t gate = atomic_load_explicit(&ivs_ring_side(r, role)->state_word, memory_order_relaxed);
    int32_t refuse = atomic_load_explicit(&r->refuse, memory_order_relaxed);
    if (refuse != 0)
        return refuse;
    if (gate == IVS_STATE_STALLED)
        return -ETIMEDOUT;
    return gate == IVS_STATE_PEEKING ? -EBUSY : -EINVAL;
}

IVS_INLINE void ivs_ring_move(const struct ivs_ring *r, enum ivs_ring_role role, union ivs_ring_end *own,
                              const struct ivs_ring_span *span, void *objects, uint32_t esize, uint32_t n,
                              enum ivs_ring_behavior behavior)
{
    unsigned char *slots = ivs_ring_slots(own, role);
    bool all = behavior == IVS_BULK || (__builtin_constant_p(n) && n == 1);
    uint32_t so_many = all ? n : span->n; /* n may be a constant, which makes the copy short */
    if (role == IVS_PRODUCER)
        ivs_ring_write(r, slots, span->head, objects, esize, so_many);
    else
        ivs_ring_read(r, slots, span->head, objects, esize, so_many);
}

/* One operation: head, elements, tail. The sync type is a constant in each of the four calls below. */
IVS_INLINE int ivs_ring_do_as(struct ivs_ring *r, enum ivs_sync sync, enum ivs_ring_role role, void *objects,
                              uint32_t esize, uint32_t n, enum ivs_ring_behavior behavior, uint32_t *left)
{
    /* Local copy: element stores may alias *r, so the compiler would reload it. */
    union ivs_ring_end *own = ivs_ring_own(r, role);
    struct ivs_ring_span span;
    int result = ivs_ring_reserve(r, sync, role, own, n, behavior, left != NULL, &span);
    if (IVS_UNLIKELY(result != 0))
        return result;
    if (left)
        *left = span.left;
    if (IVS_UNLIKELY(span.n == 0)) {
        bool doubtful = sync == IVS_SYNC_MT && n != 0 && ivs_ring_is_incomplete(own, IVS_SYNC_MT);
        return IVS_UNLIKELY(doubtful) ? ivs_ring_suspect_stall(r, role) : 0;
    }
    ivs_ring_move(r, role, own, &span, objects, esize, n, behavior);
    result = ivs_ring_publish(r, sync, own, &span);
    return IVS_UNLIKELY(result != 0) ? result : (int)span.n;
}

IVS_INLINE int ivs_ring_do(struct ivs_ring *r, enum ivs_ring_role role, void *objects, uint32_t esize, uint32_t n,
                           enum ivs_ring_behavior behavior, uint32_t *left)
{
    uint64_t open = esize;
    int refusal;
    do {
        uint64_t gate = atomic_load_explicit(&ivs_ring_side(r, role)->state_word, memory_order_relaxed);
        if (IVS_LIKELY(gate == open + IVS_SYNC_ST))
            return ivs_ring_do_as(r, IVS_SYNC_ST, role, objects, esize, n, behavior, left);
        if (IVS_LIKELY(gate == open + IVS_SYNC_MT))
            return ivs_ring_do_as(r, IVS_SYNC_MT, role, objects, esize, n, behavior, left);
        if (gate == open + IVS_SYNC_RTS)
            return ivs_ring_do_as(r, IVS_SYNC_RTS, role, objects, esize, n, behavior, left);
        if (gate == open + IVS_SYNC_HTS)
            return ivs_ring_do_as(r, IVS_SYNC_HTS, role, objects, esize, n, behavior, left);
        refusal = ivs_ring_refused(r, role);
    } while (IVS_UNLIKELY(refusal == 0));
    return refusal;
}

IVS_INLINE int ivs_ring_enqueue_bulk(struct ivs_ring *r, const void *objects, uint32_t esize, uint32_t n,
                                     uint32_t *left)
{
    return ivs_ring_do(r, IVS_PRODUCER, (void *)(uintptr_t)objects, esize, n, IVS_BULK, left);
}

IVS_INLINE int ivs_ring_enqueue_burst(struct ivs_ring *r, const void *objects, uint32_t esize, uint32_t n,
                                      uint32_t *left)
{
    return ivs_ring_do(r, IVS_PRODUCER, (void *)(uintptr_t)objects, esize, n, IVS_BURST, left);
}

IVS_INLINE int ivs_ring_dequeue_bulk(struct ivs_ring *r, void *objects, uint32_t esize, uint32_t n, uint32_t *left)
{
    return ivs_ring_do(r, IVS_CONSUMER, objects, esize, n, IVS_BULK, left);
}

IVS_INLINE int ivs_ring_dequeue_burst(struct ivs_ring *r, void *objects, uint32_t esize, uint32_t n, uint32_t *left)
{
    return ivs_ring_do(r, IVS_CONSUMER, objects, esize, n, IVS_BURST, left);
}

/* Number of elements (rte_ring_count). A snapshot; between 0 and the capacity whatever a peer writes. */
static inline uint32_t ivs_ring_count(const struct ivs_ring *r)
{
    uint32_t tail = ivs_ring_tail(&r->shared->cons, r->cons_sync);
    uint32_t count = ivs_ring_tail(&r->shared->prod, r->prod_sync) - tail;
    return count > r->capacity ? r->capacity : count;
}

/* ---- creation and attachment (ring.c) ---------------------------------------------------------------------------- */

/* Parameters of a ring to create, and of an attached one. */
struct ivs_ring_info {
    char name[IVS_NAME_SIZE];
    uint32_t count;     /* as requested: a power of two, or any number with IVS_RING_EXACT_SZ */
    uint32_t elem_size; /* bytes, a multiple of 4 */
    uint32_t flags;     /* IVS_RING_* */
    uint32_t size;      /* slots */
    uint32_t capacity;  /* elements that fit */
};

/* Returns IVS_OK, or the enum ivs_fault for which ivs_ring_plan and ivs_ring_create reject `info`. */
int ivs_ring_info_fault(const struct ivs_ring_info *info);

/* Compute size and capacity from count and flags. Returns the size of the ring in bytes, or -EINVAL (see
 * ivs_ring_info_fault). */
int64_t ivs_ring_plan(struct ivs_ring_info *info);

/* Create an empty ring in `length` bytes at `base` (aligned to 64). Returns 0; -EINVAL: `info`, its name or
 * the alignment is wrong; -ENOSPC: the ring is longer. */
int ivs_ring_create(void *base, uint64_t length, const struct ivs_ring_info *info);

/* Validate the ring at `base`; fill the handle and `info` with validated values. Returns 0 or an enum ivs_fault. */
int ivs_ring_attach(struct ivs_ring *r, void *base, uint64_t length, uint64_t stall_ns, struct ivs_ring_info *info);

/* Make operations on this handle return `code` (a negative errno) from now on; 0 revokes that. */
void ivs_ring_refuse(struct ivs_ring *r, int32_t code);

/* Empty the ring (rte_ring_reset) without moving an index backwards, so that no cached index becomes invalid. Not while
 * other participants use the ring. Returns 0 or a negative errno. */
int ivs_ring_reset(struct ivs_ring *r);

/* RTS sides: the maximum distance of head and tail (rte_ring_{get,set}_{prod,cons}_htd_max), a setting that all
 * participants share. UINT32_MAX and -ENOTSUP on other sides. */
uint32_t ivs_ring_htd_max(const struct ivs_ring *r, enum ivs_ring_role role);
int ivs_ring_set_htd_max(struct ivs_ring *r, enum ivs_ring_role role, uint32_t value);

/* A snapshot of one side, for diagnostics and recovery. */
struct ivs_ring_headtail {
    uint64_t owner; /* ST: the process that acquired the side last, as ivs_ring.owner; 0: not recorded */
    uint64_t word;  /* the tail's word, which changes with each completed operation */
    uint32_t head;
    uint32_t tail;
    uint32_t sync;       /* enum ivs_sync */
    uint32_t incomplete; /* 1: elements are reserved but not published */
};
void ivs_ring_headtail_get(const struct ivs_ring *r, enum ivs_ring_role role, struct ivs_ring_headtail *info);

/* Roll back an incomplete operation on an ST side: head := tail, if both still are as `seen`. To be called when the
 * owner is dead. Returns 1, 0 if the side has moved, or a negative errno: -ENOTSUP on other sides. */
int ivs_ring_rollback(struct ivs_ring *r, enum ivs_ring_role role, const struct ivs_ring_headtail *seen);

/* Write the output of rte_ring_dump to `text`, at most `size` bytes with the NUL. Returns the complete length, or a
 * negative errno. */
int ivs_ring_dump(const struct ivs_ring *r, char *text, uint32_t size);

/* Wait until the ring is not empty, for at most `limit_ns`: spin, then sleep with increasing intervals. Returns 1, or
 * 0. */
int ivs_ring_wait(struct ivs_ring *r, uint64_t limit_ns);

#endif
