/* SPDX-License-Identifier: BSD-3-Clause */
/* test_mbuf.c: chains, clones and reference counts; and hostile headers, changed before and during operations. The
 * pool's memory has its exact size, so that a sanitizer detects accesses beyond it. */
#include "mbuf.h"

#include "pool_kit.h"

#include <pthread.h>

#define N 40u
#define ROOM 200u
#define PRIVATE 16u
#define ROUNDS 1000000u
#define THREADS 3

struct packets {
    struct pool_kit kit;
    struct ivs_mempool *p;
};

static void packets_make(struct packets *k)
{
    uint32_t elt_size = (uint32_t)sizeof(struct ivs_mbuf) + PRIVATE + ROOM;
    memset(k, 0, sizeof(*k));
    (void)pool_plan(&k->kit, N, elt_size, 4, 0);
    k->kit.info.flags = IVS_MEMPOOL_MBUF;
    k->kit.info.private_size = PRIVATE;
    int64_t bytes = ivs_mempool_plan(&k->kit.info);
    REQUIRE(bytes > 0);
    k->kit.bytes = (uint64_t)bytes;
    k->kit.memory = check_memory(k->kit.bytes);
    REQUIRE(ivs_mbuf_pool_create(k->kit.memory, k->kit.bytes, &k->kit.info) == 0);
    k->p = pool_attach(&k->kit, 0);
}

static void packets_free(struct packets *k)
{
    free(k->p);
    pool_free(&k->kit);
}

static uint32_t add_packet(struct packets *k, const char *text)
{
    int64_t index = ivs_mbuf_alloc(k->p);
    REQUIRE(index >= 0);
    int64_t place = ivs_mbuf_append(k->p, (uint32_t)index, (uint32_t)strlen(text));
    REQUIRE(place >= 0);
    memcpy(k->p->objects + place, text, strlen(text));
    return (uint32_t)index;
}

static bool reads(struct packets *k, uint32_t index, const char *text)
{
    char found[ROOM * 4] = {0};
    uint32_t length = (uint32_t)strlen(text);
    const char *reason;
    return ivs_mbuf_check(k->p, index, 1, &reason) == 0 && ivs_mbuf_at(k->p, index)->pkt_len == length &&
           ivs_mbuf_read(k->p, index, 0, length, found) == 0 && strcmp(found, text) == 0;
}

static void test_chain_clone_copy_linearize_free(void)
{
    struct packets k;
    packets_make(&k);
    uint32_t head = add_packet(&k, "one");
    CHECK_EQ(ivs_mbuf_chain(k.p, head, add_packet(&k, " two")), 0);
    int64_t clone = ivs_mbuf_clone(k.p, head);
    REQUIRE(clone >= 0);
    CHECK(reads(&k, (uint32_t)clone, "one two"));
    CHECK_EQ(ivs_mbuf_free(k.p, head), 1);
    CHECK_EQ(ivs_mempool_available(k.p), N - 4); /* the clone keeps the buffers */
    CHECK_EQ(ivs_mbuf_linearize(k.p, (uint32_t)clone), 0);
    CHECK(reads(&k, (uint32_t)clone, "one two"));
    CHECK_EQ(ivs_mempool_available(k.p), N - 2);
    int64_t copy = ivs_mbuf_copy(k.p, (uint32_t)clone, 4, UINT32_MAX);
    REQUIRE(copy >= 0);
    CHECK(reads(&k, (uint32_t)copy, "two"));
    CHECK_EQ(ivs_mbuf_free(k.p, (uint32_t)clone), 1);
    CHECK_EQ(ivs_mbuf_free(k.p, (uint32_t)copy), 1);
    CHECK_EQ(ivs_mbuf_free(k.p, (uint32_t)copy), -EALREADY);
    CHECK_EQ(ivs_mempool_available(k.p), N);
    packets_free(&k);
}

static void test_create_invalid_info_returns_error(void)
{
    struct packets k;
    packets_make(&k);
    struct ivs_mempool_info info = k.kit.info;
    info.flags = 0;
    CHECK_EQ(ivs_mbuf_pool_create(k.kit.memory, k.kit.bytes, &info), -EINVAL);
    info.flags = IVS_MEMPOOL_MBUF;
    info.private_size = 12;
    CHECK_EQ(ivs_mbuf_pool_create(k.kit.memory, k.kit.bytes, &info), -EINVAL);
    info.private_size = info.elt_size - 56;
    CHECK_EQ(ivs_mbuf_pool_create(k.kit.memory, k.kit.bytes, &info), -EINVAL);
    info.private_size = PRIVATE;
    CHECK_EQ(ivs_mbuf_pool_create(k.kit.memory, k.kit.bytes - 1, &info), -ENOSPC);
    k.kit.memory->mbuf_version = 2; /* detected by the CRC; with a valid CRC, IVS_FAULT_VERSION */
    CHECK_EQ(ivs_mempool_check(k.kit.memory, k.kit.bytes, &info), IVS_FAULT_CRC);
    packets_free(&k);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

struct sharer {
    struct ivs_mempool *p;
    uint32_t packet;
};

/* Repeatedly clones the shared packet and frees the clone; the last thread to drop its reference frees the packet. */
static void *clone_and_free(void *argument)
{
    struct sharer *s = argument;
    for (uint32_t i = 0; i < ROUNDS / 10; i++) {
        int64_t clone = ivs_mbuf_clone(s->p, s->packet);
        if (clone != -ENOBUFS) {
            CHECK(clone >= 0);
            CHECK_EQ(ivs_mbuf_free(s->p, (uint32_t)clone), 1);
        }
    }
    CHECK_EQ(ivs_mbuf_free(s->p, s->packet), 1);
    return NULL;
}

static void test_concurrent_clones_keep_reference_counts(void)
{
    struct packets k;
    pthread_t threads[THREADS];
    struct sharer sharers[THREADS];
    packets_make(&k);
    uint32_t packet = add_packet(&k, "a");
    CHECK_EQ(ivs_mbuf_chain(k.p, packet, add_packet(&k, "b")), 0);
    CHECK_EQ(ivs_mbuf_refcnt_update_all(k.p, packet, THREADS - 1), 0);
    for (int i = 0; i < THREADS; i++) {
        sharers[i] = (struct sharer){.p = pool_attach(&k.kit, i + 1), .packet = packet};
        REQUIRE(pthread_create(&threads[i], NULL, clone_and_free, &sharers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        REQUIRE(pthread_join(threads[i], NULL) == 0);
        ivs_mempool_leave(sharers[i].p);
        free(sharers[i].p);
    }
    CHECK_EQ(ivs_mempool_available(k.p), N);
    for (uint32_t index = 0; index < N; index++)
        CHECK_EQ(atomic_load(&ivs_mbuf_at(k.p, index)->refcnt), 0);
    packets_free(&k);
}

struct pair {
    struct ivs_mempool *p;
    _Atomic uint32_t round;
    _Atomic uint32_t done;
    _Atomic uint32_t packet;
};

static void wait_for(const _Atomic uint32_t *number, uint32_t value)
{
    while (atomic_load(number) != value)
        sched_yield();
}

static void *free_in_step(void *argument)
{
    struct pair *pair = argument;
    for (uint32_t round = 1; round <= ROUNDS / 20; round++) {
        wait_for(&pair->round, round);
        CHECK_EQ(ivs_mbuf_free(pair->p, atomic_load(&pair->packet)), 1);
        atomic_store(&pair->done, round);
    }
    return NULL;
}

/* Two threads drop the last two references at the same time: exactly one of them puts the mbuf. */
static void test_concurrent_last_drops_free_mbuf_once(void)
{
    struct packets k;
    pthread_t thread;
    packets_make(&k);
    struct pair pair = {.p = pool_attach(&k.kit, 1)};
    REQUIRE(pthread_create(&thread, NULL, free_in_step, &pair) == 0);
    for (uint32_t round = 1; round <= ROUNDS / 20; round++) {
        uint32_t packet = add_packet(&k, "x");
        CHECK_EQ(ivs_mbuf_refcnt_update(k.p, packet, 1), 2);
        atomic_store(&pair.packet, packet);
        atomic_store(&pair.round, round);
        CHECK_EQ(ivs_mbuf_free(k.p, packet), 1);
        wait_for(&pair.done, round);
    }
    REQUIRE(pthread_join(thread, NULL) == 0);
    CHECK_EQ(ivs_mempool_available(k.p), N);
    free(pair.p);
    packets_free(&k);
}

/* ---- hostile peer ------------------------------------------------------------------------------------------------ */

/* Changes a field that operations depend on to a value near its limits, or any byte of a header. */
static void corrupt(const struct ivs_mempool *p, uint64_t *seed)
{
    struct ivs_mbuf *m = ivs_mbuf_at(p, check_random(seed) % N);
    uint32_t value = check_random(seed);
    switch (check_random(seed) % 6) {
    case 0:
        __atomic_store_n(&m->next, value % (N + 2), __ATOMIC_RELAXED);
        break;
    case 1:
        __atomic_store_n(&m->buf, value % (N + 2), __ATOMIC_RELAXED);
        break;
    case 2:
        atomic_store_explicit(&m->refcnt, (uint16_t)(value % 4), memory_order_relaxed);
        break;
    case 3:
        __atomic_store_n(&m->data_off, (uint16_t)(value % (ROOM + 10)), __ATOMIC_RELAXED);
        break;
    case 4:
        __atomic_store_n(&m->data_len, (uint16_t)(value % (ROOM + 10)), __ATOMIC_RELAXED);
        break;
    default:
        __atomic_store_n((unsigned char *)m + value % sizeof(*m), (unsigned char)(value >> 16), __ATOMIC_RELAXED);
    }
}

static void check_place(const struct ivs_mempool *p, int64_t place, uint32_t length)
{
    CHECK(place < 0 || (uint64_t)place + length <= (uint64_t)N * p->elt_stride);
    if (place >= 0) /* a sanitizer checks the range */
        memset(p->objects + place, 0x5a, length);
}

static int any_operation(struct ivs_mempool *p, uint64_t *seed)
{
    static unsigned char bytes[70000];
    const char *reason;
    uint32_t index = check_random(seed) % (N + 1);
    uint32_t other = check_random(seed) % (N + 1);
    uint32_t length = check_random(seed) % 80;
    int64_t result = 0;
    switch (check_random(seed) % 16) {
    case 0:
    case 1:
        result = ivs_mbuf_alloc(p);
        return result >= 0 ? (int)(result >= N) * -1 : (int)result;
    case 2:
        return ivs_mbuf_free(p, index);
    case 3:
        return ivs_mbuf_free_seg(p, index);
    case 4:
        return ivs_mbuf_refcnt_update_all(p, index, (int32_t)(length % 5) - 2);
    case 5:
        result = ivs_mbuf_append(p, index, length);
        break;
    case 6:
        result = ivs_mbuf_prepend(p, index, length);
        break;
    case 7:
        result = ivs_mbuf_adj(p, index, length);
        length = 0;
        break;
    case 8:
        return ivs_mbuf_trim(p, index, length);
    case 9:
        return ivs_mbuf_chain(p, index, other);
    case 10:
        return (int)ivs_mbuf_clone(p, index);
    case 11:
        return ivs_mbuf_attach(p, index, other);
    case 12:
        return ivs_mbuf_detach(p, index);
    case 13:
        return ivs_mbuf_linearize(p, index);
    case 14:
        return ivs_mbuf_read(p, index, length, check_random(seed) % sizeof(bytes), bytes);
    default:
        (void)ivs_mbuf_check(p, index, 1, &reason);
        return (int)ivs_mbuf_copy(p, index, length, UINT32_MAX);
    }
    check_place(p, result, length);
    return result < 0 ? (int)result : 0;
}

static bool is_documented(int result)
{
    switch (result) {
    case -EINVAL:
    case -EALREADY:
    case -EBADMSG:
    case -ENOSPC:
    case -ENOBUFS:
    case -ERANGE:
        return true;
    default:
        return result >= 0;
    }
}

/* Puts all mbufs, so that later operations can allocate again. */
static void collect(struct ivs_mempool *p)
{
    for (uint32_t index = 0; index < N; index++)
        atomic_store(&ivs_mbuf_at(p, index)->refcnt, 0);
    ivs_mempool_flush(p);
    for (uint32_t index = 0; index < N; index++)
        (void)ivs_mempool_put_bulk(p, &index, 1);
    ivs_mempool_flush(p);
}

static void work(struct ivs_mempool *p, uint64_t *seed, uint32_t rounds, bool corrupting)
{
    for (uint32_t i = 0; i < rounds; i++) {
        if (corrupting && i % 2 == 0)
            corrupt(p, seed);
        CHECK(is_documented(any_operation(p, seed)));
        if (i % 512 == 0)
            collect(p);
    }
}

static void test_random_headers_return_documented_errors(void)
{
    struct packets k;
    uint64_t seed = 88172645463325252u;
    packets_make(&k);
    work(k.p, &seed, ROUNDS, true);
    packets_free(&k);
}

struct attacker {
    const struct ivs_mempool *p;
    _Atomic bool stop;
};

static void *attack(void *argument)
{
    struct attacker *a = argument;
    uint64_t seed = 1234567;
    while (!atomic_load(&a->stop))
        corrupt(a->p, &seed);
    return NULL;
}

/* Another thread changes headers at the same time: each field must be loaded only once. */
static void test_concurrently_changed_headers_return_documented_errors(void)
{
    struct packets k;
    uint64_t seed = 362436069u;
    pthread_t thread;
    packets_make(&k);
    struct attacker a = {.p = k.p, .stop = false};
    REQUIRE(pthread_create(&thread, NULL, attack, &a) == 0);
    work(k.p, &seed, ROUNDS, false);
    atomic_store(&a.stop, true);
    REQUIRE(pthread_join(thread, NULL) == 0);
    packets_free(&k);
}

/* A header belongs to one thread at a time: the attacker causes intended data races. */
#ifdef IVS_TSAN
#define ATTACK_CONCURRENTLY 0
#else
#define ATTACK_CONCURRENTLY 1
#endif

int main(void)
{
    RUN(test_chain_clone_copy_linearize_free);
    RUN(test_create_invalid_info_returns_error);
    RUN(test_concurrent_clones_keep_reference_counts);
    RUN(test_concurrent_last_drops_free_mbuf_once);
    RUN(test_random_headers_return_documented_errors);
    if (ATTACK_CONCURRENTLY)
        RUN(test_concurrently_changed_headers_return_documented_errors);
    return check_result();
}
