/* SPDX-License-Identifier: BSD-3-Clause */
/* latency.h: measures the latency of loads and atomic additions, which distinguishes cached from uncached memory. */
#ifndef IVS_LATENCY_H
#define IVS_LATENCY_H

#include <stdint.h>

/* Returns the nanoseconds that `rounds` dependent loads of an aligned 64-bit word take. */
uint64_t ivs_time_loads(const void *word, uint32_t rounds);

/* Returns the nanoseconds that `rounds` atomic additions of 0 to an aligned 32-bit word take. */
uint64_t ivs_time_atomics(void *word, uint32_t rounds);

#endif
