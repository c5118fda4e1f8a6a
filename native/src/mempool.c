/* SPDX-License-Identifier: BSD-3-Clause */
/* mempool.c: create, attach, join, leave, count and audit; get and put are inline in mempool.h. */
#include "mempool.h"

#include "pvt/identity.h"
#include "pvt/name.h"
#include "pvt/sizes.h"

#define N_MAX 0x7fffffffu
#define ELT_SIZE_MAX 0x40000000u

/* An mbuf is aligned to a cache line, and its fields for the sizes of private area and buffer have 16 bits. */
static int mbuf_info_fault(const struct ivs_mempool_info *info)
{
    uint64_t before = sizeof(struct ivs_mbuf) + (uint64_t)info->private_size;
    if (info->flags & IVS_MEMPOOL_NO_CACHE_ALIGN)
        return IVS_FAULT_MBUF_FLAGS;
    if (info->private_size % 8 != 0 || info->private_size > UINT16_MAX)
        return IVS_FAULT_MBUF_PRIVATE_SIZE;
    return info->elt_size < before || info->elt_size - before > UINT16_MAX ? IVS_FAULT_MBUF_DATA_ROOM : IVS_OK;
}

int ivs_mempool_info_fault(const struct ivs_mempool_info *info)
{
    if (info->n == 0 || info->n > N_MAX)
        return IVS_FAULT_POOL_N;
    if (info->elt_size == 0 || info->elt_size > ELT_SIZE_MAX)
        return IVS_FAULT_POOL_ELT_SIZE;
    if (info->cache_size > IVS_MEMPOOL_CACHE_MAX || ivs_mempool_flush_threshold(info->cache_size) > info->n)
        return IVS_FAULT_POOL_CACHE_SIZE;
    if ((info->flags & ~IVS_MEMPOOL_FLAGS) != 0)
        return IVS_FAULT_POOL_FLAGS;
    return info->flags & IVS_MEMPOOL_MBUF ? mbuf_info_fault(info) : IVS_OK;
}

/* Fills all other fields from n, elt_size, cache_size and flags, which are valid. Returns the bytes of the pool. */
static int64_t lay_out(struct ivs_mempool_shared *p)
{
    uint64_t before = 0;
    uint64_t stride = p->flags & IVS_MEMPOOL_NO_CACHE_ALIGN ? p->elt_size : ivs_align_up(p->elt_size, IVS_CACHE_LINE);
    if (p->flags & IVS_MEMPOOL_DEBUG) {
        before = sizeof(struct ivs_mempool_cookie);
        stride = before + ivs_align_up((uint64_t)p->elt_size + sizeof(uint64_t), IVS_CACHE_LINE);
    }
    uint64_t cache = sizeof(struct ivs_mempool_cache) + 4 * (uint64_t)ivs_mempool_flush_threshold(p->cache_size);
    p->elt_stride = (uint32_t)stride;
    p->cache_stride = (uint32_t)ivs_align_up(cache, IVS_CACHE_LINE);
    p->bitmap_offset = sizeof(*p);
    p->caches_offset = p->bitmap_offset + ivs_align_up(((uint64_t)p->n + 63) / 64 * 8, IVS_CACHE_LINE);
    p->objects_offset = p->caches_offset + (uint64_t)IVS_PARTICIPANTS * p->cache_stride + before;
    return (int64_t)(p->objects_offset + stride * p->n);
}

/* Fills a header from `info`. Returns the bytes of the pool, or -EINVAL. */
static int64_t plan_header(struct ivs_mempool_shared *p, const struct ivs_mempool_info *info)
{
    memset(p, 0, sizeof(*p));
    p->version = IVS_MEMPOOL_VERSION;
    p->n = info->n;
    p->elt_size = info->elt_size;
    p->cache_size = info->cache_size;
    p->flags = info->flags;
    memcpy(p->name, info->name, sizeof(p->name));
    if (info->flags & IVS_MEMPOOL_MBUF) {
        p->private_size = info->private_size;
        p->mbuf_version = IVS_MBUF_VERSION;
    }
    return ivs_mempool_info_fault(info) == IVS_OK ? lay_out(p) : -EINVAL;
}

int64_t ivs_mempool_plan(struct ivs_mempool_info *info)
{
    struct ivs_mempool_shared plan;
    int64_t need = plan_header(&plan, info);
    info->elt_stride = plan.elt_stride;
    info->objects_offset = plan.objects_offset;
    return need;
}


int ivs_mempool_create(void *base, uint64_t length, const struct ivs_mempool_info *info)
{
    struct ivs_mempool_shared *pool = (struct ivs_mempool_shared *)base;
    struct ivs_mempool_shared plan;
    int64_t need = plan_header(&plan, info);

    if (need < 0 || !ivs_name_ok(info->name) || (uintptr_t)base % IVS_CACHE_LINE != 0)
        return -EINVAL;
    if ((uint64_t)need > length)
        return -ENOSPC;
    plan.crc = IVS_IDENTITY_CRC(ivs_mempool_shared, &plan);
    memcpy(pool, &plan, sizeof(plan));
    unsigned char *bitmap = (unsigned char *)base + plan.bitmap_offset;
    memset(bitmap, 0xff, plan.n / 8);
    if (plan.n % 8 != 0)
        bitmap[plan.n / 8] = (unsigned char)((1u << (plan.n % 8)) - 1);
    if (plan.flags & IVS_MEMPOOL_DEBUG) {
        struct ivs_mempool handle;
        ivs_mempool_attach(&handle, base, info);
        ivs_mempool_debug_format(&handle);
    }
    /* release: pairs with ivs_mempool_check() in mempool.c */
    atomic_store_explicit(&pool->magic, IVS_MEMPOOL_MAGIC, memory_order_release);
    return 0;
}

uint64_t ivs_mempool_handle_size(uint32_t cache_size)
{
    return sizeof(struct ivs_mempool) + 2 * (uint64_t)cache_size * 4;
}

int ivs_mempool_check(const void *base, uint64_t length, struct ivs_mempool_info *info)
{
    const struct ivs_mempool_shared *shared = (const struct ivs_mempool_shared *)base;
    struct ivs_mempool_shared copy, plan;

    if ((uintptr_t)base % IVS_CACHE_LINE != 0)
        return IVS_FAULT_ALIGNMENT;
    if (length < sizeof(copy))
        return IVS_FAULT_LENGTH;
    /* acquire: pairs with ivs_mempool_create() in mempool.c */
    if (atomic_load_explicit(&shared->magic, memory_order_acquire) != IVS_MEMPOOL_MAGIC)
        return IVS_FAULT_MAGIC;
    memcpy(&copy, shared, sizeof(copy));
    if (copy.version != IVS_MEMPOOL_VERSION)
        return IVS_FAULT_VERSION;
    if (copy.crc != IVS_IDENTITY_CRC(ivs_mempool_shared, &copy))
        return IVS_FAULT_CRC;
    if (!ivs_name_ok(copy.name))
        return IVS_FAULT_NAME;
    if (copy.flags & IVS_MEMPOOL_MBUF && copy.mbuf_version != IVS_MBUF_VERSION)
        return IVS_FAULT_VERSION;
    memcpy(info->name, copy.name, sizeof(info->name));
    info->n = copy.n;
    info->elt_size = copy.elt_size;
    info->cache_size = copy.cache_size;
    info->flags = copy.flags;
    info->private_size = copy.private_size;
    int64_t need = plan_header(&plan, info);
    if (need < 0 || plan.elt_stride != copy.elt_stride || plan.cache_stride != copy.cache_stride ||
        plan.bitmap_offset != copy.bitmap_offset || plan.caches_offset != copy.caches_offset ||
        plan.objects_offset != copy.objects_offset)
        return IVS_FAULT_GEOMETRY;
    if ((uint64_t)need > length)
        return IVS_FAULT_LENGTH;
    info->elt_stride = plan.elt_stride;
    info->objects_offset = plan.objects_offset;
    return IVS_OK;
}

void ivs_mempool_attach(struct ivs_mempool *p, void *base, const struct ivs_mempool_info *info)
{
    struct ivs_mempool_shared plan;
    unsigned char *bytes = (unsigned char *)base;
    (void)plan_header(&plan, info);

    memset(p, 0, sizeof(*p));
    p->shared = (struct ivs_mempool_shared *)base;
    p->bitmap = (_Atomic uint64_t *)(void *)(bytes + plan.bitmap_offset);
    p->objects = bytes + plan.objects_offset;
    p->n = plan.n;
    p->words = (plan.n + 63) / 64;
    p->elt_size = plan.elt_size;
    p->elt_stride = plan.elt_stride;
    p->slot_cache_size = plan.cache_size;
    p->private_size = plan.private_size;
    p->cache_stride = plan.cache_stride;
    p->caches = bytes + plan.caches_offset;
    p->debug = (plan.flags & IVS_MEMPOOL_DEBUG) != 0;
}

/* Enables or disables the fast paths. A concurrent ivs_mempool_refuse prevails. */
static void update_ready(struct ivs_mempool *p)
{
    atomic_store(&p->ready, p->slot != NULL && p->debug == 0);
    if (atomic_load(&p->refuse) != 0)
        atomic_store(&p->ready, 0);
}

void ivs_mempool_join(struct ivs_mempool *p, uint32_t slot)
{
    struct ivs_mempool_cache *record = ivs_mempool_record_of(p, slot);
    uint32_t len = ivs_mempool_record_len(p, record);
    uint32_t slots = atomic_load_explicit(&p->shared->slots, memory_order_relaxed);

    /* release: pairs with ivs_mempool_slots_in_use() in pvt/mempool_record.h: counters include the slot from here on */
    while (slots <= slot && !atomic_compare_exchange_weak_explicit(&p->shared->slots, &slots, slot + 1,
                                                                   memory_order_release, memory_order_relaxed))
        ;
    p->slot = record;
    p->cache_size = p->slot_cache_size;
    p->flush_at = ivs_mempool_flush_threshold(p->slot_cache_size);
    p->hint = (uint32_t)((uint64_t)slot * p->words / IVS_PARTICIPANTS);
    p->taken = atomic_load_explicit(&record->taken, memory_order_relaxed);
    p->returned = atomic_load_explicit(&record->returned, memory_order_relaxed);
    p->cached = 0;
    for (uint32_t i = 0; i < len; i++) {
        uint32_t object = record->objects[i];
        if (object < p->n && !ivs_mempool_is_free(p, object))
            p->cache[p->cached++] = object;
    }
    memcpy(record->objects, p->cache, (size_t)p->cached * 4);
    ivs_mempool_record(p);
    ivs_mempool_set_credit(p, 0);
    update_ready(p);
}

void ivs_mempool_leave(struct ivs_mempool *p)
{
    if (p->slot == NULL)
        return;
    ivs_mempool_flush(p);
    p->slot = NULL;
    p->cache_size = 0;
    p->flush_at = 0;
    ivs_mempool_set_credit(p, 0);
    update_ready(p);
}

void ivs_mempool_refuse(struct ivs_mempool *p, int32_t code)
{
    atomic_store(&p->refuse, code);
    update_ready(p);
}

uint32_t ivs_mempool_out(const struct ivs_mempool *p)
{
    uint32_t slots = ivs_mempool_slots_in_use(p);
    uint64_t taken, returned;

    /* A get is counted before the put of the same object, so all `returned` are loaded before any `taken`.
     * acquire: pairs with ivs_mempool_count_returned() in pvt/mempool_record.h */
    returned = atomic_load_explicit(&p->shared->returned, memory_order_acquire);
    for (uint32_t slot = 0; slot < slots; slot++)
        returned += atomic_load_explicit(&ivs_mempool_record_of(p, slot)->returned, memory_order_acquire);
    taken = atomic_load_explicit(&p->shared->taken, memory_order_acquire);
    for (uint32_t slot = 0; slot < slots; slot++)
        taken += atomic_load_explicit(&ivs_mempool_record_of(p, slot)->taken, memory_order_acquire);
    uint64_t out = taken - returned;
    return out > p->n ? p->n : (uint32_t)out;
}

uint32_t ivs_mempool_available(const struct ivs_mempool *p)
{
    uint32_t slots = ivs_mempool_slots_in_use(p);
    uint64_t count = 0;
    for (uint32_t word = 0; word < p->words; word++)
        count += (uint64_t)__builtin_popcountll(atomic_load_explicit(&p->bitmap[word], memory_order_relaxed));
    for (uint32_t slot = 0; slot < slots; slot++)
        count += ivs_mempool_record_len(p, ivs_mempool_record_of(p, slot));
    return count > p->n ? p->n : (uint32_t)count;
}

static void mark(uint16_t *where, uint32_t object, uint16_t held)
{
    where[object] = where[object] == IVS_HELD_BY_NOBODY_SEEN ? held : (uint16_t)IVS_HELD_TWICE;
}

uint32_t ivs_mempool_audit(const struct ivs_mempool *p, uint16_t *where)
{
    uint32_t foreign = 0;
    memset(where, 0, (size_t)p->n * sizeof(*where));
    for (uint32_t object = 0; object < p->n; object++)
        if (ivs_mempool_is_free(p, object))
            mark(where, object, IVS_HELD_FREE);
    for (uint32_t slot = 0; slot < IVS_PARTICIPANTS; slot++) {
        struct ivs_mempool_cache *record = ivs_mempool_record_of(p, slot);
        uint32_t len = ivs_mempool_record_len(p, record);
        for (uint32_t i = 0; i < len; i++) {
            uint32_t object = record->objects[i];
            if (object < p->n)
                mark(where, object, (uint16_t)(IVS_HELD_CACHE + slot));
            else
                foreign++;
        }
    }
    return foreign;
}
