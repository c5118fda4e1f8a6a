/* SPDX-License-Identifier: BSD-3-Clause */
/* mbuf_copy.c: clone, copy, linearize and read packets. */
#include "mbuf.h"

/* ---- clone ------------------------------------------------------------------------------------------------------- */

/* A packet under construction. */
struct build {
    struct ivs_mempool *p;
    uint32_t first;
    uint32_t last;
    uint32_t segs;
};

/* Allocates and appends a segment; returns its index or a negative errno. */
static int64_t build_add(struct build *b)
{
    int64_t index = b->segs == IVS_MBUF_SEGS_MAX ? -EBADMSG : ivs_mbuf_alloc(b->p);
    if (index < 0)
        return index;
    if (b->segs++ == 0)
        b->first = (uint32_t)index;
    else
        ivs_mbuf_at(b->p, b->last)->next = (uint32_t)index;
    b->last = (uint32_t)index;
    return index;
}

/* Completes the packet and returns its index. On an error, frees the segments and returns the error. */
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
    int64_t result = ivs_mbuf_last(p, index, &s); /* detects a loop before the clone allocates all mbufs */
    if (result < 0)
        return result;
    result = ivs_mbuf_load(p, index, &s);
    if (result < 0)
        return result;
    uint32_t pkt_len = IVS_MBUF_READ(s.m->pkt_len);
    do {
        result = build_add(&b);
        if (result >= 0)
            result = ivs_mbuf_attach_to(p, (uint32_t)result, &s);
        if (result >= 0)
            result = ivs_mbuf_next(p, &s, &left);
    } while (result > 0);
    return build_end(&b, result, pkt_len);
}

/* ---- read, linearize, copy --------------------------------------------------------------------------------------- */

/* A position in the data of a packet. */
struct cursor {
    const struct ivs_mempool *p;
    struct ivs_mbuf_seg s;
    uint32_t at;   /* offset in the data of segment `s` */
    uint32_t left; /* for ivs_mbuf_next */
};

static int cursor_open(struct cursor *c, const struct ivs_mempool *p, uint32_t index)
{
    c->p = p;
    c->at = 0;
    c->left = ivs_mbuf_most_segs(p);
    return ivs_mbuf_first(p, index, &c->s);
}

/* Skips segments whose data is consumed. Returns 1 if more data follows, 0 at the packet's end, or -EBADMSG. */
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

/* Copies the next `n` bytes to `to`, or skips them if `to` is NULL. -EBADMSG: fewer bytes follow. */
static int cursor_take(struct cursor *c, unsigned char *to, uint32_t n)
{
    while (n > 0) {
        int more = cursor_more(c);
        if (more <= 0)
            return -EBADMSG;
        uint32_t here = c->s.data_len - c->at < n ? c->s.data_len - c->at : n;
        if (to != NULL) {
            /* memmove: source and target overlap if a packet contains its own clone, or if a peer writes headers */
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
    if (result < 0 || cursor_more(&c) != 0) /* pkt_len differs from the sum of data_len */
        return -EBADMSG;
    head.m->data_len = (uint16_t)pkt_len;
    head.m->nb_segs = 1;
    head.m->next = IVS_MBUF_NONE;
    return ivs_mbuf_bin_finish(p, &bin, ivs_mbuf_free_chain(p, head.next, &bin));
}

/* Copies up to `n` bytes to a new segment; returns their number or -EBADMSG. */
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
        ivs_mbuf_copy_fields(ivs_mbuf_at(p, b.first), original);
    return build_end(&b, result, wanted);
}
