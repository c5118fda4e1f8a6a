/* SPDX-License-Identifier: BSD-3-Clause */
/* mempool_cache.h: the cache of a handle: flush to the bitmap, refill from the bitmap, append freed objects. */
#ifndef IVS_MEMPOOL_CACHE_H
#define IVS_MEMPOOL_CACHE_H

#include <string.h>

#include "pvt/mempool_bitmap.h"
#include "pvt/mempool_record.h"

/* Flushes the cache to the bitmap, one word at a time. Objects are removed from the record first: if the process is
 * killed in between they are lost, but never listed twice. */
static inline void ivs_mempool_flush(struct ivs_mempool *p)
{
    while (p->cached > 0) {
        uint32_t run;
        uint32_t word = p->cache[p->cached - 1] / 64;
        uint64_t mask = ivs_mempool_last_run(p->cache, p->cached, &run);
        p->cached -= run;
        ivs_mempool_record(p);
        uint64_t already_free = ivs_mempool_free_bits(p, word, mask);
        if (IVS_UNLIKELY(already_free != 0)) {
            /* an undetected double put into the cache: count it once */
            p->returned -= (uint32_t)__builtin_popcountll(already_free);
            atomic_store_explicit(&p->slot->returned, p->returned, memory_order_relaxed);
        }
        p->hint = word;
    }
}

/* Gets `n` objects when fewer are cached, and refills the cache to cache_size afterwards if enough objects are free. */
static inline int ivs_mempool_get_refill(struct ivs_mempool *p, uint32_t *objects, uint32_t n)
{
    uint32_t cached = p->cached;
    uint32_t missing = n - cached;
    uint32_t refill = n <= p->cache_size ? p->cache_size : 0;

    if (refill != 0) { /* cached < n <= cache_size: cached + missing + refill fits 2 * cache_size */
        uint32_t got = ivs_mempool_take_shared(p, p->cache + cached, missing + refill);
        if (got < missing) {
            (void)ivs_mempool_free_any(p, p->cache + cached, got);
            return 0;
        }
        memcpy(objects, p->cache + cached + got - n, (size_t)n * 4);
        p->cached = cached + got - n;
        memcpy(p->slot->objects, p->cache, (size_t)p->cached * 4);
    } else {
        uint32_t got = ivs_mempool_take_shared(p, objects + cached, missing);
        if (got < missing) {
            (void)ivs_mempool_free_any(p, objects + cached, got);
            return 0;
        }
        if (cached != 0)
            memcpy(objects, p->cache, (size_t)cached * 4);
        p->cached = 0;
    }
    if (p->slot != NULL)
        ivs_mempool_record(p);
    return (int)n;
}

/* Appends `n` indices to the cache and to the record, four at a time; the caller increments p->cached afterwards. Loads
 * each index once, because a peer may change the array. Returns false if an index is not less than n. */
IVS_INLINE bool ivs_mempool_append(struct ivs_mempool *p, const uint32_t *objects, uint32_t n)
{
    uint32_t *cache = p->cache + p->cached, *record = p->slot->objects + p->cached;
    uint32_t i = 0, invalid = 0;

    if (n >= 4) {
        const ivs_four end = {p->n, p->n, p->n, p->n};
        ivs_four are_invalid = {0};
        for (; i + 4 <= n; i += 4) {
            ivs_four four = ivs_four_at(objects + i);
            are_invalid |= (ivs_four)(four >= end);
            memcpy(cache + i, &four, sizeof(four));
            memcpy(record + i, &four, sizeof(four));
        }
        if (IVS_UNLIKELY(!ivs_four_zero(are_invalid)))
            return false;
    }
    for (uint32_t rest = n & 3; rest != 0; rest--, i++) {
        uint32_t object = objects[i];
        invalid |= object >= p->n;
        cache[i] = record[i] = object;
    }
    return invalid == 0;
}

#endif
