/* SPDX-License-Identifier: BSD-3-Clause */
/* test_ring.c: every operation of one thread compared with a plain queue, in every sync mode. */
#include "ring_kit.h"

#define MOST 300u

/* A queue of numbered elements: the next number to enqueue, the next to dequeue. */
struct model {
    uint32_t in, out, capacity, elem_size;
};

static uint32_t word_of(uint32_t number, uint32_t word)
{
    return number * 2654435761u + word;
}

static void fill(uint32_t *objects, uint32_t number, uint32_t n, uint32_t elem_size)
{
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t w = 0; w < elem_size / 4; w++)
            *objects++ = word_of(number + i, w);
}

static bool matches(const uint32_t *objects, uint32_t number, uint32_t n, uint32_t elem_size)
{
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t w = 0; w < elem_size / 4; w++)
            if (*objects++ != word_of(number + i, w))
                return false;
    return true;
}

static void step_enqueue(struct ivs_ring *r, struct model *m, uint32_t n, bool bulk, uint32_t *objects)
{
    uint32_t room = m->capacity - (m->in - m->out);
    uint32_t expected = n <= room ? n : bulk ? 0 : room;
    uint32_t left = 12345;

    fill(objects, m->in, n, m->elem_size);
    int done = bulk ? ivs_ring_enqueue_bulk(r, objects, m->elem_size, n, &left)
                    : ivs_ring_enqueue_burst(r, objects, m->elem_size, n, &left);
    CHECK_EQ(done, expected);
    CHECK_EQ(left, room - expected);
    m->in += expected;
}

static void step_dequeue(struct ivs_ring *r, struct model *m, uint32_t n, bool bulk, uint32_t *objects)
{
    uint32_t held = m->in - m->out;
    uint32_t expected = n <= held ? n : bulk ? 0 : held;
    uint32_t left = 12345;
    size_t words = (size_t)n * m->elem_size / 4;

    for (size_t i = 0; i <= words; i++)
        objects[i] = 0xdeadbeefu;
    int done = bulk ? ivs_ring_dequeue_bulk(r, objects, m->elem_size, n, &left)
                    : ivs_ring_dequeue_burst(r, objects, m->elem_size, n, &left);
    CHECK_EQ(done, expected);
    CHECK_EQ(left, held - expected);
    CHECK(matches(objects, m->out, expected, m->elem_size));
    CHECK_EQ(objects[(size_t)expected * m->elem_size / 4], 0xdeadbeefu); /* and not one word more */
    m->out += expected;
}

static void against_model(uint32_t count, uint32_t elem_size, uint32_t flags, uint32_t start, uint32_t steps)
{
    struct kit k;
    static uint32_t objects[MOST * 16 + 1];
    uint64_t seed = 88172645463325252u + elem_size + flags;

    kit_make(&k, count, elem_size, flags);
    kit_set_index(k.memory, start);
    kit_attach(&k, &k.r);
    struct model m = {.capacity = k.info.capacity, .elem_size = elem_size};
    for (uint32_t i = 0; i < steps; i++) {
        uint32_t choice = check_random(&seed);
        uint32_t n = choice >> 8 & 1 ? choice % 5 : choice % (count + 10) % MOST;
        if (choice >> 9 & 1)
            step_enqueue(&k.r, &m, n, choice >> 10 & 1, objects);
        else
            step_dequeue(&k.r, &m, n, choice >> 10 & 1, objects);
        CHECK_EQ(ivs_ring_count(&k.r), m.in - m.out);
    }
    kit_free(&k);
}

static void test_against_model(void)
{
    static const uint32_t sizes[] = {4, 8, 12, 16, 20, 64};
    for (uint32_t mode = 0; mode < KIT_MODES; mode++)
        for (uint32_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
            against_model(64, sizes[i], kit_modes[mode].flags, 0, 2000);
}

static void test_index_wraps_at_32_bits(void)
{
    for (uint32_t mode = 0; mode < KIT_MODES; mode++)
        against_model(128, 8, kit_modes[mode].flags, 0u - 1000u, 1000);
}

static uint64_t next_in, next_out;

static uint32_t put_some(struct ivs_ring *r, uint32_t n, bool bulk)
{
    uint64_t values[16];
    for (uint32_t i = 0; i < 16; i++)
        values[i] = next_in + i;
    int done = n == 1 ? ivs_ring_enqueue_bulk(r, values, 8, 1, NULL) /* constants take a code path of their own */
               : bulk ? ivs_ring_enqueue_bulk(r, values, 8, n, NULL)
                      : ivs_ring_enqueue_burst(r, values, 8, n, NULL);
    REQUIRE(done >= 0);
    next_in += (uint32_t)done;
    return (uint32_t)done;
}

static uint32_t take_some(struct ivs_ring *r, uint32_t n, bool bulk)
{
    uint64_t values[16] = {0};
    int done = n == 1 ? ivs_ring_dequeue_bulk(r, values, 8, 1, NULL)
               : bulk ? ivs_ring_dequeue_bulk(r, values, 8, n, NULL)
                      : ivs_ring_dequeue_burst(r, values, 8, n, NULL);
    REQUIRE(done >= 0);
    for (int i = 0; i < done; i++)
        CHECK_EQ(values[i], next_out++);
    return (uint32_t)done;
}

/* Without `left` an ST side uses its cached limit, also over the wrap of the indices, where tail and head must not
 * carry into each other. */
static void test_what_is_known_holds_over_the_wrap(void)
{
    for (uint32_t mode = 0; mode < KIT_MODES; mode++) {
        for (uint32_t start = 0; start < 40; start++) {
            struct kit k;
            kit_make(&k, 16, 8, kit_modes[mode].flags);
            kit_set_index(k.memory, 0u - start);
            kit_attach(&k, &k.r);
            next_in = next_out = 0;
            for (uint32_t step = 0; step < 400; step++) {
                uint32_t n = step % 5 == 0 ? step % 7 + 1 : 1, held = (uint32_t)(next_in - next_out);
                /* nearly full, nearly empty, and all fill levels between */
                bool bulk = step % 2 == 0, grow = step / 20 % 2 == 0;
                uint32_t done = put_some(&k.r, n, bulk);
                CHECK_EQ(done, n <= 15 - held ? n : bulk || n == 1 ? 0 : 15 - held);
                held += done;
                n = grow ? (step + start) % 2 : n + (step + start) % 3;
                done = take_some(&k.r, n, bulk);
                CHECK_EQ(done, n <= held ? n : bulk || n == 1 ? 0 : held);
                CHECK_EQ(ivs_ring_count(&k.r), next_in - next_out);
                if (next_in == next_out)
                    CHECK_EQ(take_some(&k.r, 1, bulk), 0);
                union ivs_ring_end *ends[2] = {&k.memory->prod, &k.memory->cons};
                for (int i = 0; i < 2; i++)
                    if (ends[i]->sync_type == IVS_SYNC_ST)
                        CHECK_EQ(ends[i]->head, ends[i]->tail);
            }
            kit_free(&k);
        }
    }
}

static void check_rts_tail(const struct kit *k, uint32_t pos, uint32_t cnt)
{
    uint64_t tail = atomic_load(&k->memory->prod.rts.tail);
    CHECK_EQ(tail >> 32, pos);
    CHECK_EQ((uint32_t)tail, cnt);
}

/* Two operations in progress on an RTS side, completed in each order: the tail passes completed elements only. */
static void test_rts_operations_overlap(void)
{
    for (uint32_t order = 0; order < 2; order++) {
        struct kit k;
        struct ivs_ring_span spans[2];
        kit_make(&k, 64, 8, IVS_RING_MP_RTS_ENQ | IVS_RING_MC_RTS_DEQ);
        union ivs_ring_end *own = ivs_ring_own(&k.r, IVS_PRODUCER);
        for (uint32_t i = 0; i < 2; i++)
            CHECK_EQ(ivs_ring_reserve_rts(&k.r, IVS_PRODUCER, own, 2, IVS_BULK, &spans[i]), 0);
        check_rts_tail(&k, 0, 0);
        CHECK_EQ(ivs_ring_publish_rts(&k.r, own, &spans[order]), 0);
        check_rts_tail(&k, order == 0 ? 2 : 0, 1);
        CHECK_EQ(ivs_ring_publish_rts(&k.r, own, &spans[1 - order]), 0);
        check_rts_tail(&k, 4, 2);
        kit_free(&k);
    }
}

static void test_exact_size(void)
{
    static const uint32_t counts[] = {1, 2, 3, 5, 100, 127, 128, 255};
    for (uint32_t mode = 0; mode < KIT_MODES; mode++)
        for (uint32_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
            against_model(counts[i], 8, kit_modes[mode].flags | IVS_RING_EXACT_SZ, 0u - 50u, 300);
}

static void test_smallest_rings(void)
{
    against_model(1, 4, 0, 0, 50); /* a ring of one slot holds no element, as DPDK's */
    against_model(2, 4, IVS_RING_SP_ENQ | IVS_RING_SC_DEQ, 0, 200);
}

static void check_rejected(uint32_t count, uint32_t elem_size, uint32_t flags, int fault)
{
    struct kit k;
    CHECK_EQ(kit_plan(&k, count, elem_size, flags), -EINVAL);
    CHECK_EQ(ivs_ring_info_fault(&k.info), fault);
}

static void test_plan(void)
{
    struct kit k;
    CHECK_EQ(kit_plan(&k, 1024, 8, 0), 384 + 1024 * 8);
    CHECK_EQ(k.info.capacity, 1023);
    CHECK_EQ(kit_plan(&k, 1023, 8, IVS_RING_EXACT_SZ), 384 + 1024 * 8);
    CHECK_EQ(k.info.capacity, 1023);
    CHECK_EQ(kit_plan(&k, 1024, 8, IVS_RING_EXACT_SZ), 384 + 2048 * 8);
    CHECK_EQ(k.info.capacity, 1024);
    CHECK_EQ(kit_plan(&k, 0x40000000u, 16, 0), 384 + (0x40000000ll * 16));
    check_rejected(0, 8, 0, IVS_FAULT_RING_COUNT);
    check_rejected(1000, 8, 0, IVS_FAULT_RING_POWER_OF_TWO);
    check_rejected(0x80000000u, 8, 0, IVS_FAULT_RING_COUNT);
    check_rejected(1024, 0, 0, IVS_FAULT_RING_ELEM_SIZE);
    check_rejected(1024, 6, 0, IVS_FAULT_RING_ELEM_SIZE);
    check_rejected(1024, 8, 0x80, IVS_FAULT_RING_FLAGS);
    check_rejected(1024, 8, IVS_RING_SP_ENQ | IVS_RING_MP_RTS_ENQ, IVS_FAULT_RING_FLAGS);
    check_rejected(1024, 8, IVS_RING_MP_HTS_ENQ | IVS_RING_MP_RTS_ENQ, IVS_FAULT_RING_FLAGS);
    check_rejected(1024, 8, IVS_RING_SC_DEQ | IVS_RING_MC_HTS_DEQ, IVS_FAULT_RING_FLAGS);
}

static void test_create_refuses(void)
{
    struct kit k;
    kit_make(&k, 64, 8, 0);
    CHECK_EQ(ivs_ring_create(k.memory, k.bytes - 1, &k.info), -ENOSPC);
    CHECK_EQ(ivs_ring_create((char *)k.memory + 8, k.bytes, &k.info), -EINVAL);
    k.info.name[0] = '/';
    CHECK_EQ(ivs_ring_create(k.memory, k.bytes, &k.info), -EINVAL);
    k.info.name[0] = 0;
    CHECK_EQ(ivs_ring_create(k.memory, k.bytes, &k.info), -EINVAL);
    kit_free(&k);
}

static void test_refusals_of_a_handle(void)
{
    struct kit k;
    uint64_t value = 7, two[2];
    kit_make(&k, 64, 8, 0);
    CHECK_EQ(ivs_ring_enqueue_bulk(&k.r, &value, 4, 1, NULL), -EINVAL);
    CHECK_EQ(ivs_ring_dequeue_burst(&k.r, two, 16, 1, NULL), -EINVAL);
    ivs_ring_refuse(&k.r, -EACCES);
    CHECK_EQ(ivs_ring_enqueue_bulk(&k.r, &value, 8, 1, NULL), -EACCES);
    CHECK_EQ(ivs_ring_dequeue_bulk(&k.r, &value, 8, 1, NULL), -EACCES);
    CHECK_EQ(ivs_ring_reset(&k.r), -EACCES);
    ivs_ring_refuse(&k.r, 0);
    CHECK_EQ(ivs_ring_enqueue_bulk(&k.r, &value, 8, 1, NULL), 1);
    CHECK_EQ(ivs_ring_count(&k.r), 1);
    kit_free(&k);
}

/* A second handle uses the ST side in between: the first one's cached index is no longer a bound. */
static void test_st_end_changes_hands(void)
{
    struct kit k;
    struct ivs_ring other;
    uint64_t values[64] = {0};
    uint32_t left = 0;

    kit_make(&k, 64, 8, IVS_RING_SP_ENQ | IVS_RING_SC_DEQ);
    kit_attach(&k, &other);
    CHECK_EQ(ivs_ring_enqueue_bulk(&k.r, values, 8, 10, NULL), 10);
    CHECK_EQ(ivs_ring_enqueue_bulk(&other, values, 8, 50, NULL), 50);
    CHECK_EQ(ivs_ring_enqueue_burst(&k.r, values, 8, 10, &left), 3);
    CHECK_EQ(left, 0);
    CHECK_EQ(ivs_ring_dequeue_bulk(&other, values, 8, 40, NULL), 40);
    CHECK_EQ(ivs_ring_dequeue_burst(&k.r, values, 8, 64, &left), 23);
    CHECK_EQ(ivs_ring_dequeue_burst(&other, values, 8, 64, &left), 0);
    kit_free(&k);
}

/* The same after the indices were set back, as DPDK's rte_ring_reset does: the cached opposite index is wrong. */
static void test_indices_go_backwards(void)
{
    struct kit k;
    struct ivs_ring other;
    uint64_t values[64] = {0};

    kit_make(&k, 64, 8, IVS_RING_SP_ENQ | IVS_RING_SC_DEQ);
    kit_set_index(k.memory, 100);
    CHECK_EQ(ivs_ring_enqueue_bulk(&k.r, values, 8, 1, NULL), 1); /* cached limit: 163 */
    CHECK_EQ(ivs_ring_dequeue_bulk(&k.r, values, 8, 1, NULL), 1);
    kit_set_index(k.memory, 80);
    kit_attach(&k, &other);
    CHECK_EQ(ivs_ring_enqueue_bulk(&other, values, 8, 60, NULL), 60); /* up to 140, and the limit is 143 */
    CHECK_EQ(ivs_ring_enqueue_burst(&k.r, values, 8, 10, NULL), 3);
    kit_free(&k);
}

static void test_reset(void)
{
    for (uint32_t mode = 0; mode < KIT_MODES; mode++) {
        struct kit k;
        struct ivs_ring other;
        uint64_t values[64] = {0};
        kit_make(&k, 64, 8, kit_modes[mode].flags);
        kit_attach(&k, &other);
        CHECK_EQ(ivs_ring_enqueue_bulk(&k.r, values, 8, 60, NULL), 60);
        CHECK_EQ(ivs_ring_dequeue_bulk(&other, values, 8, 20, NULL), 20);
        CHECK_EQ(ivs_ring_reset(&k.r), 0);
        CHECK_EQ(ivs_ring_count(&other), 0);
        CHECK_EQ(ivs_ring_dequeue_burst(&other, values, 8, 64, NULL), 0);
        CHECK_EQ(ivs_ring_enqueue_burst(&k.r, values, 8, 64, NULL), 63);
        CHECK_EQ(ivs_ring_dequeue_burst(&other, values, 8, 64, NULL), 63);
        kit_free(&k);
    }
}

static void test_wait(void)
{
    struct kit k;
    uint64_t value = 1;
    kit_make(&k, 64, 8, 0);
    uint64_t begin = ivs_now_ns();
    CHECK_EQ(ivs_ring_wait(&k.r, 20000000), 0);
    CHECK(ivs_now_ns() - begin >= 20000000);
    CHECK_EQ(ivs_ring_enqueue_bulk(&k.r, &value, 8, 1, NULL), 1);
    CHECK_EQ(ivs_ring_wait(&k.r, 20000000), 1);
    kit_free(&k);
}

/* A peer that moved a head and never its tail. */
static void test_stalled_peer(void)
{
    for (uint32_t mode = 0; mode < KIT_MODES; mode++) {
        struct kit k;
        uint64_t value = 1;
        if (kit_modes[mode].flags & IVS_RING_SP_ENQ)
            continue; /* waits for no peer */
        kit_make(&k, 64, 8, kit_modes[mode].flags);
        if (k.r.prod_sync == IVS_SYNC_RTS) /* further ahead than htd_max allows */
            atomic_store(&k.memory->prod.rts.head, (uint64_t)40 << 32 | 1);
        else
            atomic_store(&k.memory->prod.head, 1);
        uint64_t begin = ivs_now_ns();
        CHECK_EQ(ivs_ring_enqueue_bulk(&k.r, &value, 8, 1, NULL), -ETIMEDOUT);
        uint64_t took = ivs_now_ns() - begin;
        CHECK(took >= KIT_STALL_NS);
        CHECK(took < KIT_STALL_NS + 2000000000u);
        kit_free(&k);
    }
}

/* An overwritten opposite tail: at most the capacity is reserved. */
static void test_nonsense_is_clamped(void)
{
    for (uint32_t mode = 0; mode < KIT_MODES; mode++) {
        struct kit k;
        uint64_t values[64] = {0};
        uint32_t left = 0;
        kit_make(&k, 64, 8, kit_modes[mode].flags);
        atomic_store(&k.memory->cons.tail, 0x12345678);
        CHECK(ivs_ring_enqueue_burst(&k.r, values, 8, 64, &left) <= 63);
        CHECK(left <= 63);
        atomic_store(&k.memory->prod.tail, 0x9abcdef0);
        CHECK(ivs_ring_dequeue_burst(&k.r, values, 8, 64, &left) <= 63);
        CHECK(left <= 63);
        CHECK(ivs_ring_count(&k.r) <= 63);
        kit_free(&k);
    }
}

int main(void)
{
    RUN(test_against_model);
    RUN(test_index_wraps_at_32_bits);
    RUN(test_what_is_known_holds_over_the_wrap);
    RUN(test_rts_operations_overlap);
    RUN(test_exact_size);
    RUN(test_smallest_rings);
    RUN(test_plan);
    RUN(test_create_refuses);
    RUN(test_refusals_of_a_handle);
    RUN(test_st_end_changes_hands);
    RUN(test_indices_go_backwards);
    RUN(test_reset);
    RUN(test_wait);
    RUN(test_stalled_peer);
    RUN(test_nonsense_is_clamped);
    return check_result();
}
