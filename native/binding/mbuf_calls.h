/* SPDX-License-Identifier: BSD-3-Clause */
/* mbuf_calls.h: the inline operations of mbuf.h as functions, for callers that are not C. */
#ifndef IVS_MBUF_CALLS_H
#define IVS_MBUF_CALLS_H

#include "mbuf.h"

/* Return values as in mbuf.h. */
int ivs_call_mbuf_alloc_bulk(struct ivs_mempool *p, uint32_t *indices, uint32_t n);
int64_t ivs_call_mbuf_alloc(struct ivs_mempool *p);
int ivs_call_mbuf_free_bulk(struct ivs_mempool *p, const uint32_t *indices, uint32_t n);
int ivs_call_mbuf_free(struct ivs_mempool *p, uint32_t index);
int64_t ivs_call_mbuf_append(const struct ivs_mempool *p, uint32_t index, uint32_t length);
int64_t ivs_call_mbuf_prepend(const struct ivs_mempool *p, uint32_t index, uint32_t length);
int64_t ivs_call_mbuf_adj(const struct ivs_mempool *p, uint32_t index, uint32_t length);
int ivs_call_mbuf_trim(const struct ivs_mempool *p, uint32_t index, uint32_t length);

/* How many references there are: 0, the mbuf is free. */
int ivs_call_mbuf_refcnt(const struct ivs_mempool *p, uint32_t index);

/* One segment as it is now. */
struct ivs_call_seg {
    int64_t place; /* of its data */
    uint32_t data_off;
    uint32_t data_len;
    uint32_t tailroom;
    uint32_t buf;
    uint32_t next;
    uint32_t nb_segs;
    uint32_t pkt_len;
};
int ivs_call_mbuf_segment(const struct ivs_mempool *p, uint32_t index, struct ivs_call_seg *found);

/* Writes the indices of a packet's segments, `most` of them at most: how many it has. */
int ivs_call_mbuf_segments(const struct ivs_mempool *p, uint32_t index, uint32_t *indices, uint32_t most);

#endif
