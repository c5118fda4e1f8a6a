/* SPDX-License-Identifier: BSD-3-Clause */
/* mempool_record.h: the records that participants keep in shared memory: get and put counters, and cached indices. */
#ifndef IVS_MEMPOOL_RECORD_H
#define IVS_MEMPOOL_RECORD_H

#include <stdbool.h>

#include "pvt/mempool_handle.h"

/* ---- get and put counters ------------------------------------------------------------------------------------ */

/* `taken` is incremented before objects are taken, `returned` after they have been put. If a participant is killed in
 * between, the difference is too large, never too small, so that no valid put is rejected. */
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
    /* release: pairs with ivs_mempool_out() in mempool.c: the get of each object is visible before its put */
    if (IVS_LIKELY(p->slot != NULL))
        atomic_store_explicit(&p->slot->returned, p->returned, memory_order_release);
    else
        atomic_fetch_add_explicit(&p->shared->returned, n, memory_order_release);
}

/* Returns how many objects this handle may put without a recount: these are known to be in use. */
IVS_INLINE uint64_t ivs_mempool_credit(const struct ivs_mempool *p)
{
    return p->taken - p->returned + p->lent;
}

IVS_INLINE void ivs_mempool_set_credit(struct ivs_mempool *p, uint64_t credit)
{
    p->lent = credit - (p->taken - p->returned);
}

/* ---- cached indices -------------------------------------------------------------------------------------------- */

/* Returns the capacity of a cache: DPDK's flush threshold, 1.5 * cache_size. */
static inline uint32_t ivs_mempool_flush_threshold(uint32_t cache_size)
{
    return cache_size + cache_size / 2;
}

/* Records the number of cached indices. */
IVS_INLINE void ivs_mempool_record(struct ivs_mempool *p)
{
    /* release: pairs with ivs_mempool_record_len() in pvt/mempool_record.h */
    atomic_store_explicit(&p->slot->len, p->cached, memory_order_release);
}

static inline struct ivs_mempool_cache *ivs_mempool_record_of(const struct ivs_mempool *p, uint32_t slot)
{
    return (struct ivs_mempool_cache *)(void *)(p->caches + (size_t)slot * p->cache_stride);
}

/* Returns the number of recorded indices, at most the capacity of a cache: a peer may write any number. */
static inline uint32_t ivs_mempool_record_len(const struct ivs_mempool *p, const struct ivs_mempool_cache *record)
{
    /* acquire: pairs with ivs_mempool_record() in pvt/mempool_record.h */
    uint32_t len = atomic_load_explicit(&record->len, memory_order_acquire);
    uint32_t capacity = ivs_mempool_flush_threshold(p->slot_cache_size);
    return len < capacity ? len : capacity;
}

/* Returns how many slots to read when counting: all that were ever joined. */
static inline uint32_t ivs_mempool_slots_in_use(const struct ivs_mempool *p)
{
    /* acquire: pairs with ivs_mempool_join() in mempool.c */
    uint32_t slots = atomic_load_explicit(&p->shared->slots, memory_order_acquire);
    return slots < IVS_PARTICIPANTS ? slots : IVS_PARTICIPANTS;
}

/* ---- where an object is ------------------------------------------------------------------------------------------ */

static inline bool ivs_mempool_is_free(const struct ivs_mempool *p, uint32_t object)
{
    return atomic_load_explicit(&p->bitmap[object / 64], memory_order_relaxed) >> (object % 64) & 1;
}

/* Returns whether an object is neither free nor cached: a participant uses it, or died while using it. A snapshot. */
static inline bool ivs_mempool_is_out(const struct ivs_mempool *p, uint32_t object)
{
    if (ivs_mempool_is_free(p, object))
        return false;
    uint32_t slots = ivs_mempool_slots_in_use(p);
    for (uint32_t slot = 0; slot < slots; slot++) {
        const struct ivs_mempool_cache *record = ivs_mempool_record_of(p, slot);
        uint32_t len = ivs_mempool_record_len(p, record);
        for (uint32_t i = 0; i < len; i++)
            if (record->objects[i] == object)
                return false;
    }
    return true;
}

#endif
