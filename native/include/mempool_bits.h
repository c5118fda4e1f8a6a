/* mempool_bits.h: the free objects that all share: a bitmap, bit i of word i / 64 for object i.
 *
 * Objects are mostly taken and put back in runs (17, 18, 19, ...), which are a few instructions for a whole word.
 */
#ifndef IVS_MEMPOOL_BITS_H
#define IVS_MEMPOOL_BITS_H

#include <stdbool.h>

#include "mempool_handle.h"

/* `n` bits, 1 to 64, from bit `first` on. */
IVS_INLINE uint64_t ivs_bits(uint32_t first, uint32_t n)
{
    return (UINT64_MAX >> (64 - n)) << first;
}

/* Sets the bits of `mask` in a word; returns those that were set already. */
IVS_INLINE uint64_t ivs_mempool_free_bits(struct ivs_mempool *p, uint32_t word, uint64_t mask)
{
    /* release: pairs with the acquire in ivs_mempool_take_word, so that the next holder sees what we wrote */
    return atomic_fetch_or_explicit(&p->bitmap[word], mask, memory_order_release) & mask;
}

/* Whether the `n` indices are first, first + 1, and so on. */
IVS_INLINE bool ivs_mempool_consecutive(const uint32_t *objects, uint32_t n, uint32_t first)
{
    uint32_t differ = 0;
    for (uint32_t i = 0; i < n; i++)
        differ |= objects[i] ^ (first + i);
    return differ == 0;
}

/* Bits of one word that `n` indices from the end of `objects` share; sets *run to how many they are. Bits that would
 * stand twice end the run. */
IVS_INLINE uint64_t ivs_mempool_last_run(const uint32_t *objects, uint32_t n, uint32_t *run)
{
    uint32_t last = objects[n - 1];
    uint32_t most = n <= last % 64 ? n : last % 64 + 1;
    uint64_t mask = 0;
    uint32_t i = n;

    if (IVS_LIKELY(ivs_mempool_consecutive(objects + n - most, most, last + 1 - most))) {
        *run = most;
        return ivs_bits((last + 1 - most) % 64, most);
    }
    while (i > 0 && objects[i - 1] / 64 == last / 64) {
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

/* Writes to `objects` the lowest `n` bits that *bits has, fewer if it has fewer, and removes them from it. */
IVS_INLINE uint32_t ivs_mempool_pick(uint64_t *bits, uint32_t word, uint32_t *objects, uint32_t n)
{
    uint32_t got = 0;
    do {
        uint32_t first = (uint32_t)__builtin_ctzll(*bits);
        uint64_t gaps = ~(*bits >> first);
        uint32_t run = gaps == 0 ? 64 : (uint32_t)__builtin_ctzll(gaps);
        if (run > n - got)
            run = n - got;
        for (uint32_t i = 0; i < run; i++)
            objects[got + i] = word * 64 + first + i;
        *bits &= ~ivs_bits(first, run);
        got += run;
    } while (*bits != 0 && got < n);
    return got;
}

/* Takes up to `n` objects, at least 1, out of one word. */
IVS_INLINE uint32_t ivs_mempool_take_word(struct ivs_mempool *p, uint32_t word, uint32_t *objects, uint32_t n)
{
    uint64_t free = atomic_load_explicit(&p->bitmap[word], memory_order_relaxed);
    while (free != 0) {
        uint64_t rest = free;
        uint32_t got = ivs_mempool_pick(&rest, word, objects, n);
        /* acquire: pairs with the release in ivs_mempool_free_bits */
        if (IVS_LIKELY(atomic_compare_exchange_weak_explicit(&p->bitmap[word], &free, rest, memory_order_acquire,
                                                             memory_order_relaxed)))
            return got;
    }
    return 0;
}

/* Takes up to `n` objects, at least 1; fewer only if a look at every word found no more. A peer may have set bits beyond
 * the pool's n in the last word: those are dropped for good. */
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
