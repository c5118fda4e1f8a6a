/* ring.h: a bounded queue in shared memory, byte-compatible with DPDK's rte_ring, for code that trusts no peer.
 *
 * A process works a ring through a private handle (struct ivs_ring) that ivs_ring_attach fills after it checked
 * everything. Geometry comes from the handle, never from shared memory, and every index is masked with the handle's
 * own mask: a hostile peer can spoil elements and indices but cannot make us touch memory outside the ring.
 *
 * Each end has a sync type: ST one thread, MT any number, RTS (relaxed tail sync) and HTS (head/tail sync) any number
 * where threads may be preempted. An operation is: move the head (ivs_ring_reserve), copy, publish by moving the tail
 * (ivs_ring_publish).
 *
 * Operations return the number of elements (0: full or empty), or a negative errno: -ETIMEDOUT a peer began and did
 * not finish within `stall_ns`; -EINVAL `esize` is not the ring's; or what ivs_ring_refuse set (-EACCES the mapping is
 * read-only, -ESHUTDOWN the handle was closed).
 *
 * Progress: ST is wait-free. MT and HTS block behind a peer that is between its head's move and its tail's. RTS blocks
 * only when the head is htd_max ahead of the tail.
 */
#ifndef IVS_RING_H
#define IVS_RING_H

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "layout.h"
#include "wait.h"

#define IVS_INLINE static inline __attribute__((always_inline))
#define IVS_LIKELY(x) __builtin_expect(!!(x), 1)
#define IVS_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* What a handle keeps of an ST end it works. */
struct ivs_ring_side {
    uint32_t left;     /* where this handle left the end's own head */
    uint32_t opposite; /* the opposite tail as last read: a bound only while the head equals `left` */
    uint8_t pad[IVS_CACHE_LINE - 8];
};

/* Private handle. Filled by ivs_ring_attach; only `refuse` changes later. */
struct ivs_ring {
    struct ivs_ring_shared *shared;
    unsigned char *elements;
    uint64_t stall_ns; /* longest wait for a peer */
    uint32_t size;
    uint32_t mask;
    uint32_t capacity;
    uint32_t elem_size;
    uint32_t prod_sync; /* enum ivs_sync */
    uint32_t cons_sync;
    uint32_t prod_htd_max;
    uint32_t cons_htd_max;
    _Atomic int32_t refuse; /* 0, or the negative errno that every operation returns */
    uint8_t pad[IVS_CACHE_LINE - 60];
    struct ivs_ring_side prod;
    struct ivs_ring_side cons;
};

enum ivs_ring_role { IVS_PRODUCER = 0, IVS_CONSUMER = 1 };
enum ivs_amount { IVS_BULK = 0, IVS_BURST = 1 }; /* all or nothing; as many as there are */

/* What a moved head entitles its holder to. */
struct ivs_ring_span {
    uint32_t head; /* index of the first element, not yet masked */
    uint32_t n;
    uint32_t left; /* slots (or elements) that remain */
};

/* ---- moving the head: what may be taken ------------------------------------------------------------------ */

/* Sets span for a head at `head` while the opposite tail is at `opposite`. A bound above the capacity comes from a peer
 * that wrote nonsense, or from a head that is out of date and will fail its compare-and-swap: it is clamped. */
IVS_INLINE void ivs_ring_fit(const struct ivs_ring *r, enum ivs_ring_role role, uint32_t head, uint32_t opposite,
                             uint32_t n, enum ivs_amount amount, struct ivs_ring_span *span)
{
    uint32_t bound = (role == IVS_PRODUCER ? r->capacity : 0) + opposite - head;
    if (IVS_UNLIKELY(bound > r->capacity))
        bound = r->capacity;
    span->head = head;
    span->n = IVS_LIKELY(n <= bound) ? n : amount == IVS_BULK ? 0 : bound;
    span->left = bound - span->n;
}

IVS_INLINE void ivs_ring_reserve_st(const struct ivs_ring *r, struct ivs_ring_side *side, enum ivs_ring_role role,
                                    union ivs_ring_end *own, union ivs_ring_end *other, uint32_t n,
                                    enum ivs_amount amount, struct ivs_ring_span *span)
{
    /* relaxed: only this thread moves this head */
    uint32_t head = atomic_load_explicit(&own->head, memory_order_relaxed);

    ivs_ring_fit(r, role, head, side->opposite, n, amount, span);
    /* If another handle moved the head meanwhile, what was read of the opposite end is no bound any more. */
    if (IVS_UNLIKELY(head != side->left || span->n != n)) {
        /* acquire: pairs with the release of that tail in ivs_ring_publish */
        side->opposite = atomic_load_explicit(&other->tail, memory_order_acquire);
        ivs_ring_fit(r, role, head, side->opposite, n, amount, span);
    }
    side->left = head + span->n;
    atomic_store_explicit(&own->head, head + span->n, memory_order_relaxed);
}

IVS_INLINE void ivs_ring_reserve_mt(const struct ivs_ring *r, enum ivs_ring_role role, union ivs_ring_end *own,
                                    union ivs_ring_end *other, uint32_t n, enum ivs_amount amount,
                                    struct ivs_ring_span *span)
{
    /* acquire: pairs with the release of the compare-and-swap below by whoever moved this head last, so that the
     * opposite tail read next is at least as new as the one that entitled him, and the bound cannot underflow */
    uint32_t head = atomic_load_explicit(&own->head, memory_order_acquire);
    do {
        /* acquire: pairs with the release of that tail in ivs_ring_publish */
        uint32_t opposite = atomic_load_explicit(&other->tail, memory_order_acquire);
        ivs_ring_fit(r, role, head, opposite, n, amount, span);
        if (IVS_UNLIKELY(span->n == 0))
            return;
    } while (!atomic_compare_exchange_weak_explicit(&own->head, &head, head + span->n, memory_order_release,
                                                    memory_order_acquire));
}

/* RTS: positions are the high halves of the two words, counts of operations the low ones. */
IVS_INLINE int ivs_ring_reserve_rts(const struct ivs_ring *r, enum ivs_ring_role role, union ivs_ring_end *own,
                                    union ivs_ring_end *other, uint32_t n, enum ivs_amount amount,
                                    struct ivs_ring_span *span)
{
    uint32_t htd_max = role == IVS_PRODUCER ? r->prod_htd_max : r->cons_htd_max;
    struct ivs_wait wait = IVS_WAIT_INIT(r->stall_ns);
    /* acquire: as in ivs_ring_reserve_mt */
    uint64_t head = atomic_load_explicit(&own->rts.head, memory_order_acquire);
    uint64_t next;
    do {
        /* acquire: pairs with the release of this tail in ivs_ring_publish_rts */
        while ((uint32_t)(head >> 32) - atomic_load_explicit(&own->tail, memory_order_acquire) > htd_max) {
            if (!ivs_wait_step(&wait))
                return -ETIMEDOUT;
            head = atomic_load_explicit(&own->rts.head, memory_order_acquire);
        }
        /* acquire: pairs with the release of that tail in ivs_ring_publish */
        uint32_t opposite = atomic_load_explicit(&other->tail, memory_order_acquire);
        ivs_ring_fit(r, role, (uint32_t)(head >> 32), opposite, n, amount, span);
        if (IVS_UNLIKELY(span->n == 0))
            return 0;
        next = (uint64_t)(span->head + span->n) << 32 | (uint32_t)(head + 1);
    } while (!atomic_compare_exchange_weak_explicit(&own->rts.head, &head, next, memory_order_release,
                                                    memory_order_acquire));
    return 0;
}

/* HTS: head and tail are one word; the head moves only while both are equal, so one thread at a time is inside. */
IVS_INLINE int ivs_ring_reserve_hts(const struct ivs_ring *r, enum ivs_ring_role role, union ivs_ring_end *own,
                                    union ivs_ring_end *other, uint32_t n, enum ivs_amount amount,
                                    struct ivs_ring_span *span)
{
    struct ivs_wait wait = IVS_WAIT_INIT(r->stall_ns);
    /* acquire: pairs with the release of the tail in ivs_ring_publish by the thread that was inside before */
    uint64_t raw = atomic_load_explicit(&own->hts.raw, memory_order_acquire);
    uint64_t next;
    do {
        while ((uint32_t)raw != (uint32_t)(raw >> 32)) {
            if (!ivs_wait_step(&wait))
                return -ETIMEDOUT;
            raw = atomic_load_explicit(&own->hts.raw, memory_order_acquire);
        }
        /* acquire: pairs with the release of that tail in ivs_ring_publish */
        uint32_t opposite = atomic_load_explicit(&other->tail, memory_order_acquire);
        ivs_ring_fit(r, role, (uint32_t)raw, opposite, n, amount, span);
        if (IVS_UNLIKELY(span->n == 0))
            return 0;
        next = (raw & ~UINT64_C(0xffffffff)) | (uint32_t)(span->head + span->n);
        /* acquire, release: as the head of ivs_ring_reserve_mt */
    } while (!atomic_compare_exchange_weak_explicit(&own->hts.raw, &raw, next, memory_order_acq_rel,
                                                    memory_order_acquire));
    return 0;
}

IVS_INLINE int ivs_ring_reserve(struct ivs_ring *r, enum ivs_ring_role role, uint32_t n, enum ivs_amount amount,
                                struct ivs_ring_span *span)
{
    bool producer = role == IVS_PRODUCER;
    union ivs_ring_end *own = producer ? &r->shared->prod : &r->shared->cons;
    union ivs_ring_end *other = producer ? &r->shared->cons : &r->shared->prod;

    switch (producer ? r->prod_sync : r->cons_sync) {
    case IVS_SYNC_ST:
        ivs_ring_reserve_st(r, producer ? &r->prod : &r->cons, role, own, other, n, amount, span);
        return 0;
    case IVS_SYNC_MT:
        ivs_ring_reserve_mt(r, role, own, other, n, amount, span);
        return 0;
    case IVS_SYNC_RTS:
        return ivs_ring_reserve_rts(r, role, own, other, n, amount, span);
    default:
        return ivs_ring_reserve_hts(r, role, own, other, n, amount, span);
    }
}

/* ---- moving the tail: what was reserved becomes visible --------------------------------------------------- */

IVS_INLINE int ivs_ring_publish_mt(const struct ivs_ring *r, union ivs_ring_end *own, const struct ivs_ring_span *span)
{
    struct ivs_wait wait = IVS_WAIT_INIT(r->stall_ns);
    /* acquire: pairs with the release below by the peer before us, so that who sees our tail also sees his elements */
    while (IVS_UNLIKELY(atomic_load_explicit(&own->tail, memory_order_acquire) != span->head))
        if (!ivs_wait_step(&wait))
            return -ETIMEDOUT;
    /* release: pairs with the acquire of the opposite tail in ivs_ring_reserve_*: elements before tail */
    atomic_store_explicit(&own->tail, span->head + span->n, memory_order_release);
    return 0;
}

/* RTS: every operation counts the tail up; the one that makes the counts equal moves it to where the head is. */
IVS_INLINE int ivs_ring_publish_rts(const struct ivs_ring *r, union ivs_ring_end *own)
{
    struct ivs_wait wait = IVS_WAIT_INIT(r->stall_ns);
    /* acquire: pairs with the release below, which carries the elements of the operations counted before */
    uint64_t tail = atomic_load_explicit(&own->rts.tail, memory_order_acquire);
    uint64_t next;
    for (;;) {
        uint64_t head = atomic_load_explicit(&own->rts.head, memory_order_relaxed);
        uint32_t count = (uint32_t)(tail + 1);
        next = (count == (uint32_t)head ? head : tail) & ~UINT64_C(0xffffffff);
        next |= count;
        /* release: pairs with the acquire of the opposite tail in ivs_ring_reserve_* */
        if (atomic_compare_exchange_strong_explicit(&own->rts.tail, &tail, next, memory_order_acq_rel,
                                                    memory_order_acquire))
            return 0;
        if (!ivs_wait_step(&wait))
            return -ETIMEDOUT;
    }
}

IVS_INLINE int ivs_ring_publish(struct ivs_ring *r, enum ivs_ring_role role, const struct ivs_ring_span *span)
{
    bool producer = role == IVS_PRODUCER;
    union ivs_ring_end *own = producer ? &r->shared->prod : &r->shared->cons;

    switch (producer ? r->prod_sync : r->cons_sync) {
    case IVS_SYNC_MT:
        return ivs_ring_publish_mt(r, own, span);
    case IVS_SYNC_RTS:
        return ivs_ring_publish_rts(r, own);
    default: /* ST, HTS: nobody else is inside. release: pairs with the acquire in ivs_ring_reserve_* */
        atomic_store_explicit(&own->tail, span->head + span->n, memory_order_release);
        return 0;
    }
}

/* ---- elements --------------------------------------------------------------------------------------------- */

/* Copies `bytes`, a multiple of 4. Short runs by a few moves that may overlap: a call of memcpy costs more. */
IVS_INLINE void ivs_copy(void *to, const void *from, size_t bytes)
{
    unsigned char *d = (unsigned char *)to;
    const unsigned char *s = (const unsigned char *)from;
    uint64_t a[4], b[4];

    if (bytes > 64) {
        memcpy(d, s, bytes);
    } else if (bytes > 32) {
        memcpy(a, s, 32);
        memcpy(b, s + bytes - 32, 32);
        memcpy(d, a, 32);
        memcpy(d + bytes - 32, b, 32);
    } else if (bytes > 16) {
        memcpy(a, s, 16);
        memcpy(b, s + bytes - 16, 16);
        memcpy(d, a, 16);
        memcpy(d + bytes - 16, b, 16);
    } else if (bytes >= 8) {
        memcpy(a, s, 8);
        memcpy(b, s + bytes - 8, 8);
        memcpy(d, a, 8);
        memcpy(d + bytes - 8, b, 8);
    } else if (bytes != 0) {
        memcpy(d, s, 4);
    }
}

IVS_INLINE void ivs_ring_write(const struct ivs_ring *r, uint32_t head, const void *objects, uint32_t esize, uint32_t n)
{
    uint32_t at = head & r->mask;
    uint32_t first = IVS_LIKELY(n <= r->size - at) ? n : r->size - at;
    const unsigned char *from = (const unsigned char *)objects;

    ivs_copy(r->elements + (size_t)at * esize, from, (size_t)first * esize);
    if (IVS_UNLIKELY(first != n))
        ivs_copy(r->elements, from + (size_t)first * esize, (size_t)(n - first) * esize);
}

IVS_INLINE void ivs_ring_read(const struct ivs_ring *r, uint32_t head, void *objects, uint32_t esize, uint32_t n)
{
    uint32_t at = head & r->mask;
    uint32_t first = IVS_LIKELY(n <= r->size - at) ? n : r->size - at;
    unsigned char *to = (unsigned char *)objects;

    ivs_copy(to, r->elements + (size_t)at * esize, (size_t)first * esize);
    if (IVS_UNLIKELY(first != n))
        ivs_copy(to + (size_t)first * esize, r->elements, (size_t)(n - first) * esize);
}

/* ---- operations (rte_ring_{enqueue,dequeue}_{bulk,burst}_elem) ---------------------------------------------
 * `esize` is the element size; written as a constant it makes the copy as short as it can be. `left`, where not
 * NULL, receives the free slots (or the elements) that remain. */

IVS_INLINE int ivs_ring_do(struct ivs_ring *r, enum ivs_ring_role role, void *objects, uint32_t esize, uint32_t n,
                           enum ivs_amount amount, uint32_t *left)
{
    struct ivs_ring_span span;
    int32_t refuse = atomic_load_explicit(&r->refuse, memory_order_relaxed);
    if (IVS_UNLIKELY(refuse != 0))
        return refuse;
    if (IVS_UNLIKELY(esize != r->elem_size))
        return -EINVAL;
    int result = ivs_ring_reserve(r, role, n, amount, &span);
    if (IVS_UNLIKELY(result != 0))
        return result;
    if (left)
        *left = span.left;
    if (span.n == 0)
        return 0;
    if (role == IVS_PRODUCER)
        ivs_ring_write(r, span.head, objects, esize, span.n);
    else
        ivs_ring_read(r, span.head, objects, esize, span.n);
    result = ivs_ring_publish(r, role, &span);
    return IVS_UNLIKELY(result != 0) ? result : (int)span.n;
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

/* Elements in the ring (rte_ring_count). A snapshot; between 0 and the capacity whatever a peer wrote. */
static inline uint32_t ivs_ring_count(const struct ivs_ring *r)
{
    uint32_t tail = atomic_load_explicit(&r->shared->cons.tail, memory_order_acquire);
    uint32_t count = atomic_load_explicit(&r->shared->prod.tail, memory_order_acquire) - tail;
    return count > r->capacity ? r->capacity : count;
}

/* ---- making and attaching (ring.c) ------------------------------------------------------------------------ */

/* What a ring is made from, and what an attached one is. */
struct ivs_ring_info {
    char name[IVS_NAME_SIZE];
    uint32_t count;     /* as asked for: a power of two, or any number with IVS_RING_EXACT_SZ */
    uint32_t elem_size; /* bytes, a multiple of 4 */
    uint32_t flags;     /* IVS_RING_* */
    uint32_t size;      /* slots */
    uint32_t capacity;  /* elements it can hold */
};

/* Fills size and capacity from count and flags. Returns the bytes a ring needs, or -EINVAL. */
int64_t ivs_ring_plan(struct ivs_ring_info *info);

/* Makes an empty ring in `length` bytes at `base` (aligned to 64). Returns 0, -EINVAL or -ENOSPC. */
int ivs_ring_create(void *base, uint64_t length, const struct ivs_ring_info *info);

/* Checks the ring at `base` and fills the handle and `info` from what was checked. Returns 0 or an enum ivs_fault. */
int ivs_ring_attach(struct ivs_ring *r, void *base, uint64_t length, uint64_t stall_ns, struct ivs_ring_info *info);

/* From now on operations on this handle return `code` (a negative errno; 0 takes it back). */
void ivs_ring_refuse(struct ivs_ring *r, int32_t code);

/* Empties the ring (rte_ring_reset) without moving an index backwards, so that no handle's cached index turns into a
 * lie. Not while others work the ring. Returns 0 or a negative errno. */
int ivs_ring_reset(struct ivs_ring *r);

/* Waits until the ring holds an element: spins, then sleeps ever longer, for `limit_ns` at most. Returns 1, or 0. */
int ivs_ring_wait(struct ivs_ring *r, uint64_t limit_ns);

#endif
