/* SPDX-License-Identifier: BSD-3-Clause */
/* stress_ring.c: concurrent producers and consumers on one small ring: no loss, no duplicate, order kept.
 *
 *   stress_ring MODE threads|processes [OBJECTS]      MODE as in kit_modes of ring_kit.h
 *
 * An element contains its producer and its number, twice, so that a torn element is detected. Each consumer must see
 * the numbers of each producer rise; all consumers together must see each number once. The ring is small and its
 * indices start shortly before they wrap, so that it is often full, empty and at its end. */
#include "crew.h"
#include "ring_kit.h"
#include "ring_peek.h"

#define COUNT 64u
#define BATCH 40u
#define PRODUCERS_MOST 2u
#define CONSUMERS_MOST 2u
#define STALL_NS UINT64_C(60000000000) /* a busy machine is not a stalled peer */

struct element {
    uint32_t producer;
    uint32_t number;
    uint32_t check; /* ~number */
};

struct stage {
    uint32_t producers, consumers;
    uint32_t objects; /* of each producer */
    struct kit ring;
    _Atomic uint64_t taken;                /* by all consumers */
    _Atomic uint8_t *seen[PRODUCERS_MOST]; /* how often each number was dequeued */
};

static struct ivs_ring attach(struct stage *s)
{
    struct ivs_ring_info info;
    struct ivs_ring r;
    REQUIRE(ivs_ring_attach(&r, s->ring.memory, s->ring.bytes, STALL_NS, &info) == IVS_OK);
    return r;
}

/* One of three ways to enqueue; the third only if the side supports it. */
static int enqueue_some(struct ivs_ring *r, const struct element *batch, uint32_t n, uint32_t choice)
{
    struct ivs_ring_zc zc;
    if (choice == 0)
        return ivs_ring_enqueue_bulk(r, batch, sizeof(batch[0]), n, NULL);
    if (choice == 1 || (r->prod_sync != IVS_SYNC_ST && r->prod_sync != IVS_SYNC_HTS))
        return ivs_ring_enqueue_burst(r, batch, sizeof(batch[0]), n, NULL);
    int got = ivs_ring_enqueue_zc_burst_start(r, sizeof(batch[0]), n, &zc, NULL);
    if (got <= 0)
        return got;
    memcpy(zc.first, batch, zc.n1 * sizeof(batch[0]));
    if (zc.n2 != 0)
        memcpy(zc.second, batch + zc.n1, zc.n2 * sizeof(batch[0]));
    return ivs_ring_enqueue_zc_finish(r, (uint32_t)got - (uint32_t)got / 3); /* including wrong sizes */
}

static int dequeue_some(struct ivs_ring *r, struct element *batch, uint32_t n, uint32_t choice)
{
    if (choice == 0)
        return ivs_ring_dequeue_bulk(r, batch, sizeof(batch[0]), n, NULL);
    if (choice == 1 || (r->cons_sync != IVS_SYNC_ST && r->cons_sync != IVS_SYNC_HTS))
        return ivs_ring_dequeue_burst(r, batch, sizeof(batch[0]), n, NULL);
    int got = ivs_ring_dequeue_burst_start(r, batch, sizeof(batch[0]), n, NULL);
    return got <= 0 ? got : ivs_ring_dequeue_finish(r, (uint32_t)got - (uint32_t)got / 3);
}

static void produce(struct stage *s, uint32_t me)
{
    struct ivs_ring r = attach(s);
    struct element batch[BATCH];
    uint64_t seed = 1000003u * (me + 1);
    uint32_t next = 0;

    while (next < s->objects) {
        uint32_t n = 1 + check_random(&seed) % BATCH;
        n = n < s->objects - next ? n : s->objects - next;
        for (uint32_t i = 0; i < n; i++)
            batch[i] = (struct element){me, next + i, ~(next + i)};
        int done = enqueue_some(&r, batch, n, check_random(&seed) % 3);
        REQUIRE(done >= 0);
        next += (uint32_t)done;
        if (done == 0)
            sched_yield();
    }
}

static void account(struct stage *s, const struct element *e, int64_t *last)
{
    REQUIRE(e->producer < s->producers && e->number < s->objects);
    CHECK_EQ(e->check, ~e->number);
    CHECK((int64_t)e->number > last[e->producer]);
    last[e->producer] = e->number;
    CHECK_EQ(atomic_fetch_add_explicit(&s->seen[e->producer][e->number], 1, memory_order_relaxed), 0);
}

static void consume(struct stage *s, uint32_t me)
{
    struct ivs_ring r = attach(s);
    struct element batch[BATCH];
    int64_t last[PRODUCERS_MOST] = {-1, -1};
    uint64_t seed = 7000003u * (me + 1), all = (uint64_t)s->producers * s->objects;

    while (atomic_load(&s->taken) < all) {
        uint32_t n = 1 + check_random(&seed) % BATCH;
        int done = dequeue_some(&r, batch, n, check_random(&seed) % 3);
        REQUIRE(done >= 0);
        for (int i = 0; i < done; i++)
            account(s, &batch[i], last);
        if (done == 0)
            sched_yield();
        atomic_fetch_add(&s->taken, (uint64_t)done);
    }
}

static void work(uint32_t number, void *shared)
{
    struct stage *s = shared;
    if (number < s->producers)
        produce(s, number);
    else
        consume(s, number - s->producers);
}

static struct stage *set_up(const struct kit_mode *mode, uint32_t objects)
{
    struct stage *s = crew_memory(sizeof(*s));
    s->producers = mode->flags & IVS_RING_SP_ENQ ? 1 : PRODUCERS_MOST;
    s->consumers = mode->flags & IVS_RING_SC_DEQ ? 1 : CONSUMERS_MOST;
    s->objects = objects;
    REQUIRE(kit_plan(&s->ring, COUNT, sizeof(struct element), mode->flags) > 0);
    s->ring.memory = crew_memory(s->ring.bytes);
    REQUIRE(ivs_ring_create(s->ring.memory, s->ring.bytes, &s->ring.info) == 0);
    kit_set_index(s->ring.memory, 0u - objects / 2);
    for (uint32_t i = 0; i < s->producers; i++)
        s->seen[i] = crew_memory(objects);
    return s;
}

static void check_all_came(const struct stage *s)
{
    uint64_t missing = 0;
    for (uint32_t i = 0; i < s->producers; i++)
        for (uint32_t k = 0; k < s->objects; k++)
            missing += atomic_load(&s->seen[i][k]) == 0;
    CHECK_EQ(missing, 0);
}

int main(int argc, char **argv)
{
    REQUIRE(argc >= 3);
    uint32_t objects = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 200000;
    for (uint32_t i = 0; i < KIT_MODES; i++) {
        if (strcmp(argv[1], kit_modes[i].name) != 0)
            continue;
        struct stage *s = set_up(&kit_modes[i], objects);
        crew_run(argv[2], s->producers + s->consumers, work, s);
        check_all_came(s);
        return check_result();
    }
    fprintf(stderr, "no mode %s\n", argv[1]);
    return 1;
}
