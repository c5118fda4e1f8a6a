/* SPDX-License-Identifier: BSD-3-Clause */
/* stress_mempool.c: concurrent workers get, mark, pass on and put objects of one mempool.
 *
 *   stress_mempool CACHE_SIZE threads|processes [CYCLES]
 *
 * A worker writes its mark to each object that it gets. The object must have been unmarked, and must still have the
 * mark when the worker puts it. Half of the objects go to other workers through a ring. At the end, the audit must
 * find each object exactly once.
 */
#include "crew.h"
#include "pool_kit.h"
#include "ring_kit.h"

#define OBJECTS 500u
#define WORKERS 4u
#define BATCH 24u
#define STALL_NS UINT64_C(60000000000)

struct object {
    _Atomic uint64_t mark; /* 0: in the pool; else worker + 1, or IN_RING */
    uint64_t payload;      /* not atomic: get and put must order its accesses (ThreadSanitizer) */
};
#define IN_RING UINT64_C(0xffffffff)

struct stage {
    struct pool_kit pool;
    struct kit ring;
    uint32_t cycles; /* per worker */
};

/* Changes the mark of an object, which must be `from`. */
static void change_mark(struct ivs_mempool *p, uint32_t index, uint64_t from, uint64_t to)
{
    REQUIRE(index < OBJECTS);
    struct object *o = (struct object *)(void *)(p->objects + (size_t)index * p->elt_stride);
    uint64_t mark = from;
    if (from == 0)
        o->payload = to;
    CHECK(atomic_compare_exchange_strong_explicit(&o->mark, &mark, to, memory_order_relaxed, memory_order_relaxed));
    CHECK_EQ(mark, from);
}

static void get_some(struct ivs_mempool *p, uint64_t me, uint32_t n, uint32_t *held, uint32_t *n_held)
{
    int got = ivs_mempool_get_bulk(p, held + *n_held, n);
    REQUIRE(got == 0 || got == (int)n);
    for (int i = 0; i < got; i++)
        change_mark(p, held[*n_held + (uint32_t)i], 0, me);
    *n_held += (uint32_t)got;
}

static void put_some(struct ivs_mempool *p, uint64_t me, uint32_t n, uint32_t *held, uint32_t *n_held)
{
    *n_held -= n;
    for (uint32_t i = 0; i < n; i++)
        change_mark(p, held[*n_held + i], me, 0);
    CHECK_EQ(ivs_mempool_put_bulk(p, held + *n_held, n), n);
}

static void enqueue_some(struct ivs_mempool *p, struct ivs_ring *r, uint64_t me, uint32_t n, uint32_t *held,
                         uint32_t *n_held)
{
    *n_held -= n;
    for (uint32_t i = 0; i < n; i++)
        change_mark(p, held[*n_held + i], me, IN_RING);
    int done = ivs_ring_enqueue_burst(r, held + *n_held, 4, n, NULL);
    REQUIRE(done == (int)n); /* the ring has room for all objects */
}

static void dequeue_some(struct ivs_mempool *p, struct ivs_ring *r, uint64_t me, uint32_t n, uint32_t *held,
                         uint32_t *n_held)
{
    int got = ivs_ring_dequeue_burst(r, held + *n_held, 4, n, NULL);
    REQUIRE(got >= 0);
    for (int i = 0; i < got; i++)
        change_mark(p, held[*n_held + (uint32_t)i], IN_RING, me);
    *n_held += (uint32_t)got;
}

static void work(uint32_t number, void *shared)
{
    struct stage *s = shared;
    struct ivs_mempool *p = pool_attach(&s->pool, number == 0 ? -1 : (int)number); /* worker 0 has no slot */
    struct ivs_ring r;
    struct ivs_ring_info info;
    uint32_t held[OBJECTS], n_held = 0;
    uint64_t seed = 31337u * (number + 1), me = number + 1;

    REQUIRE(ivs_ring_attach(&r, s->ring.memory, s->ring.bytes, STALL_NS, &info) == IVS_OK);
    for (uint32_t cycle = 0; cycle < s->cycles; cycle++) {
        uint32_t n = 1 + check_random(&seed) % BATCH;
        uint32_t choice = check_random(&seed) % 4;
        if (choice == 0 && n_held + n <= OBJECTS)
            get_some(p, me, n, held, &n_held);
        else if (choice == 1 && n_held + n <= OBJECTS)
            dequeue_some(p, &r, me, n, held, &n_held);
        else if (choice == 2 && n <= n_held)
            put_some(p, me, n, held, &n_held);
        else if (choice == 3 && n <= n_held)
            enqueue_some(p, &r, me, n, held, &n_held);
    }
    put_some(p, me, n_held, held, &n_held);
    ivs_mempool_leave(p);
    free(p);
}

/* Puts the objects that are still in the ring; then checks that each object is free and that the counters agree. */
static void check_pool(struct stage *s)
{
    struct ivs_mempool *p = pool_attach(&s->pool, -1);
    uint32_t object;
    uint16_t where[OBJECTS];
    uint32_t n_held = 0;

    kit_attach(&s->ring, &s->ring.r);
    while (ivs_ring_dequeue_bulk(&s->ring.r, &object, 4, 1, NULL) == 1) {
        n_held = 1;
        change_mark(p, object, IN_RING, 99);
        put_some(p, 99, 1, &object, &n_held);
    }
    CHECK_EQ(ivs_mempool_audit(p, where), 0);
    for (uint32_t i = 0; i < OBJECTS; i++)
        CHECK_EQ(where[i], IVS_HELD_FREE);
    CHECK_EQ(ivs_mempool_available(p), OBJECTS);
    CHECK_EQ(ivs_mempool_out(p), 0);
    free(p);
}

int main(int argc, char **argv)
{
    REQUIRE(argc >= 3);
    struct stage *s = crew_memory(sizeof(*s));
    s->cycles = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 100000;
    REQUIRE(pool_plan(&s->pool, OBJECTS, sizeof(struct object), (uint32_t)strtoul(argv[1], NULL, 10), 0) > 0);
    s->pool.memory = crew_memory(s->pool.bytes);
    REQUIRE(ivs_mempool_create(s->pool.memory, s->pool.bytes, &s->pool.info) == 0);
    REQUIRE(kit_plan(&s->ring, 512, 4, 0) > 0);
    s->ring.memory = crew_memory(s->ring.bytes);
    REQUIRE(ivs_ring_create(s->ring.memory, s->ring.bytes, &s->ring.info) == 0);
    crew_run(argv[2], WORKERS, work, s);
    check_pool(s);
    return check_result();
}
