/* SPDX-License-Identifier: BSD-3-Clause */
/* mempool_debug.c: cookies round each object of a pool with IVS_MEMPOOL_DEBUG, and who has it. */
#include "mempool.h"
#include "pvt/spin_wait.h"

#define PUT_NS 1000000u /* no put takes that long, unless its thread has lost the processor */

static unsigned char *object_at(const struct ivs_mempool *p, uint32_t object)
{
    return p->objects + (size_t)object * p->elt_stride;
}

static struct ivs_mempool_cookie *cookie_of(const struct ivs_mempool *p, uint32_t object)
{
    return (struct ivs_mempool_cookie *)(void *)(object_at(p, object) - sizeof(struct ivs_mempool_cookie));
}

/* Whether the cookie behind an object is whole; if not, it is mended. */
static bool tail_is_whole(const struct ivs_mempool *p, uint32_t object)
{
    const uint64_t whole = IVS_COOKIE_TAIL;
    unsigned char *tail = object_at(p, object) + p->elt_size;
    if (memcmp(tail, &whole, sizeof(whole)) == 0)
        return true;
    memcpy(tail, &whole, sizeof(whole));
    return false;
}

void ivs_mempool_debug_format(struct ivs_mempool *p)
{
    for (uint32_t object = 0; object < p->n; object++) {
        atomic_store_explicit(&cookie_of(p, object)->state, IVS_COOKIE_FREE, memory_order_relaxed);
        (void)tail_is_whole(p, object);
    }
}

/* Moves an object's cookie from one state to the other. Returns 0, or -EALREADY or -EOVERFLOW. The index is checked here,
 * where it was read: it may come from an array that a peer writes (-EINVAL). */
static int move(struct ivs_mempool *p, uint32_t object, uint64_t from, uint64_t to, uint64_t owner)
{
    if (object >= p->n)
        return -EINVAL;
    struct ivs_mempool_cookie *cookie = cookie_of(p, object);
    uint64_t was = from;
    int fault = 0;

    /* acq_rel: the bits of the bitmap order the object's bytes; here it only has to be one of two who sees `from` */
    if (!atomic_compare_exchange_strong_explicit(&cookie->state, &was, to, memory_order_acq_rel, memory_order_relaxed)) {
        fault = was == to ? -EALREADY : -EOVERFLOW;
        if (fault == -EOVERFLOW)
            atomic_store_explicit(&cookie->state, from, memory_order_relaxed);
    } else if (!tail_is_whole(p, object)) {
        atomic_store_explicit(&cookie->state, from, memory_order_relaxed);
        fault = -EOVERFLOW;
    } else {
        atomic_store_explicit(&cookie->owner, owner, memory_order_relaxed);
    }
    if (fault != 0)
        p->culprit = object;
    return fault;
}

int ivs_mempool_debug_take(struct ivs_mempool *p, const uint32_t *objects, uint32_t n)
{
    int first = 0;
    for (uint32_t i = 0; i < n; i++) {
        int fault = move(p, objects[i], IVS_COOKIE_FREE, IVS_COOKIE_TAKEN, p->owner);
        if (fault == -EOVERFLOW) /* told once, and mended: now it can be taken */
            (void)move(p, objects[i], IVS_COOKIE_FREE, IVS_COOKIE_TAKEN, p->owner);
        if (first == 0 && fault != 0) {
            first = fault;
            p->culprit = objects[i];
        }
    }
    return first;
}

/* Whether objects[i], whose cookie says free, is out nevertheless, and not put by this same call. A cookie is written
 * after its object was taken and before it is put back: who was killed between the two had the object in hand, and who
 * found it in the audit puts it back. Who is alive between the two is given time to come out. */
static bool was_lost(struct ivs_mempool *p, const uint32_t *objects, uint32_t i)
{
    struct ivs_wait wait = IVS_WAIT_INIT(PUT_NS);
    uint32_t object = objects[i];
    for (uint32_t before = 0; before < i; before++)
        if (objects[before] == object)
            return false;
    while (ivs_mempool_is_out(p, object))
        if (!ivs_wait_step(&wait))
            return true;
    return false;
}

int ivs_mempool_debug_put(struct ivs_mempool *p, const uint32_t *objects, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        int fault = move(p, objects[i], IVS_COOKIE_TAKEN, IVS_COOKIE_FREE, 0);
        if (fault == 0 || (fault == -EALREADY && was_lost(p, objects, i)))
            continue;
        uint32_t culprit = p->culprit; /* what is taken back below may set it */
        while (i-- > 0) /* nothing is put back: those before are taken as they were */
            (void)move(p, objects[i], IVS_COOKIE_FREE, IVS_COOKIE_TAKEN, p->owner);
        p->culprit = culprit;
        return fault;
    }
    return 0;
}

uint64_t ivs_mempool_holder(const struct ivs_mempool *p, uint32_t object)
{
    if (p->debug == 0 || object >= p->n)
        return 0;
    return atomic_load_explicit(&cookie_of(p, object)->owner, memory_order_relaxed);
}
