/* SPDX-License-Identifier: BSD-3-Clause */
/* mempool.c: making, attaching, taking part and counting; get and put are inline in mempool.h. */
#include "mempool.h"

#include "pvt/crc32c.h"
#include "fault.h"
#include "pvt/name.h"

#define IDENTITY 128u /* the first two lines */
#define N_MAX 0x7fffffffu
#define ELT_SIZE_MAX 0x40000000u

static uint64_t align_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) & ~(to - 1);
}

/* What a pool can hold in one cache: DPDK's flush threshold is one and a half times the cache size. */
static uint32_t flush_threshold(uint32_t cache_size)
{
    return cache_size + cache_size / 2;
}

/* Whether the objects of a pool of mbufs can be such: each on a cache line of its own, with a buffer that 16 bits
 * measure. */
static bool are_mbufs(const struct ivs_mempool_shared *p)
{
    uint64_t before = sizeof(struct ivs_mbuf) + (uint64_t)p->private_size;
    return !(p->flags & IVS_MEMPOOL_NO_CACHE_ALIGN) && p->private_size % 8 == 0 && p->private_size <= UINT16_MAX &&
           p->elt_size >= before && p->elt_size - before <= UINT16_MAX;
}

/* Fills every derived field from n, elt_size, cache_size and flags. Returns the bytes needed, or -EINVAL. */
static int64_t lay_out(struct ivs_mempool_shared *p)
{
    if (p->n == 0 || p->n > N_MAX || p->elt_size == 0 || p->elt_size > ELT_SIZE_MAX ||
        p->cache_size > IVS_MEMPOOL_CACHE_MAX || flush_threshold(p->cache_size) > p->n ||
        (p->flags & ~IVS_MEMPOOL_FLAGS) != 0)
        return -EINVAL;
    if (p->flags & IVS_MEMPOOL_MBUF && !are_mbufs(p))
        return -EINVAL;
    uint64_t before = 0;
    uint64_t stride = p->flags & IVS_MEMPOOL_NO_CACHE_ALIGN ? p->elt_size : align_up(p->elt_size, IVS_CACHE_LINE);
    if (p->flags & IVS_MEMPOOL_DEBUG) {
        before = sizeof(struct ivs_mempool_cookie);
        stride = before + align_up((uint64_t)p->elt_size + sizeof(uint64_t), IVS_CACHE_LINE);
    }
    uint64_t cache = sizeof(struct ivs_mempool_cache) + 4 * (uint64_t)flush_threshold(p->cache_size);
    p->elt_stride = (uint32_t)stride;
    p->cache_stride = (uint32_t)align_up(cache, IVS_CACHE_LINE);
    p->bitmap_offset = sizeof(*p);
    p->caches_offset = p->bitmap_offset + align_up(((uint64_t)p->n + 63) / 64 * 8, IVS_CACHE_LINE);
    p->objects_offset = p->caches_offset + (uint64_t)IVS_PARTICIPANTS * p->cache_stride + before;
    return (int64_t)(p->objects_offset + stride * p->n);
}

static void asked(struct ivs_mempool_shared *p, const struct ivs_mempool_info *info)
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
}

int64_t ivs_mempool_plan(struct ivs_mempool_info *info)
{
    struct ivs_mempool_shared plan;
    asked(&plan, info);
    int64_t need = lay_out(&plan);
    info->elt_stride = plan.elt_stride;
    info->objects_offset = plan.objects_offset;
    return need;
}

static uint32_t identity_crc(const struct ivs_mempool_shared *pool)
{
    unsigned char bytes[IDENTITY];
    memcpy(bytes, pool, IDENTITY);
    memset(bytes + offsetof(struct ivs_mempool_shared, magic), 0, 8);
    memset(bytes + offsetof(struct ivs_mempool_shared, crc), 0, 4);
    return ivs_crc32c(0, bytes, IDENTITY);
}

int ivs_mempool_create(void *base, uint64_t length, const struct ivs_mempool_info *info)
{
    struct ivs_mempool_shared *pool = (struct ivs_mempool_shared *)base;
    struct ivs_mempool_shared plan;
    asked(&plan, info);
    int64_t need = lay_out(&plan);

    if (need < 0 || !ivs_name_ok(info->name) || (uintptr_t)base % IVS_CACHE_LINE != 0)
        return -EINVAL;
    if ((uint64_t)need > length)
        return -ENOSPC;
    plan.crc = identity_crc(&plan);
    memcpy(pool, &plan, sizeof(plan));
    unsigned char *bitmap = (unsigned char *)base + plan.bitmap_offset;
    memset(bitmap, 0xff, plan.n / 8);
    if (plan.n % 8 != 0)
        bitmap[plan.n / 8] = (unsigned char)((1u << (plan.n % 8)) - 1);
    if (plan.flags & IVS_MEMPOOL_DEBUG) {
        struct ivs_mempool maker;
        ivs_mempool_attach(&maker, base, info);
        ivs_mempool_debug_format(&maker);
    }
    /* release: pairs with the acquire in ivs_mempool_check */
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
    /* acquire: pairs with the release in ivs_mempool_create */
    if (atomic_load_explicit(&shared->magic, memory_order_acquire) != IVS_MEMPOOL_MAGIC)
        return IVS_FAULT_MAGIC;
    memcpy(&copy, shared, sizeof(copy));
    if (copy.version != IVS_MEMPOOL_VERSION)
        return IVS_FAULT_VERSION;
    if (copy.crc != identity_crc(&copy))
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
    asked(&plan, info);
    int64_t need = lay_out(&plan);
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
    asked(&plan, info);
    (void)lay_out(&plan);

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

static struct ivs_mempool_cache *cache_of(const struct ivs_mempool *p, uint32_t slot)
{
    return (struct ivs_mempool_cache *)(void *)(p->caches + (size_t)slot * p->cache_stride);
}

static uint32_t slots_in_use(const struct ivs_mempool *p)
{
    uint32_t slots = atomic_load_explicit(&p->shared->slots, memory_order_acquire);
    return slots < IVS_PARTICIPANTS ? slots : IVS_PARTICIPANTS;
}

static bool is_free(const struct ivs_mempool *p, uint32_t object)
{
    return atomic_load_explicit(&p->bitmap[object / 64], memory_order_relaxed) >> (object % 64) & 1;
}

/* Whether get and put need not ask anything more. Another thread may refuse at the same time: its word is the last. */
static void settle_ready(struct ivs_mempool *p)
{
    atomic_store(&p->ready, p->slot != NULL && p->debug == 0);
    if (atomic_load(&p->refuse) != 0)
        atomic_store(&p->ready, 0);
}

void ivs_mempool_join(struct ivs_mempool *p, uint32_t slot)
{
    struct ivs_mempool_cache *record = cache_of(p, slot);
    uint32_t most = flush_threshold(p->slot_cache_size);
    /* acquire: pairs with the release in ivs_mempool_record by whoever had this slot before */
    uint32_t len = atomic_load_explicit(&record->len, memory_order_acquire);

    uint32_t slots = atomic_load_explicit(&p->shared->slots, memory_order_relaxed);
    /* release: pairs with the acquire in slots_in_use: before anything of this slot counts */
    while (slots <= slot && !atomic_compare_exchange_weak_explicit(&p->shared->slots, &slots, slot + 1,
                                                                   memory_order_release, memory_order_relaxed))
        ;
    p->slot = record;
    p->cache_size = p->slot_cache_size;
    p->flush_at = most;
    p->hint = (uint32_t)((uint64_t)slot * p->words / IVS_PARTICIPANTS);
    p->taken = atomic_load_explicit(&record->taken, memory_order_relaxed);
    p->returned = atomic_load_explicit(&record->returned, memory_order_relaxed);
    p->cached = 0;
    for (uint32_t i = 0; i < len && i < most; i++) {
        uint32_t object = record->objects[i];
        if (object < p->n && !is_free(p, object))
            p->cache[p->cached++] = object;
    }
    memcpy(record->objects, p->cache, (size_t)p->cached * 4);
    ivs_mempool_record(p);
    ivs_mempool_set_credit(p, 0);
    settle_ready(p);
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
    settle_ready(p);
}

void ivs_mempool_refuse(struct ivs_mempool *p, int32_t code)
{
    atomic_store(&p->refuse, code);
    settle_ready(p);
}

uint32_t ivs_mempool_out(const struct ivs_mempool *p)
{
    uint32_t slots = slots_in_use(p);
    uint64_t taken, returned;

    /* Every `returned` is read before any `taken`: what is counted as back was counted as out before. */
    returned = atomic_load_explicit(&p->shared->returned, memory_order_acquire);
    for (uint32_t slot = 0; slot < slots; slot++)
        returned += atomic_load_explicit(&cache_of(p, slot)->returned, memory_order_acquire);
    taken = atomic_load_explicit(&p->shared->taken, memory_order_acquire);
    for (uint32_t slot = 0; slot < slots; slot++)
        taken += atomic_load_explicit(&cache_of(p, slot)->taken, memory_order_acquire);
    uint64_t out = taken - returned;
    return out > p->n ? p->n : (uint32_t)out;
}

uint32_t ivs_mempool_available(const struct ivs_mempool *p)
{
    uint32_t slots = slots_in_use(p);
    uint64_t count = 0;
    for (uint32_t word = 0; word < p->words; word++)
        count += (uint64_t)__builtin_popcountll(atomic_load_explicit(&p->bitmap[word], memory_order_relaxed));
    for (uint32_t slot = 0; slot < slots; slot++)
        count += atomic_load_explicit(&cache_of(p, slot)->len, memory_order_acquire);
    return count > p->n ? p->n : (uint32_t)count;
}

bool ivs_mempool_is_out(const struct ivs_mempool *p, uint32_t object)
{
    if (is_free(p, object))
        return false;
    uint32_t slots = slots_in_use(p);
    for (uint32_t slot = 0; slot < slots; slot++) {
        const struct ivs_mempool_cache *record = cache_of(p, slot);
        uint32_t len = atomic_load_explicit(&record->len, memory_order_acquire);
        for (uint32_t i = 0; i < len && i < flush_threshold(p->slot_cache_size); i++)
            if (record->objects[i] == object)
                return false;
    }
    return true;
}

static void found(uint16_t *where, uint32_t object, uint16_t by)
{
    where[object] = where[object] == IVS_HELD_BY_NOBODY_SEEN ? by : (uint16_t)IVS_HELD_TWICE;
}

uint32_t ivs_mempool_audit(const struct ivs_mempool *p, uint16_t *where)
{
    uint32_t foreign = 0;
    memset(where, 0, (size_t)p->n * sizeof(*where));
    for (uint32_t object = 0; object < p->n; object++)
        if (is_free(p, object))
            found(where, object, IVS_HELD_FREE);
    for (uint32_t slot = 0; slot < IVS_PARTICIPANTS; slot++) {
        struct ivs_mempool_cache *record = cache_of(p, slot);
        uint32_t len = atomic_load_explicit(&record->len, memory_order_acquire);
        for (uint32_t i = 0; i < len && i < flush_threshold(p->slot_cache_size); i++) {
            uint32_t object = record->objects[i];
            if (object < p->n)
                found(where, object, (uint16_t)(IVS_HELD_CACHE + slot));
            else
                foreign++;
        }
    }
    return foreign;
}
