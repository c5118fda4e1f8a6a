/* SPDX-License-Identifier: BSD-3-Clause */
/* mempool_handle.h: the private handle through which one thread works a pool. */
#ifndef IVS_MEMPOOL_HANDLE_H
#define IVS_MEMPOOL_HANDLE_H

#include "pvt/compiler.h"
#include "layout.h"

/* `cache` holds 2 * cache_size indices: ivs_mempool_handle_size. */
struct ivs_mempool {
    struct ivs_mempool_shared *shared;
    _Atomic uint64_t *bitmap;
    unsigned char *objects;
    unsigned char *caches;
    struct ivs_mempool_cache *slot; /* this participant's record; NULL: no slot, no cache */
    uint64_t taken;                 /* what slot->taken says */
    uint64_t returned;
    uint64_t lent; /* what others took and this handle may put back without counting again, see ivs_mempool_credit */
    _Atomic uint32_t ready; /* 1: with a slot, not refused, not a pool with IVS_MEMPOOL_DEBUG: nothing more to ask */
    uint32_t cached;
    uint32_t flush_at; /* a put that would fill the cache beyond this empties it first */
    uint32_t n;
    uint32_t words;
    uint32_t hint;       /* word where a free object was seen last */
    uint32_t cache_size; /* 0 as long as the handle has no slot */
    uint32_t elt_size;
    uint32_t elt_stride;
    uint32_t slot_cache_size; /* the pool's cache_size */
    uint32_t cache_stride;
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

#endif
