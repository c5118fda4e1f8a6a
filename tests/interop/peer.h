/* SPDX-License-Identifier: BSD-3-Clause */
/* peer.h: the program at one end of a ring that lies in a file: it fills the ring, or empties it and keeps account.
 *
 *   peer FILE OFFSET ESIZE produce ME OBJECTS
 *   peer FILE OFFSET ESIZE consume SEEN PRODUCERS OBJECTS      OBJECTS: of each producer
 *
 * peer_dpdk.c works the ring by DPDK's functions and peer_ours.c by ours; all else is here and the same for both. An
 * element's first 8 bytes are producer << 48 | number. SEEN is a file that all consumers share: how many came, and a
 * byte for each number of each producer. A fault ends the program with a message and status 1.
 */
#ifndef PEER_H
#define PEER_H

#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PEER_BATCH 64u
#define PEER_ESIZE_MOST 64u
#define PEER_PRODUCERS_MOST 4u

/* What the two programs differ in. A peer's ring is whatever `peer_attach` returns. */
static void *peer_attach(void *memory, uint64_t length, uint32_t esize);
static uint32_t peer_enqueue(void *ring, const void *objects, uint32_t esize, uint32_t n); /* burst */
static uint32_t peer_dequeue(void *ring, void *objects, uint32_t esize, uint32_t n);       /* burst */

struct peer_seen {
    _Atomic uint64_t taken;
    uint64_t reserved[7];
    _Atomic uint8_t times[];
};

static void peer_fail(const char *what, uint64_t value)
{
    fprintf(stderr, "peer: %s (%llu)\n", what, (unsigned long long)value);
    exit(1);
}

static void *peer_map(const char *path, uint64_t *length)
{
    struct stat status;
    int fd = open(path, O_RDWR);
    if (fd < 0 || fstat(fd, &status) != 0)
        peer_fail("cannot open a file", 0);
    *length = (uint64_t)status.st_size;
    void *memory = mmap(NULL, *length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        peer_fail("cannot map a file", 0);
    close(fd);
    return memory;
}

static uint32_t peer_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(*state >> 32);
}

static void peer_produce(void *ring, uint32_t esize, uint64_t me, uint64_t objects)
{
    static unsigned char batch[PEER_BATCH * PEER_ESIZE_MOST];
    uint64_t seed = 88172645463325252u + me, next = 0;
    while (next < objects) {
        uint64_t n = 1 + peer_random(&seed) % PEER_BATCH;
        n = n < objects - next ? n : objects - next;
        for (uint64_t i = 0; i < n; i++) {
            uint64_t value = me << 48 | (next + i);
            for (uint32_t at = 0; at < esize; at += 8) /* all of an element says the same: a torn one is seen */
                memcpy(batch + i * esize + at, &value, 8);
        }
        for (uint64_t done = 0; done < n;) {
            uint32_t now = peer_enqueue(ring, batch + done * esize, esize, (uint32_t)(n - done));
            if (now == 0)
                sched_yield();
            done += now;
        }
        next += n;
    }
}

static void peer_account(struct peer_seen *seen, const unsigned char *element, uint32_t esize, uint64_t producers,
                         uint64_t objects, uint64_t *next)
{
    uint64_t value, again;
    memcpy(&value, element, 8);
    for (uint32_t at = 8; at < esize; at += 8) {
        memcpy(&again, element + at, 8);
        if (again != value)
            peer_fail("a torn element", value);
    }
    uint64_t producer = value >> 48, number = value & 0xffffffffffffu;
    if (producer >= producers || number >= objects)
        peer_fail("an element that nobody sent", value);
    if (number < next[producer])
        peer_fail("out of order", value);
    next[producer] = number + 1;
    if (atomic_fetch_add_explicit(&seen->times[producer * objects + number], 1, memory_order_relaxed) != 0)
        peer_fail("twice", value);
}

static void peer_consume(void *ring, uint32_t esize, struct peer_seen *seen, uint64_t producers, uint64_t objects)
{
    static unsigned char batch[PEER_BATCH * PEER_ESIZE_MOST];
    uint64_t next[PEER_PRODUCERS_MOST] = {0}, seed = 362436069u;
    while (atomic_load(&seen->taken) < producers * objects) {
        uint32_t n = peer_dequeue(ring, batch, esize, 1 + peer_random(&seed) % PEER_BATCH);
        for (uint32_t i = 0; i < n; i++)
            peer_account(seen, batch + (size_t)i * esize, esize, producers, objects, next);
        if (n == 0)
            sched_yield();
        else
            atomic_fetch_add(&seen->taken, n);
    }
}

int main(int argc, char **argv)
{
    uint64_t length, seen_length;
    if (argc < 7)
        peer_fail("arguments: see peer.h", (uint64_t)argc);
    unsigned char *memory = peer_map(argv[1], &length);
    uint64_t offset = strtoull(argv[2], NULL, 0);
    uint32_t esize = (uint32_t)strtoul(argv[3], NULL, 0);
    if (offset >= length || esize % 8 != 0 || esize == 0 || esize > PEER_ESIZE_MOST)
        peer_fail("no such place or element size", offset);
    void *ring = peer_attach(memory + offset, length - offset, esize);
    if (strcmp(argv[4], "produce") == 0) {
        peer_produce(ring, esize, strtoull(argv[5], NULL, 0), strtoull(argv[6], NULL, 0));
        return 0;
    }
    struct peer_seen *seen = peer_map(argv[5], &seen_length);
    uint64_t producers = strtoull(argv[6], NULL, 0), objects = argc > 7 ? strtoull(argv[7], NULL, 0) : 0;
    if (producers > PEER_PRODUCERS_MOST || seen_length != sizeof(*seen) + producers * objects)
        peer_fail("the account has not the right size", seen_length);
    peer_consume(ring, esize, seen, producers, objects);
    return 0;
}

#endif
