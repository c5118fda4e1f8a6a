/* SPDX-License-Identifier: BSD-3-Clause */
/* test_mempool.c: get, put, caches and counts of a mempool, and the adoption of slots of dead participants. */
#include "pool_kit.h"

static void test_get_returns_each_object_once(void)
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

static void test_get_bulk_takes_all_or_none(void)
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

/* As in DPDK: a put that would exceed 1.5 * cache_size flushes the cache first; a get that refills the cache leaves
 * cache_size objects in it. */
static void test_put_above_flush_threshold_flushes_cache(void)
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
    CHECK_EQ(atomic_load(&record->len), 24); /* equal to the threshold: not flushed */
    CHECK_EQ(ivs_mempool_get_bulk(p, objects, 20), 20);
    CHECK_EQ(atomic_load(&record->len), 4);
    CHECK_EQ(ivs_mempool_put_bulk(p, objects, 20), 20);
    CHECK_EQ(atomic_load(&record->len), 24);
    CHECK_EQ(ivs_mempool_get_bulk(p, objects, 40), 40); /* more than cache_size: bypasses the cache */
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

static void test_invalid_put_returns_einval_and_fault(void)
{
    for (uint32_t cache = 0; cache <= 16; cache += 16) {
        struct pool_kit k;
        uint32_t objects[4];
        pool_make(&k, 100, 8, cache);
        struct ivs_mempool *p = pool_attach(&k, 0);
        uint32_t first = 0;
        CHECK_EQ(ivs_mempool_put_bulk(p, &first, 1), -EINVAL); /* no object is in use */
        CHECK_EQ(p->fault, IVS_FAULT_NOT_OUT);
        CHECK_EQ(ivs_mempool_get_bulk(p, objects, 3), 3);
        objects[3] = 100;
        CHECK_EQ(ivs_mempool_put_bulk(p, objects, 4), -EINVAL); /* 4 objects, but 3 are in use: none is put */
        CHECK_EQ(p->fault, IVS_FAULT_NOT_OUT);
        objects[3] = 0xffffffffu;
        CHECK_EQ(ivs_mempool_put_bulk(p, &objects[3], 1), -EINVAL);
        CHECK_EQ(p->fault, IVS_FAULT_OBJECT);
        CHECK_EQ(ivs_mempool_available(p), 97);
        CHECK_EQ(ivs_mempool_put_bulk(p, objects, 3), 3);
        CHECK_EQ(ivs_mempool_put_bulk(p, objects, 1), -EINVAL); /* more than are in use */
        CHECK_EQ(ivs_mempool_available(p), 100);
        free(p);
        pool_free(&k);
    }
}

static void test_double_put_without_cache_returns_ealready(void)
{
    struct pool_kit k;
    uint32_t objects[3], twice[3];
    pool_make(&k, 100, 8, 0);
    struct ivs_mempool *p = pool_attach(&k, -1);
    CHECK_EQ(ivs_mempool_get_bulk(p, objects, 3), 3);
    CHECK_EQ(ivs_mempool_put_bulk(p, objects, 1), 1);
    CHECK_EQ(ivs_mempool_put_bulk(p, objects, 1), -EALREADY);
    CHECK_EQ(ivs_mempool_out(p), 2); /* the double put is not counted */
    twice[0] = twice[1] = objects[1];
    CHECK_EQ(ivs_mempool_put_bulk(p, twice, 2), -EALREADY);
    CHECK_EQ(ivs_mempool_available(p), 99);
    CHECK_EQ(ivs_mempool_put_bulk(p, &objects[2], 1), 1);
    CHECK_EQ(ivs_mempool_available(p), 100);
    CHECK_EQ(ivs_mempool_out(p), 0);
    free(p);
    pool_free(&k);
}

/* A double put into the cache is detected by the flush: the object is freed once and counted once. */
static void test_double_put_into_cache_is_corrected_by_flush(void)
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

static void test_put_by_other_participant_succeeds(void)
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

static void test_leave_flushes_cache(void)
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
    CHECK_EQ(ivs_mempool_get_bulk(p, objects, 20), 20); /* continues without a cache */
    CHECK_EQ(ivs_mempool_put_bulk(p, objects, 20), 20);
    ivs_mempool_leave(p);
    CHECK_EQ(ivs_mempool_available(p), 100);
    free(p);
    pool_free(&k);
}

/* A participant dies without ivs_mempool_leave; the next owner of its slot adopts its cache. */
static void test_join_adopts_cache_of_dead_participant(void)
{
    struct pool_kit k;
    uint32_t objects[20];
    pool_make(&k, 100, 8, 32);
    struct ivs_mempool *dead = pool_attach(&k, 5), *successor, *other = pool_attach(&k, 6);
    CHECK_EQ(ivs_mempool_get_bulk(dead, objects, 20), 20);
    CHECK_EQ(ivs_mempool_put_bulk(dead, objects, 15), 15);
    uint32_t recorded = atomic_load(&pool_record(&k, 5)->len);
    CHECK(recorded >= 15);
    free(dead);
    CHECK_EQ(ivs_mempool_available(other), 95); /* includes the cache of the dead participant */
    CHECK_EQ(ivs_mempool_out(other), 5);
    successor = pool_attach(&k, 5);
    CHECK_EQ(successor->cached, recorded);
    CHECK_EQ(ivs_mempool_put_bulk(successor, objects + 15, 5), 5);
    CHECK_EQ(ivs_mempool_out(other), 0);
    ivs_mempool_leave(successor);
    CHECK_EQ(pool_free_bits(&k), 100);
    free(successor);
    free(other);
    pool_free(&k);
}

/* Each index in the record of a dead participant is validated before it is adopted. */
static void test_join_drops_invalid_indices_of_record(void)
{
    struct pool_kit k;
    pool_make(&k, 100, 8, 16);
    struct ivs_mempool *p = pool_attach(&k, -1);
    struct ivs_mempool_cache *record = pool_record(&k, 9);
    uint32_t object;
    CHECK_EQ(ivs_mempool_get_bulk(p, &object, 1), 1);
    atomic_store(&record->len, 0xffffffffu);
    record->objects[0] = 100;        /* not less than n */
    record->objects[1] = 0xfffffff0; /* not less than n */
    record->objects[2] = object;     /* valid: in use */
    record->objects[3] = object ^ 1; /* free in the bitmap */
    struct ivs_mempool *successor = pool_attach(&k, 9);
    CHECK(successor->cached <= 24);
    for (uint32_t i = 0; i < successor->cached; i++)
        CHECK(successor->cache[i] < 100);
    CHECK_EQ(successor->cache[0], object);
    free(successor);
    free(p);
    pool_free(&k);
}

static void test_audit_locates_each_object(void)
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

static void test_refuse_sets_result_of_operations(void)
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

/* A hostile peer sets bits at indices not less than n. */
static void test_get_ignores_bits_beyond_n(void)
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

/* Random gets and puts by three participants and a handle without a slot, compared with a table of objects in use. */
static void test_random_operations_match_model(void)
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
        uint32_t getter = check_random(&seed) % HANDLES, n = check_random(&seed) % 60;
        uint32_t putter = check_random(&seed) % HANDLES;
        if (check_random(&seed) % 2) {
            uint32_t *objects = held[getter] + held_n[getter];
            int got = n <= N - held_n[getter] ? ivs_mempool_get_bulk(p[getter], objects, n) : 0;
            CHECK(got == 0 || got == (int)n);
            for (int i = 0; i < got; i++) {
                CHECK(objects[i] < N && !is_out[objects[i]]);
                is_out[objects[i]] = true;
            }
            held_n[getter] += (uint32_t)got;
            out += (uint32_t)got;
        } else if (n <= held_n[getter]) {
            held_n[getter] -= n;
            for (uint32_t i = 0; i < n; i++)
                is_out[held[getter][held_n[getter] + i]] = false;
            CHECK_EQ(ivs_mempool_put_bulk(p[putter], held[getter] + held_n[getter], n), n);
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
    RUN(test_get_returns_each_object_once);
    RUN(test_get_bulk_takes_all_or_none);
    RUN(test_put_above_flush_threshold_flushes_cache);
    RUN(test_invalid_put_returns_einval_and_fault);
    RUN(test_double_put_without_cache_returns_ealready);
    RUN(test_double_put_into_cache_is_corrected_by_flush);
    RUN(test_put_by_other_participant_succeeds);
    RUN(test_leave_flushes_cache);
    RUN(test_join_adopts_cache_of_dead_participant);
    RUN(test_join_drops_invalid_indices_of_record);
    RUN(test_audit_locates_each_object);
    RUN(test_refuse_sets_result_of_operations);
    RUN(test_get_ignores_bits_beyond_n);
    RUN(test_random_operations_match_model);
    return check_result();
}
