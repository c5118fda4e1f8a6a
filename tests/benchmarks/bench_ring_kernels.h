/* SPDX-License-Identifier: BSD-3-Clause */
/* bench_ring_kernels.h: the timed loops, from the same source for both rings, compiled once per ring, element size and
 * bulk size.
 *
 * Bulk sizes 1, 8, 32 and 128 are compile-time constants; the kernels labelled "variable" read the bulk size from
 * ring_work.n. The element size is a constant, as in any program that uses a ring. The sync mode is a property of the
 * ring in memory.
 */
#ifndef BENCH_RING_KERNELS_H
#define BENCH_RING_KERNELS_H

#include "bench.h"

#define BENCH_MAX_BULK 128u
#define BENCH_MAX_ESIZE 16u

/* Arguments of the two loops of a sample. `producer` and `consumer` are the threads' handles of one ring. */
struct ring_work {
    void *producer;
    void *consumer;
    uint64_t operations;
    uint32_t n;
};

typedef int (*ring_operation)(void *ring, void *objects, uint32_t esize, uint32_t n);

BENCH_INLINE void alone(const struct ring_work *w, ring_operation enqueue, ring_operation dequeue, uint32_t esize,
                        uint32_t n)
{
    void *objects = bench_buffer(0, BENCH_MAX_BULK * BENCH_MAX_ESIZE);
    for (uint64_t i = 0; i < w->operations; i++)
        if (enqueue(w->producer, objects, esize, n) != (int)n || dequeue(w->consumer, objects, esize, n) != (int)n)
            bench_fail("single-threaded enqueue or dequeue failed");
}

BENCH_INLINE void repeat(uint32_t thread, void *ring, ring_operation operation, uint64_t operations, uint32_t esize,
                         uint32_t n)
{
    void *objects = bench_buffer(thread, BENCH_MAX_BULK * BENCH_MAX_ESIZE);
    for (uint64_t i = 0; i < operations; i++) {
        int done;
        while ((done = operation(ring, objects, esize, n)) == 0)
            ivs_pause();
        if (done != (int)n)
            bench_fail("bulk operation returned neither 0 nor n");
    }
}

#define RING_KERNELS(subject, esize, n, label)                                                                         \
    static BENCH_NOINLINE void subject##_alone_##esize##_##label(void *argument)                                       \
    {                                                                                                                  \
        const struct ring_work *w = argument;                                                                          \
        alone(w, subject##_enqueue, subject##_dequeue, esize, n);                                                      \
    }                                                                                                                  \
    static BENCH_NOINLINE void subject##_produce_##esize##_##label(void *argument)                                     \
    {                                                                                                                  \
        const struct ring_work *w = argument;                                                                          \
        repeat(0, w->producer, subject##_enqueue, w->operations, esize, n);                                            \
    }                                                                                                                  \
    static BENCH_NOINLINE void subject##_consume_##esize##_##label(void *argument)                                     \
    {                                                                                                                  \
        const struct ring_work *w = argument;                                                                          \
        repeat(1, w->consumer, subject##_dequeue, w->operations, esize, n);                                            \
    }

#define RING_KERNELS_OF_SIZE(subject, esize)                                                                           \
    RING_KERNELS(subject, esize, 1, 1)                                                                                 \
    RING_KERNELS(subject, esize, 8, 8)                                                                                 \
    RING_KERNELS(subject, esize, 32, 32)                                                                               \
    RING_KERNELS(subject, esize, 128, 128)                                                                             \
    RING_KERNELS(subject, esize, w->n, variable)

struct ring_kernels {
    bench_part alone, produce, consume;
};

#define RING_KERNEL_ROW(subject, esize, label)                                                                         \
    {subject##_alone_##esize##_##label, subject##_produce_##esize##_##label, subject##_consume_##esize##_##label}

#define RING_KERNEL_TABLE(subject, esize)                                                                              \
    {RING_KERNEL_ROW(subject, esize, 1), RING_KERNEL_ROW(subject, esize, 8), RING_KERNEL_ROW(subject, esize, 32),      \
     RING_KERNEL_ROW(subject, esize, 128), RING_KERNEL_ROW(subject, esize, variable)}

/* Define all kernels of a subject. Its operations must be named <subject>_enqueue and <subject>_dequeue. */
#define RING_SUBJECT(subject)                                                                                          \
    RING_KERNELS_OF_SIZE(subject, 4)                                                                                   \
    RING_KERNELS_OF_SIZE(subject, 8)                                                                                   \
    RING_KERNELS_OF_SIZE(subject, 16)                                                                                  \
    const struct ring_kernels subject##_kernels[3][5] = {RING_KERNEL_TABLE(subject, 4), RING_KERNEL_TABLE(subject, 8), \
                                                         RING_KERNEL_TABLE(subject, 16)};

/* [element size 4, 8, 16][bulk 1, 8, 32, 128, variable] */
extern const struct ring_kernels ours_kernels[3][5];
extern const struct ring_kernels dpdk_kernels[3][5];

#endif
