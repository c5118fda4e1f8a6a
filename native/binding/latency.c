/* SPDX-License-Identifier: BSD-3-Clause */
/* latency.c: measures dependent loads and atomic additions. */
#include "latency.h"

#include <stdatomic.h>
#include <time.h>

static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t ivs_time_loads(const void *word, uint32_t rounds)
{
    /* Volatile: the compiler cannot see that the mask is 0, so each address depends on the previous load. */
    volatile uintptr_t zero = 0;
    const uintptr_t mask = zero, base = (uintptr_t)word;
    uint64_t value = *(const volatile uint64_t *)base;
    uint64_t start = now();

    for (uint32_t i = 0; i < rounds; i++)
        value = *(const volatile uint64_t *)(base + (value & mask));
    return now() - start;
}

uint64_t ivs_time_atomics(void *word, uint32_t rounds)
{
    /* Volatile: the compiler may turn the addition of a known 0 into a fence. */
    volatile uint32_t zero = 0;
    const uint32_t addend = zero;
    _Atomic uint32_t *counter = word;
    uint64_t start = now();

    for (uint32_t i = 0; i < rounds; i++)
        atomic_fetch_add(counter, addend);
    return now() - start;
}
