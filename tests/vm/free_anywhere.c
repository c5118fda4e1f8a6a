/* SPDX-License-Identifier: BSD-3-Clause */
/* free_anywhere.c: one process of one side of a mempool whose objects are allocated on one side and freed on the other.
 *
 *   free_anywhere FILE POOL OUT IN TALLY MACHINE SIDE THREADS ALLOCATE FREE
 *
 * FILE is the file of a segment, or its BAR in a VM. POOL, OUT, IN and TALLY are offsets in it: the mempool, the ring
 * to the other side, the ring from the other side, and a struct tally. MACHINE is eal.linux.process.machine_id(), SIDE
 * is 0 or 1. Each of THREADS threads is a participant. It allocates ALLOCATE objects and sends their indices to the
 * other side; at the same time it frees the objects that arrive, until its side has freed FREE objects.
 *
 * Each object contains its owner. The program prints a message and exits with status 1 if an object is allocated twice,
 * arrives twice or arrives without having been sent, or if nothing arrives and nothing is sent for a minute.
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
#define MAX_THREADS 16u
#define IDLE_LIMIT_S 60
#define STALL_NS UINT64_C(60000000000) /* longer than any delay on a loaded machine */

struct tally {
    _Atomic uint64_t freed[2]; /* objects that each side has freed */
};

struct side {
    unsigned char *memory;
    uint64_t length;
    uint64_t pool, out, in;
    struct tally *tally;
    uint64_t machine;
    uint32_t number;
    uint64_t to_allocate, to_free;
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
        fail("no ring of 4-byte elements at this offset", (uint64_t)fault);
}

static struct ivs_mempool *attach_pool(const struct side *s)
{
    struct ivs_mempool_info info;
    int fault = ivs_mempool_check(s->memory + s->pool, s->length - s->pool, &info);
    if (fault != 0)
        fail("no mempool at this offset", (uint64_t)fault);
    struct ivs_mempool *pool = malloc(ivs_mempool_handle_size(info.cache_size));
    if (pool == NULL)
        fail("no memory", 0);
    ivs_mempool_attach(pool, s->memory + s->pool, &info);
    return pool;
}

/* Change the owner in each object from `before` to `after` (0: free, 1 or 2: side + 1). Fail for another owner. */
static void change_owner(const struct ivs_mempool *pool, const uint32_t *objects, uint32_t n, uint32_t before,
                         uint32_t after)
{
    for (uint32_t i = 0; i < n; i++) {
        if (objects[i] >= pool->n)
            fail("index out of range", objects[i]);
        _Atomic uint32_t *owner = (_Atomic uint32_t *)(void *)(pool->objects + (size_t)objects[i] * pool->elt_stride);
        uint32_t was = atomic_exchange_explicit(owner, after, memory_order_relaxed);
        if (was != before)
            fail("object has another owner", (uint64_t)was << 32 | objects[i]);
    }
}

struct pending {
    uint32_t objects[BULK];
    uint32_t n;
};

/* Allocate a bulk if none is pending and send as much as the ring accepts. Return true if anything was done. */
static bool send(const struct side *s, struct ivs_mempool *pool, struct ivs_ring *out, struct pending *pending,
                 uint64_t *left)
{
    bool moved = false;
    if (pending->n == 0 && *left > 0) {
        uint32_t n = *left < BULK ? (uint32_t)*left : BULK;
        int got = ivs_mempool_get_bulk(pool, pending->objects, n);
        if (got < 0)
            fail("get failed", (uint64_t)-got);
        change_owner(pool, pending->objects, (uint32_t)got, 0, 1 + s->number);
        pending->n = (uint32_t)got;
        *left -= pending->n;
        moved = got > 0;
    }
    if (pending->n > 0) {
        int sent = ivs_ring_enqueue_burst(out, pending->objects, 4, pending->n, NULL);
        if (sent < 0)
            fail("enqueue failed", (uint64_t)-sent);
        pending->n -= (uint32_t)sent;
        memmove(pending->objects, pending->objects + sent, (size_t)pending->n * 4);
        moved |= sent > 0;
    }
    return moved;
}

/* Free the objects that have arrived. Return true if any had. */
static bool free_arrived(const struct side *s, struct ivs_mempool *pool, struct ivs_ring *in)
{
    uint32_t objects[BULK];
    int came = ivs_ring_dequeue_burst(in, objects, 4, BULK, NULL);
    if (came < 0)
        fail("dequeue failed", (uint64_t)-came);
    if (came == 0)
        return false;
    change_owner(pool, objects, (uint32_t)came, 2 - s->number, 0);
    int put = ivs_mempool_put_bulk(pool, objects, (uint32_t)came);
    if (put != came)
        fail("put failed", (uint64_t)-put);
    atomic_fetch_add_explicit(&s->tally->freed[s->number], (uint64_t)came, memory_order_relaxed);
    return true;
}

static void *work(void *argument)
{
    const struct side *s = argument;
    struct ivs_mempool *pool = attach_pool(s);
    struct ivs_ring out, in;
    struct pending pending = {.n = 0};
    uint64_t left = s->to_allocate, owner = s->machine << 32 | (uint64_t)syscall(SYS_gettid);
    attach_ring(s, s->out, &out);
    attach_ring(s, s->in, &in);
    int slot = ivs_participant_claim(s->memory, owner, 0);
    if (slot < 0)
        fail("no participant slot", (uint64_t)-slot);
    ivs_mempool_join(pool, (uint32_t)slot);

    const struct timespec nap = {.tv_nsec = 20000};
    time_t moved_at = time(NULL);
    while (left > 0 || pending.n > 0 || atomic_load(&s->tally->freed[s->number]) < s->to_free) {
        bool sent = send(s, pool, &out, &pending, &left), came = free_arrived(s, pool, &in);
        if (sent || came) {
            moved_at = 0;
        } else {
            time_t now = time(NULL);
            moved_at = moved_at == 0 ? now : moved_at;
            if (now - moved_at > IDLE_LIMIT_S)
                fail("no progress", left);
            nanosleep(&nap, NULL); /* sched_yield would keep the CPU from the other side */
        }
    }
    ivs_mempool_leave(pool);
    if (ivs_participant_release(s->memory, slot, owner) != 0)
        fail("participant slot has another owner", (uint64_t)slot);
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
    pthread_t threads[MAX_THREADS];
    if (argc != 11)
        fail("arguments: see the first lines of free_anywhere.c", (uint64_t)argc);
    for (int i = 0; i < 9; i++)
        numbers[i] = strtoull(argv[i + 2], NULL, 0);
    s.memory = map(argv[1], &s.length);
    s.pool = numbers[0], s.out = numbers[1], s.in = numbers[2];
    for (int i = 0; i < 4; i++)
        if (numbers[i] >= s.length)
            fail("offset beyond the end of the file", numbers[i]);
    s.tally = (struct tally *)(void *)(s.memory + numbers[3]);
    s.machine = numbers[4], s.number = (uint32_t)numbers[5];
    s.to_allocate = numbers[7], s.to_free = numbers[8];
    if (s.number > 1 || numbers[6] == 0 || numbers[6] > MAX_THREADS)
        fail("SIDE or THREADS out of range", numbers[6]);
    for (uint64_t i = 0; i < numbers[6]; i++)
        if (pthread_create(&threads[i], NULL, work, &s) != 0)
            fail("cannot create a thread", i);
    for (uint64_t i = 0; i < numbers[6]; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
