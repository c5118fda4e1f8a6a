/* SPDX-License-Identifier: BSD-3-Clause */
/* bench.h: interface of all benchmarks: options, cells, two pinned threads, memory. */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "pvt/spin_wait.h"

#define BENCH_INLINE static inline __attribute__((always_inline))
#define BENCH_NOINLINE __attribute__((noinline))

enum bench_cores { BENCH_ONE_CORE = 1, BENCH_TWO_CORES = 2 };

/* The subjects of one comparison. DPDK runs twice: the ratio of DPDK to itself is the noise. */
enum bench_subject { BENCH_OURS, BENCH_DPDK, BENCH_DPDK_AGAIN, BENCH_SUBJECTS };

struct bench_options {
    const char *what;     /* "ring" or "mempool" */
    uint32_t rounds;      /* samples of each subject and cell */
    uint64_t one_core_ns; /* target duration of one sample */
    uint64_t two_core_ns;
    uint32_t ring_count;
    bool constant_n; /* bulk sizes as compile-time constants */
    bool all;        /* every element size and bulk size */
    int cpu[2];      /* cpu[1] is -1 if the process may use one CPU only */
};

/* One measured combination of parameters. `run` runs `operations` operations and returns nanoseconds. */
struct bench_cell {
    char name[64]; /* fields separated by tabs */
    uint64_t operations;
    double elements_per_operation;
    uint64_t (*run)(const struct bench_cell *cell, enum bench_subject subject);
    enum bench_cores cores;
    const void *detail;
};

/* Calibrate the operations of each cell, then measure all cells in rounds and print a line per sample. With rounds, a
 * disturbance of one second affects a few samples of every cell instead of all samples of one cell. */
void bench_measure(struct bench_cell *cells, uint32_t n, const struct bench_options *options);

/* Start `first` on this thread and `second` on the other core at the same time. Return the nanoseconds until both have
 * ended. */
typedef void (*bench_part)(void *argument);
uint64_t bench_both(bench_part first, bench_part second, void *argument);

/* Start and stop the second thread. The start pins both threads. */
void bench_pair_start(const struct bench_options *options);
void bench_pair_end(void);

/* Return zeroed memory that is never freed. Page alignment gives the objects of all subjects
 * the same offset within a page. */
void *bench_memory(size_t bytes);

/* Return a thread's buffer for objects of a sample. Its cache line within a page changes in each round, because the
 * cost of a copy depends on the address relative to those of the ring or pool. The threads have separate buffers. */
void *bench_buffer(uint32_t thread, size_t bytes);

void bench_ring(const struct bench_options *options);
void bench_pool(const struct bench_options *options);

/* Print the message and exit with status 1. */
__attribute__((noreturn)) void bench_fail(const char *what);

#endif
