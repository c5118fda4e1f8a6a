/* SPDX-License-Identifier: BSD-3-Clause */
/* mbuf.h: packets in a mempool: segment chains with headroom and tailroom, reference counts and clones (rte_mbuf).
 *
 * An mbuf is an object of a pool with IVS_MEMPOOL_MBUF: a header (struct ivs_mbuf), the private area, and a buffer.
 * Names and rules are those of rte_mbuf. Differences: mbufs are identified by index; all segments of a packet and the
 * buffers they are attached to belong to one pool; a free mbuf has reference count 0 (DPDK: 1), so that use after free
 * is detected; an mbuf is indirect if `buf` is another index (DPDK: also a bit in ol_flags).
 *
 * All functions take a handle of such a pool (ivs_mempool_attach). A peer may write any header at any time: each field
 * is loaded once and validated before use, a walk along a chain is bounded, and sizes and places of buffers come from
 * the pool, never from a header.
 *
 * Functions return 0 or a number, or a negative errno:
 *   -EINVAL    an index is not less than n, or the operation is not valid for that mbuf
 *   -EALREADY  the mbuf is free
 *   -EBADMSG   a header is damaged
 *   -ENOSPC    too little headroom, tailroom or data
 *   -ENOBUFS   no mbuf is free
 *   -ERANGE    too many references or segments, or too few references
 *   or the errno that was set by ivs_mempool_refuse.
 * A "place" is an int64_t: a byte offset from the handle's `objects`.
 *
 * Lock-free. As in DPDK, one thread at a time may use a packet; any number of threads may change reference counts.
 */
#ifndef IVS_MBUF_H
#define IVS_MBUF_H

#include "pvt/mbuf_reference.h"
#include "pvt/mbuf_segment.h"

#define IVS_MBUF_PORT_INVALID 65535u

/* ---- alloc ------------------------------------------------------------------------------------------------------ */

/* Returns data_off of an empty mbuf. */
IVS_INLINE uint16_t ivs_mbuf_default_off(const struct ivs_mempool *p)
{
    return (uint16_t)(ivs_mbuf_buf_len(p) < IVS_MBUF_HEADROOM ? ivs_mbuf_buf_len(p) : IVS_MBUF_HEADROOM);
}

/* Initializes all header fields except the reference count, which other threads may be changing. */
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

/* Allocates `n` empty mbufs and returns n, or allocates none and returns 0 (rte_pktmbuf_alloc_bulk). */
IVS_INLINE int ivs_mbuf_alloc_bulk(struct ivs_mempool *p, uint32_t *indices, uint32_t n)
{
    int got = ivs_mempool_get_bulk(p, indices, n);
    for (int i = 0; i < got; i++) {
        ivs_mbuf_fresh(p, indices[i]);
        /* relaxed: no other thread has the index yet; the ring that passes it on has the release */
        atomic_store_explicit(&ivs_mbuf_at(p, indices[i])->refcnt, 1, memory_order_relaxed);
    }
    return got;
}

/* Allocates one mbuf and returns its index (rte_pktmbuf_alloc). */
IVS_INLINE int64_t ivs_mbuf_alloc(struct ivs_mempool *p)
{
    uint32_t index;
    int got = ivs_mbuf_alloc_bulk(p, &index, 1);
    return IVS_LIKELY(got == 1) ? (int64_t)index : got == 0 ? -ENOBUFS : got;
}

/* ---- free ------------------------------------------------------------------------------------------------------- */

/* Frees `n` packets with all segments and returns n (rte_pktmbuf_free_bulk). -EINVAL for an index that is not less than
 * n: no packet was freed. Other errors: the remaining packets have been freed. */
IVS_INLINE int ivs_mbuf_free_bulk(struct ivs_mempool *p, const uint32_t *indices, uint32_t n)
{
    int32_t refuse = atomic_load_explicit(&p->refuse, memory_order_relaxed);
    struct ivs_mbuf_bin bin;
    int result = 0;

    if (IVS_UNLIKELY(refuse != 0))
        return refuse;
    for (uint32_t i = 0; i < n; i++)
        if (IVS_UNLIKELY(indices[i] >= p->n)) {
            p->fault = IVS_FAULT_OBJECT; /* not ivs_mempool_reject: the call would cost 1 ns per packet */
            return -EINVAL;
        }
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

/* Frees a packet with all segments and returns 1 (rte_pktmbuf_free). */
IVS_INLINE int ivs_mbuf_free(struct ivs_mempool *p, uint32_t index)
{
    return ivs_mbuf_free_bulk(p, &index, 1);
}

/* ---- headroom and tailroom -------------------------------------------------------------------------------------- */

/* Appends `length` bytes to the last segment; returns the place of the first of them (rte_pktmbuf_append). */
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

/* Prepends `length` bytes to the first segment; returns the place of the first of them (rte_pktmbuf_prepend). */
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

/* Removes the first `length` bytes of the first segment; returns the place of the data after them (rte_pktmbuf_adj). */
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

/* Removes `length` bytes at the end of the last segment (rte_pktmbuf_trim). */
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

/* ---- pool, references, chains, attach (mbuf.c) ------------------------------------------------------------------ */

/* Creates a pool as ivs_mempool_create does, with IVS_MEMPOOL_MBUF in info->flags; initializes all headers, with
 * reference counts of 0 (rte_pktmbuf_pool_create). elt_size = 64 + private_size + data room (at most 65535). */
int ivs_mbuf_pool_create(void *base, uint64_t length, const struct ivs_mempool_info *info);

/* Initializes the header of an allocated mbuf; keeps its references and its attachment (rte_pktmbuf_reset). */
int ivs_mbuf_reset(const struct ivs_mempool *p, uint32_t index);

/* Adds `by` to the reference count; returns the new count (rte_mbuf_refcnt_update). -ERANGE: the count would be less
 * than 1 (use ivs_mbuf_free), or more than IVS_MBUF_REFS_MAX. */
int ivs_mbuf_refcnt_update(const struct ivs_mempool *p, uint32_t index, int32_t by);

/* Adds `by` to the reference counts of all segments of a packet, or of none if it fails (rte_pktmbuf_refcnt_update). */
int ivs_mbuf_refcnt_update_all(const struct ivs_mempool *p, uint32_t index, int32_t by);

/* Frees one segment, not the following ones (rte_pktmbuf_free_seg). */
int ivs_mbuf_free_seg(struct ivs_mempool *p, uint32_t index);

/* Appends packet `tail` to packet `head` (rte_pktmbuf_chain). -EINVAL: IVS_FAULT_OBJECT or IVS_FAULT_SHARED_SEGMENT.
 * -ERANGE: more than IVS_MBUF_SEGS_MAX segments. */
int ivs_mbuf_chain(const struct ivs_mempool *p, uint32_t head, uint32_t tail);

/* Attaches `index`, a direct single-segment mbuf with one reference, to the buffer of segment `to`
 * (rte_pktmbuf_attach). -EINVAL: see ivs_mbuf_attach_fault. */
int ivs_mbuf_attach(const struct ivs_mempool *p, uint32_t index, uint32_t to);

/* Returns the enum ivs_fault for which ivs_mbuf_attach returns -EINVAL, otherwise IVS_OK. */
int ivs_mbuf_attach_fault(const struct ivs_mempool *p, uint32_t index, uint32_t to);

/* Detaches a segment from another mbuf's buffer; its own buffer is empty (rte_pktmbuf_detach). Reduces pkt_len by
 * data_len. -EINVAL: IVS_FAULT_OBJECT or IVS_FAULT_DIRECT. */
int ivs_mbuf_detach(struct ivs_mempool *p, uint32_t index);

/* ---- clone, copy, read (mbuf_copy.c) ---------------------------------------------------------------------------- */

/* Allocates a packet whose segments are attached to the buffers of this one; returns its index (rte_pktmbuf_clone). */
int64_t ivs_mbuf_clone(struct ivs_mempool *p, uint32_t index);

/* Allocates a packet with a copy of at most `length` bytes from byte `offset`; returns its index (rte_pktmbuf_copy). */
int64_t ivs_mbuf_copy(struct ivs_mempool *p, uint32_t index, uint32_t offset, uint32_t length);

/* Moves all data into the first segment and frees the others (rte_pktmbuf_linearize). */
int ivs_mbuf_linearize(struct ivs_mempool *p, uint32_t index);

/* Copies `length` bytes from byte `offset` (rte_pktmbuf_read, which copies only if the data is not contiguous). */
int ivs_mbuf_read(const struct ivs_mempool *p, uint32_t index, uint32_t offset, uint32_t length, void *to);

/* ---- validation (mbuf_check.c) ---------------------------------------------------------------------------------- */

/* Validates an mbuf, or a whole packet if `is_header` (rte_mbuf_check). -EBADMSG: *reason is the damage. */
int ivs_mbuf_check(const struct ivs_mempool *p, uint32_t index, int is_header, const char **reason);

#endif
