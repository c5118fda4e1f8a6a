/* SPDX-License-Identifier: BSD-3-Clause */
/* ring_mempool_calls.h: the inline operations of ring.h and mempool.h as functions, for Python. */
#ifndef IVS_RING_MEMPOOL_CALLS_H
#define IVS_RING_MEMPOOL_CALLS_H

#include "mempool.h"
#include "ring_peek.h"

/* Return values as in ring.h. `objects` has n elements of the ring's element size. */
int ivs_call_enqueue_bulk(struct ivs_ring *r, const void *objects, uint32_t n);
int ivs_call_enqueue_burst(struct ivs_ring *r, const void *objects, uint32_t n);
int ivs_call_dequeue_bulk(struct ivs_ring *r, void *objects, uint32_t n);
int ivs_call_dequeue_burst(struct ivs_ring *r, void *objects, uint32_t n);

/* Any of the four; `left` receives the remaining space or elements. */
int ivs_call_move(struct ivs_ring *r, enum ivs_ring_role role, void *objects, uint32_t n,
                  enum ivs_ring_behavior behavior, uint32_t *left);

uint32_t ivs_call_count(const struct ivs_ring *r);

/* Zero-copy on either side (ring_peek.h): start and finish. */
int ivs_call_zc_start(struct ivs_ring *r, enum ivs_ring_role role, uint32_t n, enum ivs_ring_behavior behavior,
                      struct ivs_ring_zc *zc, uint32_t *left);
int ivs_call_zc_finish(struct ivs_ring *r, enum ivs_ring_role role, uint32_t n);

int ivs_call_get_bulk(struct ivs_mempool *p, uint32_t *objects, uint32_t n);
int ivs_call_put_bulk(struct ivs_mempool *p, const uint32_t *objects, uint32_t n);

/* The allocated index. UINT32_MAX is no index: ivs_call_status then returns the result of this thread's last
 * ivs_call_get: 0 (empty) or a negative errno. */
uint32_t ivs_call_get(struct ivs_mempool *p);
int ivs_call_status(void);
int ivs_call_put(struct ivs_mempool *p, uint32_t object);

#endif
