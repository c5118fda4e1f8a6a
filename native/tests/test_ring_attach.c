/* SPDX-License-Identifier: BSD-3-Clause */
/* test_ring_attach.c: attaching to a damaged ring fails with the reason. */
#include "pvt/crc32c.h"
#include "ring_kit.h"

/* Recompute the identity's CRC, as a forger would. */
static void seal(struct ivs_ring_shared *ring)
{
    unsigned char bytes[128];
    memcpy(bytes, ring, sizeof(bytes));
    memset(bytes + 64, 0, 8);
    memset(bytes + 80, 0, 16);
    memset(bytes + 96, 0, 4);
    ring->crc = ivs_crc32c(0, bytes, sizeof(bytes));
}

static int attach(struct kit *k)
{
    struct ivs_ring_info info;
    struct ivs_ring r;
    return ivs_ring_attach(&r, k->memory, k->bytes, KIT_STALL_NS, &info);
}

#define REFUSED(fault, damage)                                                                                         \
    do {                                                                                                               \
        struct kit k;                                                                                                  \
        kit_make(&k, 64, 8, IVS_RING_SP_ENQ);                                                                          \
        struct ivs_ring_shared *ring = k.memory;                                                                       \
        damage;                                                                                                        \
        seal(ring);                                                                                                    \
        CHECK_EQ(attach(&k), fault);                                                                                   \
        kit_free(&k);                                                                                                  \
    } while (0)

static void test_each_fault(void)
{
    REFUSED(IVS_OK, (void)ring);
    REFUSED(IVS_FAULT_MAGIC, atomic_store(&ring->magic, IVS_MEMPOOL_MAGIC));
    REFUSED(IVS_FAULT_VERSION, ring->version = 2);
    REFUSED(IVS_FAULT_NAME, ring->name[0] = 0);
    REFUSED(IVS_FAULT_NAME, ring->name[1] = '/');
    REFUSED(IVS_FAULT_NAME, memset(ring->name, 'x', sizeof(ring->name)));
    REFUSED(IVS_FAULT_NAME, ring->name[20] = 'x'); /* after the NUL */
    REFUSED(IVS_FAULT_GEOMETRY, ring->elem_size = 0);
    REFUSED(IVS_FAULT_GEOMETRY, ring->elem_size = 7);
    REFUSED(IVS_FAULT_GEOMETRY, ring->size = 63);
    REFUSED(IVS_FAULT_GEOMETRY, ring->size = 0);
    REFUSED(IVS_FAULT_GEOMETRY, ring->mask = 127);
    REFUSED(IVS_FAULT_GEOMETRY, ring->capacity = 64);
    REFUSED(IVS_FAULT_GEOMETRY, ring->capacity = 62);
    REFUSED(IVS_FAULT_LENGTH, (ring->size = 128, ring->mask = 127, ring->capacity = 127));
    REFUSED(IVS_FAULT_LENGTH, ring->elem_size = 0xfffffffcu);
    REFUSED(IVS_FAULT_FLAGS, ring->flags |= 0x80);
    REFUSED(IVS_FAULT_SYNC, ring->flags = 0);
    REFUSED(IVS_FAULT_SYNC, ring->prod.sync_type = IVS_SYNC_HTS);
    REFUSED(IVS_FAULT_SYNC, ring->cons.sync_type = 77);
    REFUSED(IVS_FAULT_SYNC, ring->flags = IVS_RING_SP_ENQ | IVS_RING_MP_HTS_ENQ);
    REFUSED(IVS_FAULT_INDEX, atomic_store(&ring->prod.tail, 64));
    REFUSED(IVS_FAULT_INDEX, atomic_store(&ring->cons.tail, 1));
}

static void test_each_flipped_bit_of_the_identity(void)
{
    struct kit k;
    kit_make(&k, 64, 8, 0);
    unsigned char *bytes = (unsigned char *)k.memory;
    for (uint32_t bit = 0; bit < 128 * 8; bit++) {
        bool owner = bit / 8 >= 80 && bit / 8 < 96; /* changes while in use */
        bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        CHECK_EQ(attach(&k) == IVS_OK, owner);
        bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    CHECK_EQ(attach(&k), IVS_OK);
    kit_free(&k);
}

static void test_range(void)
{
    struct kit k;
    kit_make(&k, 64, 8, 0);
    CHECK_EQ(ivs_ring_attach(&k.r, k.memory, k.bytes - 1, 0, &k.info), IVS_FAULT_LENGTH);
    CHECK_EQ(ivs_ring_attach(&k.r, k.memory, 383, 0, &k.info), IVS_FAULT_LENGTH);
    CHECK_EQ(ivs_ring_attach(&k.r, k.memory, 0, 0, &k.info), IVS_FAULT_LENGTH);
    CHECK_EQ(ivs_ring_attach(&k.r, (char *)k.memory + 4, k.bytes - 4, 0, &k.info), IVS_FAULT_ALIGNMENT);
    kit_free(&k);
}

static void test_info_of_an_exact_ring(void)
{
    struct kit k;
    struct ivs_ring_info info;
    kit_make(&k, 100, 16, IVS_RING_EXACT_SZ | IVS_RING_MC_RTS_DEQ);
    CHECK_EQ(ivs_ring_attach(&k.r, k.memory, k.bytes, 0, &info), IVS_OK);
    CHECK_EQ(info.count, 100);
    CHECK_EQ(info.size, 128);
    CHECK_EQ(info.capacity, 100);
    CHECK_EQ(info.elem_size, 16);
    CHECK_EQ(info.flags, IVS_RING_EXACT_SZ | IVS_RING_MC_RTS_DEQ);
    CHECK_EQ(strcmp(info.name, "test"), 0);
    CHECK_EQ(k.memory->cons.rts.htd_max, 100 / 8);
    kit_free(&k);
}

int main(void)
{
    RUN(test_each_fault);
    RUN(test_each_flipped_bit_of_the_identity);
    RUN(test_range);
    RUN(test_info_of_an_exact_ring);
    return check_result();
}
