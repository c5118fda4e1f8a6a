/* held.h: calls for Python that take one argument: a ring held together with the memory of the call.
 *
 * Through cffi a call with one argument takes two thirds of the time of one with a ring, a pointer and a number, since
 * Python makes no tuple of it. Return values as in ring.h.
 */
#ifndef IVS_HELD_H
#define IVS_HELD_H

#include "calls.h"

struct ivs_held {
    struct ivs_ring *ring;
    unsigned char *array; /* room for n elements */
    uint32_t n;
};

/* The first element of the array. */
int ivs_held_enqueue_one(const struct ivs_held *h);
int ivs_held_dequeue_one(const struct ivs_held *h);

/* The whole array, as much of it as fits. */
int ivs_held_enqueue_burst(const struct ivs_held *h);
int ivs_held_dequeue_burst(const struct ivs_held *h);

/* `n` elements from element `start` on. -ERANGE: the array does not have them. */
int ivs_held_enqueue_part(const struct ivs_held *h, uint32_t n, uint32_t start);

#endif
