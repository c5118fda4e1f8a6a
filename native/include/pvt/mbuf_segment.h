/* SPDX-License-Identifier: BSD-3-Clause */
/* mbuf_segment.h: locates mbufs in their pool; loads and validates the headers of a packet's segments. */
#ifndef IVS_MBUF_SEGMENT_H
#define IVS_MBUF_SEGMENT_H

#include "mempool.h"

#define IVS_MBUF_SEGS_MAX 65535u /* RTE_MBUF_MAX_NB_SEGS */

/* Loads a header field exactly once, so that a peer cannot change the value between check and use. */
#define IVS_MBUF_READ(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)

/* ---- location --------------------------------------------------------------------------------------------------- */

IVS_INLINE struct ivs_mbuf *ivs_mbuf_at(const struct ivs_mempool *p, uint32_t index)
{
    return (struct ivs_mbuf *)(void *)(p->objects + (size_t)index * p->elt_stride);
}

IVS_INLINE uint32_t ivs_mbuf_buf_len(const struct ivs_mempool *p)
{
    return p->elt_size - (uint32_t)sizeof(struct ivs_mbuf) - p->private_size;
}

/* Returns the place of a buffer's byte `at`: its offset from p->objects. */
IVS_INLINE int64_t ivs_mbuf_place(const struct ivs_mempool *p, uint32_t buf, uint32_t at)
{
    return (int64_t)buf * p->elt_stride + (int64_t)sizeof(struct ivs_mbuf) + p->private_size + at;
}

/* Returns the maximum length of a chain; a longer one contains a loop. */
IVS_INLINE uint32_t ivs_mbuf_most_segs(const struct ivs_mempool *p)
{
    return p->n < IVS_MBUF_SEGS_MAX ? p->n : IVS_MBUF_SEGS_MAX;
}

/* ---- segments --------------------------------------------------------------------------------------------------- */

/* A validated snapshot of a segment's header: buf and next are less than n (or next is IVS_MBUF_NONE), and
 * data_off + data_len is at most buf_len. */
struct ivs_mbuf_seg {
    struct ivs_mbuf *m;
    uint32_t index;
    uint32_t buf;
    uint32_t data_off;
    uint32_t data_len;
    uint32_t next;
};

/* Returns 0 if the mbuf is allocated; -EINVAL: the index is not less than n; -EALREADY: the mbuf is free. */
IVS_INLINE int ivs_mbuf_enter(const struct ivs_mempool *p, uint32_t index)
{
    int32_t refuse = atomic_load_explicit(&p->refuse, memory_order_relaxed);
    if (IVS_UNLIKELY(refuse != 0))
        return refuse;
    if (IVS_UNLIKELY(index >= p->n))
        return -EINVAL;
    bool allocated = atomic_load_explicit(&ivs_mbuf_at(p, index)->refcnt, memory_order_relaxed) != 0;
    return IVS_LIKELY(allocated) ? 0 : -EALREADY;
}

/* Loads a segment whose index is less than n. Returns 0 or -EBADMSG. */
IVS_INLINE int ivs_mbuf_load(const struct ivs_mempool *p, uint32_t index, struct ivs_mbuf_seg *s)
{
    s->m = ivs_mbuf_at(p, index);
    s->index = index;
    s->buf = IVS_MBUF_READ(s->m->buf);
    s->data_off = IVS_MBUF_READ(s->m->data_off);
    s->data_len = IVS_MBUF_READ(s->m->data_len);
    s->next = IVS_MBUF_READ(s->m->next);
    bool valid = s->buf < p->n && s->data_off + s->data_len <= ivs_mbuf_buf_len(p) &&
                 (s->next < p->n || s->next == IVS_MBUF_NONE);
    return IVS_LIKELY(valid) ? 0 : -EBADMSG;
}

/* Loads the first segment of a packet. Returns 0 or a negative errno, as in mbuf.h. */
IVS_INLINE int ivs_mbuf_first(const struct ivs_mempool *p, uint32_t index, struct ivs_mbuf_seg *s)
{
    int result = ivs_mbuf_enter(p, index);
    return IVS_UNLIKELY(result < 0) ? result : ivs_mbuf_load(p, index, s);
}

/* Loads the next segment. Returns 1, 0 at the packet's end, or -EBADMSG. *left starts as ivs_mbuf_most_segs. */
IVS_INLINE int ivs_mbuf_next(const struct ivs_mempool *p, struct ivs_mbuf_seg *s, uint32_t *left)
{
    if (s->next == IVS_MBUF_NONE)
        return 0;
    if (IVS_UNLIKELY(--*left == 0))
        return -EBADMSG;
    int result = ivs_mbuf_load(p, s->next, s);
    return IVS_UNLIKELY(result < 0) ? result : 1;
}

/* Loads the last segment of a packet (rte_pktmbuf_lastseg). Returns 0 or a negative errno. */
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
