/* SPDX-License-Identifier: BSD-3-Clause */
/* mbuf_seg.h: where mbufs lie in their pool, and one segment's header read and checked, for mbuf.h. */
#ifndef IVS_MBUF_SEG_H
#define IVS_MBUF_SEG_H

#include "mempool.h"

#define IVS_MBUF_SEGS_MAX 65535u /* RTE_MBUF_MAX_NB_SEGS */

/* A field of a header, read once: what was checked is what is used. */
#define IVS_MBUF_READ(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)

/* ---- where things are ------------------------------------------------------------------------------------------- */

IVS_INLINE struct ivs_mbuf *ivs_mbuf_at(const struct ivs_mempool *p, uint32_t index)
{
    return (struct ivs_mbuf *)(void *)(p->objects + (size_t)index * p->elt_stride);
}

IVS_INLINE uint32_t ivs_mbuf_buf_len(const struct ivs_mempool *p)
{
    return p->elt_size - (uint32_t)sizeof(struct ivs_mbuf) - p->private_size;
}

/* The place of byte `at` of a buffer. */
IVS_INLINE int64_t ivs_mbuf_place(const struct ivs_mempool *p, uint32_t buf, uint32_t at)
{
    return (int64_t)buf * p->elt_stride + (int64_t)sizeof(struct ivs_mbuf) + p->private_size + at;
}

/* Segments that a chain can have: whoever finds more is in a loop. */
IVS_INLINE uint32_t ivs_mbuf_most_segs(const struct ivs_mempool *p)
{
    return p->n < IVS_MBUF_SEGS_MAX ? p->n : IVS_MBUF_SEGS_MAX;
}

/* ---- looking at a segment --------------------------------------------------------------------------------------- */

/* A segment as its header was when it was read: buf and next are indices of the pool (or next is IVS_MBUF_NONE), and
 * data_off + data_len is not beyond the buffer. */
struct ivs_mbuf_seg {
    struct ivs_mbuf *m;
    uint32_t index;
    uint32_t buf;
    uint32_t data_off;
    uint32_t data_len;
    uint32_t next;
};

/* 0 if the mbuf is one that somebody has. */
IVS_INLINE int ivs_mbuf_enter(const struct ivs_mempool *p, uint32_t index)
{
    int32_t refuse = atomic_load_explicit(&p->refuse, memory_order_relaxed);
    if (IVS_UNLIKELY(refuse != 0))
        return refuse;
    if (IVS_UNLIKELY(index >= p->n))
        return -EINVAL;
    bool taken = atomic_load_explicit(&ivs_mbuf_at(p, index)->refcnt, memory_order_relaxed) != 0;
    return IVS_LIKELY(taken) ? 0 : -EALREADY;
}

/* Reads a segment whose index is in range. */
IVS_INLINE int ivs_mbuf_look(const struct ivs_mempool *p, uint32_t index, struct ivs_mbuf_seg *s)
{
    s->m = ivs_mbuf_at(p, index);
    s->index = index;
    s->buf = IVS_MBUF_READ(s->m->buf);
    s->data_off = IVS_MBUF_READ(s->m->data_off);
    s->data_len = IVS_MBUF_READ(s->m->data_len);
    s->next = IVS_MBUF_READ(s->m->next);
    bool sound = s->buf < p->n && s->data_off + s->data_len <= ivs_mbuf_buf_len(p) &&
                 (s->next < p->n || s->next == IVS_MBUF_NONE);
    return IVS_LIKELY(sound) ? 0 : -EBADMSG;
}

IVS_INLINE int ivs_mbuf_first(const struct ivs_mempool *p, uint32_t index, struct ivs_mbuf_seg *s)
{
    int result = ivs_mbuf_enter(p, index);
    return IVS_UNLIKELY(result < 0) ? result : ivs_mbuf_look(p, index, s);
}

/* Goes to the next segment: 1, or 0 if there is none. `left` begins as ivs_mbuf_most_segs. */
IVS_INLINE int ivs_mbuf_next(const struct ivs_mempool *p, struct ivs_mbuf_seg *s, uint32_t *left)
{
    if (s->next == IVS_MBUF_NONE)
        return 0;
    if (IVS_UNLIKELY(--*left == 0))
        return -EBADMSG;
    int result = ivs_mbuf_look(p, s->next, s);
    return IVS_UNLIKELY(result < 0) ? result : 1;
}

/* Goes to a packet's last segment (rte_pktmbuf_lastseg). */
IVS_INLINE int ivs_mbuf_last(const struct ivs_mempool *p, uint32_t index, struct ivs_mbuf_seg *s)
{
    uint32_t left = ivs_mbuf_most_segs(p);
    int result = ivs_mbuf_first(p, index, s);
    if (IVS_UNLIKELY(result < 0))
        return result;
    do
        result = ivs_mbuf_next(p, s, &left);
    while (IVS_UNLIKELY(result > 0));
    return result;
}

#endif
