/* SPDX-License-Identifier: BSD-3-Clause */
/* bench_pool_kernels.h: the timed loops, from the same source for both pools, compiled once per pool and bulk size.
 *
 * As in DPDK's own test, an operation gets BENCH_KEEP objects in bulks of n, then puts them in bulks of n.
 */
#ifndef BENCH_POOL_KERNELS_H
#define BENCH_POOL_KERNELS_H

#include "bench.h"

#define BENCH_KEEP 32u

struct pool_work {
    void *pool[2]; /* one handle per thread */
    uint64_t operations;
    uint32_t n;
};

/* Return 0 on success. `at` is an index into `objects`, an array of the pool's object type. */
typedef int (*pool_operation)(void *pool, void *objects, uint32_t at, uint32_t n);

BENCH_INLINE void get_and_put(uint32_t thread, void *pool, pool_operation get, pool_operation put, uint64_t operations,
                              uint32_t n)
{
    void *objects = bench_buffer(thread, BENCH_KEEP * sizeof(uint64_t));
    for (uint64_t i = 0; i < operations; i++) {
        for (uint32_t at = 0; at < BENCH_KEEP; at += n)
            if (get(pool, objects, at, n) != 0)
                bench_fail("get failed on a pool with free objects");
        for (uint32_t at = 0; at < BENCH_KEEP; at += n)
            if (put(pool, objects, at, n) != 0)
                bench_fail("put failed");
    }
}

#define POOL_KERNELS(subject, n, label)                                                                                \
    static BENCH_NOINLINE void subject##_first_##label(void *argument)                                                 \
    {                                                                                                                  \
        const struct pool_work *w = argument;                                                                          \
        get_and_put(0, w->pool[0], subject##_get, subject##_put, w->operations, n);                                    \
    }                                                                                                                  \
    static BENCH_NOINLINE void subject##_second_##label(void *argument)                                                \
    {                                                                                                                  \
        const struct pool_work *w = argument;                                                                          \
        get_and_put(1, w->pool[1], subject##_get, subject##_put, w->operations, n);                                    \
    }

struct pool_kernels {
    bench_part first, second;
};

/* Define all kernels of a subject. Its operations must be named <subject>_get and <subject>_put. */
#define POOL_SUBJECT(subject)                                                                                          \
    POOL_KERNELS(subject, 1, 1)                                                                                        \
    POOL_KERNELS(subject, 4, 4)                                                                                        \
    POOL_KERNELS(subject, 32, 32)                                                                                      \
    POOL_KERNELS(subject, w->n, variable)                                                                              \
    const struct pool_kernels subject##_pool_kernels[4] = {                                                            \
        {subject##_first_1, subject##_second_1},                                                                       \
        {subject##_first_4, subject##_second_4},                                                                       \
        {subject##_first_32, subject##_second_32},                                                                     \
        {subject##_first_variable, subject##_second_variable},                                                         \
    };

/* [bulk 1, 4, 32, variable] */
extern const struct pool_kernels ours_pool_kernels[4];
extern const struct pool_kernels dpdk_pool_kernels[4];

#endif
