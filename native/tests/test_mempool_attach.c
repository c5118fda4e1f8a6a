/* SPDX-License-Identifier: BSD-3-Clause */
/* test_mempool_attach.c: plan and create a mempool; ivs_mempool_check rejects each kind of damage. */
#include "pvt/crc32c.h"
#include "pool_kit.h"

static void seal(struct ivs_mempool_shared *pool)
{
    unsigned char bytes[128];
    memcpy(bytes, pool, sizeof(bytes));
    memset(bytes, 0, 8);
    memset(bytes + offsetof(struct ivs_mempool_shared, crc), 0, 4);
    pool->crc = ivs_crc32c(0, bytes, sizeof(bytes));
}

static int check(struct pool_kit *k)
{
    struct ivs_mempool_info info;
    return ivs_mempool_check(k->memory, k->bytes, &info);
}

#define REFUSED(fault, damage)                                                                                         \
    do {                                                                                                               \
        struct pool_kit k;                                                                                             \
        pool_make(&k, 100, 72, 16);                                                                                    \
        struct ivs_mempool_shared *pool = k.memory;                                                                    \
        damage;                                                                                                        \
        seal(pool);                                                                                                    \
        CHECK_EQ(check(&k), fault);                                                                                    \
        pool_free(&k);                                                                                                 \
    } while (0)

static void test_check_returns_fault_of_each_damage(void)
{
    REFUSED(IVS_OK, (void)pool);
    REFUSED(IVS_FAULT_MAGIC, atomic_store(&pool->magic, IVS_RING_MAGIC));
    REFUSED(IVS_FAULT_VERSION, pool->version++);
    REFUSED(IVS_FAULT_NAME, pool->name[0] = '\n');
    REFUSED(IVS_FAULT_GEOMETRY, pool->n = 0);
    REFUSED(IVS_FAULT_GEOMETRY, pool->n = 99999);
    REFUSED(IVS_FAULT_GEOMETRY, pool->elt_size = 0);
    REFUSED(IVS_FAULT_GEOMETRY, pool->elt_size = 0xffffffffu);
    REFUSED(IVS_FAULT_GEOMETRY, pool->elt_stride = 64);
    REFUSED(IVS_FAULT_GEOMETRY, pool->cache_size = 513);
    REFUSED(IVS_FAULT_GEOMETRY, pool->cache_stride += 64);
    REFUSED(IVS_FAULT_GEOMETRY, pool->bitmap_offset = 0);
    REFUSED(IVS_FAULT_GEOMETRY, pool->caches_offset += 64);
    REFUSED(IVS_FAULT_GEOMETRY, pool->objects_offset = UINT64_MAX);
    REFUSED(IVS_FAULT_GEOMETRY, pool->flags = 0x80000000u);
}

static void test_check_rejects_each_flipped_bit(void)
{
    struct pool_kit k;
    pool_make(&k, 100, 72, 16);
    unsigned char *bytes = (unsigned char *)k.memory;
    for (uint32_t bit = 0; bit < 128 * 8; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        CHECK(check(&k) != IVS_OK);
        bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    CHECK_EQ(check(&k), IVS_OK);
    pool_free(&k);
}

static void test_check_and_create_validate_memory_range(void)
{
    struct pool_kit k;
    struct ivs_mempool_info info;
    pool_make(&k, 100, 72, 16);
    CHECK_EQ(ivs_mempool_check(k.memory, k.bytes - 1, &info), IVS_FAULT_LENGTH);
    CHECK_EQ(ivs_mempool_check(k.memory, 191, &info), IVS_FAULT_LENGTH);
    CHECK_EQ(ivs_mempool_check((char *)k.memory + 8, k.bytes - 8, &info), IVS_FAULT_ALIGNMENT);
    CHECK_EQ(ivs_mempool_create(k.memory, k.bytes - 1, &k.info), -ENOSPC);
    CHECK_EQ(ivs_mempool_create((char *)k.memory + 8, k.bytes, &k.info), -EINVAL);
    pool_free(&k);
}

static void test_plan_returns_size_or_fault(void)
{
    struct pool_kit k;
    /* header 192; bitmap: one line; 64 caches of 64 + 24 * 4 bytes, padded to lines; objects, padded to lines */
    CHECK_EQ(pool_plan(&k, 100, 72, 16, 0), 192 + 64 + 64 * 192 + 100 * 128);
    CHECK_EQ(k.info.elt_stride, 128);
    CHECK_EQ(pool_plan(&k, 100, 72, 16, IVS_MEMPOOL_NO_CACHE_ALIGN), 192 + 64 + 64 * 192 + 100 * 72);
    CHECK_EQ(pool_plan(&k, 0, 72, 0, 0), -EINVAL);
    CHECK_EQ(ivs_mempool_info_fault(&k.info), IVS_FAULT_POOL_N);
    CHECK_EQ(pool_plan(&k, 0x80000000u, 72, 0, 0), -EINVAL);
    CHECK_EQ(pool_plan(&k, 100, 0, 0, 0), -EINVAL);
    CHECK_EQ(pool_plan(&k, 100, 0x40000001u, 0, 0), -EINVAL);
    CHECK_EQ(ivs_mempool_info_fault(&k.info), IVS_FAULT_POOL_ELT_SIZE);
    CHECK_EQ(pool_plan(&k, 10000, 72, 513, 0), -EINVAL);
    CHECK_EQ(pool_plan(&k, 100, 72, 68, 0), -EINVAL); /* 1.5 * 68 exceeds n */
    CHECK_EQ(ivs_mempool_info_fault(&k.info), IVS_FAULT_POOL_CACHE_SIZE);
    CHECK_EQ(pool_plan(&k, 100, 72, 16, 0x1), -EINVAL);
    CHECK_EQ(ivs_mempool_info_fault(&k.info), IVS_FAULT_POOL_FLAGS);
    CHECK(pool_plan(&k, 0x7fffffffu, 0x40000000u, 512, 0) > (1ll << 60)); /* no overflow */
}

int main(void)
{
    RUN(test_check_returns_fault_of_each_damage);
    RUN(test_check_rejects_each_flipped_bit);
    RUN(test_check_and_create_validate_memory_range);
    RUN(test_plan_returns_size_or_fault);
    return check_result();
}
