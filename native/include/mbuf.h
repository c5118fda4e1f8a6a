/* SPDX-License-Identifier: BSD-3-Clause */
/* mbuf.h: packets in a mempool: chains of segments with room before and after the data, reference counts and clones.
 *
 * An mbuf is an object of a pool that was made with IVS_MEMPOOL_MBUF: a header (struct ivs_mbuf), the pool's private
 * bytes, a buffer. Names and rules are rte_mbuf's. What differs: mbufs are indices, a packet's segments and the buffers
 * they are attached to are of one pool, an mbuf in the pool has reference count 0 (there 1), so that the use of a free
 * one is seen, and indirect is who has another's index in `buf` (there also a bit of ol_flags).
 *
 * Functions take a handle of such a pool (ivs_mempool_attach). A peer may write any header at any time: each number is
 * read once and checked before it is used, walks along a chain end after as many steps as a chain can have, and what
 * the pool fixes (sizes and places of buffers) is never read from a header.
 *
 * They return 0 or a number, or a negative errno: -EINVAL an index is out of range or the operation does not fit that
 * mbuf; -EALREADY the mbuf is free; -EBADMSG a header is damaged; -ENOSPC too little room, or fewer bytes than asked
 * for; -ENOBUFS no mbuf is left; -ERANGE too many references, too few, or too many segments; or what
 * ivs_mempool_refuse set. A "place" is an int64_t: bytes from the handle's `objects` on.
 *
 * Progress: lock-free. One packet is worked by one thread at a time, as in DPDK; reference counts by any number.
 */
#ifndef IVS_MBUF_H
#define IVS_MBUF_H

#include "pvt/mbuf_segment.h"

#define IVS_MBUF_REFS_MAX 65534u
#define IVS_MBUF_PORT_INVALID 65535u

/* ---- taking ----------------------------------------------------------------------------------------------------- */

/* Where the data of an empty mbuf begins. */
IVS_INLINE uint16_t ivs_mbuf_default_off(const struct ivs_mempool *p)
{
    return (uint16_t)(ivs_mbuf_buf_len(p) < IVS_MBUF_HEADROOM ? ivs_mbuf_buf_len(p) : IVS_MBUF_HEADROOM);
}

/* Writes the header that a fresh mbuf has, whatever stood there; not the reference count, which others may be at. */
IVS_INLINE void ivs_mbuf_fresh(const struct ivs_mempool *p, uint32_t index)
{
    struct ivs_mbuf *m = ivs_mbuf_at(p, index);
    m->data_off = ivs_mbuf_default_off(p);
    m->nb_segs = 1;
    m->port = IVS_MBUF_PORT_INVALID;
    m->ol_flags = 0;
    m->packet_type = 0;
    m->pkt_len = 0;
    m->data_len = 0;
    m->vlan_tci = 0;
    m->rss = 0;
    m->vlan_tci_outer = 0;
    m->buf_len = (uint16_t)ivs_mbuf_buf_len(p);
    m->next = IVS_MBUF_NONE;
    m->buf = index;
    m->priv_size = (uint16_t)p->private_size;
    m->timesync = 0;
    m->tx_offload = 0;
    m->timestamp = 0;
}

/* Takes `n` fresh mbufs, or none and returns 0 (rte_pktmbuf_alloc_bulk). */
IVS_INLINE int ivs_mbuf_alloc_bulk(struct ivs_mempool *p, uint32_t *indices, uint32_t n)
{
    int got = ivs_mempool_get_bulk(p, indices, n);
    for (int i = 0; i < got; i++) {
        ivs_mbuf_fresh(p, indices[i]);
        /* relaxed: nobody else knows the mbuf yet; who gets it does so through a ring, with its release */
        atomic_store_explicit(&ivs_mbuf_at(p, indices[i])->refcnt, 1, memory_order_relaxed);
    }
    return got;
}

/* One mbuf: its index (rte_pktmbuf_alloc). */
IVS_INLINE int64_t ivs_mbuf_alloc(struct ivs_mempool *p)
{
    uint32_t index;
    int got = ivs_mbuf_alloc_bulk(p, &index, 1);
    return IVS_LIKELY(got == 1) ? (int64_t)index : got == 0 ? -ENOBUFS : got;
}

/* ---- references ------------------------------------------------------------------------------------------------- */

/* Adds to the reference count of an mbuf that is not free: the new count, never 0. Failed: nothing has changed. */
IVS_INLINE int ivs_mbuf_refer(struct ivs_mbuf *m, int32_t by)
{
    uint16_t refs = atomic_load_explicit(&m->refcnt, memory_order_relaxed);
    for (;;) {
        int64_t more = (int64_t)refs + by;
        if (IVS_UNLIKELY(refs == 0))
            return -EALREADY;
        if (IVS_UNLIKELY(more < 1 || more > (int64_t)IVS_MBUF_REFS_MAX))
            return -ERANGE;
        /* release: what we did with the mbuf comes before a drop; pairs with the acquires in ivs_mbuf_drop */
        if (atomic_compare_exchange_weak_explicit(&m->refcnt, &refs, (uint16_t)more, memory_order_release,
                                                  memory_order_relaxed))
            return (int)more;
    }
}

/* Drops one reference. 1: that was the last, and the mbuf is the caller's to put back; 0: others are left. */
IVS_INLINE int ivs_mbuf_drop(struct ivs_mbuf *m)
{
    /* acquire: pairs with the releases of all who dropped theirs, below and in ivs_mbuf_refer */
    uint16_t refs = atomic_load_explicit(&m->refcnt, memory_order_acquire);
    if (IVS_LIKELY(refs == 1)) { /* ours: there is nobody else who could change it */
        atomic_store_explicit(&m->refcnt, 0, memory_order_relaxed);
        return 1;
    }
    while (refs != 0) {
        /* release: pairs with the acquire of the last one; acquire: we may turn out to be the last */
        if (atomic_compare_exchange_weak_explicit(&m->refcnt, &refs, (uint16_t)(refs - 1), memory_order_acq_rel,
                                                  memory_order_acquire))
            return refs == 1;
    }
    return -EALREADY;
}

/* ---- putting back ----------------------------------------------------------------------------------------------- */

#define IVS_MBUF_BIN 64u

/* Mbufs on their way back into the pool. */
struct ivs_mbuf_bin {
    uint32_t n;
    int result; /* the first error of putting them back */
    uint32_t indices[IVS_MBUF_BIN];
};

static inline void ivs_mbuf_bin_empty(struct ivs_mempool *p, struct ivs_mbuf_bin *bin)
{
    int result = ivs_mempool_put_bulk(p, bin->indices, bin->n);
    if (IVS_UNLIKELY(result < 0 && bin->result == 0))
        bin->result = result;
    bin->n = 0;
}

/* Adds an mbuf that nobody has a reference to any more. Its header is left as it is: ivs_mbuf_fresh trusts none. */
IVS_INLINE void ivs_mbuf_bin_add(struct ivs_mempool *p, struct ivs_mbuf_bin *bin, uint32_t index)
{
    if (IVS_UNLIKELY(bin->n == IVS_MBUF_BIN))
        ivs_mbuf_bin_empty(p, bin);
    bin->indices[bin->n++] = index;
}

/* An attached mbuf gives up the buffer of mbuf `buf`. */
static inline int ivs_mbuf_let_go(struct ivs_mempool *p, uint32_t buf, struct ivs_mbuf_bin *bin)
{
    int last = buf < p->n ? ivs_mbuf_drop(ivs_mbuf_at(p, buf)) : -EBADMSG;
    if (last > 0)
        ivs_mbuf_bin_add(p, bin, buf);
    return last < 0 ? -EBADMSG : 0;
}

/* Drops a packet's reference to one segment, and with the last one its buffer's. */
IVS_INLINE int ivs_mbuf_free_one(struct ivs_mempool *p, uint32_t index, struct ivs_mbuf_bin *bin)
{
    struct ivs_mbuf *m = ivs_mbuf_at(p, index);
    int result = ivs_mbuf_drop(m);
    if (IVS_UNLIKELY(result <= 0))
        return result;
    uint32_t buf = IVS_MBUF_READ(m->buf);
    result = IVS_LIKELY(buf == index) ? 0 : ivs_mbuf_let_go(p, buf, bin);
    ivs_mbuf_bin_add(p, bin, index);
    return result;
}

/* The same for a segment, whose index is in range, and all that follow it. */
IVS_INLINE int ivs_mbuf_free_chain(struct ivs_mempool *p, uint32_t index, struct ivs_mbuf_bin *bin)
{
    uint32_t left = ivs_mbuf_most_segs(p);
    uint32_t next = IVS_MBUF_READ(ivs_mbuf_at(p, index)->next); /* before the mbuf may become another's */
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

/* Frees `n` packets, all their segments (rte_pktmbuf_free_bulk): n. None is freed if an index is out of range; where
 * another fault is found the others have been freed. */
IVS_INLINE int ivs_mbuf_free_bulk(struct ivs_mempool *p, const uint32_t *indices, uint32_t n)
{
    int32_t refuse = atomic_load_explicit(&p->refuse, memory_order_relaxed);
    struct ivs_mbuf_bin bin;
    int result = 0;

    if (IVS_UNLIKELY(refuse != 0))
        return refuse;
    for (uint32_t i = 0; i < n; i++)
        if (IVS_UNLIKELY(indices[i] >= p->n))
            return -EINVAL;
    bin.n = 0;
    bin.result = 0;
    for (uint32_t i = 0; i < n; i++) {
        int freed = ivs_mbuf_free_chain(p, indices[i], &bin);
        if (IVS_UNLIKELY(freed < 0 && result == 0))
            result = freed;
    }
    ivs_mbuf_bin_empty(p, &bin);
    if (IVS_UNLIKELY(result < 0))
        return result;
    return IVS_UNLIKELY(bin.result < 0) ? bin.result : (int)n;
}

/* Frees a packet, all its segments (rte_pktmbuf_free): 1. */
IVS_INLINE int ivs_mbuf_free(struct ivs_mempool *p, uint32_t index)
{
    return ivs_mbuf_free_bulk(p, &index, 1);
}

/* ---- room at both ends ------------------------------------------------------------------------------------------ */

/* `length` more bytes at a packet's end: the first one's place (rte_pktmbuf_append). */
IVS_INLINE int64_t ivs_mbuf_append(const struct ivs_mempool *p, uint32_t index, uint32_t length)
{
    struct ivs_mbuf_seg last;
    int result = ivs_mbuf_last(p, index, &last);
    if (IVS_UNLIKELY(result < 0))
        return result;
    uint32_t end = last.data_off + last.data_len;
    if (IVS_UNLIKELY(length > ivs_mbuf_buf_len(p) - end))
        return -ENOSPC;
    last.m->data_len = (uint16_t)(last.data_len + length);
    ivs_mbuf_at(p, index)->pkt_len += length;
    return ivs_mbuf_place(p, last.buf, end);
}

/* `length` more bytes before a packet's first: their place (rte_pktmbuf_prepend). */
IVS_INLINE int64_t ivs_mbuf_prepend(const struct ivs_mempool *p, uint32_t index, uint32_t length)
{
    struct ivs_mbuf_seg s;
    int result = ivs_mbuf_first(p, index, &s);
    if (IVS_UNLIKELY(result < 0))
        return result;
    if (IVS_UNLIKELY(length > s.data_off))
        return -ENOSPC;
    s.m->data_off = (uint16_t)(s.data_off - length);
    s.m->data_len = (uint16_t)(s.data_len + length);
    s.m->pkt_len += length;
    return ivs_mbuf_place(p, s.buf, s.data_off - length);
}

/* `length` bytes off the first segment's beginning: the place of what is first then (rte_pktmbuf_adj). */
IVS_INLINE int64_t ivs_mbuf_adj(const struct ivs_mempool *p, uint32_t index, uint32_t length)
{
    struct ivs_mbuf_seg s;
    int result = ivs_mbuf_first(p, index, &s);
    if (IVS_UNLIKELY(result < 0))
        return result;
    if (IVS_UNLIKELY(length > s.data_len))
        return -ENOSPC;
    s.m->data_off = (uint16_t)(s.data_off + length);
    s.m->data_len = (uint16_t)(s.data_len - length);
    s.m->pkt_len -= length;
    return ivs_mbuf_place(p, s.buf, s.data_off + length);
}

/* `length` bytes off the last segment's end (rte_pktmbuf_trim). */
IVS_INLINE int ivs_mbuf_trim(const struct ivs_mempool *p, uint32_t index, uint32_t length)
{
    struct ivs_mbuf_seg last;
    int result = ivs_mbuf_last(p, index, &last);
    if (IVS_UNLIKELY(result < 0))
        return result;
    if (IVS_UNLIKELY(length > last.data_len))
        return -ENOSPC;
    last.m->data_len = (uint16_t)(last.data_len - length);
    ivs_mbuf_at(p, index)->pkt_len -= length;
    return 0;
}

/* ---- chains, clones, copies (mbuf.c) ---------------------------------------------------------------------------- */

/* Makes a pool as ivs_mempool_create does, from an info with IVS_MEMPOOL_MBUF, with all headers fresh and reference
 * counts 0 (rte_pktmbuf_pool_create). elt_size: the header's 64 bytes, private_size, and a buffer of up to 65535. */
int ivs_mbuf_pool_create(void *base, uint64_t length, const struct ivs_mempool_info *info);

/* The header of a fresh mbuf; what it is attached to and its references stay (rte_pktmbuf_reset). */
int ivs_mbuf_reset(const struct ivs_mempool *p, uint32_t index);

/* Adds to a reference count: the new one (rte_mbuf_refcnt_update). To drop the last one is to free: -ERANGE. */
int ivs_mbuf_refcnt_update(const struct ivs_mempool *p, uint32_t index, int32_t by);

/* The same for all segments of a packet: 0 (rte_pktmbuf_refcnt_update). Failed: none has changed. */
int ivs_mbuf_refcnt_update_all(const struct ivs_mempool *p, uint32_t index, int32_t by);

/* Frees one segment and leaves those that follow alone: 0 (rte_pktmbuf_free_seg). */
int ivs_mbuf_free_seg(struct ivs_mempool *p, uint32_t index);

/* Puts packet `tail` at the end of packet `head` (rte_pktmbuf_chain). -EINVAL: they share a
 * segment; -ERANGE: together more than IVS_MBUF_SEGS_MAX. */
int ivs_mbuf_chain(const struct ivs_mempool *p, uint32_t head, uint32_t tail);

/* Has `index`, a direct single segment with one reference, use the buffer of segment `to` (rte_pktmbuf_attach). */
int ivs_mbuf_attach(const struct ivs_mempool *p, uint32_t index, uint32_t to);

/* Gives an attached segment its own buffer back, empty (rte_pktmbuf_detach). pkt_len shrinks with data_len. */
int ivs_mbuf_detach(struct ivs_mempool *p, uint32_t index);

/* A packet of new mbufs attached to the buffers of this one: its index (rte_pktmbuf_clone). */
int64_t ivs_mbuf_clone(struct ivs_mempool *p, uint32_t index);

/* A packet of new mbufs with `length` bytes (or as many as there are) of this one from `offset` on: its index
 * (rte_pktmbuf_copy). */
int64_t ivs_mbuf_copy(struct ivs_mempool *p, uint32_t index, uint32_t offset, uint32_t length);

/* Moves all data into the first segment and frees the others (rte_pktmbuf_linearize). */
int ivs_mbuf_linearize(struct ivs_mempool *p, uint32_t index);

/* Copies `length` bytes from byte `offset` of the packet on (rte_pktmbuf_read, but always a copy). */
int ivs_mbuf_read(const struct ivs_mempool *p, uint32_t index, uint32_t offset, uint32_t length, void *to);

/* Whether an mbuf, or with `is_header` a whole packet, is sound (rte_mbuf_check). -EBADMSG: *reason says why not. */
int ivs_mbuf_check(const struct ivs_mempool *p, uint32_t index, int is_header, const char **reason);

#endif
