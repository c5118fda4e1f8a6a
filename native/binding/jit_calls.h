/* SPDX-License-Identifier: BSD-3-Clause */
/* jit_calls.h: calls for run-time compilers (numba), which have addresses as 64-bit integers and no pointers to
 * structs.
 *
 * `ring` and `pool` are the values of Ring.handle and Mempool.handle, `array` the address of `bytes` bytes of memory.
 * Return values as in ring.h and mempool.h; -EINVAL also if the array is too short for `n` elements. */
#ifndef IVS_JIT_CALLS_H
#define IVS_JIT_CALLS_H

#include "ring_mempool_calls.h"

int ivs_jit_enqueue_bulk(uint64_t ring, uint64_t array, uint64_t bytes, uint32_t n);
int ivs_jit_enqueue_burst(uint64_t ring, uint64_t array, uint64_t bytes, uint32_t n);
int ivs_jit_dequeue_bulk(uint64_t ring, uint64_t array, uint64_t bytes, uint32_t n);
int ivs_jit_dequeue_burst(uint64_t ring, uint64_t array, uint64_t bytes, uint32_t n);
uint32_t ivs_jit_count(uint64_t ring);

/* Arrays of indices, 4 bytes each. */
int ivs_jit_get_bulk(uint64_t pool, uint64_t array, uint64_t bytes, uint32_t n);
int ivs_jit_put_bulk(uint64_t pool, uint64_t array, uint64_t bytes, uint32_t n);

#endif
