/* SPDX-License-Identifier: BSD-3-Clause */
/* ring_mempool_calls.c: the inline operations as functions. The usual element sizes have a body of their own, in which
 * the size is a constant and the copy shortest. */
#include "ring_mempool_calls.h"
#include "ring_prefetch.h"

static _Thread_local int status;

#define FOR_ELEM_SIZE(r, operation)                                                                                    \
    switch ((r)->elem_size) {                                                                                          \
    case 4:                                                                                                            \
        return operation(r, objects, 4, n, NULL);                                                                      \
    case 8:                                                                                                            \
        return operation(r, objects, 8, n, NULL);                                                                      \
    case 16:                                                                                                           \
        return operation(r, objects, 16, n, NULL);                                                                     \
    case 64:                                                                                                           \
        return operation(r, objects, 64, n, NULL);                                                                     \
    default:                                                                                                           \
        return operation(r, objects, (r)->elem_size, n, NULL);                                                         \
    }

int ivs_call_enqueue_bulk(struct ivs_ring *r, const void *objects, uint32_t n)
{
    ivs_ring_prefetch_enqueue(r);
    FOR_ELEM_SIZE(r, ivs_ring_enqueue_bulk)
}

int ivs_call_enqueue_burst(struct ivs_ring *r, const void *objects, uint32_t n)
{
    ivs_ring_prefetch_enqueue(r);
    FOR_ELEM_SIZE(r, ivs_ring_enqueue_burst)
}

int ivs_call_dequeue_bulk(struct ivs_ring *r, void *objects, uint32_t n)
{
    FOR_ELEM_SIZE(r, ivs_ring_dequeue_bulk)
}

static int dequeue_burst(struct ivs_ring *r, void *objects, uint32_t n)
{
    FOR_ELEM_SIZE(r, ivs_ring_dequeue_burst)
}

int ivs_call_dequeue_burst(struct ivs_ring *r, void *objects, uint32_t n)
{
    int got = dequeue_burst(r, objects, n);
    if (got > 0)
        ivs_ring_prefetch_dequeue(r, (uint32_t)got);
    return got;
}

int ivs_call_move(struct ivs_ring *r, enum ivs_ring_role role, void *objects, uint32_t n,
                  enum ivs_ring_behavior behavior, uint32_t *left)
{
    return ivs_ring_do(r, role, objects, r->elem_size, n, behavior, left);
}

int ivs_call_status(void)
{
    return status;
}

uint32_t ivs_call_count(const struct ivs_ring *r)
{
    return ivs_ring_count(r);
}

int ivs_call_zc_start(struct ivs_ring *r, enum ivs_ring_role role, uint32_t n, enum ivs_ring_behavior behavior,
                      struct ivs_ring_zc *zc, uint32_t *left)
{
    return ivs_ring_zc_start(r, role, r->elem_size, n, behavior, zc, left);
}

int ivs_call_zc_finish(struct ivs_ring *r, enum ivs_ring_role role, uint32_t n)
{
    return ivs_ring_finish(r, role, n);
}

int ivs_call_get_bulk(struct ivs_mempool *p, uint32_t *objects, uint32_t n)
{
    return ivs_mempool_get_bulk(p, objects, n);
}

/* Recount outstanding objects on every call; the cost is small next to the Python call. */
int ivs_call_put_bulk(struct ivs_mempool *p, const uint32_t *objects, uint32_t n)
{
    ivs_mempool_set_credit(p, 0);
    return ivs_mempool_put_bulk(p, objects, n);
}

uint32_t ivs_call_get(struct ivs_mempool *p)
{
    uint32_t object;
    status = ivs_mempool_get_bulk(p, &object, 1);
    return status == 1 ? object : UINT32_MAX;
}

int ivs_call_put(struct ivs_mempool *p, uint32_t object)
{
    return ivs_call_put_bulk(p, &object, 1);
}
