/* SPDX-License-Identifier: BSD-3-Clause */
/* test_mempool.c: what one thread sees of a mempool, and what is left when a participant goes or dies. */
#include "pool_kit.h"

static void test_all_objects_once(void)
{
    static const uint32_t sizes[] = {1, 2, 63, 64, 65, 1000};
    for (uint32_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        uint32_t n = sizes[s];
        struct pool_kit k;
        pool_make(&k, n, 100, 0);
        struct ivs_mempool *p = pool_attach(&k, -1);
        bool *seen = calloc(n, 1);
        uint32_t object;
        REQUIRE(seen != NULL);
        for (uint32_t i = 0; i < n; i++) {
            CHECK_EQ(ivs_mempool_get_bulk(p, &object, 1), 1);
            REQUIRE(object < n);
            CHECK(!seen[object]);
            seen[object] = true;
        }
        CHECK_EQ(ivs_mempool_get_bulk(p, &object, 1), 0);
        CHECK_EQ(ivs_mempool_available(p), 0);
        CHECK_EQ(ivs_mempool_out(p), n);
        for (uint32_t i = 0; i < n; i++)
            CHECK_EQ(ivs_mempool_put_bulk(p, &i, 1), 1);
        CHECK_EQ(ivs_mempool_available(p), n);
        CHECK_EQ(ivs_mempool_out(p), 0);
        free(seen);
        free(p);
        pool_free(&k);
    }
}

static void test_bulk_is_all_or_nothing(void)
{
    for (uint32_t cache = 0; cache <= 16; cache += 16) {
        struct pool_kit k;
        uint32_t objects[101];
        pool_make(&k, 100, 8, cache);
        struct ivs_mempool *p = pool_attach(&k, 0);
        CHECK_EQ(ivs_mempool_get_bulk(p, objects, 0), 0);
        CHECK_EQ(ivs_mempool_get_bulk(p, objects, 101), 0);
        CHECK_EQ(ivs_mempool_get_bulk(p, objects, 90), 90);
        CHECK_EQ(ivs_mempool_get_bulk(p, objects + 90, 11), 0);
        CHECK_EQ(ivs_mempool_available(p), 10);
        CHECK_EQ(ivs_mempool_out(p), 90);
        CHECK_EQ(ivs_mempool_get_bulk(p, objects + 90, 10), 10);
        CHECK_EQ(ivs_mempool_put_bulk(p, objects, 0), 0);
        CHECK_EQ(ivs_mempool_put_bulk(p, objects, 100), 100);
        CHECK_EQ(ivs_mempool_available(p), 100);
        free(p);
        pool_free(&k);
    }
}

/* DPDK's rule: a put that would fill the cache beyond one and a half times its size empties it first, and a get that
 * finds too few leaves cache_size objects behind. */
static void test_flush_threshold(void)
{
    struct pool_kit k;
    uint32_t objects[64];
    pool_make(&k, 200, 8, 16);
    struct ivs_mempool *p = pool_attach(&k, 3);
    struct ivs_mempool_cache *record = pool_record(&k, 3);

    CHECK_EQ(ivs_mempool_get_bulk(p, objects, 8), 8);
    CHECK_EQ(atomic_load(&record->len), 16);
    CHECK_EQ(pool_free_bits(&k), 200 - 8 - 16);
    CHECK_EQ(ivs_mempool_put_bulk(p, objects, 8), 8);
    CHECK_EQ(atomic_load(&record->len), 24); /* the threshold, and not beyond it */
    CHECK_EQ(ivs_mempool_get_bulk(p, objects, 20), 20);
    CHECK_EQ(atomic_load(&record->len), 4);
    CHECK_EQ(ivs_mempool_put_bulk(p, objects, 20), 20);
    CHECK_EQ(atomic_load(&record->len), 24);
    CHECK_EQ(ivs_mempool_get_bulk(p, objects, 40), 40); /* more than a cache: all of it goes past the cache */
    CHECK_EQ(ivs_mempool_put_bulk(p, objects, 10), 10);
    CHECK_EQ(ivs_mempool_put_bulk(p, objects + 10, 14), 14);
    CHECK_EQ(atomic_load(&record->len), 24);
    CHECK_EQ(ivs_mempool_put_bulk(p, objects + 24, 1), 1);
    CHECK_EQ(atomic_load(&record->len), 1);
    CHECK_EQ(ivs_mempool_put_bulk(p, objects + 25, 15), 15);
    CHECK_EQ(ivs_mempool_available(p), 200);
    free(p);
    pool_free(&k);
}

static void test_faulty_puts(void)
{
    for (uint32_t cache = 0; cache <= 16; cache += 16) {
        struct pool_kit k;
        uint32_t objects[4];
        pool_make(&k, 100, 8, cache);
        struct ivs_mempool *p = pool_attach(&k, 0);
        uint32_t none = 0;
        CHECK_EQ(ivs_mempool_put_bulk(p, &none, 1), -EINVAL); /* nothing is out */
        CHECK_EQ(ivs_mempool_get_bulk(p, objects, 3), 3);
        objects[3] = 100;
        CHECK_EQ(ivs_mempool_put_bulk(p, objects, 4), -EINVAL); /* 100 is no object; and none was put back */
        objects[3] = 0xffffffffu;
        CHECK_EQ(ivs_mempool_put_bulk(p, &objects[3], 1), -EINVAL);
        CHECK_EQ(ivs_mempool_available(p), 97);
        CHECK_EQ(ivs_mempool_put_bulk(p, objects, 3), 3);
        CHECK_EQ(ivs_mempool_put_bulk(p, objects, 1), -EINVAL); /* more than are out */
        CHECK_EQ(ivs_mempool_available(p), 100);
        free(p);
        pool_free(&k);
    }
}

static void test_double_put(void)
{
    struct pool_kit k;
    uint32_t objects[3], twice[3];
    pool_make(&k, 100, 8, 0);
    struct ivs_mempool *p = pool_attach(&k, -1);
    CHECK_EQ(ivs_mempool_get_bulk(p, objects, 3), 3);
    CHECK_EQ(ivs_mempool_put_bulk(p, objects, 1), 1);
    CHECK_EQ(ivs_mempool_put_bulk(p, objects, 1), -EALREADY);
    CHECK_EQ(ivs_mempool_out(p), 2); /* counted once */
    twice[0] = twice[1] = objects[1];
    CHECK_EQ(ivs_mempool_put_bulk(p, twice, 2), -EALREADY);
    CHECK_EQ(ivs_mempool_available(p), 99);
    CHECK_EQ(ivs_mempool_put_bulk(p, &objects[2], 1), 1);
    CHECK_EQ(ivs_mempool_available(p), 100);
    CHECK_EQ(ivs_mempool_out(p), 0);
    free(p);
    pool_free(&k);
}

/* With a cache a double put is seen when the cache is emptied; the object is free once, and counted once. */
static void test_double_put_in_a_cache(void)
{
    struct pool_kit k;
    uint32_t objects[8];
    pool_make(&k, 100, 8, 16);
    struct ivs_mempool *p = pool_attach(&k, 0);
    CHECK_EQ(ivs_mempool_get_bulk(p, objects, 8), 8);
    CHECK_EQ(ivs_mempool_put_bulk(p, objects, 4), 4);
    CHECK_EQ(ivs_mempool_put_bulk(p, objects, 1), 1);
    ivs_mempool_leave(p);
    CHECK_EQ(pool_free_bits(&k), 96);
    CHECK_EQ(ivs_mempool_out(p), 4);
    free(p);
    pool_free(&k);
}

static void test_free_anywhere(void)
{
    struct pool_kit k;
    uint32_t objects[50];
    pool_make(&k, 100, 8, 16);
    struct ivs_mempool *a = pool_attach(&k, 0), *b = pool_attach(&k, 1), *without = pool_attach(&k, -1);
    for (uint32_t i = 0; i < 20; i++) {
        CHECK_EQ(ivs_mempool_get_bulk(a, objects, 50), 50);
        CHECK_EQ(ivs_mempool_put_bulk(b, objects, 20), 20);
        CHECK_EQ(ivs_mempool_put_bulk(without, objects + 20, 30), 30);
        CHECK_EQ(ivs_mempool_out(b), 0);
        CHECK_EQ(ivs_mempool_available(a), 100);
    }
    free(a);
    free(b);
    free(without);
    pool_free(&k);
}

static void test_leave_gives_everything_back(void)
{
    struct pool_kit k;
    uint32_t objects[20];
    pool_make(&k, 100, 8, 32);
    struct ivs_mempool *p = pool_attach(&k, 63);
    CHECK_EQ(ivs_mempool_get_bulk(p, objects, 20), 20);
    CHECK_EQ(ivs_mempool_put_bulk(p, objects, 20), 20);
    CHECK(pool_free_bits(&k) < 100);
    ivs_mempool_leave(p);
    CHECK_EQ(pool_free_bits(&k), 100);
    CHECK_EQ(atomic_load(&pool_record(&k, 63)->len), 0);
    CHECK_EQ(ivs_mempool_get_bulk(p, objects, 20), 20); /* works on, without a cache */
    CHECK_EQ(ivs_mempool_put_bulk(p, objects, 20), 20);
    ivs_mempool_leave(p);
    CHECK_EQ(ivs_mempool_available(p), 100);
    free(p);
    pool_free(&k);
}

/* A participant is gone without leaving; the next one takes its slot over with what stands in its cache. */
static void test_slot_of_the_dead(void)
{
    struct pool_kit k;
    uint32_t objects[20];
    pool_make(&k, 100, 8, 32);
    struct ivs_mempool *dead = pool_attach(&k, 5), *heir, *other = pool_attach(&k, 6);
    CHECK_EQ(ivs_mempool_get_bulk(dead, objects, 20), 20);
    CHECK_EQ(ivs_mempool_put_bulk(dead, objects, 15), 15);
    uint32_t held = atomic_load(&pool_record(&k, 5)->len);
    CHECK(held >= 15);
    free(dead);
    CHECK_EQ(ivs_mempool_available(other), 95); /* the dead one's cache counts */
    CHECK_EQ(ivs_mempool_out(other), 5);
    heir = pool_attach(&k, 5);
    CHECK_EQ(heir->cached, held);
    CHECK_EQ(ivs_mempool_put_bulk(heir, objects + 15, 5), 5);
    CHECK_EQ(ivs_mempool_out(other), 0);
    ivs_mempool_leave(heir);
    CHECK_EQ(pool_free_bits(&k), 100);
    free(heir);
    free(other);
    pool_free(&k);
}

/* What the record of the dead says is checked, entry by entry, before it is taken over. */
static void test_spoiled_record(void)
{
    struct pool_kit k;
    pool_make(&k, 100, 8, 16);
    struct ivs_mempool *p = pool_attach(&k, -1);
    struct ivs_mempool_cache *record = pool_record(&k, 9);
    uint32_t object;
    CHECK_EQ(ivs_mempool_get_bulk(p, &object, 1), 1);
    atomic_store(&record->len, 0xffffffffu);
    record->objects[0] = 100;        /* no object */
    record->objects[1] = 0xfffffff0; /* none either */
    record->objects[2] = object;     /* plausible: taken, and not free */
    record->objects[3] = object ^ 1; /* free in the bitmap */
    struct ivs_mempool *heir = pool_attach(&k, 9);
    CHECK(heir->cached <= 24);
    for (uint32_t i = 0; i < heir->cached; i++)
        CHECK(heir->cache[i] < 100);
    CHECK_EQ(heir->cache[0], object);
    free(heir);
    free(p);
    pool_free(&k);
}

static void test_audit(void)
{
    struct pool_kit k;
    uint32_t objects[20];
    uint16_t where[100];
    pool_make(&k, 100, 8, 16);
    struct ivs_mempool *p = pool_attach(&k, 7);
    CHECK_EQ(ivs_mempool_get_bulk(p, objects, 10), 10);
    CHECK_EQ(ivs_mempool_put_bulk(p, objects, 4), 4);
    CHECK_EQ(ivs_mempool_audit(p, where), 0);
    uint32_t counts[4] = {0};
    for (uint32_t i = 0; i < 100; i++)
        counts[where[i] == IVS_HELD_FREE ? 0 : where[i] == IVS_HELD_CACHE + 7 ? 1 : where[i] == 0 ? 2 : 3]++;
    CHECK_EQ(counts[0], 100 - 10 - 16);
    CHECK_EQ(counts[1], 20);
    CHECK_EQ(counts[2], 6);
    CHECK_EQ(counts[3], 0);
    for (uint32_t i = 4; i < 10; i++)
        CHECK_EQ(where[objects[i]], IVS_HELD_BY_NOBODY_SEEN);

    struct ivs_mempool_cache *record = pool_record(&k, 8);
    record->objects[0] = objects[0]; /* also in the cache of slot 7 */
    record->objects[1] = 4711;
    atomic_store(&record->len, 2);
    CHECK_EQ(ivs_mempool_audit(p, where), 1);
    CHECK_EQ(where[objects[0]], IVS_HELD_TWICE);
    free(p);
    pool_free(&k);
}

static void test_refuse(void)
{
    struct pool_kit k;
    uint32_t object = 0;
    pool_make(&k, 10, 8, 0);
    struct ivs_mempool *p = pool_attach(&k, -1);
    ivs_mempool_refuse(p, -ESHUTDOWN);
    CHECK_EQ(ivs_mempool_get_bulk(p, &object, 1), -ESHUTDOWN);
    CHECK_EQ(ivs_mempool_put_bulk(p, &object, 1), -ESHUTDOWN);
    ivs_mempool_refuse(p, 0);
    CHECK_EQ(ivs_mempool_get_bulk(p, &object, 1), 1);
    free(p);
    pool_free(&k);
}

/* Bits beyond n, which only a scribbling peer sets, are never handed out. */
static void test_bits_beyond_the_pool(void)
{
    struct pool_kit k;
    uint32_t object;
    pool_make(&k, 70, 8, 0);
    struct ivs_mempool *p = pool_attach(&k, -1);
    memset((char *)k.memory + k.memory->bitmap_offset, 0xff, 16);
    for (uint32_t i = 0; i < 70; i++) {
        CHECK_EQ(ivs_mempool_get_bulk(p, &object, 1), 1);
        CHECK(object < 70);
    }
    CHECK_EQ(ivs_mempool_get_bulk(p, &object, 1), 0);
    free(p);
    pool_free(&k);
}

/* Random gets and puts by three participants and one without a slot, against a plain table of who holds what. */
static void test_against_model(void)
{
    enum { N = 300, HANDLES = 4 };
    static uint32_t held[HANDLES][N];
    uint32_t held_n[HANDLES] = {0}, out = 0;
    static bool is_out[N];
    uint64_t seed = 42;
    struct pool_kit k;
    struct ivs_mempool *p[HANDLES];

    pool_make(&k, N, 8, 32);
    for (int i = 0; i < HANDLES; i++)
        p[i] = pool_attach(&k, i - 1);
    for (uint32_t step = 0; step < 50000; step++) {
        uint32_t who = check_random(&seed) % HANDLES, n = check_random(&seed) % 60;
        uint32_t by = check_random(&seed) % HANDLES; /* another one may put back what `who` took */
        if (check_random(&seed) % 2) {
            uint32_t *objects = held[who] + held_n[who];
            int got = n <= N - held_n[who] ? ivs_mempool_get_bulk(p[who], objects, n) : 0;
            CHECK(got == 0 || got == (int)n);
            for (int i = 0; i < got; i++) {
                CHECK(objects[i] < N && !is_out[objects[i]]);
                is_out[objects[i]] = true;
            }
            held_n[who] += (uint32_t)got;
            out += (uint32_t)got;
        } else if (n <= held_n[who]) {
            held_n[who] -= n;
            for (uint32_t i = 0; i < n; i++)
                is_out[held[who][held_n[who] + i]] = false;
            CHECK_EQ(ivs_mempool_put_bulk(p[by], held[who] + held_n[who], n), n);
            out -= n;
        }
        CHECK_EQ(ivs_mempool_available(p[0]), N - out);
        CHECK_EQ(ivs_mempool_out(p[1]), out);
    }
    for (int i = 0; i < HANDLES; i++)
        free(p[i]);
    pool_free(&k);
}

int main(void)
{
    RUN(test_all_objects_once);
    RUN(test_bulk_is_all_or_nothing);
    RUN(test_flush_threshold);
    RUN(test_faulty_puts);
    RUN(test_double_put);
    RUN(test_double_put_in_a_cache);
    RUN(test_free_anywhere);
    RUN(test_leave_gives_everything_back);
    RUN(test_slot_of_the_dead);
    RUN(test_spoiled_record);
    RUN(test_audit);
    RUN(test_refuse);
    RUN(test_bits_beyond_the_pool);
    RUN(test_against_model);
    return check_result();
}
