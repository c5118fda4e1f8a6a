/* SPDX-License-Identifier: BSD-3-Clause */
/* free_anywhere.c: one process of one side of a pool whose objects are taken on one side and put back on the other.
 *
 *   free_anywhere FILE POOL OUT IN TALLY MACHINE SIDE THREADS TAKE COME
 *
 * FILE is a segment's file, or the BAR that shows it in a VM; POOL, OUT, IN and TALLY are offsets in it: a mempool, the
 * ring to the other side, the ring from there, and a struct tally. MACHINE is eal.process.machine_id(), SIDE is 0 or 1.
 * Each of THREADS threads, which are participants of their own, takes TAKE objects and sends them away, and all the while
 * puts back what comes, until COME objects have come to its side as a whole.
 *
 * Each object says who has it. One that is given out twice, comes twice, or comes from nobody ends the program with a
 * message and status 1; so does a minute in which nothing moves.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "mempool.h"
#include "ring.h"
#include "segment.h"

#define BULK 32u
#define THREADS_MOST 16u
#define PATIENCE_S 60
#define STALL_NS UINT64_C(60000000000) /* a machine full of other work is no stalled peer */

struct tally {
    _Atomic uint64_t put[2]; /* objects that each side has put back */
};

struct side {
    unsigned char *memory;
    uint64_t length;
    uint64_t pool, out, in;
    struct tally *tally;
    uint64_t machine;
    uint32_t number;
    uint64_t take, come;
};

static void fail(const char *what, uint64_t value)
{
    fprintf(stderr, "free_anywhere: %s (%llu)\n", what, (unsigned long long)value);
    exit(1);
}

static void attach_ring(const struct side *s, uint64_t offset, struct ivs_ring *ring)
{
    struct ivs_ring_info info;
    int fault = ivs_ring_attach(ring, s->memory + offset, s->length - offset, STALL_NS, &info);
    if (fault != 0 || info.elem_size != 4)
        fail("no ring of indices there", (uint64_t)fault);
}

static struct ivs_mempool *attach_pool(const struct side *s)
{
    struct ivs_mempool_info info;
    int fault = ivs_mempool_check(s->memory + s->pool, s->length - s->pool, &info);
    if (fault != 0)
        fail("no pool there", (uint64_t)fault);
    struct ivs_mempool *pool = malloc(ivs_mempool_handle_size(info.cache_size));
    if (pool == NULL)
        fail("no memory", 0);
    ivs_mempool_attach(pool, s->memory + s->pool, &info);
    return pool;
}

/* Says that objects change hands: each was `before`'s (0: nobody's, 1 or 2: a side's) and is `after`'s from now on. */
static void change_hands(const struct ivs_mempool *pool, const uint32_t *objects, uint32_t n, uint32_t before,
                         uint32_t after)
{
    for (uint32_t i = 0; i < n; i++) {
        if (objects[i] >= pool->n)
            fail("an index that is none", objects[i]);
        _Atomic uint32_t *holder = (_Atomic uint32_t *)(void *)(pool->objects + (size_t)objects[i] * pool->elt_stride);
        uint32_t was = atomic_exchange_explicit(holder, after, memory_order_relaxed);
        if (was != before)
            fail("an object in two hands", (uint64_t)was << 32 | objects[i]);
    }
}

struct hand {
    uint32_t objects[BULK];
    uint32_t n;
};

/* Takes a bulk and sends as much of it as fits; the rest waits in `hand`. Whether anything moved. */
static bool send(const struct side *s, struct ivs_mempool *pool, struct ivs_ring *out, struct hand *hand, uint64_t *left)
{
    bool moved = false;
    if (hand->n == 0 && *left > 0) {
        uint32_t n = *left < BULK ? (uint32_t)*left : BULK;
        int got = ivs_mempool_get_bulk(pool, hand->objects, n);
        if (got < 0)
            fail("get failed", (uint64_t)-got);
        change_hands(pool, hand->objects, (uint32_t)got, 0, 1 + s->number);
        hand->n = (uint32_t)got;
        *left -= hand->n;
        moved = got > 0;
    }
    if (hand->n > 0) {
        int sent = ivs_ring_enqueue_burst(out, hand->objects, 4, hand->n, NULL);
        if (sent < 0)
            fail("enqueue failed", (uint64_t)-sent);
        hand->n -= (uint32_t)sent;
        memmove(hand->objects, hand->objects + sent, (size_t)hand->n * 4);
        moved |= sent > 0;
    }
    return moved;
}

/* Puts back what has come from the other side. Whether anything had. */
static bool put_back(const struct side *s, struct ivs_mempool *pool, struct ivs_ring *in)
{
    uint32_t objects[BULK];
    int came = ivs_ring_dequeue_burst(in, objects, 4, BULK, NULL);
    if (came < 0)
        fail("dequeue failed", (uint64_t)-came);
    if (came == 0)
        return false;
    change_hands(pool, objects, (uint32_t)came, 2 - s->number, 0);
    int put = ivs_mempool_put_bulk(pool, objects, (uint32_t)came);
    if (put != came)
        fail("put failed", (uint64_t)-put);
    atomic_fetch_add_explicit(&s->tally->put[s->number], (uint64_t)came, memory_order_relaxed);
    return true;
}

static void *work(void *argument)
{
    const struct side *s = argument;
    struct ivs_mempool *pool = attach_pool(s);
    struct ivs_ring out, in;
    struct hand hand = {.n = 0};
    uint64_t left = s->take, owner = s->machine << 32 | (uint64_t)syscall(SYS_gettid);
    attach_ring(s, s->out, &out);
    attach_ring(s, s->in, &in);
    int slot = ivs_participant_claim(s->memory, owner, 0);
    if (slot < 0)
        fail("no participant slot", (uint64_t)-slot);
    ivs_mempool_join(pool, (uint32_t)slot);

    const struct timespec nap = {.tv_nsec = 20000};
    time_t moved_at = time(NULL);
    while (left > 0 || hand.n > 0 || atomic_load(&s->tally->put[s->number]) < s->come) {
        bool sent = send(s, pool, &out, &hand, &left), came = put_back(s, pool, &in);
        if (sent || came) {
            moved_at = 0;
        } else {
            time_t now = time(NULL);
            moved_at = moved_at == 0 ? now : moved_at;
            if (now - moved_at > PATIENCE_S)
                fail("nothing moves", left);
            nanosleep(&nap, NULL); /* who only yields takes the processor from the side that has something to do */
        }
    }
    ivs_mempool_leave(pool);
    if (ivs_participant_release(s->memory, slot, owner) != 0)
        fail("the slot is another one's", (uint64_t)slot);
    free(pool);
    return NULL;
}

static unsigned char *map(const char *path, uint64_t *length)
{
    struct stat status;
    int fd = open(path, O_RDWR);
    if (fd < 0 || fstat(fd, &status) != 0)
        fail("cannot open the file", 0);
    *length = (uint64_t)status.st_size;
    void *memory = mmap(NULL, *length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        fail("cannot map the file", *length);
    close(fd);
    return memory;
}

int main(int argc, char **argv)
{
    struct side s = {0};
    uint64_t numbers[9];
    pthread_t threads[THREADS_MOST];
    if (argc != 11)
        fail("arguments: see the first lines of free_anywhere.c", (uint64_t)argc);
    for (int i = 0; i < 9; i++)
        numbers[i] = strtoull(argv[i + 2], NULL, 0);
    s.memory = map(argv[1], &s.length);
    s.pool = numbers[0], s.out = numbers[1], s.in = numbers[2];
    for (int i = 0; i < 4; i++)
        if (numbers[i] >= s.length)
            fail("an offset beyond the end", numbers[i]);
    s.tally = (struct tally *)(void *)(s.memory + numbers[3]);
    s.machine = numbers[4], s.number = (uint32_t)numbers[5];
    s.take = numbers[7], s.come = numbers[8];
    if (s.number > 1 || numbers[6] == 0 || numbers[6] > THREADS_MOST)
        fail("no such side, or too many threads", numbers[6]);
    for (uint64_t i = 0; i < numbers[6]; i++)
        if (pthread_create(&threads[i], NULL, work, &s) != 0)
            fail("no thread", i);
    for (uint64_t i = 0; i < numbers[6]; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
