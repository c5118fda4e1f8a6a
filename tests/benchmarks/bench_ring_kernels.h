/* SPDX-License-Identifier: BSD-3-Clause */
/* bench_ring_kernels.h: the loops that are timed, the same text for both rings, compiled once for each ring, element
 * size and bulk size.
 *
 * Where KERNEL_N is not 0 it is the bulk size, as a compile-time constant; otherwise the bulk size is an argument. The
 * element size is a constant, as in any program that uses a ring. The sync mode is a property of the ring in memory.
 */
#ifndef BENCH_RING_KERNELS_H
#define BENCH_RING_KERNELS_H

#include "bench.h"

#define BENCH_BULK_MOST 128u
#define BENCH_ESIZE_MOST 16u

/* What the two loops of a sample work on. `producer` and `consumer` are each thread's own handle of one ring. */
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
    void *objects = bench_buffer(0, BENCH_BULK_MOST * BENCH_ESIZE_MOST);
    for (uint64_t i = 0; i < w->operations; i++)
        if (enqueue(w->producer, objects, esize, n) != (int)n || dequeue(w->consumer, objects, esize, n) != (int)n)
            bench_fail("a ring that one thread fills and empties was full or empty");
}

BENCH_INLINE void repeat(uint32_t thread, void *ring, ring_operation operation, uint64_t operations, uint32_t esize,
                         uint32_t n)
{
    void *objects = bench_buffer(thread, BENCH_BULK_MOST * BENCH_ESIZE_MOST);
    for (uint64_t i = 0; i < operations; i++) {
        int done;
        while ((done = operation(ring, objects, esize, n)) == 0)
            ivs_pause();
        if (done != (int)n)
            bench_fail("a bulk operation moved some, or failed");
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
        repeat(0, w->producer, subject##_enqueue, w->operations, esize, n);                                               \
    }                                                                                                                  \
    static BENCH_NOINLINE void subject##_consume_##esize##_##label(void *argument)                                     \
    {                                                                                                                  \
        const struct ring_work *w = argument;                                                                          \
        repeat(1, w->consumer, subject##_dequeue, w->operations, esize, n);                                               \
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
    {                                                                                                                  \
        subject##_alone_##esize##_##label, subject##_produce_##esize##_##label, subject##_consume_##esize##_##label    \
    }

#define RING_KERNEL_TABLE(subject, esize)                                                                              \
    {                                                                                                                  \
        RING_KERNEL_ROW(subject, esize, 1), RING_KERNEL_ROW(subject, esize, 8), RING_KERNEL_ROW(subject, esize, 32),   \
            RING_KERNEL_ROW(subject, esize, 128), RING_KERNEL_ROW(subject, esize, variable)                            \
    }

/* Defines every kernel of a subject whose two operations are named subject_enqueue and subject_dequeue. */
#define RING_SUBJECT(subject)                                                                                          \
    RING_KERNELS_OF_SIZE(subject, 4)                                                                                   \
    RING_KERNELS_OF_SIZE(subject, 8)                                                                                   \
    RING_KERNELS_OF_SIZE(subject, 16)                                                                                  \
    const struct ring_kernels subject##_kernels[3][5] = {                                                              \
        RING_KERNEL_TABLE(subject, 4), RING_KERNEL_TABLE(subject, 8), RING_KERNEL_TABLE(subject, 16)};

/* [element size 4, 8, 16][bulk 1, 8, 32, 128, variable] */
extern const struct ring_kernels ours_kernels[3][5];
extern const struct ring_kernels dpdk_kernels[3][5];

#endif
