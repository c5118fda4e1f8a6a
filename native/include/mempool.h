/* SPDX-License-Identifier: BSD-3-Clause */
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

#include <errno.h>
#include <string.h>

#include "pvt/copy.h"
#include "pvt/mempool_bitmap.h"

/* ---- counting ------------------------------------------------------------------------------------------------ */

/* `taken` is raised before objects are taken and `returned` after they are back: a participant that is killed between
 * makes the difference too large, never too small, so that no rightful put is refused. */
IVS_INLINE void ivs_mempool_count_taken(struct ivs_mempool *p, uint32_t n)
{
    p->taken += n;
    if (IVS_LIKELY(p->slot != NULL))
        atomic_store_explicit(&p->slot->taken, p->taken, memory_order_relaxed);
    else
        atomic_fetch_add_explicit(&p->shared->taken, n, memory_order_relaxed);
}

IVS_INLINE void ivs_mempool_count_untaken(struct ivs_mempool *p, uint32_t n)
{
    p->taken -= n;
    if (IVS_LIKELY(p->slot != NULL))
        atomic_store_explicit(&p->slot->taken, p->taken, memory_order_relaxed);
    else
        atomic_fetch_sub_explicit(&p->shared->taken, n, memory_order_relaxed);
}

IVS_INLINE void ivs_mempool_count_returned(struct ivs_mempool *p, uint32_t n)
{
    p->returned += n;
    if (IVS_LIKELY(p->slot != NULL))
        atomic_store_explicit(&p->slot->returned, p->returned, memory_order_relaxed);
    else
        atomic_fetch_add_explicit(&p->shared->returned, n, memory_order_relaxed);
}

/* Objects known to be out, so that this handle may put them back without counting again. */
IVS_INLINE uint64_t ivs_mempool_credit(const struct ivs_mempool *p)
{
    return p->taken - p->returned + p->lent;
}

IVS_INLINE void ivs_mempool_set_credit(struct ivs_mempool *p, uint64_t credit)
{
    p->lent = credit - (p->taken - p->returned);
}

/* Objects that are out by everybody's counts, clamped to 0..n. */
uint32_t ivs_mempool_out(const struct ivs_mempool *p);

/* ---- the cache ------------------------------------------------------------------------------------------------ */

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
            (void)ivs_mempool_free_any(p, p->cache + had, got);
            return 0;
        }
        memcpy(objects, p->cache + had + got - n, (size_t)n * 4);
        p->cached = had + got - n;
        memcpy(p->slot->objects, p->cache, (size_t)p->cached * 4);
    } else {
        uint32_t got = ivs_mempool_take_shared(p, objects + had, missing);
        if (got < missing) {
            (void)ivs_mempool_free_any(p, objects + had, got);
            return 0;
        }
        if (had != 0)
            memcpy(objects, p->cache, (size_t)had * 4);
        p->cached = 0;
    }
    if (p->slot != NULL)
        ivs_mempool_record(p);
    return (int)n;
}

/* Copies `n` indices behind the cached ones, and to the record, four at a time; each is read once, for it may lie where
 * a peer writes. They count only once p->cached does. False if one of them is no object's. */
IVS_INLINE bool ivs_mempool_append(struct ivs_mempool *p, const uint32_t *objects, uint32_t n)
{
    uint32_t *cache = p->cache + p->cached, *record = p->slot->objects + p->cached;
    uint32_t i = 0, beyond = 0;

    if (n >= 4) {
        const ivs_four end = {p->n, p->n, p->n, p->n};
        ivs_four are_beyond = {0};
        for (; i + 4 <= n; i += 4) {
            ivs_four four = ivs_four_at(objects + i);
            are_beyond |= (ivs_four)(four >= end);
            memcpy(cache + i, &four, sizeof(four));
            memcpy(record + i, &four, sizeof(four));
        }
        if (IVS_UNLIKELY(!ivs_four_zero(are_beyond)))
            return false;
    }
    for (uint32_t rest = n & 3; rest != 0; rest--, i++) {
        uint32_t one = objects[i];
        beyond |= one >= p->n;
        cache[i] = record[i] = one;
    }
    return beyond == 0;
}

/* ---- get (rte_mempool_get_bulk) -------------------------------------------------------------------------------- */

/* With IVS_MEMPOOL_DEBUG: marks objects that were just taken, or are about to be put back. Returns 0, or -EALREADY or
 * -EOVERFLOW with p->culprit set: an overwritten cookie is mended, so that each overrun is told once. (mempool_debug.c) */
int ivs_mempool_debug_take(struct ivs_mempool *p, const uint32_t *objects, uint32_t n);
int ivs_mempool_debug_put(struct ivs_mempool *p, const uint32_t *objects, uint32_t n);

IVS_INLINE int ivs_mempool_get_cached(struct ivs_mempool *p, uint32_t *objects, uint32_t n)
{
    ivs_mempool_count_taken(p, n);
    p->cached -= n;
    ivs_copy(objects, p->cache + p->cached, (size_t)n * 4);
    if (p->slot != NULL)
        ivs_mempool_record(p);
    return (int)n;
}

IVS_NOINLINE int ivs_mempool_put_any(struct ivs_mempool *p, const uint32_t *objects, uint32_t n);

IVS_COLD int ivs_mempool_get_marked(struct ivs_mempool *p, const uint32_t *objects, uint32_t n)
{
    int fault = ivs_mempool_debug_take(p, objects, n);
    if (fault == 0)
        return (int)n;
    uint32_t culprit = p->culprit;
    (void)ivs_mempool_put_any(p, objects, n);
    p->culprit = culprit;
    return fault;
}

/* Any get: also those that the cache cannot serve, or that are refused, or marked. */
IVS_NOINLINE int ivs_mempool_get_any(struct ivs_mempool *p, uint32_t *objects, uint32_t n)
{
    int32_t refuse = atomic_load_explicit(&p->refuse, memory_order_relaxed);
    if (IVS_UNLIKELY(refuse != 0))
        return refuse;
    if (IVS_UNLIKELY(n > p->n))
        return 0;
    if (n <= p->cached) {
        (void)ivs_mempool_get_cached(p, objects, n);
    } else {
        ivs_mempool_count_taken(p, n);
        if (IVS_UNLIKELY(ivs_mempool_get_refill(p, objects, n) == 0)) {
            ivs_mempool_count_untaken(p, n);
            return 0;
        }
    }
    return IVS_UNLIKELY(p->debug != 0) ? ivs_mempool_get_marked(p, objects, n) : (int)n;
}

/* Takes `n` objects, or none and returns 0, or an error that IVS_MEMPOOL_DEBUG found. */
IVS_INLINE int ivs_mempool_get_bulk(struct ivs_mempool *p, uint32_t *objects, uint32_t n)
{
    if (IVS_UNLIKELY(atomic_load_explicit(&p->ready, memory_order_relaxed) == 0))
        return ivs_mempool_get_any(p, objects, n);
    if (IVS_LIKELY(n <= p->cached))
        return ivs_mempool_get_cached(p, objects, n);
    if (p->cache_size == 0) {
        ivs_mempool_count_taken(p, n);
        if (IVS_LIKELY(ivs_mempool_take_run(p, objects, n)))
            return (int)n;
        ivs_mempool_count_untaken(p, n);
    }
    return ivs_mempool_get_any(p, objects, n);
}

/* ---- put (rte_mempool_put_bulk) -------------------------------------------------------------------------------- */

/* Whether all are objects of this pool. */
IVS_INLINE bool ivs_mempool_known(const struct ivs_mempool *p, const uint32_t *objects, uint32_t n)
{
    uint32_t i = 0, beyond = 0;
    if (n >= 4) {
        const ivs_four end = {p->n, p->n, p->n, p->n};
        ivs_four are_beyond = {0};
        for (; i + 4 <= n; i += 4)
            are_beyond |= (ivs_four)(ivs_four_at(objects + i) >= end);
        if (!ivs_four_zero(are_beyond))
            return false;
    }
    for (uint32_t rest = n & 3; rest != 0; rest--, i++)
        beyond |= objects[i] >= p->n;
    return beyond == 0;
}

/* Puts objects past the cache. */
IVS_INLINE int ivs_mempool_put_shared(struct ivs_mempool *p, const uint32_t *objects, uint32_t n)
{
    uint32_t first = objects[0];
    int twice;
    if (IVS_LIKELY(first < p->n && n <= p->n - first && ivs_mempool_counts_up(objects, n, first)))
        twice = (int)ivs_mempool_free_range(p, first, n);
    else
        twice = ivs_mempool_known(p, objects, n) ? ivs_mempool_free_any(p, objects, n) : -EINVAL;
    if (IVS_UNLIKELY(twice < 0))
        return twice;
    ivs_mempool_count_returned(p, n - (uint32_t)twice);
    return IVS_UNLIKELY(twice != 0) ? -EALREADY : (int)n;
}

/* Any put: also those that are refused or marked, that fill the cache, or that go past it. */
IVS_NOINLINE int ivs_mempool_put_any(struct ivs_mempool *p, const uint32_t *objects, uint32_t n)
{
    int32_t refuse = atomic_load_explicit(&p->refuse, memory_order_relaxed);
    if (IVS_UNLIKELY(refuse != 0 || n == 0))
        return refuse;
    if (IVS_UNLIKELY(p->debug != 0)) {
        int fault = ivs_mempool_known(p, objects, n) ? ivs_mempool_debug_put(p, objects, n) : -EINVAL;
        if (fault != 0)
            return fault;
    }
    if (IVS_UNLIKELY(ivs_mempool_credit(p) < n)) {
        ivs_mempool_set_credit(p, ivs_mempool_out(p));
        if (ivs_mempool_credit(p) < n)
            return -EINVAL;
    }
    if (n > p->flush_at) /* also where there is no cache */
        return ivs_mempool_put_shared(p, objects, n);
    if (n > p->flush_at - p->cached)
        ivs_mempool_flush(p);
    if (IVS_UNLIKELY(!ivs_mempool_append(p, objects, n)))
        return -EINVAL;
    p->cached += n;
    ivs_mempool_record(p);
    ivs_mempool_count_returned(p, n);
    return (int)n;
}

/* Puts `n` objects back. Nothing is put back if an index is out of range or more are put than are out; of objects that
 * are free already (-EALREADY) the others of the same call have been put back. */
IVS_INLINE int ivs_mempool_put_bulk(struct ivs_mempool *p, const uint32_t *objects, uint32_t n)
{
    if (IVS_UNLIKELY(atomic_load_explicit(&p->ready, memory_order_relaxed) == 0 || n > ivs_mempool_credit(p)))
        return ivs_mempool_put_any(p, objects, n);
    if (IVS_LIKELY(n <= p->flush_at - p->cached)) {
        if (IVS_UNLIKELY(!ivs_mempool_append(p, objects, n)))
            return -EINVAL;
        p->cached += n;
        ivs_mempool_record(p);
        ivs_mempool_count_returned(p, n);
        return (int)n;
    }
    if (p->cache_size == 0)
        return ivs_mempool_put_shared(p, objects, n);
    return ivs_mempool_put_any(p, objects, n);
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

/* Whether an object is neither free nor in a cache: somebody has it in hand, or had when he died. A snapshot. */
bool ivs_mempool_is_out(const struct ivs_mempool *p, uint32_t object);

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
