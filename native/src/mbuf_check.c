/* SPDX-License-Identifier: BSD-3-Clause */
/* mbuf_check.c: validate a packet and name the damage (rte_mbuf_check). */
#include "mbuf.h"

static const char *segment_fault(const struct ivs_mempool *p, const struct ivs_mbuf_seg *s)
{
    uint16_t refs = atomic_load_explicit(&s->m->refcnt, memory_order_relaxed);
    if (refs == 0 || refs > IVS_MBUF_REFS_MAX)
        return "refcnt must be 1 to 65534";
    if (s->buf >= p->n)
        return "buf must be less than n";
    if (s->next >= p->n && s->next != IVS_MBUF_NONE)
        return "next must be less than n, or NO_MBUF";
    if (s->data_off > ivs_mbuf_buf_len(p))
        return "data_off must be at most buf_len";
    if (s->data_off + s->data_len > ivs_mbuf_buf_len(p))
        return "data_off + data_len must be at most buf_len";
    if (IVS_MBUF_READ(s->m->buf_len) != ivs_mbuf_buf_len(p) || IVS_MBUF_READ(s->m->priv_size) != p->private_size)
        return "buf_len and priv_size must equal those of the pool";
    if (s->buf != s->index && atomic_load_explicit(&ivs_mbuf_at(p, s->buf)->refcnt, memory_order_relaxed) == 0)
        return "attached to the buffer of a free mbuf";
    return NULL;
}

static const char *packet_fault(const struct ivs_mempool *p, struct ivs_mbuf_seg *s)
{
    uint32_t nb_segs = IVS_MBUF_READ(s->m->nb_segs);
    uint32_t pkt_len = IVS_MBUF_READ(s->m->pkt_len);
    uint32_t left = ivs_mbuf_most_segs(p);
    uint32_t segs = 0;
    uint64_t bytes = 0;
    int more;

    do {
        const char *fault = segment_fault(p, s);
        if (fault != NULL)
            return fault;
        segs++;
        bytes += s->data_len;
        more = ivs_mbuf_next(p, s, &left);
    } while (more > 0 || (more < 0 && left > 0)); /* left > 0: `s` is a damaged segment, to be named by segment_fault */
    if (more < 0)
        return "the segment chain contains a loop";
    if (segs != nb_segs)
        return "nb_segs must equal the number of segments";
    return bytes != pkt_len ? "pkt_len must equal the sum of data_len of all segments" : NULL;
}

int ivs_mbuf_check(const struct ivs_mempool *p, uint32_t index, int is_header, const char **reason)
{
    struct ivs_mbuf_seg s;
    int result = ivs_mbuf_first(p, index, &s);
    *reason = NULL;
    if (result < 0 && result != -EBADMSG)
        return result;
    *reason = is_header ? packet_fault(p, &s) : segment_fault(p, &s);
    return *reason == NULL ? 0 : -EBADMSG;
}
