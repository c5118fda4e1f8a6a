/* SPDX-License-Identifier: BSD-3-Clause */
/* test_ring_peek.c: peek, zero-copy, the setting of RTS ends, and dump. */
#include "ring_kit.h"
#include "ring_peek.h"

#define ST (IVS_RING_SP_ENQ | IVS_RING_SC_DEQ)
#define MT 0u
#define RTS (IVS_RING_MP_RTS_ENQ | IVS_RING_MC_RTS_DEQ)
#define HTS (IVS_RING_MP_HTS_ENQ | IVS_RING_MC_HTS_DEQ)

static const uint32_t able[] = {ST, HTS};

static void fill(uint64_t *values, uint64_t first, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        values[i] = first + i;
}

static bool holds(const uint64_t *values, uint64_t first, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (values[i] != first + i)
            return false;
    return true;
}

static void test_peek_and_leave(void)
{
    for (uint32_t mode = 0; mode < 2; mode++) {
        struct kit k;
        uint64_t in[10], out[10];
        uint32_t left = 0;
        kit_make(&k, 16, 8, able[mode]);
        fill(in, 100, 10);
        CHECK_EQ(ivs_ring_enqueue_bulk(&k.r, in, 8, 10, NULL), 10);
        CHECK_EQ(ivs_ring_dequeue_bulk_start(&k.r, out, 8, 4, &left), 4);
        CHECK(holds(out, 100, 4));
        CHECK_EQ(left, 6);
        CHECK_EQ(ivs_ring_count(&k.r), 10); /* still in the ring */
        CHECK_EQ(ivs_ring_dequeue_finish(&k.r, 0), 0);
        CHECK_EQ(ivs_ring_dequeue_burst_start(&k.r, out, 8, 20 - 10, &left), 10);
        CHECK_EQ(left, 0);
        CHECK_EQ(ivs_ring_dequeue_finish(&k.r, 3), 3);
        CHECK_EQ(ivs_ring_dequeue_bulk(&k.r, out, 8, 7, NULL), 7);
        CHECK(holds(out, 103, 7));
        CHECK_EQ(ivs_ring_dequeue_bulk_start(&k.r, out, 8, 1, NULL), 0);
        CHECK_EQ(ivs_ring_dequeue_finish(&k.r, 0), 0);
        kit_free(&k);
    }
}

static void test_enqueue_in_two_steps(void)
{
    for (uint32_t mode = 0; mode < 2; mode++) {
        struct kit k;
        uint64_t in[20], out[20];
        uint32_t left = 0;
        kit_make(&k, 16, 8, able[mode]);
        fill(in, 7, 20);
        CHECK_EQ(ivs_ring_enqueue_bulk_start(&k.r, 8, 16, &left), 0);
        CHECK_EQ(left, 15);
        CHECK_EQ(ivs_ring_enqueue_burst_start(&k.r, 8, 16, &left), 15);
        CHECK_EQ(left, 0);
        CHECK_EQ(ivs_ring_count(&k.r), 0); /* not yet visible */
        CHECK_EQ(ivs_ring_enqueue_finish(&k.r, in, 8, 16), -EINVAL);
        CHECK_EQ(ivs_ring_enqueue_finish(&k.r, in, 4, 15), -EINVAL);
        CHECK_EQ(ivs_ring_enqueue_finish(&k.r, in, 8, 5), 5);
        CHECK_EQ(ivs_ring_enqueue_finish(&k.r, in, 8, 1), -EINVAL); /* without a start */
        CHECK_EQ(ivs_ring_enqueue_bulk(&k.r, in + 5, 8, 10, NULL), 10);
        CHECK_EQ(ivs_ring_dequeue_bulk(&k.r, out, 8, 15, NULL), 15);
        CHECK(holds(out, 7, 15));
        kit_free(&k);
    }
}

/* Every start index and length, so that both parts have every size; indices wrap at 2^32 on the way. */
static void test_zero_copy_pieces(void)
{
    for (uint32_t mode = 0; mode < 2; mode++) {
        struct kit k;
        struct ivs_ring_zc zc;
        uint64_t next = 0, taken = 0, both[16];
        kit_make(&k, 16, 8, able[mode]);
        kit_set_index(k.memory, 0u - 500u);
        kit_attach(&k, &k.r);
        uint64_t *elements = (uint64_t *)(void *)(k.memory + 1);
        for (uint32_t round = 0; round < 200; round++) {
            uint32_t n = 1 + round % 15, some = round % (n + 1);
            CHECK_EQ(ivs_ring_enqueue_zc_bulk_start(&k.r, 8, n, &zc, NULL), n);
            CHECK_EQ(zc.n1 + zc.n2, n);
            CHECK((zc.second == NULL) == (zc.n2 == 0) && (zc.n2 == 0 || zc.second == elements));
            CHECK((uint64_t *)zc.first >= elements && (uint64_t *)zc.first + zc.n1 <= elements + 16);
            fill(both, next, n);
            memcpy(zc.first, both, zc.n1 * 8);
            if (zc.n2 != 0)
                memcpy(zc.second, both + zc.n1, zc.n2 * 8);
            CHECK_EQ(ivs_ring_enqueue_zc_finish(&k.r, some), some);
            next += some;
            CHECK_EQ(ivs_ring_dequeue_zc_burst_start(&k.r, 8, 15, &zc, NULL), some);
            if (some == 0)
                continue;
            memcpy(both, zc.first, zc.n1 * 8);
            if (zc.n2 != 0)
                memcpy(both + zc.n1, zc.second, zc.n2 * 8);
            CHECK(holds(both, taken, some));
            CHECK_EQ(ivs_ring_dequeue_zc_finish(&k.r, some), some);
            taken += some;
        }
        CHECK_EQ(taken, next);
        kit_free(&k);
    }
}

/* A start over the wrap of the indices that is finished before it: the next operation crosses the wrap again. */
static void test_finish_before_the_wrap(void)
{
    for (uint32_t mode = 0; mode < 2; mode++) {
        for (uint32_t done = 0; done <= 8; done++) {
            struct kit k;
            uint64_t in[16], out[16];
            kit_make(&k, 16, 8, able[mode]);
            kit_set_index(k.memory, 0u - 4);
            kit_attach(&k, &k.r);
            fill(in, 0, 16);
            CHECK_EQ(ivs_ring_enqueue_bulk_start(&k.r, 8, 8, NULL), 8);
            CHECK_EQ(ivs_ring_enqueue_finish(&k.r, in, 8, done), (int)done);
            CHECK_EQ(ivs_ring_enqueue_bulk(&k.r, in + done, 8, 15 - done, NULL), (int)(15 - done));
            CHECK_EQ(k.memory->prod.head, 11);
            CHECK_EQ(k.memory->prod.tail, 11);
            CHECK_EQ(ivs_ring_dequeue_bulk_start(&k.r, out, 8, 8, NULL), 8);
            CHECK_EQ(ivs_ring_dequeue_finish(&k.r, done), (int)done);
            CHECK_EQ(ivs_ring_dequeue_bulk(&k.r, out, 8, 15 - done, NULL), (int)(15 - done));
            CHECK(holds(out, done, 15 - done));
            CHECK_EQ(k.memory->cons.tail, 11);
            kit_free(&k);
        }
    }
}

static void test_st_end_is_busy_meanwhile(void)
{
    struct kit k;
    struct ivs_ring_zc zc;
    uint64_t value = 1;
    kit_make(&k, 16, 8, ST);
    CHECK_EQ(ivs_ring_enqueue_zc_bulk_start(&k.r, 8, 2, &zc, NULL), 2);
    CHECK_EQ(ivs_ring_enqueue_zc_bulk_start(&k.r, 8, 2, &zc, NULL), -EBUSY);
    CHECK_EQ(ivs_ring_enqueue_bulk(&k.r, &value, 8, 1, NULL), -EBUSY);
    CHECK_EQ(ivs_ring_dequeue_bulk(&k.r, &value, 8, 1, NULL), 0); /* the opposite side is free */
    CHECK_EQ(ivs_ring_enqueue_zc_finish(&k.r, 3), -EINVAL);
    CHECK_EQ(ivs_ring_enqueue_zc_finish(&k.r, 2), 2);
    CHECK_EQ(ivs_ring_enqueue_bulk(&k.r, &value, 8, 1, NULL), 1);
    CHECK_EQ(ivs_ring_count(&k.r), 3);
    kit_free(&k);
}

static void test_hts_end_waits_meanwhile(void)
{
    struct kit k;
    struct ivs_ring other;
    uint64_t value = 1;
    kit_make(&k, 16, 8, HTS);
    kit_attach(&k, &other);
    CHECK_EQ(ivs_ring_enqueue_bulk_start(&k.r, 8, 2, NULL), 2);
    CHECK_EQ(ivs_ring_enqueue_bulk(&other, &value, 8, 1, NULL), -ETIMEDOUT);
    CHECK_EQ(ivs_ring_enqueue_finish(&k.r, &value, 8, 0), 0);
    CHECK_EQ(ivs_ring_enqueue_bulk(&other, &value, 8, 1, NULL), 1);
    CHECK_EQ(ivs_ring_count(&k.r), 1);
    kit_free(&k);
}

static void test_refused(void)
{
    static const uint32_t unable[] = {MT, RTS};
    struct kit k;
    struct ivs_ring_zc zc;
    uint64_t value = 1, values[16];
    for (uint32_t mode = 0; mode < 2; mode++) {
        kit_make(&k, 16, 8, unable[mode]);
        CHECK_EQ(ivs_ring_enqueue_bulk_start(&k.r, 8, 1, NULL), -ENOTSUP);
        CHECK_EQ(ivs_ring_dequeue_burst_start(&k.r, values, 8, 1, NULL), -ENOTSUP);
        CHECK_EQ(ivs_ring_enqueue_zc_burst_start(&k.r, 8, 1, &zc, NULL), -ENOTSUP);
        CHECK_EQ(ivs_ring_enqueue_zc_burst_start(&k.r, 4, 1, &zc, NULL), -EINVAL);
        kit_free(&k);
    }
    for (uint32_t mode = 0; mode < 2; mode++) { /* closed between start and finish */
        kit_make(&k, 16, 8, able[mode]);
        CHECK_EQ(ivs_ring_enqueue_bulk_start(&k.r, 8, 1, NULL), 1);
        ivs_ring_refuse(&k.r, -ESHUTDOWN);
        CHECK_EQ(ivs_ring_enqueue_finish(&k.r, &value, 8, 1), -ESHUTDOWN);
        CHECK_EQ(ivs_ring_enqueue_zc_finish(&k.r, 1), -ESHUTDOWN);
        CHECK_EQ(ivs_ring_enqueue_bulk_start(&k.r, 8, 1, NULL), -ESHUTDOWN);
        CHECK_EQ(ivs_ring_count(&k.r), 0);
        kit_free(&k);
    }
}

static void test_htd_max(void)
{
    struct kit k;
    struct ivs_ring other;
    kit_make(&k, 64, 8, IVS_RING_MP_RTS_ENQ | IVS_RING_SC_DEQ);
    kit_attach(&k, &other);
    CHECK_EQ(ivs_ring_htd_max(&k.r, IVS_PRODUCER), 63 / 8);
    CHECK_EQ(ivs_ring_htd_max(&k.r, IVS_CONSUMER), UINT32_MAX);
    CHECK_EQ(ivs_ring_set_htd_max(&k.r, IVS_PRODUCER, 20), 0);
    CHECK_EQ(ivs_ring_set_htd_max(&k.r, IVS_CONSUMER, 20), -ENOTSUP);
    CHECK_EQ(ivs_ring_htd_max(&other, IVS_PRODUCER), 20); /* one setting for all participants */
    /* a peer is inside, 20 elements ahead of the tail: the maximum distance */
    uint64_t value = 1;
    atomic_store(&k.memory->prod.rts.head, (uint64_t)20 << 32 | 1);
    CHECK_EQ(ivs_ring_enqueue_bulk(&other, &value, 8, 1, NULL), 1);
    CHECK_EQ(ivs_ring_enqueue_bulk(&other, &value, 8, 1, NULL), -ETIMEDOUT);
    kit_free(&k);
}

static void test_dump(void)
{
    struct kit k;
    char text[1000], little[20];
    uint64_t values[5] = {0};
    kit_make(&k, 16, 8, IVS_RING_MP_RTS_ENQ | IVS_RING_SC_DEQ);
    CHECK_EQ(ivs_ring_enqueue_bulk(&k.r, values, 8, 5, NULL), 5);
    CHECK_EQ(ivs_ring_dequeue_bulk(&k.r, values, 8, 2, NULL), 2);
    int length = ivs_ring_dump(&k.r, text, sizeof(text));
    CHECK_EQ(length, strlen(text));
    CHECK(strcmp(text, "ring <test>\n  flags=a\n  size=16\n  capacity=15\n  elem_size=8\n  prod=MT_RTS ph=5 pt=5\n"
                       "  cons=ST ch=2 ct=2\n  used=3\n  avail=12\n") == 0);
    CHECK_EQ(ivs_ring_dump(&k.r, little, sizeof(little)), length);
    CHECK_EQ(strlen(little), sizeof(little) - 1);
    memset(k.memory->name, '\n', sizeof(k.memory->name)); /* the peer's operation */
    CHECK(ivs_ring_dump(&k.r, text, sizeof(text)) > 0);
    CHECK(strncmp(text, "ring <???", 9) == 0);
    ivs_ring_refuse(&k.r, -ESHUTDOWN);
    CHECK_EQ(ivs_ring_dump(&k.r, text, sizeof(text)), -ESHUTDOWN);
    kit_free(&k);
}

int main(void)
{
    RUN(test_peek_and_leave);
    RUN(test_enqueue_in_two_steps);
    RUN(test_zero_copy_pieces);
    RUN(test_finish_before_the_wrap);
    RUN(test_st_end_is_busy_meanwhile);
    RUN(test_hts_end_waits_meanwhile);
    RUN(test_refused);
    RUN(test_htd_max);
    RUN(test_dump);
    return check_result();
}
