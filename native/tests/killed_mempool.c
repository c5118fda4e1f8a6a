/* SPDX-License-Identifier: BSD-3-Clause */
/* killed_mempool.c: a participant is killed between any two instructions of an operation.
 *
 * The others continue: their objects do not change, the audit finds each object at most once (free, cached, or in use
 * by the dead participant), no valid put fails, and the successor in the dead participant's slot adopts its cache.
 */
#include "killed.h"
#include "pool_kit.h"

#define OBJECTS 150u /* three words of the bitmap, the last one partly used */
#define CACHE 8u
#define SURVIVOR 0
#define VICTIM 1
#define SURVIVOR_OBJECTS 10u
#define VICTIM_OBJECTS 20u
#define MOST 32u /* more than any operation below gets */

struct scene {
    struct pool_kit pool;
    struct ivs_mempool *survivor;
    struct ivs_mempool *victim;
    uint32_t mine[SURVIVOR_OBJECTS]; /* used by the survivor */
    uint32_t hand[VICTIM_OBJECTS];   /* used by the victim: 40 and 41, then scattered ones */
    const struct operation *operation;
    uint16_t before[OBJECTS]; /* result of the audit before the victim's operation */
};

struct operation {
    const char *name;
    void (*work)(struct scene *s);
    uint32_t loses; /* objects that the kill may leave in use, in addition to VICTIM_OBJECTS */
};

/* ---- operations of the victim ------------------------------------------------------------------------------------ */

static void get(struct scene *s, uint32_t n)
{
    uint32_t objects[MOST];
    (void)ivs_mempool_get_bulk(s->victim, objects, n);
}

static void get_1(struct scene *s)
{
    get(s, 1);
}
static void get_4(struct scene *s)
{
    get(s, 4);
}
static void get_6(struct scene *s)
{
    get(s, 6);
}
static void get_30(struct scene *s)
{
    get(s, 30);
}
static void put_1(struct scene *s)
{
    (void)ivs_mempool_put_bulk(s->victim, s->hand + 5, 1);
}
static void put_run_of_2(struct scene *s)
{
    (void)ivs_mempool_put_bulk(s->victim, s->hand, 2);
}
static void put_11(struct scene *s)
{
    (void)ivs_mempool_put_bulk(s->victim, s->hand + 2, 11);
}
static void put_all(struct scene *s)
{
    (void)ivs_mempool_put_bulk(s->victim, s->hand, VICTIM_OBJECTS);
}
static void leave(struct scene *s)
{
    ivs_mempool_leave(s->victim);
}
static void join_again(struct scene *s)
{
    ivs_mempool_join(s->victim, VICTIM);
}

/* The cache has size 8 and contains 5 objects. A get of 1 or 4 uses the cache, of 6 refills it, of 30 bypasses it. A
 * put of 1 or 2 uses the cache, of 11 flushes it, of 20 bypasses it. */
static const struct operation operations[] = {
    {"get 1", get_1, 1},       {"get 4", get_4, 4},        {"get 6", get_6, 6 + 2 * CACHE},
    {"get 30", get_30, 30},    {"put 1", put_1, 0},        {"put run of 2", put_run_of_2, 0},
    {"put 11", put_11, CACHE}, {"put 20", put_all, CACHE}, {"leave", leave, CACHE},
    {"join", join_again, 0},
};

static void operate(void *subject)
{
    struct scene *s = subject;
    s->operation->work(s);
}

/* ---- set-up ------------------------------------------------------------------------------------------------------ */

static void get_victim_objects(struct scene *s)
{
    uint32_t all[OBJECTS], others[OBJECTS], n = 0, kept = 0;
    REQUIRE(ivs_mempool_get_bulk(s->survivor, s->mine, SURVIVOR_OBJECTS) == (int)SURVIVOR_OBJECTS);
    while (ivs_mempool_get_bulk(s->victim, all + n, 1) == 1)
        n++;
    for (uint32_t i = 0; i < n; i++) {
        if (kept < VICTIM_OBJECTS && (all[i] == 40 || all[i] == 41 || (kept >= 2 && all[i] % 3 == 0)))
            s->hand[kept++] = all[i];
        else
            others[i - kept] = all[i];
    }
    REQUIRE(kept == VICTIM_OBJECTS);
    REQUIRE(ivs_mempool_put_bulk(s->victim, others, n - kept) == (int)(n - kept));
}

/* Both participants use objects; the cache of the victim, if there is one, contains 5. */
static void set_scene(struct scene *s)
{
    memset(s->pool.memory, 0, s->pool.bytes);
    REQUIRE(ivs_mempool_create(s->pool.memory, s->pool.bytes, &s->pool.info) == 0);
    s->survivor = pool_attach(&s->pool, SURVIVOR);
    s->victim = pool_attach(&s->pool, VICTIM);
    get_victim_objects(s);
    if (s->pool.info.cache_size != 0) {
        uint32_t some[MOST];
        while (s->victim->cached != 5) {
            uint32_t n = s->victim->cached > 5 ? s->victim->cached - 5 : 1;
            REQUIRE(ivs_mempool_get_bulk(s->victim, some, n) == (int)n);
            REQUIRE(ivs_mempool_put_bulk(s->survivor, some, n) == (int)n);
        }
    }
    (void)ivs_mempool_audit(s->survivor, s->before);
}

static void strike_scene(struct scene *s)
{
    free(s->survivor);
    free(s->victim);
}

/* ---- after the kill ---------------------------------------------------------------------------------------------- */

static bool is_mine(const struct scene *s, uint32_t object)
{
    for (uint32_t i = 0; i < SURVIVOR_OBJECTS; i++)
        if (s->mine[i] == object)
            return true;
    return false;
}

/* Checks that each object is in at most one place, and that those of the survivor have not changed. Returns the number
 * of objects that only the victim can have used, and writes them to `lost`. */
static uint32_t audit(struct scene *s, uint32_t *lost)
{
    uint16_t where[OBJECTS];
    uint32_t n = 0;
    CHECK_EQ(ivs_mempool_audit(s->survivor, where), 0);
    for (uint32_t object = 0; object < OBJECTS; object++) {
        bool was_mine = is_mine(s, object);
        CHECK(where[object] == IVS_HELD_FREE || where[object] == IVS_HELD_CACHE + SURVIVOR ||
              where[object] == IVS_HELD_CACHE + VICTIM || where[object] == IVS_HELD_BY_NOBODY_SEEN);
        CHECK_EQ(where[object] == IVS_HELD_CACHE + SURVIVOR, s->before[object] == IVS_HELD_CACHE + SURVIVOR);
        if (was_mine)
            CHECK_EQ(where[object], IVS_HELD_BY_NOBODY_SEEN);
        else if (where[object] == IVS_HELD_BY_NOBODY_SEEN)
            lost[n++] = object;
    }
    CHECK(n <= VICTIM_OBJECTS + s->operation->loses);
    CHECK_EQ(ivs_mempool_available(s->survivor), OBJECTS - SURVIVOR_OBJECTS - n);
    return n;
}

/* Survivor and successor get all available objects in turn: each once, and none that the survivor uses. Returns their
 * number and writes them to `taken`. */
static uint32_t get_all(struct scene *s, struct ivs_mempool *successor, uint32_t *taken)
{
    bool seen[OBJECTS] = {false};
    uint32_t n = 0;
    for (int i = 0; i < 2; i++) {
        uint32_t object;
        while (ivs_mempool_get_bulk(i == 0 ? s->survivor : successor, &object, 1) == 1) {
            REQUIRE(object < OBJECTS);
            CHECK(!seen[object] && !is_mine(s, object));
            seen[object] = true;
            taken[n++] = object;
        }
    }
    return n;
}

static void put_each(struct ivs_mempool *p, const uint32_t *objects, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        CHECK_EQ(ivs_mempool_put_bulk(p, objects + i, 1), 1);
}

static void survive(struct scene *s)
{
    uint32_t lost[OBJECTS], taken[OBJECTS];
    uint32_t n_lost = audit(s, lost);
    put_each(s->survivor, s->mine, SURVIVOR_OBJECTS / 2); /* before the slot is adopted */
    struct ivs_mempool *successor = pool_attach(&s->pool, VICTIM);
    put_each(successor, s->mine + SURVIVOR_OBJECTS / 2, SURVIVOR_OBJECTS / 2);
    memset(s->mine, 0xff, sizeof(s->mine)); /* these objects are free now */
    uint32_t n = get_all(s, successor, taken);
    CHECK_EQ(n, OBJECTS - n_lost);
    put_each(s->survivor, taken, n);
    put_each(successor, lost, n_lost); /* as a caller does after an audit */
    ivs_mempool_leave(successor);
    ivs_mempool_leave(s->survivor);
    CHECK_EQ(pool_free_bits(&s->pool), OBJECTS);
    free(successor);
}

/* ---- all operations, with and without cache ---------------------------------------------------------------------- */

static void kill_at_each_point(struct scene *s)
{
    uint32_t points[KILLED_POINTS];
    set_scene(s);
    uint32_t n = killed_points(operate, s, s->pool.memory, s->pool.bytes, points);
    strike_scene(s);
    for (uint32_t i = 0; i < n; i++) {
        set_scene(s);
        killed_after(points[i], operate, s);
        survive(s);
        strike_scene(s);
    }
    printf("cache %u%s, %s: killed at %u points\n", s->pool.info.cache_size,
           s->pool.info.flags & IVS_MEMPOOL_DEBUG ? ", debug" : "", s->operation->name, n);
}

static void test_killed_inside(void)
{
    static const struct {
        uint32_t cache, flags;
    } pools[] = {{0, 0}, {CACHE, 0}, {CACHE, IVS_MEMPOOL_DEBUG}};
    for (uint32_t i = 0; i < 3; i++) {
        for (uint32_t o = 0; o < sizeof(operations) / sizeof(operations[0]); o++) {
            struct scene s = {.operation = &operations[o]};
            REQUIRE(pool_plan(&s.pool, OBJECTS, 16, pools[i].cache, pools[i].flags) > 0);
            s.pool.memory = killed_memory(s.pool.bytes);
            kill_at_each_point(&s);
            REQUIRE(munmap(s.pool.memory, s.pool.bytes) == 0);
        }
    }
}

int main(void)
{
    RUN(test_killed_inside);
    return check_result();
}
