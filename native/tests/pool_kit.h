/* SPDX-License-Identifier: BSD-3-Clause */
/* pool_kit.h: create mempools and attach handles to them. */
#ifndef POOL_KIT_H
#define POOL_KIT_H

#include "check.h"
#include "fault.h"
#include "mempool.h"

struct pool_kit {
    struct ivs_mempool_shared *memory;
    uint64_t bytes;
    struct ivs_mempool_info info;
};

static inline int64_t pool_plan(struct pool_kit *k, uint32_t n, uint32_t elt_size, uint32_t cache_size, uint32_t flags)
{
    memset(k, 0, sizeof(*k));
    strcpy(k->info.name, "test");
    k->info.n = n;
    k->info.elt_size = elt_size;
    k->info.cache_size = cache_size;
    k->info.flags = flags;
    int64_t bytes = ivs_mempool_plan(&k->info);
    k->bytes = bytes < 0 ? 0 : (uint64_t)bytes;
    return bytes;
}

static inline void pool_make(struct pool_kit *k, uint32_t n, uint32_t elt_size, uint32_t cache_size)
{
    REQUIRE(pool_plan(k, n, elt_size, cache_size, 0) > 0);
    k->memory = check_memory(k->bytes);
    REQUIRE(ivs_mempool_create(k->memory, k->bytes, &k->info) == 0);
}

static inline void pool_free(struct pool_kit *k)
{
    free(k->memory);
    k->memory = NULL;
}

/* Returns a handle in memory of its exact size (for sanitizers); without a slot if `slot` is negative. */
static inline struct ivs_mempool *pool_attach(struct pool_kit *k, int slot)
{
    struct ivs_mempool_info info;
    REQUIRE(ivs_mempool_check(k->memory, k->bytes, &info) == IVS_OK);
    struct ivs_mempool *p = malloc(ivs_mempool_handle_size(info.cache_size));
    REQUIRE(p != NULL);
    ivs_mempool_attach(p, k->memory, &info);
    if (slot >= 0)
        ivs_mempool_join(p, (uint32_t)slot);
    return p;
}

static inline struct ivs_mempool_cache *pool_record(struct pool_kit *k, uint32_t slot)
{
    unsigned char *caches = (unsigned char *)k->memory + k->memory->caches_offset;
    return (struct ivs_mempool_cache *)(void *)(caches + (size_t)slot * k->memory->cache_stride);
}

/* Returns the number of free objects in the bitmap, not in caches. */
static inline uint32_t pool_free_bits(struct pool_kit *k)
{
    const uint64_t *words = (const uint64_t *)(const void *)((char *)k->memory + k->memory->bitmap_offset);
    uint32_t count = 0;
    for (uint32_t i = 0; i < (k->info.n + 63) / 64; i++)
        count += (uint32_t)__builtin_popcountll(words[i]);
    return count;
}

#endif
