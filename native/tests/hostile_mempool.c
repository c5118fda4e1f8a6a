/* SPDX-License-Identifier: BSD-3-Clause */
/* hostile_mempool.c: operations on a mempool while its header, bitmap, caches and objects are overwritten.
 *
 *   hostile_mempool [SEED]      as hostile_ring
 */
#include "hostile.h"
#include "pool_kit.h"

#define MOST 100u
#define CORRUPTIONS 60000u
#define CONCURRENT 60000u

struct victim {
    struct pool_kit k;
    struct ivs_mempool *p[2]; /* with and without a slot */
    uint32_t *held;           /* MOST indices */
    uint32_t n_held;
    uint16_t *where; /* n values */
    size_t busy;     /* bytes before the objects: overwritten more often */
};

static void make(struct victim *v, uint64_t *seed)
{
    static const uint32_t sizes[] = {1, 63, 64, 100, 500};
    uint32_t n = sizes[check_random(seed) % 5], cache_size = n >= 100 ? check_random(seed) % 3 * 30 : 0;
    REQUIRE(pool_plan(&v->k, n, 40, cache_size, 0) > 0);
    v->k.memory = (struct ivs_mempool_shared *)(void *)hostile_arena(v->k.bytes, check_random(seed) % 2);
    REQUIRE(ivs_mempool_create(v->k.memory, v->k.bytes, &v->k.info) == 0);
    v->busy = (size_t)v->k.memory->objects_offset;
    v->p[0] = pool_attach(&v->k, (int)(check_random(seed) % 64));
    v->p[1] = pool_attach(&v->k, -1);
    v->held = malloc(MOST * sizeof(*v->held));
    v->where = malloc(n * sizeof(*v->where));
    REQUIRE(v->held != NULL && v->where != NULL);
    v->n_held = 0;
}

static void unmake(struct victim *v)
{
    free(v->p[0]);
    free(v->p[1]);
    free(v->held);
    free(v->where);
    hostile_release((unsigned char *)v->k.memory, v->k.bytes);
}

static void get(struct victim *v, struct ivs_mempool *p, uint32_t n)
{
    n = n < MOST - v->n_held ? n : MOST - v->n_held;
    int got = ivs_mempool_get_bulk(p, v->held + v->n_held, n);
    CHECK(got == 0 || got == (int)n);
    for (int i = 0; i < got; i++) {
        uint32_t object = v->held[v->n_held + (uint32_t)i];
        REQUIRE(object < v->k.info.n);
        memset(p->objects + (size_t)object * p->elt_stride, 0x77, p->elt_size);
    }
    v->n_held += got > 0 ? (uint32_t)got : 0;
}

static void put(struct victim *v, struct ivs_mempool *p, uint32_t n)
{
    n = n < v->n_held ? n : v->n_held;
    int done = ivs_mempool_put_bulk(p, v->held + v->n_held - n, n);
    CHECK(done == (int)n || done == -EALREADY || done == -EINVAL);
    v->n_held -= n;
}

/* Puts indices from an array inside the pool, which a peer may change at any time. */
static void put_from_shared(struct victim *v, struct ivs_mempool *p, uint32_t n)
{
    n = n < v->k.bytes / 4 ? n : (uint32_t)(v->k.bytes / 4);
    const unsigned char *from = (const unsigned char *)v->k.memory + v->k.bytes - (size_t)n * 4;
    int done = ivs_mempool_put_bulk(p, (const uint32_t *)(const void *)from, n);
    CHECK(done == (int)n || done == -EALREADY || done == -EINVAL);
}

static void rejoin(struct victim *v, uint64_t *seed)
{
    if (check_random(seed) % 2)
        ivs_mempool_leave(v->p[0]);
    ivs_mempool_join(v->p[0], check_random(seed) % 64);
}

static void check_again(struct victim *v)
{
    struct ivs_mempool_info info;
    int fault = ivs_mempool_check(v->k.memory, v->k.bytes, &info);
    CHECK(fault >= 0 && fault < IVS_FAULT_COUNT);
}

static void operate(struct victim *v, uint64_t *seed)
{
    struct ivs_mempool *p = v->p[check_random(seed) % 2];
    uint32_t n = check_random(seed) % (MOST + 1);
    switch (check_random(seed) % 12) {
    case 0:
    case 1:
    case 2:
        get(v, p, n % 40);
        break;
    case 3:
        get(v, p, n);
        break;
    case 4:
    case 5:
    case 6:
        put(v, p, n % 40);
        break;
    case 7:
        put(v, p, n);
        break;
    case 8:
        put_from_shared(v, p, n);
        break;
    case 9:
        CHECK(ivs_mempool_available(p) <= v->k.info.n && ivs_mempool_out(p) <= v->k.info.n);
        break;
    case 10:
        (void)ivs_mempool_audit(p, v->where);
        check_again(v);
        break;
    default:
        rejoin(v, seed);
        break;
    }
}

static void in_turns(uint64_t *seed)
{
    for (uint32_t done = 0; done < CORRUPTIONS;) {
        struct victim v;
        make(&v, seed);
        for (uint32_t i = 0; i < 200; i++, done++) {
            hostile_spoil((unsigned char *)v.k.memory, v.k.bytes, v.busy, seed);
            operate(&v, seed);
            operate(&v, seed);
        }
        unmake(&v);
    }
}

static void at_once(uint64_t *seed)
{
    _Atomic uint64_t *count = (_Atomic uint64_t *)(void *)hostile_arena(sizeof(*count), false);
    while (atomic_load(count) < CONCURRENT) {
        struct victim v;
        make(&v, seed);
        pid_t vandal = hostile_vandal((unsigned char *)v.k.memory, v.k.bytes, v.busy, *seed, count);
        uint64_t until = atomic_load(count) + CONCURRENT / 40;
        while (atomic_load(count) < until)
            operate(&v, seed);
        hostile_end(vandal);
        unmake(&v);
    }
    printf("%u corruptions between operations, %llu while they ran\n", CORRUPTIONS, (unsigned long long)*count);
}

int main(int argc, char **argv)
{
    uint64_t seed = hostile_seed(argc, argv);
    in_turns(&seed);
    at_once(&seed);
    return check_result();
}
