/* SPDX-License-Identifier: BSD-3-Clause */
/* peer_dpdk.c: a peer that has DPDK's headers. It takes our ring in the file for an rte_ring, which the asserts below
 * are about: where a field of either is elsewhere, this does not compile.
 */
#include <rte_ring.h>

#include "layout.h"
#include "peer.h"

#define SAME_PLACE(theirs, ours)                                                                                       \
    _Static_assert(offsetof(struct rte_ring, theirs) == offsetof(struct ivs_ring_shared, ours) &&                      \
                       sizeof(((struct rte_ring *)0)->theirs) == sizeof(((struct ivs_ring_shared *)0)->ours),          \
                   "rte_ring." #theirs " is not ivs_ring_shared." #ours)

SAME_PLACE(flags, flags);
SAME_PLACE(memzone, memzone);
SAME_PLACE(size, size);
SAME_PLACE(mask, mask);
SAME_PLACE(capacity, capacity);
SAME_PLACE(prod.head, prod.head);
SAME_PLACE(prod.tail, prod.tail);
SAME_PLACE(prod.sync_type, prod.sync_type);
SAME_PLACE(hts_prod.ht, prod.hts.raw);
SAME_PLACE(hts_prod.sync_type, prod.sync_type);
SAME_PLACE(rts_prod.tail, prod.rts.tail);
SAME_PLACE(rts_prod.sync_type, prod.rts.sync_type);
SAME_PLACE(rts_prod.htd_max, prod.rts.htd_max);
SAME_PLACE(rts_prod.head, prod.rts.head);
SAME_PLACE(cons.head, cons.head);
SAME_PLACE(cons.tail, cons.tail);
SAME_PLACE(cons.sync_type, cons.sync_type);
SAME_PLACE(hts_cons.ht, cons.hts.raw);
SAME_PLACE(rts_cons.tail, cons.rts.tail);
SAME_PLACE(rts_cons.htd_max, cons.rts.htd_max);
SAME_PLACE(rts_cons.head, cons.rts.head);
_Static_assert(sizeof(struct rte_ring) == sizeof(struct ivs_ring_shared), "elements begin elsewhere");
_Static_assert(RTE_RING_NAMESIZE <= IVS_NAME_SIZE, "DPDK's names do not fit");
_Static_assert(offsetof(struct rte_ring, pad0) == offsetof(struct ivs_ring_shared, magic), "no guard line there");
_Static_assert((int)RTE_RING_SYNC_MT == (int)IVS_SYNC_MT && (int)RTE_RING_SYNC_ST == (int)IVS_SYNC_ST &&
                   (int)RTE_RING_SYNC_MT_RTS == (int)IVS_SYNC_RTS && (int)RTE_RING_SYNC_MT_HTS == (int)IVS_SYNC_HTS,
               "sync types differ");
_Static_assert(RING_F_SP_ENQ == IVS_RING_SP_ENQ && RING_F_SC_DEQ == IVS_RING_SC_DEQ &&
                   RING_F_EXACT_SZ == IVS_RING_EXACT_SZ && RING_F_MP_RTS_ENQ == IVS_RING_MP_RTS_ENQ &&
                   RING_F_MC_RTS_DEQ == IVS_RING_MC_RTS_DEQ && RING_F_MP_HTS_ENQ == IVS_RING_MP_HTS_ENQ &&
                   RING_F_MC_HTS_DEQ == IVS_RING_MC_HTS_DEQ,
               "flags differ");

/* DPDK checks nothing when it attaches; so this looks whether there is a ring that could be meant. */
static void *peer_attach(void *memory, uint64_t length, uint32_t esize)
{
    struct rte_ring *ring = memory;
    if (length < sizeof(*ring) || ring->size == 0 || sizeof(*ring) + (uint64_t)ring->size * esize > length)
        peer_fail("no ring there", length);
    return ring;
}

static uint32_t peer_enqueue(void *ring, const void *objects, uint32_t esize, uint32_t n)
{
    return rte_ring_enqueue_burst_elem(ring, objects, esize, n, NULL);
}

static uint32_t peer_dequeue(void *ring, void *objects, uint32_t esize, uint32_t n)
{
    return rte_ring_dequeue_burst_elem(ring, objects, esize, n, NULL);
}
