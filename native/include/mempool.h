/* mempool.h: fixed-size objects in shared memory, taken and put back by index, on any machine.
 *
 * Free objects are bits of a bitmap: to take one is to clear its bit, to put it back is to set it. No state of it has
 * others wait, a killed peer loses at most what it held, and a second put of the same object is seen. In front of it
 * each participant (a thread of a process, with a slot in the segment's header) has a cache. The handle's private copy
 * of that cache is the one in force; the one in shared memory is a record for others, so that what a dead participant
 * held can be counted. It is never read back while its owner lives.
 *
 * A process works a pool through private handles, one a thread, that ivs_mempool_attach fills after it checked
 * everything: indices are checked against the handle's own n, whatever a peer writes.
 *
 * Operations return the number of objects, or a negative errno: -EINVAL an index is out of range, or more are put
 * back than are out; -EALREADY an object was free already; -EOVERFLOW (with IVS_MEMPOOL_DEBUG) the bytes before or behind
 * an object were overwritten; or what ivs_mempool_refuse set.
 *
 * Progress: lock-free; a get looks at each word of the bitmap once.
 */
#ifndef IVS_MEMPOOL_H
#define IVS_MEMPOOL_H

#include "ring.h"

#include <errno.h>
#include <string.h>

/* Private handle of one thread. `cache` holds 2 * cache_size indices: ivs_mempool_handle_size. */
struct ivs_mempool {
    struct ivs_mempool_shared *shared;
    _Atomic uint64_t *bitmap;
    unsigned char *objects;
    unsigned char *caches;
    struct ivs_mempool_cache *slot; /* this participant's record; NULL: no slot, no cache */
    uint64_t taken;                 /* what slot->taken says */
    uint64_t returned;
    uint64_t credit; /* objects known to be out that this handle may put back without counting again */
    uint32_t n;
    uint32_t words;
    uint32_t elt_size;
    uint32_t elt_stride;
    uint32_t cache_size; /* 0 as long as the handle has no slot */
    uint32_t flush_at;   /* a put that would fill the cache beyond this empties it first */
    uint32_t slot_cache_size; /* the pool's cache_size */
    uint32_t cache_stride;
    uint32_t hint; /* word where a free object was seen last */
    uint32_t cached;
    _Atomic int32_t refuse;
    uint32_t private_size; /* of an mbuf pool, else 0 */
    uint32_t debug;        /* 1: cookies are kept and checked */
    uint32_t culprit;      /* debug: the object that the last error is about */
    uint64_t owner;        /* debug: who takes objects by this handle, as ivs_participant.owner */
    uint32_t cache[];
};

/* What a pool is made from, and what an attached one is. */
struct ivs_mempool_info {
    char name[IVS_NAME_SIZE];
    uint32_t n;
    uint32_t elt_size; /* bytes */
    uint32_t elt_stride;
    uint32_t cache_size;
    uint32_t flags;
    uint64_t objects_offset;
    uint32_t private_size; /* of an mbuf pool: a multiple of 8; looked at with IVS_MEMPOOL_MBUF alone */
};

/* DPDK's MEMPOOL_F_NO_CACHE_ALIGN: objects follow each other without padding to a cache line. */
#define IVS_MEMPOOL_NO_CACHE_ALIGN 0x2u
#define IVS_MEMPOOL_MBUF 0x10000u /* ours: each object is an mbuf (mbuf.h) */
#define IVS_MEMPOOL_DEBUG 0x20000u /* ours: cookies round each object, and who has it */
#define IVS_MEMPOOL_FLAGS (IVS_MEMPOOL_NO_CACHE_ALIGN | IVS_MEMPOOL_MBUF | IVS_MEMPOOL_DEBUG)
#define IVS_MEMPOOL_CACHE_MAX 512u

/* ---- the shared bitmap -------------------------------------------------------------------------------------- */

/* Sets the bits of `mask` in a word; returns those that were set already. */
IVS_INLINE uint64_t ivs_mempool_free_bits(struct ivs_mempool *p, uint32_t word, uint64_t mask)
{
    /* release: pairs with the acquire in ivs_mempool_take_word, so that the next holder sees what we wrote */
    return atomic_fetch_or_explicit(&p->bitmap[word], mask, memory_order_release) & mask;
}

/* Bits of one word that `n` indices from the end of `objects` share; sets *run to how many they are. Bits that would
 * stand twice end the run. */
IVS_INLINE uint64_t ivs_mempool_last_run(const uint32_t *objects, uint32_t n, uint32_t *run)
{
    uint32_t word = objects[n - 1] / 64;
    uint64_t mask = 0;
    uint32_t i = n;
    while (i > 0 && objects[i - 1] / 64 == word) {
        uint64_t bit = UINT64_C(1) << (objects[i - 1] % 64);
        if (mask & bit)
            break;
        mask |= bit;
        i--;
    }
    *run = n - i;
    return mask;
}

/* Frees all `n` objects, whose indices were checked. Returns how many were free already. */
static inline uint32_t ivs_mempool_free_shared(struct ivs_mempool *p, const uint32_t *objects, uint32_t n)
{
    uint32_t twice = 0;
    while (n > 0) {
        uint32_t run;
        uint64_t mask = ivs_mempool_last_run(objects, n, &run);
        p->hint = objects[n - 1] / 64;
        uint64_t was = ivs_mempool_free_bits(p, p->hint, mask);
        if (IVS_UNLIKELY(was != 0))
            twice += (uint32_t)__builtin_popcountll(was);
        n -= run;
    }
    return twice;
}

/* Takes up to `n` objects out of one word. */
IVS_INLINE uint32_t ivs_mempool_take_word(struct ivs_mempool *p, uint32_t word, uint32_t *objects, uint32_t n)
{
    uint64_t free = atomic_load_explicit(&p->bitmap[word], memory_order_relaxed);
    while (free != 0) {
        uint64_t rest = free;
        uint32_t got = 0;
        do {
            objects[got++] = word * 64 + (uint32_t)__builtin_ctzll(rest);
            rest &= rest - 1;
        } while (rest != 0 && got < n);
        /* acquire: pairs with the release in ivs_mempool_free_bits */
        if (IVS_LIKELY(atomic_compare_exchange_weak_explicit(&p->bitmap[word], &free, rest, memory_order_acquire,
                                                             memory_order_relaxed)))
            return got;
    }
    return 0;
}

/* Takes up to `n` objects; fewer only if a look at every word found no more. A peer may have set bits beyond n in the
 * last word: those are dropped for good. */
static inline uint32_t ivs_mempool_take_shared(struct ivs_mempool *p, uint32_t *objects, uint32_t n)
{
    uint32_t got = 0;
    uint32_t word = p->hint;
    for (uint32_t i = 0; i < p->words; i++) {
        uint32_t here = ivs_mempool_take_word(p, word, objects + got, n - got);
        while (IVS_UNLIKELY(here > 0 && objects[got + here - 1] >= p->n))
            here--;
        got += here;
        if (got == n)
            break;
        word = word + 1 == p->words ? 0 : word + 1;
    }
    p->hint = word;
    return got;
}

/* ---- counting ------------------------------------------------------------------------------------------------ */

/* `taken` is raised before objects are taken and `returned` after they are back: a participant that is killed between
 * makes the difference too large, never too small, so that no rightful put is refused. */
IVS_INLINE void ivs_mempool_count_taken(struct ivs_mempool *p, uint32_t n)
{
    p->taken += n;
    p->credit += n;
    if (IVS_LIKELY(p->slot != NULL))
        atomic_store_explicit(&p->slot->taken, p->taken, memory_order_relaxed);
    else
        atomic_fetch_add_explicit(&p->shared->taken, n, memory_order_relaxed);
}

IVS_INLINE void ivs_mempool_count_untaken(struct ivs_mempool *p, uint32_t n)
{
    p->taken -= n;
    p->credit -= n;
    if (IVS_LIKELY(p->slot != NULL))
        atomic_store_explicit(&p->slot->taken, p->taken, memory_order_relaxed);
    else
        atomic_fetch_sub_explicit(&p->shared->taken, n, memory_order_relaxed);
}

IVS_INLINE void ivs_mempool_count_returned(struct ivs_mempool *p, uint32_t n)
{
    p->returned += n;
    p->credit -= n;
    if (IVS_LIKELY(p->slot != NULL))
        atomic_store_explicit(&p->slot->returned, p->returned, memory_order_relaxed);
    else
        atomic_fetch_add_explicit(&p->shared->returned, n, memory_order_relaxed);
}

/* Objects that are out by everybody's counts, clamped to 0..n. */
uint32_t ivs_mempool_out(const struct ivs_mempool *p);

/* ---- get and put (rte_mempool_get_bulk, rte_mempool_put_bulk) ------------------------------------------------- */

/* Puts on record how many of the cached indices count. release: pairs with the acquire of who counts or takes over. */
IVS_INLINE void ivs_mempool_record(struct ivs_mempool *p)
{
    atomic_store_explicit(&p->slot->len, p->cached, memory_order_release);
}

/* Empties the cache into the bitmap, a word at a time: off the record first, so that an object may be lost if we are
 * killed between, but never stands in two places. */
static inline void ivs_mempool_flush(struct ivs_mempool *p)
{
    while (p->cached > 0) {
        uint32_t run;
        uint32_t word = p->cache[p->cached - 1] / 64;
        uint64_t mask = ivs_mempool_last_run(p->cache, p->cached, &run);
        p->cached -= run;
        ivs_mempool_record(p);
        uint64_t was = ivs_mempool_free_bits(p, word, mask);
        if (IVS_UNLIKELY(was != 0)) {
            /* put twice, some time ago: free once, and counted once */
            p->returned -= (uint32_t)__builtin_popcountll(was);
            atomic_store_explicit(&p->slot->returned, p->returned, memory_order_relaxed);
        }
        p->hint = word;
    }
}

/* The cache has fewer than `n`: fills it so that cache_size remain afterwards, where there are as many. */
static inline int ivs_mempool_get_refill(struct ivs_mempool *p, uint32_t *objects, uint32_t n)
{
    uint32_t had = p->cached;
    uint32_t missing = n - had;
    uint32_t spare = n <= p->cache_size ? p->cache_size : 0;

    if (spare != 0) { /* had < n <= cache_size: had + missing + spare fits 2 * cache_size */
        uint32_t got = ivs_mempool_take_shared(p, p->cache + had, missing + spare);
        if (got < missing) {
            ivs_mempool_free_shared(p, p->cache + had, got);
            return 0;
        }
        memcpy(objects, p->cache + had + got - n, (size_t)n * 4);
        p->cached = had + got - n;
        memcpy(p->slot->objects, p->cache, (size_t)p->cached * 4);
    } else {
        uint32_t got = ivs_mempool_take_shared(p, objects + had, missing);
        if (got < missing) {
            ivs_mempool_free_shared(p, objects + had, got);
            return 0;
        }
        memcpy(objects, p->cache, (size_t)had * 4);
        p->cached = 0;
    }
    if (p->slot != NULL)
        ivs_mempool_record(p);
    return (int)n;
}

/* With IVS_MEMPOOL_DEBUG: marks objects that were just taken, or are about to be put back. Returns 0, or -EALREADY or
 * -EOVERFLOW with p->culprit set: an overwritten cookie is mended, so that each overrun is told once. (mempool_debug.c) */
int ivs_mempool_debug_take(struct ivs_mempool *p, const uint32_t *objects, uint32_t n);
int ivs_mempool_debug_put(struct ivs_mempool *p, const uint32_t *objects, uint32_t n);

/* Takes `n` objects, or none and returns 0. */
IVS_INLINE int ivs_mempool_get_unmarked(struct ivs_mempool *p, uint32_t *objects, uint32_t n)
{
    int32_t refuse = atomic_load_explicit(&p->refuse, memory_order_relaxed);
    if (IVS_UNLIKELY(refuse != 0))
        return refuse;
    if (IVS_UNLIKELY(n > p->n))
        return 0;
    ivs_mempool_count_taken(p, n);
    if (IVS_LIKELY(n <= p->cached)) {
        p->cached -= n;
        ivs_copy(objects, p->cache + p->cached, (size_t)n * 4);
        if (p->slot != NULL)
            ivs_mempool_record(p);
        return (int)n;
    }
    int got = ivs_mempool_get_refill(p, objects, n);
    if (IVS_UNLIKELY(got == 0))
        ivs_mempool_count_untaken(p, n);
    return got;
}

/* Puts `n` objects back. Nothing is put back if an index is out of range or more are put than are out; of objects that
 * are free already (-EALREADY) the others of the same call have been put back. */
IVS_INLINE int ivs_mempool_put_bulk(struct ivs_mempool *p, const uint32_t *objects, uint32_t n)
{
    int32_t refuse = atomic_load_explicit(&p->refuse, memory_order_relaxed);
    uint32_t highest = 0;
    if (IVS_UNLIKELY(refuse != 0 || n == 0))
        return refuse;
    for (uint32_t i = 0; i < n; i++)
        highest = objects[i] > highest ? objects[i] : highest;
    if (IVS_UNLIKELY(highest >= p->n))
        return -EINVAL;
    if (IVS_UNLIKELY(p->debug != 0)) {
        int fault = ivs_mempool_debug_put(p, objects, n);
        if (fault != 0)
            return fault;
    }
    if (IVS_UNLIKELY(p->credit < n)) {
        p->credit = ivs_mempool_out(p);
        if (p->credit < n)
            return -EINVAL;
    }
    if (IVS_UNLIKELY(n > p->flush_at)) { /* also where there is no cache */
        uint32_t twice = ivs_mempool_free_shared(p, objects, n);
        ivs_mempool_count_returned(p, n - twice);
        return IVS_UNLIKELY(twice != 0) ? -EALREADY : (int)n;
    }
    if (IVS_UNLIKELY(p->cached + n > p->flush_at))
        ivs_mempool_flush(p);
    ivs_copy(p->cache + p->cached, objects, (size_t)n * 4);
    ivs_copy(p->slot->objects + p->cached, objects, (size_t)n * 4);
    p->cached += n;
    ivs_mempool_record(p);
    ivs_mempool_count_returned(p, n);
    return (int)n;
}

/* Takes `n` objects, or none and returns 0, or an error that IVS_MEMPOOL_DEBUG found. */
IVS_INLINE int ivs_mempool_get_bulk(struct ivs_mempool *p, uint32_t *objects, uint32_t n)
{
    int got = ivs_mempool_get_unmarked(p, objects, n);
    if (IVS_UNLIKELY(p->debug != 0 && got > 0)) {
        int fault = ivs_mempool_debug_take(p, objects, n);
        if (fault != 0) {
            uint32_t culprit = p->culprit;
            (void)ivs_mempool_put_bulk(p, objects, n);
            p->culprit = culprit;
            return fault;
        }
    }
    return got;
}

/* ---- making, attaching, taking part (mempool.c) ---------------------------------------------------------------- */

/* Fills stride and offset. Returns the bytes a pool needs, or -EINVAL. */
int64_t ivs_mempool_plan(struct ivs_mempool_info *info);

/* Makes a pool with all objects free in `length` bytes at `base` (aligned to 64, zeroed). 0, -EINVAL or -ENOSPC. */
int ivs_mempool_create(void *base, uint64_t length, const struct ivs_mempool_info *info);

/* Bytes of a handle for a pool of that cache size. */
uint64_t ivs_mempool_handle_size(uint32_t cache_size);

/* Checks the pool at `base` and fills `info` from what was checked. Returns 0 or an enum ivs_fault. */
int ivs_mempool_check(const void *base, uint64_t length, struct ivs_mempool_info *info);

/* Fills a handle of ivs_mempool_handle_size(info->cache_size) bytes for a pool that ivs_mempool_check passed with that
 * info. The handle has no slot yet: it works without a cache. */
void ivs_mempool_attach(struct ivs_mempool *p, void *base, const struct ivs_mempool_info *info);

/* Takes the cache of participant slot `slot` (0..63), with what a former holder of it left there. The caller owns the
 * slot in the segment's header. */
void ivs_mempool_join(struct ivs_mempool *p, uint32_t slot);

/* Empties the cache and gives the slot's record up. */
void ivs_mempool_leave(struct ivs_mempool *p);

void ivs_mempool_refuse(struct ivs_mempool *p, int32_t code);

/* Free objects: the bitmap's and all caches', those of the dead too. A snapshot between 0 and n. */
uint32_t ivs_mempool_available(const struct ivs_mempool *p);

/* Who took an object, as ivs_participant.owner; 0 where it is free, or the pool is not one with IVS_MEMPOOL_DEBUG. */
uint64_t ivs_mempool_holder(const struct ivs_mempool *p, uint32_t object);

/* Writes the cookies of a new pool. */
void ivs_mempool_debug_format(struct ivs_mempool *p);

/* What holds each object, for ivs_mempool_audit. */
#define IVS_HELD_BY_NOBODY_SEEN 0u /* in somebody's hand, or lost */
#define IVS_HELD_FREE 1u           /* in the bitmap */
#define IVS_HELD_CACHE 2u          /* in the cache of slot: value - IVS_HELD_CACHE */
#define IVS_HELD_TWICE 0xffffu     /* found in more than one place */

/* Writes to where[0..n-1] what holds each object. Returns how many indices in caches are foreign (not below n). */
uint32_t ivs_mempool_audit(const struct ivs_mempool *p, uint16_t *where);

#endif
