/* SPDX-License-Identifier: BSD-3-Clause */
/* killed_mempool.c: a pool one of whose participants is killed between any two instructions of an operation.
 *
 * All others go on: nothing they hold or may take changes, the audit finds each object at most once (free, in a cache,
 * or in the dead one's hand), no rightful put is refused, and who takes over the dead one's slot has what it had cached.
 */
#include "killed.h"
#include "pool_kit.h"

#define OBJECTS 150u /* some words of the bitmap, one of them not full */
#define CACHE 8u
#define SURVIVOR 0
#define VICTIM 1
#define SURVIVORS_HAND 10u
#define VICTIMS_HAND 20u
#define MOST 32u /* more than any operation here takes */

struct scene {
    struct pool_kit pool;
    struct ivs_mempool *survivor;
    struct ivs_mempool *victim;
    uint32_t mine[SURVIVORS_HAND];
    uint32_t hand[VICTIMS_HAND]; /* the victim's: 40 and 41, then scattered */
    const struct operation *operation;
    uint16_t before[OBJECTS]; /* the audit, before the victim's operation */
};

struct operation {
    const char *name;
    void (*work)(struct scene *s);
    uint32_t loses; /* objects that can be in the dead one's hand in addition to those it held */
};

/* ---- what the victim does --------------------------------------------------------------------------------------- */

static void get(struct scene *s, uint32_t n)
{
    uint32_t objects[MOST];
    (void)ivs_mempool_get_bulk(s->victim, objects, n);
}

static void get_1(struct scene *s) { get(s, 1); }
static void get_4(struct scene *s) { get(s, 4); }
static void get_6(struct scene *s) { get(s, 6); }
static void get_30(struct scene *s) { get(s, 30); }
static void put_1(struct scene *s) { (void)ivs_mempool_put_bulk(s->victim, s->hand + 5, 1); }
static void put_2_in_a_row(struct scene *s) { (void)ivs_mempool_put_bulk(s->victim, s->hand, 2); }
static void put_11(struct scene *s) { (void)ivs_mempool_put_bulk(s->victim, s->hand + 2, 11); }
static void put_all(struct scene *s) { (void)ivs_mempool_put_bulk(s->victim, s->hand, VICTIMS_HAND); }
static void leave(struct scene *s) { ivs_mempool_leave(s->victim); }
static void join_again(struct scene *s) { ivs_mempool_join(s->victim, VICTIM); }

/* With a cache of 8 that holds 5: a get of 1 or 4 comes out of it, 6 fills it first, 30 goes past it; a put of 1 or 2
 * goes into it, 11 empties it first, 20 goes past it. */
static const struct operation operations[] = {
    {"get 1", get_1, 1},
    {"get 4", get_4, 4},
    {"get 6", get_6, 6 + 2 * CACHE},
    {"get 30", get_30, 30},
    {"put 1", put_1, 0},
    {"put 2 in a row", put_2_in_a_row, 0},
    {"put 11", put_11, CACHE},
    {"put 20", put_all, CACHE},
    {"leave", leave, CACHE},
    {"join", join_again, 0},
};

static void operate(void *subject)
{
    struct scene *s = subject;
    s->operation->work(s);
}

/* ---- the stage --------------------------------------------------------------------------------------------------- */

static void take_by_the_victim(struct scene *s)
{
    uint32_t all[OBJECTS], others[OBJECTS], n = 0, kept = 0;
    REQUIRE(ivs_mempool_get_bulk(s->survivor, s->mine, SURVIVORS_HAND) == (int)SURVIVORS_HAND);
    while (ivs_mempool_get_bulk(s->victim, all + n, 1) == 1)
        n++;
    for (uint32_t i = 0; i < n; i++) {
        if (kept < VICTIMS_HAND && (all[i] == 40 || all[i] == 41 || (kept >= 2 && all[i] % 3 == 0)))
            s->hand[kept++] = all[i];
        else
            others[i - kept] = all[i];
    }
    REQUIRE(kept == VICTIMS_HAND);
    REQUIRE(ivs_mempool_put_bulk(s->victim, others, n - kept) == (int)(n - kept));
}

/* The victim has taken and put back, and its cache, where there is one, holds 5. */
static void set_scene(struct scene *s)
{
    memset(s->pool.memory, 0, s->pool.bytes);
    REQUIRE(ivs_mempool_create(s->pool.memory, s->pool.bytes, &s->pool.info) == 0);
    s->survivor = pool_attach(&s->pool, SURVIVOR);
    s->victim = pool_attach(&s->pool, VICTIM);
    take_by_the_victim(s);
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
    for (uint32_t i = 0; i < SURVIVORS_HAND; i++)
        if (s->mine[i] == object)
            return true;
    return false;
}

/* Each object is in one place at most, and nothing of the survivor's has changed. Returns how many nobody has but the
 * survivor and the dead, and which. */
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
    CHECK(n <= VICTIMS_HAND + s->operation->loses);
    CHECK_EQ(ivs_mempool_available(s->survivor), OBJECTS - SURVIVORS_HAND - n);
    return n;
}

/* The survivor and who takes over the dead one's slot get, one after the other, all that is to be had: each once, and
 * none that is lost. Returns how many, all of which are in `taken`. */
static uint32_t take_what_is_there(struct scene *s, struct ivs_mempool *heir, uint32_t *taken)
{
    bool seen[OBJECTS] = {false};
    uint32_t n = 0;
    for (int i = 0; i < 2; i++) {
        uint32_t object;
        while (ivs_mempool_get_bulk(i == 0 ? s->survivor : heir, &object, 1) == 1) {
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
    put_each(s->survivor, s->mine, SURVIVORS_HAND / 2); /* with the slot still the dead one's */
    struct ivs_mempool *heir = pool_attach(&s->pool, VICTIM);
    put_each(heir, s->mine + SURVIVORS_HAND / 2, SURVIVORS_HAND / 2);
    memset(s->mine, 0xff, sizeof(s->mine)); /* are free now */
    uint32_t n = take_what_is_there(s, heir, taken);
    CHECK_EQ(n, OBJECTS - n_lost);
    put_each(s->survivor, taken, n);
    put_each(heir, lost, n_lost); /* as who has read the audit does */
    ivs_mempool_leave(heir);
    ivs_mempool_leave(s->survivor);
    CHECK_EQ(pool_free_bits(&s->pool), OBJECTS);
    free(heir);
}

/* ---- each operation, with and without cache ---------------------------------------------------------------------- */

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
    static const struct { uint32_t cache, flags; } pools[] = {{0, 0}, {CACHE, 0}, {CACHE, IVS_MEMPOOL_DEBUG}};
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
