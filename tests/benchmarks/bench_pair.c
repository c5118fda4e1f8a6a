/* SPDX-License-Identifier: BSD-3-Clause */
/* bench_pair.c: two threads on two cores that start their work at the same time. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "bench.h"

static struct {
    pthread_t thread;
    pthread_barrier_t barrier; /* blocks between samples, so that the second core is idle in one-core samples */
    _Atomic uint32_t arrived;  /* spin barrier: both threads leave it within one cache line transfer */
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
        bench_fail("pthread_setaffinity_np failed");
}

static void spin_until(uint32_t threads)
{
    atomic_fetch_add(&pair.arrived, 1);
    while (atomic_load(&pair.arrived) < threads)
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
        spin_until(2);
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
    spin_until(2);
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
        bench_fail("pthread_create failed");
}

void bench_pair_end(void)
{
    if (pair.cpu < 0)
        return;
    atomic_store(&pair.quit, true);
    pthread_barrier_wait(&pair.barrier);
    pthread_join(pair.thread, NULL);
}
