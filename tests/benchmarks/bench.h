/* SPDX-License-Identifier: BSD-3-Clause */
/* bench.h: what all benchmarks share: options, the clock, two pinned threads, and how a sample is printed. */
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

/* The candidates of one comparison. DPDK runs twice: what it differs from itself is the noise. */
enum bench_subject { BENCH_OURS, BENCH_DPDK, BENCH_DPDK_AGAIN, BENCH_SUBJECTS };

struct bench_options {
    const char *what;     /* "ring" or "mempool" */
    uint32_t rounds;      /* samples of each subject and cell */
    uint64_t one_core_ns; /* wanted length of one sample */
    uint64_t two_core_ns;
    uint32_t ring_count;
    bool constant_n; /* bulk sizes as compile-time constants */
    bool all;        /* every element size and bulk size */
    int cpu[2];      /* cpu[1] is -1 where there is only one */
};

/* One thing that is measured. Runs `operations` operations and returns nanoseconds. */
struct bench_cell {
    char name[64]; /* fields separated by tabs */
    uint64_t operations;
    double elements_per_operation;
    uint64_t (*run)(const struct bench_cell *cell, enum bench_subject subject);
    enum bench_cores cores;
    const void *detail;
};

/* Chooses operations for each cell, then measures all cells in rounds: so that what disturbs the machine for a second
 * hits a few samples of every cell, and not all samples of one. Prints a line a sample. */
void bench_measure(struct bench_cell *cells, uint32_t n, const struct bench_options *options);

/* Runs `first` on this thread and `second` on the other core from the same moment on. Returns nanoseconds from that
 * moment to the end of the later one. */
typedef void (*bench_part)(void *argument);
uint64_t bench_both(bench_part first, bench_part second, void *argument);

/* Starts and ends the second thread, and pins both. */
void bench_pair_start(const struct bench_options *options);
void bench_pair_end(void);

/* Zeroed memory at a page boundary: all objects lie alike, so that none is lucky. Lives until the program ends. */
void *bench_memory(size_t bytes);

/* Where a thread keeps its objects during a sample: `bytes` bytes at another cache line of a page in each round, since how
 * an address falls on those of a ring or a pool changes what a copy costs. The two threads have different ones. */
void *bench_buffer(uint32_t thread, size_t bytes);

void bench_ring(const struct bench_options *options);
void bench_pool(const struct bench_options *options);

/* Stops the program: a measured operation did what it should not. */
__attribute__((noreturn)) void bench_fail(const char *what);

#endif
