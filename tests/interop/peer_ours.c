/* SPDX-License-Identifier: BSD-3-Clause */
/* peer_ours.c: a peer that has our own headers, and nothing of DPDK. */
#include "peer.h"
#include "ring.h"

#define STALL_NS UINT64_C(60000000000) /* a machine full of other work is no stalled peer */

static void *peer_attach(void *memory, uint64_t length, uint32_t esize)
{
    static struct ivs_ring ring;
    struct ivs_ring_info info;
    int fault = ivs_ring_attach(&ring, memory, length, STALL_NS, &info);
    if (fault != 0)
        peer_fail("no ring there", (uint64_t)fault);
    if (info.elem_size != esize)
        peer_fail("another element size", info.elem_size);
    return &ring;
}

static uint32_t peer_enqueue(void *ring, const void *objects, uint32_t esize, uint32_t n)
{
    int done = ivs_ring_enqueue_burst(ring, objects, esize, n, NULL);
    if (done < 0)
        peer_fail("enqueue failed", (uint64_t)-done);
    return (uint32_t)done;
}

static uint32_t peer_dequeue(void *ring, void *objects, uint32_t esize, uint32_t n)
{
    int done = ivs_ring_dequeue_burst(ring, objects, esize, n, NULL);
    if (done < 0)
        peer_fail("dequeue failed", (uint64_t)-done);
    return (uint32_t)done;
}
