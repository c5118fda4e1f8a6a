/* SPDX-License-Identifier: BSD-3-Clause */
/* loops.c: forwarding and ping-pong loops in C for the Python benchmarks, called through ctypes.
 *
 * A ring is passed as Ring.handle. The loops use the rings created in Python with the inline functions of ring.h.
 */
#include "ring_prefetch.h"

typedef int (*burst_call)(uint64_t ring, uint64_t array, uint64_t bytes, uint32_t n);

/* Move bursts from ring[0] to ring[1] and back, with the same calls as the numba loop. Return the elements moved. */
uint64_t loops_forward(burst_call dequeue, burst_call enqueue, const uint64_t ring[2], uint64_t array, uint64_t bytes,
                       uint32_t n, uint64_t rounds)
{
    uint64_t from = ring[0], to = ring[1], moved = 0;

    for (uint64_t i = 0; i < rounds; i++) {
        int got = dequeue(from, array, bytes, n);
        if (got > 0)
            moved += (uint64_t)enqueue(to, array, bytes, (uint32_t)got);
        uint64_t swap = from;
        from = to;
        to = swap;
    }
    return moved;
}

static void put(struct ivs_ring *r, uint64_t value)
{
    ivs_ring_prefetch_enqueue(r);
    while (ivs_ring_enqueue_bulk(r, &value, 8, 1, NULL) == 0)
        ivs_pause();
}

static uint64_t take(struct ivs_ring *r)
{
    uint64_t value = 0;
    while (ivs_ring_dequeue_bulk(r, &value, 8, 1, NULL) == 0)
        ivs_pause();
    return value;
}

/* `n` round trips of an element. Each side increments the value, so the last value shows whether one was lost. */
uint64_t loops_ping_ring(uint64_t out, uint64_t in, uint64_t n)
{
    uint64_t value = 0;
    for (uint64_t i = 0; i < n; i++) {
        put((struct ivs_ring *)(uintptr_t)out, value);
        value = take((struct ivs_ring *)(uintptr_t)in) + 1;
    }
    return value;
}

uint64_t loops_pong_ring(uint64_t out, uint64_t in, uint64_t n)
{
    uint64_t value = 0;
    for (uint64_t i = 0; i < n; i++) {
        value = take((struct ivs_ring *)(uintptr_t)in) + 1;
        put((struct ivs_ring *)(uintptr_t)out, value);
    }
    return value;
}

/* Lower bound: both sides write one word in turn. The word is 0 before and after. */
uint64_t loops_ping_line(uint64_t address, uint64_t n)
{
    _Atomic uint64_t *word = (_Atomic uint64_t *)(uintptr_t)address;
    for (uint64_t i = 0; i < n; i++) {
        atomic_store_explicit(word, 2 * i + 1, memory_order_release);
        while (atomic_load_explicit(word, memory_order_acquire) != 2 * i + 2)
            ;
    }
    atomic_store_explicit(word, 0, memory_order_release);
    return 2 * n;
}

uint64_t loops_pong_line(uint64_t address, uint64_t n)
{
    _Atomic uint64_t *word = (_Atomic uint64_t *)(uintptr_t)address;
    for (uint64_t i = 0; i < n; i++) {
        while (atomic_load_explicit(word, memory_order_acquire) != 2 * i + 1)
            ;
        atomic_store_explicit(word, 2 * i + 2, memory_order_release);
    }
    return 2 * n;
}
