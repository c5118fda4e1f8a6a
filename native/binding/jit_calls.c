/* SPDX-License-Identifier: BSD-3-Clause */
/* jit_calls.c: calls for run-time compilers. */
#include "jit_calls.h"

static struct ivs_ring *ring_at(uint64_t address)
{
    return (struct ivs_ring *)(uintptr_t)address;
}

static struct ivs_mempool *pool_at(uint64_t address)
{
    return (struct ivs_mempool *)(uintptr_t)address;
}

static void *memory_at(uint64_t address)
{
    return (void *)(uintptr_t)address;
}

int ivs_jit_enqueue_bulk(uint64_t ring, uint64_t array, uint64_t bytes, uint32_t n)
{
    if (IVS_UNLIKELY((uint64_t)n * ring_at(ring)->elem_size > bytes))
        return -EINVAL;
    return ivs_call_enqueue_bulk(ring_at(ring), memory_at(array), n);
}

int ivs_jit_enqueue_burst(uint64_t ring, uint64_t array, uint64_t bytes, uint32_t n)
{
    if (IVS_UNLIKELY((uint64_t)n * ring_at(ring)->elem_size > bytes))
        return -EINVAL;
    return ivs_call_enqueue_burst(ring_at(ring), memory_at(array), n);
}

int ivs_jit_dequeue_bulk(uint64_t ring, uint64_t array, uint64_t bytes, uint32_t n)
{
    if (IVS_UNLIKELY((uint64_t)n * ring_at(ring)->elem_size > bytes))
        return -EINVAL;
    return ivs_call_dequeue_bulk(ring_at(ring), memory_at(array), n);
}

int ivs_jit_dequeue_burst(uint64_t ring, uint64_t array, uint64_t bytes, uint32_t n)
{
    if (IVS_UNLIKELY((uint64_t)n * ring_at(ring)->elem_size > bytes))
        return -EINVAL;
    return ivs_call_dequeue_burst(ring_at(ring), memory_at(array), n);
}

uint32_t ivs_jit_count(uint64_t ring)
{
    return ivs_call_count(ring_at(ring));
}

int ivs_jit_get_bulk(uint64_t pool, uint64_t array, uint64_t bytes, uint32_t n)
{
    if (IVS_UNLIKELY((uint64_t)n * sizeof(uint32_t) > bytes))
        return -EINVAL;
    return ivs_call_get_bulk(pool_at(pool), (uint32_t *)memory_at(array), n);
}

int ivs_jit_put_bulk(uint64_t pool, uint64_t array, uint64_t bytes, uint32_t n)
{
    if (IVS_UNLIKELY((uint64_t)n * sizeof(uint32_t) > bytes))
        return -EINVAL;
    return ivs_call_put_bulk(pool_at(pool), (const uint32_t *)memory_at(array), n);
}
