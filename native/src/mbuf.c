/* SPDX-License-Identifier: BSD-3-Clause */
/* mbuf.c: chains, clones and copies of packets; what is done for each packet of a burst is inline in mbuf.h. */
#include "mbuf.h"

/* ---- one mbuf ---------------------------------------------------------------------------------------------------- */

int ivs_mbuf_pool_create(void *base, uint64_t length, const struct ivs_mempool_info *info)
{
    struct ivs_mempool maker;
    int result = info->flags & IVS_MEMPOOL_MBUF ? ivs_mempool_create(base, length, info) : -EINVAL;
    if (result < 0)
        return result;
    ivs_mempool_attach(&maker, base, info);
    for (uint32_t index = 0; index < maker.n; index++)
        ivs_mbuf_fresh(&maker, index);
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

/* Takes back what ivs_mbuf_refcnt_update_all did to the first `done` segments. */
static void refer_back(const struct ivs_mempool *p, uint32_t index, int32_t by, uint32_t done)
{
    struct ivs_mbuf_seg s;
    uint32_t left = ivs_mbuf_most_segs(p);
    int more = ivs_mbuf_look(p, index, &s) == 0;
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
        refer_back(p, index, by, done);
    return result == -EALREADY ? -EBADMSG : result;
}

/* Puts back what is in the bin; the result of what filled it comes first. */
static int finish(struct ivs_mempool *p, struct ivs_mbuf_bin *bin, int result)
{
    ivs_mbuf_bin_empty(p, bin);
    return result < 0 ? result : bin->result;
}

int ivs_mbuf_free_seg(struct ivs_mempool *p, uint32_t index)
{
    struct ivs_mbuf_bin bin = {.n = 0};
    int result = ivs_mbuf_enter(p, index);
    return result < 0 ? result : finish(p, &bin, ivs_mbuf_free_one(p, index, &bin));
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
    if (end.index == tail_end.index) /* two chains with a segment in common have the last one in common */
        return -EINVAL;
    struct ivs_mbuf *first = ivs_mbuf_at(p, head);
    struct ivs_mbuf *second = ivs_mbuf_at(p, tail);
    uint32_t segs = (uint32_t)IVS_MBUF_READ(first->nb_segs) + IVS_MBUF_READ(second->nb_segs);
    if (segs > IVS_MBUF_SEGS_MAX)
        return -ERANGE;
    end.m->next = tail;
    first->nb_segs = (uint16_t)segs;
    first->pkt_len += second->pkt_len;
    second->pkt_len = second->data_len; /* DPDK: it is a segment now */
    return 0;
}

/* ---- attaching and cloning --------------------------------------------------------------------------------------- */

/* What a clone or copy has of the original's header, besides its data. */
static void copy_header(struct ivs_mbuf *to, const struct ivs_mbuf *from)
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

/* Has mbuf `index`, which is the caller's alone, use the buffer and the metadata of segment `s`. */
static int attach_to(const struct ivs_mempool *p, uint32_t index, const struct ivs_mbuf_seg *s)
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
    copy_header(m, s->m);
    return 0;
}

int ivs_mbuf_attach(const struct ivs_mempool *p, uint32_t index, uint32_t to)
{
    struct ivs_mbuf_seg own, s;
    int result = ivs_mbuf_first(p, index, &own);
    if (result == 0)
        result = ivs_mbuf_first(p, to, &s);
    if (result < 0)
        return result;
    if (own.buf != index || own.next != IVS_MBUF_NONE || s.buf == index ||
        atomic_load_explicit(&own.m->refcnt, memory_order_relaxed) != 1)
        return -EINVAL;
    return attach_to(p, index, &s);
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
    return finish(p, &bin, ivs_mbuf_let_go(p, buf, &bin));
}

/* A packet that is being built of new mbufs. */
struct build {
    struct ivs_mempool *p;
    uint32_t first;
    uint32_t last;
    uint32_t segs;
};

/* Adds one more fresh segment: its index. */
static int64_t build_add(struct build *b)
{
    int64_t made = b->segs == IVS_MBUF_SEGS_MAX ? -EBADMSG : ivs_mbuf_alloc(b->p);
    if (made < 0)
        return made;
    if (b->segs++ == 0)
        b->first = (uint32_t)made;
    else
        ivs_mbuf_at(b->p, b->last)->next = (uint32_t)made;
    b->last = (uint32_t)made;
    return made;
}

/* The packet's index; or frees what there is of it and gives the error on. */
static int64_t build_end(struct build *b, int64_t result, uint32_t pkt_len)
{
    if (result < 0) {
        if (b->segs > 0)
            (void)ivs_mbuf_free(b->p, b->first);
        return result;
    }
    struct ivs_mbuf *m = ivs_mbuf_at(b->p, b->first);
    m->nb_segs = (uint16_t)b->segs;
    m->pkt_len = pkt_len;
    return b->first;
}

int64_t ivs_mbuf_clone(struct ivs_mempool *p, uint32_t index)
{
    struct build b = {.p = p};
    struct ivs_mbuf_seg s;
    uint32_t left = ivs_mbuf_most_segs(p);
    int64_t result = ivs_mbuf_last(p, index, &s); /* a chain without an end is found before it takes all mbufs */
    if (result == 0)
        result = ivs_mbuf_look(p, index, &s);
    if (result < 0)
        return result;
    uint32_t pkt_len = IVS_MBUF_READ(s.m->pkt_len);
    do {
        result = build_add(&b);
        if (result >= 0)
            result = attach_to(p, (uint32_t)result, &s);
        if (result >= 0)
            result = ivs_mbuf_next(p, &s, &left);
    } while (result > 0);
    return build_end(&b, result, pkt_len);
}

/* ---- moving data ------------------------------------------------------------------------------------------------- */

/* A place in a packet's data. */
struct cursor {
    const struct ivs_mempool *p;
    struct ivs_mbuf_seg s;
    uint32_t at; /* in the segment's data */
    uint32_t left;
};

static int cursor_open(struct cursor *c, const struct ivs_mempool *p, uint32_t index)
{
    c->p = p;
    c->at = 0;
    c->left = ivs_mbuf_most_segs(p);
    return ivs_mbuf_first(p, index, &c->s);
}

/* Goes past the ends of segments: 1 if there is more data, 0 at the packet's end. */
static int cursor_more(struct cursor *c)
{
    while (c->at == c->s.data_len) {
        int moved = ivs_mbuf_next(c->p, &c->s, &c->left);
        if (moved <= 0)
            return moved;
        c->at = 0;
    }
    return 1;
}

/* Copies the next `n` bytes, or with `to` NULL goes past them. -EBADMSG: the packet has fewer. */
static int cursor_take(struct cursor *c, unsigned char *to, uint32_t n)
{
    while (n > 0) {
        int more = cursor_more(c);
        if (more <= 0)
            return -EBADMSG;
        uint32_t here = c->s.data_len - c->at < n ? c->s.data_len - c->at : n;
        if (to != NULL) {
            /* memmove: clones in one packet, or a peer, can have one range as source and target */
            memmove(to, c->p->objects + ivs_mbuf_place(c->p, c->s.buf, c->s.data_off + c->at), here);
            to += here;
        }
        c->at += here;
        n -= here;
    }
    return 0;
}

int ivs_mbuf_read(const struct ivs_mempool *p, uint32_t index, uint32_t offset, uint32_t length, void *to)
{
    struct cursor c;
    int result = cursor_open(&c, p, index);
    if (result < 0)
        return result;
    if ((uint64_t)offset + length > IVS_MBUF_READ(c.s.m->pkt_len))
        return -ENOSPC;
    result = cursor_take(&c, NULL, offset);
    return result < 0 ? result : cursor_take(&c, (unsigned char *)to, length);
}

int ivs_mbuf_linearize(struct ivs_mempool *p, uint32_t index)
{
    struct ivs_mbuf_bin bin = {.n = 0};
    struct cursor c;
    int result = cursor_open(&c, p, index);
    if (result < 0)
        return result;
    const struct ivs_mbuf_seg head = c.s;
    uint32_t pkt_len = IVS_MBUF_READ(head.m->pkt_len);
    uint32_t end = head.data_off + head.data_len;
    if (head.next == IVS_MBUF_NONE)
        return 0;
    if (pkt_len < head.data_len)
        return -EBADMSG;
    uint32_t rest = pkt_len - head.data_len;
    if (rest > ivs_mbuf_buf_len(p) - end)
        return -ENOSPC;
    c.at = head.data_len;
    result = cursor_take(&c, p->objects + ivs_mbuf_place(p, head.buf, end), rest);
    if (result < 0 || cursor_more(&c) != 0) /* pkt_len is not the sum of what the segments have */
        return -EBADMSG;
    head.m->data_len = (uint16_t)pkt_len;
    head.m->nb_segs = 1;
    head.m->next = IVS_MBUF_NONE;
    return finish(p, &bin, ivs_mbuf_free_chain(p, head.next, &bin));
}

/* Fills one fresh segment with up to `n` bytes: how many they are. */
static int64_t copy_segment(struct ivs_mempool *p, uint32_t index, struct cursor *c, uint32_t n)
{
    uint32_t buf_len = ivs_mbuf_buf_len(p);
    uint32_t here = buf_len - IVS_MBUF_HEADROOM < n ? buf_len - IVS_MBUF_HEADROOM : n;
    int result = cursor_take(c, p->objects + ivs_mbuf_place(p, index, IVS_MBUF_HEADROOM), here);
    if (result < 0)
        return result;
    ivs_mbuf_at(p, index)->data_len = (uint16_t)here;
    return here;
}

int64_t ivs_mbuf_copy(struct ivs_mempool *p, uint32_t index, uint32_t offset, uint32_t length)
{
    struct build b = {.p = p};
    struct cursor c;
    int64_t result = cursor_open(&c, p, index);
    if (result < 0)
        return result;
    const struct ivs_mbuf *original = c.s.m;
    uint32_t pkt_len = IVS_MBUF_READ(original->pkt_len);
    if (offset >= pkt_len || ivs_mbuf_buf_len(p) <= IVS_MBUF_HEADROOM)
        return -ENOSPC;
    uint32_t wanted = length < pkt_len - offset ? length : pkt_len - offset;
    result = cursor_take(&c, NULL, offset);
    for (uint32_t done = 0; result >= 0 && (done < wanted || b.segs == 0); done += (uint32_t)result) {
        result = build_add(&b);
        if (result >= 0)
            result = copy_segment(p, (uint32_t)result, &c, wanted - done);
    }
    if (result >= 0)
        copy_header(ivs_mbuf_at(p, b.first), original);
    return build_end(&b, result, wanted);
}
