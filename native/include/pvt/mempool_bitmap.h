/* SPDX-License-Identifier: BSD-3-Clause */
/* mempool_bitmap.h: the bitmap of free objects: bit i % 64 of word i / 64 for object i.
 *
 * Most calls get or put runs of consecutive indices (17, 18, 19, ...): a few instructions per 64 objects.
 */
#ifndef IVS_MEMPOOL_BITMAP_H
#define IVS_MEMPOOL_BITMAP_H

#include <stdbool.h>
#include <string.h>

#include "pvt/mempool_handle.h"

/* Returns a mask of `n` bits (1 to 64), starting at bit `first`. */
IVS_INLINE uint64_t ivs_bits(uint32_t first, uint32_t n)
{
    return (UINT64_MAX >> (64 - n)) << first;
}

/* Frees the objects in `mask`; returns the bits that were already set (double put). */
IVS_INLINE uint64_t ivs_mempool_free_bits(struct ivs_mempool *p, uint32_t word, uint64_t mask)
{
    /* release: pairs with ivs_mempool_take_word() in pvt/mempool_bitmap.h and ivs_mempool_take_run() in
     * pvt/mempool_bitmap.h: our writes to the objects are visible to their next user */
    return atomic_fetch_or_explicit(&p->bitmap[word], mask, memory_order_release) & mask;
}

/* A vector of four indices. */
typedef uint32_t ivs_four __attribute__((vector_size(16)));

IVS_INLINE ivs_four ivs_four_at(const uint32_t *objects)
{
    ivs_four four; /* memcpy: `objects` may be unaligned */
    memcpy(&four, objects, sizeof(four));
    return four;
}

IVS_INLINE bool ivs_four_zero(ivs_four four)
{
    return (four[0] | four[1] | four[2] | four[3]) == 0;
}

/* Writes the run first, first + 1, ... */
IVS_INLINE void ivs_mempool_count_up(uint32_t *objects, uint32_t n, uint32_t first)
{
    uint32_t i = 0;
    if (n >= 4) {
        ivs_four four = {first, first + 1, first + 2, first + 3};
        for (; i + 4 <= n; i += 4, four += 4)
            memcpy(objects + i, &four, sizeof(four));
    }
    for (uint32_t rest = n & 3; rest != 0; rest--, i++)
        objects[i] = first + i;
}

/* Returns whether the `n` indices are the run first, first + 1, ... */
IVS_INLINE bool ivs_mempool_counts_up(const uint32_t *objects, uint32_t n, uint32_t first)
{
    uint32_t i = 0, differ = 0;
    if (n >= 4) {
        ivs_four expected = {first, first + 1, first + 2, first + 3}, differs = {0};
        for (; i + 4 <= n; i += 4, expected += 4)
            differs |= ivs_four_at(objects + i) ^ expected;
        if (!ivs_four_zero(differs))
            return false;
    }
    for (uint32_t rest = n & 3; rest != 0; rest--, i++)
        differ |= objects[i] ^ (first + i);
    return differ == 0;
}

/* Returns the bits of the longest run of indices at the end of `objects` that are in one word and differ; sets *run to
 * their number. */
IVS_INLINE uint64_t ivs_mempool_last_run(const uint32_t *objects, uint32_t n, uint32_t *run)
{
    uint32_t last = objects[n - 1];
    uint32_t most = n <= last % 64 ? n : last % 64 + 1;
    uint64_t mask = UINT64_C(1) << last % 64;
    uint32_t i = n - 1;

    if (IVS_LIKELY(ivs_mempool_counts_up(objects + n - most, most, last + 1 - most))) {
        *run = most;
        return ivs_bits((last + 1 - most) % 64, most);
    }
    for (; i > 0; i--) {
        uint32_t object = objects[i - 1]; /* one load: a peer may change the array */
        uint64_t bit = UINT64_C(1) << object % 64;
        if (object / 64 != last / 64 || (mask & bit) != 0)
            break;
        mask |= bit;
    }
    *run = n - i;
    return mask;
}

/* Frees the objects first, first + 1, ... Returns how many were already free. */
IVS_INLINE uint32_t ivs_mempool_free_range(struct ivs_mempool *p, uint32_t first, uint32_t n)
{
    uint32_t twice = 0;
    while (n > 0) {
        uint32_t some = n < 64 - first % 64 ? n : 64 - first % 64;
        uint64_t was = ivs_mempool_free_bits(p, first / 64, ivs_bits(first % 64, some));
        if (IVS_UNLIKELY(was != 0))
            twice += (uint32_t)__builtin_popcountll(was);
        p->hint = first / 64;
        first += some;
        n -= some;
    }
    return twice;
}

/* Frees objects whose indices have been validated. Validates each word again, because a peer may change the array.
 * Returns how many were already free, or -EINVAL. */
static inline int ivs_mempool_free_any(struct ivs_mempool *p, const uint32_t *objects, uint32_t n)
{
    uint32_t twice = 0;
    while (n > 0) {
        uint32_t run, word = objects[n - 1] / 64;
        uint64_t mask = ivs_mempool_last_run(objects, n, &run);
        if (IVS_UNLIKELY(word >= p->words))
            return -EINVAL;
        uint64_t was = ivs_mempool_free_bits(p, word, mask);
        if (IVS_UNLIKELY(was != 0))
            twice += (uint32_t)__builtin_popcountll(was);
        p->hint = word;
        n -= run;
    }
    return (int)twice;
}

/* Moves up to `n` of the lowest bits in *bits to `objects`, as indices. Returns their number. */
IVS_INLINE uint32_t ivs_mempool_pick(uint64_t *bits, uint32_t word, uint32_t *objects, uint32_t n)
{
    uint32_t got = 0;
    do {
        uint32_t first = (uint32_t)__builtin_ctzll(*bits);
        uint64_t gaps = ~(*bits >> first);
        uint32_t run = gaps == 0 ? 64 : (uint32_t)__builtin_ctzll(gaps);
        if (run > n - got)
            run = n - got;
        ivs_mempool_count_up(objects + got, run, word * 64 + first);
        *bits &= ~ivs_bits(first, run);
        got += run;
    } while (*bits != 0 && got < n);
    return got;
}

/* Takes `n` objects if the first free objects of the hinted word are a run of at least n. */
IVS_INLINE bool ivs_mempool_take_run(struct ivs_mempool *p, uint32_t *objects, uint32_t n)
{
    uint64_t free = atomic_load_explicit(&p->bitmap[p->hint], memory_order_relaxed);
    if (IVS_UNLIKELY(free == 0 || n - 1 >= 64))
        return false;
    uint32_t first = (uint32_t)__builtin_ctzll(free);
    uint64_t wanted = ivs_bits(first, n);
    uint32_t object = p->hint * 64 + first;
    if (IVS_UNLIKELY((free & wanted) >> first != ivs_bits(0, n) || object + n > p->n))
        return false;
    /* acquire: pairs with ivs_mempool_free_bits() in pvt/mempool_bitmap.h */
    if (IVS_UNLIKELY(!atomic_compare_exchange_strong_explicit(&p->bitmap[p->hint], &free, free & ~wanted,
                                                              memory_order_acquire, memory_order_relaxed)))
        return false;
    ivs_mempool_count_up(objects, n, object);
    return true;
}

/* Takes up to `n` objects (n >= 1) from one word. */
IVS_INLINE uint32_t ivs_mempool_take_word(struct ivs_mempool *p, uint32_t word, uint32_t *objects, uint32_t n)
{
    uint64_t free = atomic_load_explicit(&p->bitmap[word], memory_order_relaxed);
    while (free != 0) {
        uint64_t rest = free;
        uint32_t got = ivs_mempool_pick(&rest, word, objects, n);
        /* acquire: pairs with ivs_mempool_free_bits() in pvt/mempool_bitmap.h */
        if (IVS_LIKELY(atomic_compare_exchange_weak_explicit(&p->bitmap[word], &free, rest, memory_order_acquire,
                                                             memory_order_relaxed)))
            return got;
    }
    return 0;
}

/* Takes up to `n` objects (n >= 1); fewer only if one pass over all words found no more. Drops bits beyond the pool's
 * n, which a peer may have set in the last word. */
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

#endif
