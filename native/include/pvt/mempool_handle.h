/* SPDX-License-Identifier: BSD-3-Clause */
/* mempool_handle.h: the private handle through which one thread uses a mempool. */
#ifndef IVS_MEMPOOL_HANDLE_H
#define IVS_MEMPOOL_HANDLE_H

#include "layout.h"
#include "pvt/compiler.h"

/* `cache` has room for 2 * cache_size indices, see ivs_mempool_handle_size. */
struct ivs_mempool {
    struct ivs_mempool_shared *shared;
    _Atomic uint64_t *bitmap;
    unsigned char *objects;
    unsigned char *caches;
    struct ivs_mempool_cache *slot; /* this participant's record; NULL: no slot, and therefore no cache */
    uint64_t taken;                 /* equals slot->taken */
    uint64_t returned;              /* equals slot->returned */
    uint64_t lent;          /* objects that others got and this handle may put without a recount: ivs_mempool_credit */
    _Atomic uint32_t ready; /* 1: fast paths allowed (slot joined, `refuse` is 0, no IVS_MEMPOOL_DEBUG) */
    uint32_t cached;        /* valid indices in `cache` */
    uint32_t flush_at;      /* a put that would exceed this number of cached indices flushes the cache first */
    uint32_t n;
    uint32_t words;
    uint32_t hint;       /* bitmap word in which a free object was last seen */
    uint32_t cache_size; /* 0 while the handle has no slot */
    uint32_t elt_size;
    uint32_t elt_stride;
    uint32_t slot_cache_size; /* the pool's cache_size */
    uint32_t cache_stride;
    _Atomic int32_t refuse; /* not 0: the negative errno that each operation returns */
    uint32_t private_size;  /* pool of mbufs, else 0 */
    uint32_t debug;         /* 1: IVS_MEMPOOL_DEBUG */
    uint32_t culprit;       /* IVS_MEMPOOL_DEBUG: the object that caused the last error */
    uint32_t fault;         /* enum ivs_fault of the last -EINVAL of a put or free */
    uint64_t owner;         /* IVS_MEMPOOL_DEBUG: owner word recorded in cookies, as in ivs_participant.owner */
    uint32_t cache[];
};

/* The parameters of a mempool: input of ivs_mempool_create, output of ivs_mempool_check. */
struct ivs_mempool_info {
    char name[IVS_NAME_SIZE];
    uint32_t n;
    uint32_t elt_size; /* bytes */
    uint32_t elt_stride;
    uint32_t cache_size;
    uint32_t flags;
    uint64_t objects_offset;
    uint32_t private_size; /* with IVS_MEMPOOL_MBUF: a multiple of 8; otherwise ignored */
};

#define IVS_MEMPOOL_NO_CACHE_ALIGN 0x2u /* RTE_MEMPOOL_F_NO_CACHE_ALIGN: no padding of objects to cache lines */
#define IVS_MEMPOOL_MBUF 0x10000u       /* not in DPDK: each object is an mbuf (mbuf.h) */
#define IVS_MEMPOOL_DEBUG 0x20000u      /* not in DPDK: a cookie before and after each object, and its owner */
#define IVS_MEMPOOL_FLAGS (IVS_MEMPOOL_NO_CACHE_ALIGN | IVS_MEMPOOL_MBUF | IVS_MEMPOOL_DEBUG)
#define IVS_MEMPOOL_CACHE_MAX 512u

#endif
