/* SPDX-License-Identifier: BSD-3-Clause */
/* mempool.h: fixed-size objects in shared memory, allocated and freed by index, from any machine (DPDK: rte_mempool).
 *
 * Free objects are bits of a bitmap: get clears bits, put sets them. A second put of the same object is detected, and a
 * killed participant loses at most the objects that it used. Each participant (a thread with a slot in the segment's
 * header) has a cache in front of the bitmap. The valid copy of the cache is in the participant's private handle; the
 * copy in shared memory is a record from which other participants count, and from which the objects that a dead
 * participant had cached are recovered. The owner never reads it back.
 *
 * A process uses a pool through private handles, one per thread, which ivs_mempool_attach fills after validation.
 * Indices are checked against the handle's own n, which a peer cannot change.
 *
 * Operations return the number of objects, or a negative errno:
 *   -EINVAL     an index is not less than n, or more objects are put than are in use; the handle's `fault` says which
 *   -EALREADY   an object is already free
 *   -EOVERFLOW  IVS_MEMPOOL_DEBUG: bytes before or after an object were overwritten
 *   or the errno that was set by ivs_mempool_refuse.
 *
 * Lock-free: no state blocks another participant. A get loads each word of the bitmap at most once.
 */
#ifndef IVS_MEMPOOL_H
#define IVS_MEMPOOL_H

#include <errno.h>

#include "fault.h"
#include "pvt/copy.h"
#include "pvt/mempool_cache.h"

/* Returns how many objects are in use by all counters, from 0 to n. */
uint32_t ivs_mempool_out(const struct ivs_mempool *p);

/* Records why an argument is rejected. */
IVS_COLD int ivs_mempool_reject(struct ivs_mempool *p, enum ivs_fault fault)
{
    p->fault = fault;
    return -EINVAL;
}

/* ---- get (rte_mempool_get_bulk) -------------------------------------------------------------------------------- */

/* IVS_MEMPOOL_DEBUG: update the cookies of objects after a get and before a put. Return 0, or -EALREADY or -EOVERFLOW
 * with p->culprit set. An overwritten cookie is restored, so that an overrun is reported once. (mempool_debug.c) */
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

IVS_COLD int ivs_mempool_get_debug(struct ivs_mempool *p, const uint32_t *objects, uint32_t n)
{
    int fault = ivs_mempool_debug_take(p, objects, n);
    if (fault == 0)
        return (int)n;
    uint32_t culprit = p->culprit;
    (void)ivs_mempool_put_any(p, objects, n);
    p->culprit = culprit;
    return fault;
}

/* Slow path of a get: no slot, cache too small, handle refused, or IVS_MEMPOOL_DEBUG. */
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
    return IVS_UNLIKELY(p->debug != 0) ? ivs_mempool_get_debug(p, objects, n) : (int)n;
}

/* Gets `n` objects and returns n, or gets none and returns 0 or a negative errno. */
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

/* Returns whether all indices are less than n. */
IVS_INLINE bool ivs_mempool_in_range(const struct ivs_mempool *p, const uint32_t *objects, uint32_t n)
{
    uint32_t i = 0, invalid = 0;
    if (n >= 4) {
        const ivs_four end = {p->n, p->n, p->n, p->n};
        ivs_four are_invalid = {0};
        for (; i + 4 <= n; i += 4)
            are_invalid |= (ivs_four)(ivs_four_at(objects + i) >= end);
        if (!ivs_four_zero(are_invalid))
            return false;
    }
    for (uint32_t rest = n & 3; rest != 0; rest--, i++)
        invalid |= objects[i] >= p->n;
    return invalid == 0;
}

/* Puts objects into the bitmap, bypassing the cache. */
IVS_INLINE int ivs_mempool_put_shared(struct ivs_mempool *p, const uint32_t *objects, uint32_t n)
{
    uint32_t first = objects[0];
    int already_free;
    if (IVS_LIKELY(first < p->n && n <= p->n - first && ivs_mempool_counts_up(objects, n, first)))
        already_free = (int)ivs_mempool_free_range(p, first, n);
    else
        already_free = ivs_mempool_in_range(p, objects, n) ? ivs_mempool_free_any(p, objects, n) : -EINVAL;
    if (IVS_UNLIKELY(already_free < 0))
        return ivs_mempool_reject(p, IVS_FAULT_OBJECT);
    ivs_mempool_count_returned(p, n - (uint32_t)already_free);
    return IVS_UNLIKELY(already_free != 0) ? -EALREADY : (int)n;
}

/* Slow path of a put: cache full or absent, recount needed, handle refused, or IVS_MEMPOOL_DEBUG. */
IVS_NOINLINE int ivs_mempool_put_any(struct ivs_mempool *p, const uint32_t *objects, uint32_t n)
{
    int32_t refuse = atomic_load_explicit(&p->refuse, memory_order_relaxed);
    if (IVS_UNLIKELY(refuse != 0 || n == 0))
        return refuse;
    if (IVS_UNLIKELY(p->debug != 0)) {
        int result = ivs_mempool_in_range(p, objects, n) ? ivs_mempool_debug_put(p, objects, n) : -EINVAL;
        if (result != 0)
            return result == -EINVAL ? ivs_mempool_reject(p, IVS_FAULT_OBJECT) : result;
    }
    if (IVS_UNLIKELY(ivs_mempool_credit(p) < n)) {
        ivs_mempool_set_credit(p, ivs_mempool_out(p));
        if (ivs_mempool_credit(p) < n)
            return ivs_mempool_reject(p, IVS_FAULT_NOT_OUT);
    }
    if (n > p->flush_at) /* also true without a cache: flush_at is 0 */
        return ivs_mempool_put_shared(p, objects, n);
    if (n > p->flush_at - p->cached)
        ivs_mempool_flush(p);
    if (IVS_UNLIKELY(!ivs_mempool_append(p, objects, n)))
        return ivs_mempool_reject(p, IVS_FAULT_OBJECT);
    p->cached += n;
    ivs_mempool_record(p);
    ivs_mempool_count_returned(p, n);
    return (int)n;
}

/* Puts `n` objects and returns n. -EINVAL: nothing was put. -EALREADY: the objects that were not free have been put. */
IVS_INLINE int ivs_mempool_put_bulk(struct ivs_mempool *p, const uint32_t *objects, uint32_t n)
{
    if (IVS_UNLIKELY(atomic_load_explicit(&p->ready, memory_order_relaxed) == 0 || n > ivs_mempool_credit(p)))
        return ivs_mempool_put_any(p, objects, n);
    if (IVS_LIKELY(n <= p->flush_at - p->cached)) {
        if (IVS_UNLIKELY(!ivs_mempool_append(p, objects, n)))
            return ivs_mempool_reject(p, IVS_FAULT_OBJECT);
        p->cached += n;
        ivs_mempool_record(p);
        ivs_mempool_count_returned(p, n);
        return (int)n;
    }
    if (p->cache_size == 0)
        return ivs_mempool_put_shared(p, objects, n);
    return ivs_mempool_put_any(p, objects, n);
}

/* ---- create, attach, join (mempool.c) -------------------------------------------------------------------------- */

/* Returns IVS_OK, or the enum ivs_fault for which ivs_mempool_plan and ivs_mempool_create reject `info`. */
int ivs_mempool_info_fault(const struct ivs_mempool_info *info);

/* Sets elt_stride and objects_offset. Returns the bytes of such a pool, or -EINVAL (see ivs_mempool_info_fault). */
int64_t ivs_mempool_plan(struct ivs_mempool_info *info);

/* Creates a pool with all objects free in `length` zeroed bytes at `base`, which is aligned to a cache line. Returns 0,
 * -EINVAL or -ENOSPC. */
int ivs_mempool_create(void *base, uint64_t length, const struct ivs_mempool_info *info);

/* Returns the bytes of a handle for a pool with this cache_size. */
uint64_t ivs_mempool_handle_size(uint32_t cache_size);

/* Validates the pool at `base` and fills `info`. Returns 0 or an enum ivs_fault. */
int ivs_mempool_check(const void *base, uint64_t length, struct ivs_mempool_info *info);

/* Fills a handle of ivs_mempool_handle_size(info->cache_size) bytes. `info` comes from ivs_mempool_check. The handle
 * has no cache until ivs_mempool_join. */
void ivs_mempool_attach(struct ivs_mempool *p, void *base, const struct ivs_mempool_info *info);

/* Adopts the cache of participant slot `slot` (0..63) with the objects recorded by its previous owner. The caller must
 * own the slot in the segment's header. */
void ivs_mempool_join(struct ivs_mempool *p, uint32_t slot);

/* Flushes the cache and detaches the handle from its slot. */
void ivs_mempool_leave(struct ivs_mempool *p);

/* Makes all operations return the negative errno `code`; 0: allows them again. Any thread may call it. */
void ivs_mempool_refuse(struct ivs_mempool *p, int32_t code);

/* Returns how many objects are free: in the bitmap and in all caches, including those of dead participants. A snapshot
 * from 0 to n (rte_mempool_avail_count). */
uint32_t ivs_mempool_available(const struct ivs_mempool *p);

/* IVS_MEMPOOL_DEBUG: returns the owner word of the participant that uses an object, 0 if the object is free. */
uint64_t ivs_mempool_holder(const struct ivs_mempool *p, uint32_t object);

/* IVS_MEMPOOL_DEBUG: writes the cookies of a new pool. */
void ivs_mempool_debug_format(struct ivs_mempool *p);

/* Where ivs_mempool_audit found an object. */
#define IVS_HELD_BY_NOBODY_SEEN 0u /* neither free nor cached: in use, or lost */
#define IVS_HELD_FREE 1u           /* in the bitmap */
#define IVS_HELD_CACHE 2u          /* + slot: in the cache of that slot */
#define IVS_HELD_TWICE 0xffffu     /* in two places */

/* Writes an IVS_HELD_* value per object to where[0..n-1]. Returns how many cached indices are not less than n. */
uint32_t ivs_mempool_audit(const struct ivs_mempool *p, uint16_t *where);

#endif
