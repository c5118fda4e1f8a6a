/* held.c: calls with one argument. */
#include "held.h"

int ivs_held_enqueue_one(const struct ivs_held *h)
{
    return ivs_call_enqueue_one(h->ring, h->array);
}

int ivs_held_dequeue_one(const struct ivs_held *h)
{
    return ivs_call_dequeue_one(h->ring, h->array);
}

int ivs_held_enqueue_burst(const struct ivs_held *h)
{
    return ivs_call_enqueue_burst(h->ring, h->array, h->n);
}

int ivs_held_dequeue_burst(const struct ivs_held *h)
{
    return ivs_call_dequeue_burst(h->ring, h->array, h->n);
}

int ivs_held_enqueue_part(const struct ivs_held *h, uint32_t n, uint32_t start)
{
    if (start > h->n || n > h->n - start)
        return -ERANGE;
    return ivs_call_enqueue_burst(h->ring, h->array + (size_t)start * h->ring->elem_size, n);
}
