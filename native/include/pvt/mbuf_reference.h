/* SPDX-License-Identifier: BSD-3-Clause */
/* mbuf_reference.h: reference counts of mbufs, and the batch in which mbufs without references return to the pool. */
#ifndef IVS_MBUF_REFERENCE_H
#define IVS_MBUF_REFERENCE_H

#include "pvt/mbuf_segment.h"

#define IVS_MBUF_REFS_MAX 65534u

/* ---- references ------------------------------------------------------------------------------------------------- */

/* Adds `by` to the reference count of an allocated mbuf. Returns the new count, at least 1. */
IVS_INLINE int ivs_mbuf_refer(struct ivs_mbuf *m, int32_t by)
{
    uint16_t refs = atomic_load_explicit(&m->refcnt, memory_order_relaxed);
    for (;;) {
        int64_t sum = (int64_t)refs + by;
        if (IVS_UNLIKELY(refs == 0))
            return -EALREADY;
        if (IVS_UNLIKELY(sum < 1 || sum > (int64_t)IVS_MBUF_REFS_MAX))
            return -ERANGE;
        /* release: pairs with ivs_mbuf_drop() in pvt/mbuf_reference.h: our accesses precede the last drop */
        if (atomic_compare_exchange_weak_explicit(&m->refcnt, &refs, (uint16_t)sum, memory_order_release,
                                                  memory_order_relaxed))
            return (int)sum;
    }
}

/* Drops one reference. Returns 1 if it was the last, and the caller must free the mbuf; 0 if others remain. */
IVS_INLINE int ivs_mbuf_drop(struct ivs_mbuf *m)
{
    /* acquire: pairs with ivs_mbuf_drop() in pvt/mbuf_reference.h and ivs_mbuf_refer() in pvt/mbuf_reference.h: the
     * last drop follows all others */
    uint16_t refs = atomic_load_explicit(&m->refcnt, memory_order_acquire);
    if (IVS_LIKELY(refs == 1)) { /* the only reference is ours: no other thread may change the count */
        atomic_store_explicit(&m->refcnt, 0, memory_order_relaxed);
        return 1;
    }
    while (refs != 0) {
        /* acquire, release: pairs with ivs_mbuf_drop() in pvt/mbuf_reference.h, as above */
        if (atomic_compare_exchange_weak_explicit(&m->refcnt, &refs, (uint16_t)(refs - 1), memory_order_acq_rel,
                                                  memory_order_acquire))
            return refs == 1;
    }
    return -EALREADY;
}

/* ---- free ------------------------------------------------------------------------------------------------------- */

#define IVS_MBUF_BIN 64u

/* A batch of mbufs without references, to be put into the pool. */
struct ivs_mbuf_bin {
    uint32_t n;
    int result; /* first error of a put */
    uint32_t indices[IVS_MBUF_BIN];
};

static inline void ivs_mbuf_bin_empty(struct ivs_mempool *p, struct ivs_mbuf_bin *bin)
{
    int result = ivs_mempool_put_bulk(p, bin->indices, bin->n);
    if (IVS_UNLIKELY(result < 0 && bin->result == 0))
        bin->result = result;
    bin->n = 0;
}

/* Adds an mbuf to the batch. Its header is not reset: ivs_mbuf_fresh writes every field. */
IVS_INLINE void ivs_mbuf_bin_add(struct ivs_mempool *p, struct ivs_mbuf_bin *bin, uint32_t index)
{
    if (IVS_UNLIKELY(bin->n == IVS_MBUF_BIN))
        ivs_mbuf_bin_empty(p, bin);
    bin->indices[bin->n++] = index;
}

/* Drops an attached mbuf's reference to mbuf `buf`. */
static inline int ivs_mbuf_drop_buf(struct ivs_mempool *p, uint32_t buf, struct ivs_mbuf_bin *bin)
{
    int last = buf < p->n ? ivs_mbuf_drop(ivs_mbuf_at(p, buf)) : -EBADMSG;
    if (last > 0)
        ivs_mbuf_bin_add(p, bin, buf);
    return last < 0 ? -EBADMSG : 0;
}

/* Drops a packet's reference to one segment; with the last reference, also the segment's reference to its buffer. */
IVS_INLINE int ivs_mbuf_free_one(struct ivs_mempool *p, uint32_t index, struct ivs_mbuf_bin *bin)
{
    struct ivs_mbuf *m = ivs_mbuf_at(p, index);
    int result = ivs_mbuf_drop(m);
    if (IVS_UNLIKELY(result <= 0))
        return result;
    uint32_t buf = IVS_MBUF_READ(m->buf);
    result = IVS_LIKELY(buf == index) ? 0 : ivs_mbuf_drop_buf(p, buf, bin);
    ivs_mbuf_bin_add(p, bin, index);
    return result;
}

/* Does the same for a segment, whose index is less than n, and all following segments. */
IVS_INLINE int ivs_mbuf_free_chain(struct ivs_mempool *p, uint32_t index, struct ivs_mbuf_bin *bin)
{
    uint32_t left = ivs_mbuf_most_segs(p);
    uint32_t next = IVS_MBUF_READ(ivs_mbuf_at(p, index)->next); /* loaded first: a freed mbuf may be reused */
    int result = ivs_mbuf_free_one(p, index, bin);
    while (IVS_UNLIKELY(next != IVS_MBUF_NONE && result >= 0)) {
        index = next;
        if (index >= p->n || --left == 0)
            return -EBADMSG;
        next = IVS_MBUF_READ(ivs_mbuf_at(p, index)->next);
        if (ivs_mbuf_free_one(p, index, bin) < 0)
            return -EBADMSG;
    }
    return result;
}

/* Puts the batch. Returns the negative errno of the operation that filled the batch, else that of the puts, or 0. */
static inline int ivs_mbuf_bin_finish(struct ivs_mempool *p, struct ivs_mbuf_bin *bin, int result)
{
    ivs_mbuf_bin_empty(p, bin);
    return result < 0 ? result : bin->result;
}

/* ---- attach ----------------------------------------------------------------------------------------------------- */

/* Copies the header fields that describe the packet, not its data or segments. */
static inline void ivs_mbuf_copy_fields(struct ivs_mbuf *to, const struct ivs_mbuf *from)
{
    to->port = from->port;
    to->ol_flags = from->ol_flags;
    to->packet_type = from->packet_type;
    to->vlan_tci = from->vlan_tci;
    to->vlan_tci_outer = from->vlan_tci_outer;
    to->rss = from->rss;
    to->timesync = from->timesync;
    to->tx_offload = from->tx_offload;
    to->timestamp = from->timestamp;
}

/* Attaches mbuf `index`, to which only the caller has a reference, to the buffer of segment `s`. */
static inline int ivs_mbuf_attach_to(const struct ivs_mempool *p, uint32_t index, const struct ivs_mbuf_seg *s)
{
    struct ivs_mbuf *m = ivs_mbuf_at(p, index);
    int refs = s->buf == index ? -EBADMSG : ivs_mbuf_refer(ivs_mbuf_at(p, s->buf), 1);
    if (refs < 0)
        return refs == -EALREADY ? -EBADMSG : refs;
    m->buf = s->buf;
    m->data_off = (uint16_t)s->data_off;
    m->data_len = (uint16_t)s->data_len;
    m->pkt_len = s->data_len;
    m->nb_segs = 1;
    m->next = IVS_MBUF_NONE;
    ivs_mbuf_copy_fields(m, s->m);
    return 0;
}

#endif
