/* SPDX-License-Identifier: BSD-3-Clause */
/* mbuf_calls.h: the inline functions of mbuf.h with external linkage, for cffi. */
#ifndef IVS_MBUF_CALLS_H
#define IVS_MBUF_CALLS_H

#include "mbuf.h"

/* Return values are those of the functions in mbuf.h. */
int ivs_call_mbuf_alloc_bulk(struct ivs_mempool *p, uint32_t *indices, uint32_t n);
int64_t ivs_call_mbuf_alloc(struct ivs_mempool *p);
int ivs_call_mbuf_free_bulk(struct ivs_mempool *p, const uint32_t *indices, uint32_t n);
int ivs_call_mbuf_free(struct ivs_mempool *p, uint32_t index);
int64_t ivs_call_mbuf_append(const struct ivs_mempool *p, uint32_t index, uint32_t length);
int64_t ivs_call_mbuf_prepend(const struct ivs_mempool *p, uint32_t index, uint32_t length);
int64_t ivs_call_mbuf_adj(const struct ivs_mempool *p, uint32_t index, uint32_t length);
int ivs_call_mbuf_trim(const struct ivs_mempool *p, uint32_t index, uint32_t length);

/* Returns the reference count, 0 if the mbuf is free, or a negative errno. */
int ivs_call_mbuf_refcnt(const struct ivs_mempool *p, uint32_t index);

/* A snapshot of one segment. */
struct ivs_call_seg {
    int64_t place; /* of the first data byte */
    uint32_t data_off;
    uint32_t data_len;
    uint32_t tailroom;
    uint32_t buf;
    uint32_t next;
    uint32_t nb_segs;
    uint32_t pkt_len;
};
int ivs_call_mbuf_segment(const struct ivs_mempool *p, uint32_t index, struct ivs_call_seg *found);

/* Writes up to `most` indices of a packet's segments; returns the number of segments or a negative errno. */
int ivs_call_mbuf_segments(const struct ivs_mempool *p, uint32_t index, uint32_t *indices, uint32_t most);

#endif
