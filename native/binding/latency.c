/* SPDX-License-Identifier: BSD-3-Clause */
/* latency.c: a load and an atomic addition, timed. */
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
    /* The compiler does not know that this is 0, so that each address depends on the value loaded before. */
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
    /* Read where the compiler cannot see it: an addition of a known 0 may become a mere fence. */
    volatile uint32_t zero = 0;
    const uint32_t nothing = zero;
    _Atomic uint32_t *counter = word;
    uint64_t start = now();

    for (uint32_t i = 0; i < rounds; i++)
        atomic_fetch_add(counter, nothing);
    return now() - start;
}
