/* SPDX-License-Identifier: BSD-3-Clause */
/* bench_pair.c: two threads on two cores that start a piece of work at the same moment. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "bench.h"

static struct {
    pthread_t thread;
    pthread_barrier_t barrier; /* sleeps between samples, so that the other core is quiet for one-core samples */
    _Atomic uint32_t arrived;  /* spins: both leave it within a cache line's flight */
    _Atomic bool quit;
    bench_part part;
    void *argument;
    uint64_t ended;
    int cpu;
} pair;

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (pthread_setaffinity_np(pthread_self(), sizeof(set), &set) != 0)
        bench_fail("cannot pin a thread to its core");
}

static void meet(uint32_t so_many)
{
    atomic_fetch_add(&pair.arrived, 1);
    while (atomic_load(&pair.arrived) < so_many)
        ivs_pause();
}

static void *second_thread(void *unused)
{
    (void)unused;
    pin(pair.cpu);
    for (;;) {
        pthread_barrier_wait(&pair.barrier);
        if (atomic_load(&pair.quit))
            return NULL;
        meet(2);
        pair.part(pair.argument);
        pair.ended = ivs_now_ns();
        pthread_barrier_wait(&pair.barrier);
    }
}

uint64_t bench_both(bench_part first, bench_part second, void *argument)
{
    pair.part = second;
    pair.argument = argument;
    atomic_store(&pair.arrived, 0);
    pthread_barrier_wait(&pair.barrier);
    meet(2);
    uint64_t begin = ivs_now_ns();
    first(argument);
    uint64_t end = ivs_now_ns();
    pthread_barrier_wait(&pair.barrier);
    return (end > pair.ended ? end : pair.ended) - begin;
}

void bench_pair_start(const struct bench_options *options)
{
    pin(options->cpu[0]);
    pair.cpu = options->cpu[1];
    if (pair.cpu < 0)
        return;
    pthread_barrier_init(&pair.barrier, NULL, 2);
    if (pthread_create(&pair.thread, NULL, second_thread, NULL) != 0)
        bench_fail("cannot start the second thread");
}

void bench_pair_end(void)
{
    if (pair.cpu < 0)
        return;
    atomic_store(&pair.quit, true);
    pthread_barrier_wait(&pair.barrier);
    pthread_join(pair.thread, NULL);
}
