/* SPDX-License-Identifier: BSD-3-Clause */
/* mbuf_calls.c: the inline functions of mbuf.h with external linkage, for cffi. */
#include "mbuf_calls.h"

int ivs_call_mbuf_alloc_bulk(struct ivs_mempool *p, uint32_t *indices, uint32_t n)
{
    return ivs_mbuf_alloc_bulk(p, indices, n);
}

int64_t ivs_call_mbuf_alloc(struct ivs_mempool *p)
{
    return ivs_mbuf_alloc(p);
}

int ivs_call_mbuf_free_bulk(struct ivs_mempool *p, const uint32_t *indices, uint32_t n)
{
    return ivs_mbuf_free_bulk(p, indices, n);
}

int ivs_call_mbuf_free(struct ivs_mempool *p, uint32_t index)
{
    return ivs_mbuf_free(p, index);
}

int64_t ivs_call_mbuf_append(const struct ivs_mempool *p, uint32_t index, uint32_t length)
{
    return ivs_mbuf_append(p, index, length);
}

int64_t ivs_call_mbuf_prepend(const struct ivs_mempool *p, uint32_t index, uint32_t length)
{
    return ivs_mbuf_prepend(p, index, length);
}

int64_t ivs_call_mbuf_adj(const struct ivs_mempool *p, uint32_t index, uint32_t length)
{
    return ivs_mbuf_adj(p, index, length);
}

int ivs_call_mbuf_trim(const struct ivs_mempool *p, uint32_t index, uint32_t length)
{
    return ivs_mbuf_trim(p, index, length);
}

int ivs_call_mbuf_refcnt(const struct ivs_mempool *p, uint32_t index)
{
    int result = ivs_mbuf_enter(p, index);
    if (result == -EALREADY)
        return 0;
    return result < 0 ? result : atomic_load_explicit(&ivs_mbuf_at(p, index)->refcnt, memory_order_relaxed);
}

int ivs_call_mbuf_segment(const struct ivs_mempool *p, uint32_t index, struct ivs_call_seg *found)
{
    struct ivs_mbuf_seg s;
    int result = ivs_mbuf_first(p, index, &s);
    if (result < 0)
        return result;
    found->place = ivs_mbuf_place(p, s.buf, s.data_off);
    found->data_off = s.data_off;
    found->data_len = s.data_len;
    found->tailroom = ivs_mbuf_buf_len(p) - s.data_off - s.data_len;
    found->buf = s.buf;
    found->next = s.next;
    found->nb_segs = IVS_MBUF_READ(s.m->nb_segs);
    found->pkt_len = IVS_MBUF_READ(s.m->pkt_len);
    return 0;
}

int ivs_call_mbuf_segments(const struct ivs_mempool *p, uint32_t index, uint32_t *indices, uint32_t most)
{
    struct ivs_mbuf_seg s;
    uint32_t left = ivs_mbuf_most_segs(p);
    uint32_t count = 0;
    int result = ivs_mbuf_first(p, index, &s);
    if (result < 0)
        return result;
    do {
        if (count < most)
            indices[count] = s.index;
        count++;
        result = ivs_mbuf_next(p, &s, &left);
    } while (result > 0);
    return result < 0 ? result : (int)count;
}
