/* SPDX-License-Identifier: BSD-3-Clause */
/* mbuf.c: create a pool of mbufs; reference counts, chains, attach and detach. The fast paths are inline in mbuf.h. */
#include "mbuf.h"

/* ---- pool and references ----------------------------------------------------------------------------------------- */

int ivs_mbuf_pool_create(void *base, uint64_t length, const struct ivs_mempool_info *info)
{
    struct ivs_mempool handle;
    int result = info->flags & IVS_MEMPOOL_MBUF ? ivs_mempool_create(base, length, info) : -EINVAL;
    if (result < 0)
        return result;
    ivs_mempool_attach(&handle, base, info);
    for (uint32_t index = 0; index < handle.n; index++)
        ivs_mbuf_fresh(&handle, index);
    return 0;
}

int ivs_mbuf_reset(const struct ivs_mempool *p, uint32_t index)
{
    int result = ivs_mbuf_enter(p, index);
    if (result < 0)
        return result;
    uint32_t buf = IVS_MBUF_READ(ivs_mbuf_at(p, index)->buf);
    ivs_mbuf_fresh(p, index);
    ivs_mbuf_at(p, index)->buf = buf;
    return 0;
}

int ivs_mbuf_refcnt_update(const struct ivs_mempool *p, uint32_t index, int32_t by)
{
    int result = ivs_mbuf_enter(p, index);
    return result < 0 ? result : ivs_mbuf_refer(ivs_mbuf_at(p, index), by);
}

/* Rolls back ivs_mbuf_refcnt_update_all for the first `done` segments. */
static void roll_back_references(const struct ivs_mempool *p, uint32_t index, int32_t by, uint32_t done)
{
    struct ivs_mbuf_seg s;
    uint32_t left = ivs_mbuf_most_segs(p);
    int more = ivs_mbuf_load(p, index, &s) == 0;
    for (uint32_t i = 0; i < done && more > 0; i++) {
        (void)ivs_mbuf_refer(s.m, -by);
        more = ivs_mbuf_next(p, &s, &left);
    }
}

int ivs_mbuf_refcnt_update_all(const struct ivs_mempool *p, uint32_t index, int32_t by)
{
    struct ivs_mbuf_seg s;
    uint32_t left = ivs_mbuf_most_segs(p);
    uint32_t done = 0;
    int result = ivs_mbuf_first(p, index, &s);
    if (result < 0)
        return result;
    do {
        result = ivs_mbuf_refer(s.m, by);
        if (result > 0) {
            done++;
            result = ivs_mbuf_next(p, &s, &left);
        }
    } while (result > 0);
    if (result < 0)
        roll_back_references(p, index, by, done);
    return result == -EALREADY ? -EBADMSG : result;
}

int ivs_mbuf_free_seg(struct ivs_mempool *p, uint32_t index)
{
    struct ivs_mbuf_bin bin = {.n = 0};
    int result = ivs_mbuf_enter(p, index);
    return result < 0 ? result : ivs_mbuf_bin_finish(p, &bin, ivs_mbuf_free_one(p, index, &bin));
}

/* ---- chains ------------------------------------------------------------------------------------------------------ */

int ivs_mbuf_chain(const struct ivs_mempool *p, uint32_t head, uint32_t tail)
{
    struct ivs_mbuf_seg end, tail_end;
    int result = ivs_mbuf_last(p, head, &end);
    if (result == 0)
        result = ivs_mbuf_last(p, tail, &tail_end);
    if (result < 0)
        return result;
    if (end.index == tail_end.index) /* chains with a common segment have the same last segment */
        return -EINVAL;
    struct ivs_mbuf *first = ivs_mbuf_at(p, head);
    struct ivs_mbuf *second = ivs_mbuf_at(p, tail);
    uint32_t segs = (uint32_t)IVS_MBUF_READ(first->nb_segs) + IVS_MBUF_READ(second->nb_segs);
    if (segs > IVS_MBUF_SEGS_MAX)
        return -ERANGE;
    end.m->next = tail;
    first->nb_segs = (uint16_t)segs;
    first->pkt_len += second->pkt_len;
    second->pkt_len = second->data_len; /* as DPDK does: `tail` is a segment now */
    return 0;
}

/* ---- attach and detach ------------------------------------------------------------------------------------------- */

/* Loads both segments and sets *fault if the attachment is not allowed. Returns 0 or a negative errno. */
static int check_attach(const struct ivs_mempool *p, uint32_t index, uint32_t to, struct ivs_mbuf_seg *s, int *fault)
{
    struct ivs_mbuf_seg own;
    int result = ivs_mbuf_first(p, index, &own);
    if (result == 0)
        result = ivs_mbuf_first(p, to, s);
    *fault = result == -EINVAL ? IVS_FAULT_OBJECT : IVS_OK;
    if (result < 0)
        return result;
    if (own.buf != index)
        *fault = IVS_FAULT_ATTACHED;
    else if (own.next != IVS_MBUF_NONE)
        *fault = IVS_FAULT_CHAINED;
    else if (s->buf == index)
        *fault = IVS_FAULT_SAME_BUFFER;
    else if (atomic_load_explicit(&own.m->refcnt, memory_order_relaxed) != 1)
        *fault = IVS_FAULT_REFERENCED;
    return *fault == IVS_OK ? 0 : -EINVAL;
}

int ivs_mbuf_attach_fault(const struct ivs_mempool *p, uint32_t index, uint32_t to)
{
    struct ivs_mbuf_seg s;
    int fault;
    (void)check_attach(p, index, to, &s, &fault);
    return fault;
}

int ivs_mbuf_attach(const struct ivs_mempool *p, uint32_t index, uint32_t to)
{
    struct ivs_mbuf_seg s;
    int fault;
    int result = check_attach(p, index, to, &s, &fault);
    return result < 0 ? result : ivs_mbuf_attach_to(p, index, &s);
}

int ivs_mbuf_detach(struct ivs_mempool *p, uint32_t index)
{
    struct ivs_mbuf_bin bin = {.n = 0};
    int result = ivs_mbuf_enter(p, index);
    if (result < 0)
        return result;
    struct ivs_mbuf *m = ivs_mbuf_at(p, index);
    uint32_t buf = IVS_MBUF_READ(m->buf);
    if (buf == index)
        return -EINVAL;
    m->buf = index;
    m->pkt_len -= m->data_len < m->pkt_len ? m->data_len : m->pkt_len;
    m->data_len = 0;
    m->data_off = ivs_mbuf_default_off(p);
    m->ol_flags = 0;
    return ivs_mbuf_bin_finish(p, &bin, ivs_mbuf_drop_buf(p, buf, &bin));
}
