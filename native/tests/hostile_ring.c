/* SPDX-License-Identifier: BSD-3-Clause */
/* hostile_ring.c: a ring is used while another process overwrites any part of it.
 *
 *   hostile_ring [SEED]
 *
 * Wrong values and errors are expected. A crash, an access outside the ring (guard pages, AddressSanitizer), a result
 * out of range or an unbounded wait is a failure. First every corruption happens between two operations, so that a seed
 * can be repeated; then another process corrupts while operations run. */
#include "hostile.h"
#include "ring_kit.h"
#include "ring_peek.h"

#define BATCH 40u
#define BUSY 384u /* header, heads and tails */
#define CORRUPTIONS 60000u
#define CONCURRENT 60000u

struct victim {
    struct kit k;
    struct ivs_ring r;
    uint32_t esize;
    unsigned char *objects; /* of exactly BATCH elements */
};

static void make(struct victim *v, uint64_t *seed)
{
    static const uint32_t esizes[] = {4, 8, 16, 20, 64};
    static const uint32_t counts[] = {1, 2, 16, 64, 1024};
    struct ivs_ring_info info;
    uint32_t flags = kit_modes[check_random(seed) % KIT_MODES].flags;

    v->esize = esizes[check_random(seed) % 5];
    REQUIRE(kit_plan(&v->k, counts[check_random(seed) % 5], v->esize, flags) > 0);
    v->k.memory = (struct ivs_ring_shared *)(void *)hostile_arena(v->k.bytes, check_random(seed) % 2);
    /* a ring begins at a cache line: if its end does not, the guard page is up to 63 bytes further */
    v->k.memory = (struct ivs_ring_shared *)((uintptr_t)v->k.memory & ~(uintptr_t)63);
    REQUIRE(ivs_ring_create(v->k.memory, v->k.bytes, &v->k.info) == 0);
    kit_set_index(v->k.memory, check_random(seed));
    REQUIRE(ivs_ring_attach(&v->r, v->k.memory, v->k.bytes, HOSTILE_STALL_NS, &info) == IVS_OK);
    v->objects = malloc((size_t)BATCH * v->esize);
    REQUIRE(v->objects != NULL);
    memset(v->objects, 0x55, (size_t)BATCH * v->esize);
}

static void unmake(struct victim *v)
{
    free(v->objects);
    hostile_release((unsigned char *)v->k.memory, v->k.bytes);
}

static bool plausible(int result, uint32_t n)
{
    return (result >= 0 && result <= (int)n) || result == -ETIMEDOUT || result == -EBUSY || result == -ENOTSUP ||
           result == -EINVAL;
}

/* Write and read every byte that a start reserved. */
static void touch(struct victim *v, const struct ivs_ring_zc *zc, uint32_t n)
{
    CHECK_EQ(zc->n1 + zc->n2, n);
    memset(zc->first, 0x33, (size_t)zc->n1 * v->esize);
    memcpy(v->objects, zc->first, (size_t)zc->n1 * v->esize);
    if (zc->n2 != 0)
        memset(zc->second, 0x44, (size_t)zc->n2 * v->esize);
}

static void two_steps(struct victim *v, uint32_t n, uint64_t *seed)
{
    struct ivs_ring_zc zc;
    bool enqueue = check_random(seed) % 2;
    int got = enqueue ? ivs_ring_enqueue_zc_burst_start(&v->r, v->esize, n, &zc, NULL)
                      : ivs_ring_dequeue_zc_burst_start(&v->r, v->esize, n, &zc, NULL);
    CHECK(plausible(got, n));
    if (got <= 0)
        return;
    touch(v, &zc, (uint32_t)got);
    uint32_t done = check_random(seed) % ((uint32_t)got + 2);
    int end = enqueue ? ivs_ring_enqueue_zc_finish(&v->r, done) : ivs_ring_dequeue_zc_finish(&v->r, done);
    CHECK(plausible(end, n));
    if (end < 0) /* one more than was reserved */
        CHECK_EQ(enqueue ? ivs_ring_enqueue_finish(&v->r, v->objects, v->esize, 0) : ivs_ring_dequeue_finish(&v->r, 0),
                 0);
}

static void attach_again(struct victim *v)
{
    struct ivs_ring_info info;
    struct ivs_ring other;
    int fault = ivs_ring_attach(&other, v->k.memory, v->k.bytes, HOSTILE_STALL_NS, &info);
    CHECK(fault >= 0 && fault < IVS_FAULT_COUNT);
    if (fault == IVS_OK)
        CHECK(plausible(ivs_ring_enqueue_burst(&other, v->objects, v->esize, 1, NULL), 1));
}

static void operate(struct victim *v, uint64_t *seed)
{
    char text[100];
    uint32_t n = check_random(seed) % (BATCH + 1), left = 0;
    switch (check_random(seed) % 12) {
    case 0:
        CHECK(plausible(ivs_ring_enqueue_bulk(&v->r, v->objects, v->esize, n, &left), n));
        break;
    case 1:
    case 2:
        CHECK(plausible(ivs_ring_enqueue_burst(&v->r, v->objects, v->esize, n, NULL), n));
        break;
    case 3:
        CHECK(plausible(ivs_ring_dequeue_bulk(&v->r, v->objects, v->esize, n, NULL), n));
        break;
    case 4:
    case 5:
        CHECK(plausible(ivs_ring_dequeue_burst(&v->r, v->objects, v->esize, n, &left), n));
        break;
    case 6:
    case 7:
        two_steps(v, n, seed);
        break;
    case 8:
        CHECK(ivs_ring_count(&v->r) <= v->k.info.capacity);
        break;
    case 9:
        CHECK(ivs_ring_wait(&v->r, 1000) <= 1);
        break;
    case 10:
        CHECK(ivs_ring_dump(&v->r, text, sizeof(text)) > 0);
        break;
    default:
        attach_again(v);
        break;
    }
    CHECK(left <= v->k.info.capacity);
    if (check_random(seed) % 64 == 0)
        CHECK_EQ(ivs_ring_reset(&v->r), 0);
}

static void in_turns(uint64_t *seed)
{
    for (uint32_t done = 0; done < CORRUPTIONS;) {
        struct victim v;
        make(&v, seed);
        for (uint32_t i = 0; i < 200; i++, done++) {
            hostile_spoil((unsigned char *)v.k.memory, v.k.bytes, BUSY, seed);
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
        pid_t vandal = hostile_vandal((unsigned char *)v.k.memory, v.k.bytes, BUSY, *seed, count);
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
