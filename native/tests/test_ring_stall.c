/* SPDX-License-Identifier: BSD-3-Clause */
/* test_ring_stall.c: sides that a peer left incomplete: timed out once, remembered, reopened, rolled back. */
#include "ring_kit.h"
#include "ring_peek.h"

#define AGAIN_NS (KIT_STALL_NS / 2) /* a smaller operation did not wait for the peer again */

static const enum ivs_ring_role roles[] = {IVS_PRODUCER, IVS_CONSUMER};

/* A ring of 64 slots with 20 elements, 0 to 19, and a peer with `n` elements reserved on one side. */
static void make_incomplete(struct kit *k, uint32_t flags, enum ivs_ring_role role, uint32_t n)
{
    kit_make(k, 64, 8, flags);
    for (uint64_t i = 0; i < 20; i++)
        REQUIRE(ivs_ring_enqueue_bulk(&k->r, &i, 8, 1, NULL) == 1);
    union ivs_ring_end *end = ivs_ring_own(&k->r, role);
    if (ivs_ring_sync(&k->r, role) == IVS_SYNC_RTS)
        atomic_fetch_add(&end->rts.head, (uint64_t)n << 32 | 1);
    else
        atomic_fetch_add(&end->head, n);
    kit_attach(k, &k->r); /* as a participant that attaches now */
}

/* The peer continues and finishes. */
static void finish(struct kit *k, enum ivs_ring_role role)
{
    union ivs_ring_end *end = ivs_ring_own(&k->r, role);
    if (ivs_ring_sync(&k->r, role) == IVS_SYNC_RTS)
        atomic_store(&end->rts.tail, atomic_load(&end->rts.head));
    else
        atomic_store(&end->tail, atomic_load(&end->head));
}

static int operate(struct kit *k, enum ivs_ring_role role)
{
    uint64_t value = 99;
    return role == IVS_PRODUCER ? ivs_ring_enqueue_bulk(&k->r, &value, 8, 1, NULL)
                                : ivs_ring_dequeue_bulk(&k->r, &value, 8, 1, NULL);
}

static int operate_timed(struct kit *k, enum ivs_ring_role role, uint64_t *took)
{
    uint64_t begin = ivs_now_ns();
    int result = operate(k, role);
    *took = ivs_now_ns() - begin;
    return result;
}

/* Every sync mode and both sides: wait once, then fail at once, and continue after the peer has finished. */
static void test_is_waited_for_once(void)
{
    for (uint32_t mode = 0; mode < KIT_MODES; mode++) {
        for (int i = 0; i < 2; i++) {
            struct kit k;
            uint64_t took;
            make_incomplete(&k, kit_modes[mode].flags, roles[i], 10);
            CHECK_EQ(operate_timed(&k, roles[i], &took), -ETIMEDOUT);
            CHECK(took >= KIT_STALL_NS);
            for (int again = 0; again < 3; again++) {
                CHECK_EQ(operate_timed(&k, roles[i], &took), -ETIMEDOUT);
                CHECK(took < AGAIN_NS);
            }
            finish(&k, roles[i]);
            CHECK_EQ(operate(&k, roles[i]), 1);
            CHECK_EQ(ivs_ring_count(&k.r), roles[i] == IVS_PRODUCER ? 31 : 9);
            kit_free(&k);
        }
    }
}

/* Elements that an MT operation reserved before its timeout are not lost: the side is as the peer left it. */
static void test_giving_up_gives_back(void)
{
    for (int i = 0; i < 2; i++) {
        struct kit k;
        struct ivs_ring_headtail before, after;
        make_incomplete(&k, 0, roles[i], 3);
        ivs_ring_headtail_get(&k.r, roles[i], &before);
        CHECK_EQ(operate(&k, roles[i]), -ETIMEDOUT);
        ivs_ring_headtail_get(&k.r, roles[i], &after);
        CHECK_EQ(after.head, before.head);
        CHECK_EQ(after.incomplete, 1);
        finish(&k, roles[i]);
        CHECK_EQ(operate(&k, roles[i]), 1);
        kit_free(&k);
    }
}

/* A peer that died on an MT side with everything reserved: others see nothing to do, and get -ETIMEDOUT in time. */
static void test_nothing_left_to_wait_for(void)
{
    for (int i = 0; i < 2; i++) {
        struct kit k;
        uint64_t begin = ivs_now_ns();
        int result;
        make_incomplete(&k, 0, roles[i], roles[i] == IVS_PRODUCER ? 63 - 20 : 20);
        while ((result = operate(&k, roles[i])) == 0)
            REQUIRE(ivs_now_ns() - begin < 20u * KIT_STALL_NS);
        CHECK_EQ(result, -ETIMEDOUT);
        CHECK(ivs_now_ns() - begin >= KIT_STALL_NS);
        CHECK_EQ(operate(&k, roles[i]), -ETIMEDOUT);
        finish(&k, roles[i]);
        CHECK_EQ(operate(&k, roles[i]), 0);
        kit_free(&k);
    }
    struct kit k;
    kit_make(&k, 64, 8, 0); /* empty without an operation in progress is not a stall */
    uint64_t begin = ivs_now_ns();
    while (ivs_now_ns() - begin < 3u * KIT_STALL_NS)
        CHECK_EQ(operate(&k, IVS_CONSUMER), 0);
    kit_free(&k);
}

static void test_peek_at_a_stalled_end(void)
{
    static const uint32_t able[] = {IVS_RING_SP_ENQ | IVS_RING_SC_DEQ, IVS_RING_MP_HTS_ENQ | IVS_RING_MC_HTS_DEQ};
    for (uint32_t mode = 0; mode < 2; mode++) {
        struct kit k;
        struct ivs_ring_zc zc;
        make_incomplete(&k, able[mode], IVS_CONSUMER, 5);
        CHECK_EQ(ivs_ring_dequeue_zc_burst_start(&k.r, 8, 4, &zc, NULL), -ETIMEDOUT);
        uint64_t begin = ivs_now_ns();
        CHECK_EQ(ivs_ring_dequeue_zc_burst_start(&k.r, 8, 4, &zc, NULL), -ETIMEDOUT);
        CHECK(ivs_now_ns() - begin < AGAIN_NS);
        CHECK_EQ(operate(&k, IVS_CONSUMER), -ETIMEDOUT);
        finish(&k, IVS_CONSUMER);
        CHECK_EQ(ivs_ring_dequeue_zc_burst_start(&k.r, 8, 4, &zc, NULL), 4);
        CHECK_EQ(*(uint64_t *)zc.first, 5);
        CHECK_EQ(ivs_ring_dequeue_zc_finish(&k.r, 4), 4);
        CHECK_EQ(operate(&k, IVS_CONSUMER), 1);
        kit_free(&k);
    }
}

/* A closed handle stays closed, also after a stall. */
static void test_closing_wins(void)
{
    struct kit k;
    make_incomplete(&k, 0, IVS_PRODUCER, 1);
    CHECK_EQ(operate(&k, IVS_PRODUCER), -ETIMEDOUT);
    ivs_ring_refuse(&k.r, -ESHUTDOWN);
    CHECK_EQ(operate(&k, IVS_PRODUCER), -ESHUTDOWN);
    finish(&k, IVS_PRODUCER);
    CHECK_EQ(operate(&k, IVS_PRODUCER), -ESHUTDOWN);
    kit_free(&k);
}

/* The owner of an ST side is the process that used it last, for each side separately; other sides record no owner. */
static void test_owner_is_recorded(void)
{
    struct kit k;
    struct ivs_ring other;
    uint64_t value = 1;
    kit_make(&k, 16, 8, IVS_RING_SP_ENQ | IVS_RING_SC_DEQ);
    k.r.owner = 111;
    kit_attach(&k, &other);
    other.owner = 222;
    CHECK_EQ(ivs_ring_enqueue_bulk(&k.r, &value, 8, 1, NULL), 1);
    CHECK_EQ(atomic_load(&k.memory->prod_owner), 111);
    CHECK_EQ(atomic_load(&k.memory->cons_owner), 0);
    CHECK_EQ(ivs_ring_dequeue_bulk(&other, &value, 8, 1, NULL), 1);
    CHECK_EQ(atomic_load(&k.memory->cons_owner), 222);
    CHECK_EQ(ivs_ring_enqueue_bulk(&other, &value, 8, 1, NULL), 1);
    CHECK_EQ(atomic_load(&k.memory->prod_owner), 222);
    CHECK_EQ(ivs_ring_enqueue_bulk(&k.r, &value, 8, 1, NULL), 1);
    CHECK_EQ(atomic_load(&k.memory->prod_owner), 111);
    kit_attach(&k, &other); /* the CRC does not cover these words */
    kit_free(&k);

    kit_make(&k, 16, 8, 0);
    k.r.owner = 111;
    CHECK_EQ(ivs_ring_enqueue_bulk(&k.r, &value, 8, 1, NULL), 1);
    CHECK_EQ(atomic_load(&k.memory->prod_owner), 0);
    kit_free(&k);
}

/* After the rollback, elements that the dead process had not published are gone; elements that it had not dequeued
 * remain. */
static void test_mend(void)
{
    for (int i = 0; i < 2; i++) {
        struct kit k;
        struct ivs_ring_headtail seen;
        uint64_t values[64];
        make_incomplete(&k, IVS_RING_SP_ENQ | IVS_RING_SC_DEQ, roles[i], 7);
        ivs_ring_headtail_get(&k.r, roles[i], &seen);
        CHECK_EQ(seen.incomplete, 1);
        CHECK_EQ(seen.head - seen.tail, 7);
        seen.head++;
        CHECK_EQ(ivs_ring_rollback(&k.r, roles[i], &seen), 0); /* not the present state */
        seen.head--;
        CHECK_EQ(operate(&k, roles[i]), -ETIMEDOUT);
        CHECK_EQ(ivs_ring_rollback(&k.r, roles[i], &seen), 1);
        ivs_ring_headtail_get(&k.r, roles[i], &seen);
        CHECK_EQ(seen.incomplete, 0);
        CHECK_EQ(ivs_ring_dequeue_burst(&k.r, values, 8, 64, NULL), 20);
        for (uint64_t v = 0; v < 20; v++)
            CHECK_EQ(values[v], v);
        CHECK_EQ(operate(&k, IVS_PRODUCER), 1);
        kit_free(&k);
    }
    struct kit k;
    struct ivs_ring_headtail seen;
    make_incomplete(&k, 0, IVS_PRODUCER, 7);
    ivs_ring_headtail_get(&k.r, IVS_PRODUCER, &seen);
    CHECK_EQ(ivs_ring_rollback(&k.r, IVS_PRODUCER, &seen), -ENOTSUP);
    kit_free(&k);
}

int main(void)
{
    RUN(test_is_waited_for_once);
    RUN(test_giving_up_gives_back);
    RUN(test_nothing_left_to_wait_for);
    RUN(test_peek_at_a_stalled_end);
    RUN(test_closing_wins);
    RUN(test_owner_is_recorded);
    RUN(test_mend);
    return check_result();
}
