/* SPDX-License-Identifier: BSD-3-Clause */
/* latency.h: how long a load and an atomic addition take at an address, which tells cached memory from uncached. */
#ifndef IVS_LATENCY_H
#define IVS_LATENCY_H

#include <stdint.h>

/* Nanoseconds that `rounds` loads of an aligned 64-bit word take, each begun when the one before it is done. */
uint64_t ivs_time_loads(const void *word, uint32_t rounds);

/* The same for additions of 0 to an aligned 32-bit word, which nobody who uses the word can see. */
uint64_t ivs_time_atomics(void *word, uint32_t rounds);

#endif
