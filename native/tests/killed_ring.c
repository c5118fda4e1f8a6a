/* SPDX-License-Identifier: BSD-3-Clause */
/* killed_ring.c: a ring whose peer is killed between any two instructions of an operation.
 *
 * The survivor gets each committed element once and in order, never part of an operation, and never hangs: on a side
 * that was left incomplete (MT, RTS, HTS) it gets -ETIMEDOUT in time. An ST side is never left incomplete. */
#include "killed.h"
#include "ring_kit.h"
#include "ring_peek.h"

#define STALL_NS 300000u
#define PATIENCE_NS UINT64_C(5000000000) /* the machine may be busy */
#define WORDS 3u                         /* 24 bytes per element: no processor stores that at once */
#define ESIZE (8u * WORDS)
#define HELD 5u           /* elements in the ring at the start: 1, 2, ... */
#define OPERATED 2u       /* elements of the victim's operation: 6 and 7, or 1 and 2 */
#define NEW 100u          /* what the survivor enqueues */
#define START 0xfffffffau /* of both indices: the operations cross the ring's end and 2^32 */

struct element {
    uint64_t words[WORDS];
};

enum manner { COPY, PEEK };

struct scene {
    struct kit kit; /* its handle belongs to the survivor */
    struct ivs_ring victim;
    const struct kit_mode *mode;
    enum ivs_ring_role role; /* the victim's side */
    enum manner manner;
};

static void fill(struct element *e, uint64_t value)
{
    for (uint32_t i = 0; i < WORDS; i++)
        e->words[i] = value;
}

/* The value of an element; 0 if it is torn. */
static uint64_t value_of(const struct element *e)
{
    for (uint32_t i = 1; i < WORDS; i++)
        if (e->words[i] != e->words[0])
            return 0;
    return e->words[0];
}

/* ---- the victim ------------------------------------------------------------------------------------------------ */

static void enqueue(struct ivs_ring *r, enum manner manner)
{
    struct element two[OPERATED];
    for (uint32_t i = 0; i < OPERATED; i++)
        fill(&two[i], HELD + 1 + i);
    if (manner == COPY) {
        (void)ivs_ring_enqueue_bulk(r, two, ESIZE, OPERATED, NULL);
    } else {
        (void)ivs_ring_enqueue_bulk_start(r, ESIZE, OPERATED, NULL);
        (void)ivs_ring_enqueue_finish(r, two, ESIZE, OPERATED);
    }
}

static void dequeue(struct ivs_ring *r, enum manner manner)
{
    struct element two[HELD]; /* more than are dequeued: gcc does not see how many a start reserves */
    if (manner == COPY) {
        (void)ivs_ring_dequeue_bulk(r, two, ESIZE, OPERATED, NULL);
    } else {
        (void)ivs_ring_dequeue_bulk_start(r, two, ESIZE, OPERATED, NULL);
        (void)ivs_ring_dequeue_finish(r, OPERATED);
    }
}

static void operate(void *subject)
{
    struct scene *s = subject;
    if (s->role == IVS_PRODUCER)
        enqueue(&s->victim, s->manner);
    else
        dequeue(&s->victim, s->manner);
}

/* ---- the survivor ---------------------------------------------------------------------------------------------- */

static int enqueue_one(struct ivs_ring *r, uint64_t value)
{
    struct element one;
    fill(&one, value);
    return ivs_ring_enqueue_bulk(r, &one, ESIZE, 1, NULL);
}

/* Dequeue until the ring is empty or the side has stalled, expecting first, first + 1, ... Returns the number. */
static uint32_t take_all(struct ivs_ring *r, uint64_t first, int *last)
{
    struct element one;
    uint32_t n = 0;
    while ((*last = ivs_ring_dequeue_bulk(r, &one, ESIZE, 1, NULL)) == 1)
        CHECK_EQ(value_of(&one), first + n++);
    return n;
}

/* An incomplete side: before -ETIMEDOUT the survivor may find nothing to do (MT), or enqueue or dequeue something
 * (RTS). */
static void is_told_of_the_stall(struct ivs_ring *r, enum ivs_ring_role role)
{
    uint64_t begin = ivs_now_ns();
    struct element one;
    int result;
    do {
        result = role == IVS_PRODUCER ? enqueue_one(r, NEW) : ivs_ring_dequeue_bulk(r, &one, ESIZE, 1, NULL);
        REQUIRE(ivs_now_ns() - begin < PATIENCE_NS);
    } while (result != -ETIMEDOUT);
}

/* The victim died as producer. Returns whether its elements are in the ring. */
static bool survive_producer(struct ivs_ring *r, bool incomplete)
{
    int last;
    uint32_t got = take_all(r, 1, &last);
    CHECK_EQ(last, 0);
    CHECK(got == HELD || got == HELD + OPERATED);
    if (incomplete) {
        CHECK_EQ(got, HELD);
        is_told_of_the_stall(r, IVS_PRODUCER);
        CHECK_EQ(take_all(r, NEW, &last), 0);
    } else {
        for (uint64_t i = 0; i < 20; i++) {
            CHECK_EQ(enqueue_one(r, NEW + i), 1);
            CHECK_EQ(take_all(r, NEW + i, &last), 1);
        }
    }
    return got != HELD;
}

/* The victim died as consumer. Returns whether its elements are removed. */
static bool survive_consumer(struct ivs_ring *r, bool incomplete)
{
    uint32_t added = 0;
    int last;
    while (enqueue_one(r, HELD + 1 + added) == 1)
        added++;
    uint32_t before = r->capacity - HELD; /* free slots before the victim's operation */
    CHECK(added == before || added == before + OPERATED);
    bool gone = added != before;
    if (incomplete) {
        CHECK(!gone);
        is_told_of_the_stall(r, IVS_CONSUMER);
    } else {
        CHECK_EQ(take_all(r, gone ? 1 + OPERATED : 1, &last), r->capacity);
        CHECK_EQ(last, 0);
        CHECK_EQ(enqueue_one(r, NEW), 1);
        CHECK_EQ(take_all(r, NEW, &last), 1);
    }
    return gone;
}

/* ---- each operation in each mode ------------------------------------------------------------------------------- */

static void set_scene(struct scene *s)
{
    memset(s->kit.memory, 0, s->kit.bytes);
    REQUIRE(ivs_ring_create(s->kit.memory, s->kit.bytes, &s->kit.info) == 0);
    kit_set_index(s->kit.memory, START);
    kit_attach(&s->kit, &s->kit.r);
    kit_attach(&s->kit, &s->victim);
    s->kit.r.stall_ns = s->victim.stall_ns = STALL_NS;
    for (uint64_t i = 0; i < HELD; i++)
        REQUIRE(enqueue_one(s->role == IVS_PRODUCER ? &s->victim : &s->kit.r, i + 1) == 1);
}

/* State of a side after a kill: 0 before the operation, 1 incomplete, 2 after it. It only rises. */
static int stage_after_kill(struct scene *s)
{
    struct ivs_ring *r = &s->kit.r;
    struct ivs_ring_headtail end;
    ivs_ring_headtail_get(r, s->role, &end);
    bool done = s->role == IVS_PRODUCER ? survive_producer(r, end.incomplete) : survive_consumer(r, end.incomplete);
    return end.incomplete ? 1 : done ? 2 : 0;
}

static void kill_at_each_point(struct scene *s)
{
    uint32_t points[KILLED_POINTS], seen[3] = {0};
    int before = 0;
    set_scene(s);
    uint32_t n = killed_points(operate, s, s->kit.memory, s->kit.bytes, points);
    for (uint32_t i = 0; i < n; i++) {
        set_scene(s);
        killed_after(points[i], operate, s);
        int stage = stage_after_kill(s);
        CHECK(stage >= before);
        before = stage;
        seen[stage]++;
    }
    CHECK_EQ(before, 2);
    CHECK(seen[0] > 0);
    CHECK_EQ(seen[1] > 0, ivs_ring_sync(&s->kit.r, s->role) != IVS_SYNC_ST);
    printf("%s %s%s: killed at %u points, %u of them inside\n", s->mode->name, s->manner == PEEK ? "peek, " : "",
           s->role == IVS_PRODUCER ? "enqueue" : "dequeue", n, seen[1]);
}

static bool can_peek(const struct kit_mode *mode)
{
    return strcmp(mode->name, "ST") == 0 || strcmp(mode->name, "HTS") == 0;
}

static void test_killed_inside(void)
{
    for (uint32_t mode = 0; mode < 4; mode++) { /* ST, MT, RTS, HTS on both sides */
        for (int peek = 0; peek <= can_peek(&kit_modes[mode]); peek++) {
            for (int role = 0; role < 2; role++) {
                struct scene s = {
                    .mode = &kit_modes[mode], .role = (enum ivs_ring_role)role, .manner = (enum manner)peek};
                REQUIRE(kit_plan(&s.kit, 8, ESIZE, s.mode->flags) > 0);
                s.kit.memory = killed_memory(s.kit.bytes);
                kill_at_each_point(&s);
                REQUIRE(munmap(s.kit.memory, s.kit.bytes) == 0);
            }
        }
    }
}

int main(void)
{
    RUN(test_killed_inside);
    return check_result();
}
