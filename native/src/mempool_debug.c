/* SPDX-License-Identifier: BSD-3-Clause */
/* mempool_debug.c: IVS_MEMPOOL_DEBUG: cookies before and after each object, and the object's user. */
#include "mempool.h"
#include "pvt/spin_wait.h"

#define PUT_NS 1000000u /* longer than a put takes, unless its thread is preempted */

static unsigned char *object_at(const struct ivs_mempool *p, uint32_t object)
{
    return p->objects + (size_t)object * p->elt_stride;
}

static struct ivs_mempool_cookie *cookie_of(const struct ivs_mempool *p, uint32_t object)
{
    return (struct ivs_mempool_cookie *)(void *)(object_at(p, object) - sizeof(struct ivs_mempool_cookie));
}

/* Returns whether the cookie after an object is intact; restores it if not. */
static bool check_tail(const struct ivs_mempool *p, uint32_t object)
{
    const uint64_t intact = IVS_COOKIE_TAIL;
    unsigned char *tail = object_at(p, object) + p->elt_size;
    if (memcmp(tail, &intact, sizeof(intact)) == 0)
        return true;
    memcpy(tail, &intact, sizeof(intact));
    return false;
}

void ivs_mempool_debug_format(struct ivs_mempool *p)
{
    for (uint32_t object = 0; object < p->n; object++) {
        atomic_store_explicit(&cookie_of(p, object)->state, IVS_COOKIE_FREE, memory_order_relaxed);
        (void)check_tail(p, object);
    }
}

/* Changes the state of an object's cookie. Returns 0, -EALREADY or -EOVERFLOW, or -EINVAL for an invalid index: a peer
 * may have changed the array since the caller validated it. */
static int change_state(struct ivs_mempool *p, uint32_t object, uint64_t from, uint64_t to, uint64_t owner)
{
    if (object >= p->n)
        return -EINVAL;
    struct ivs_mempool_cookie *cookie = cookie_of(p, object);
    uint64_t state = from;
    int result = 0;

    /* acquire, release: pairs with change_state() in mempool_debug.c: of two threads that put the same object, only one
     * succeeds. The bitmap's barriers order the object's bytes. */
    if (!atomic_compare_exchange_strong_explicit(&cookie->state, &state, to, memory_order_acq_rel,
                                                 memory_order_relaxed)) {
        result = state == to ? -EALREADY : -EOVERFLOW;
        if (result == -EOVERFLOW)
            atomic_store_explicit(&cookie->state, from, memory_order_relaxed);
    } else if (!check_tail(p, object)) {
        atomic_store_explicit(&cookie->state, from, memory_order_relaxed);
        result = -EOVERFLOW;
    } else {
        atomic_store_explicit(&cookie->owner, owner, memory_order_relaxed);
    }
    if (result != 0)
        p->culprit = object;
    return result;
}

int ivs_mempool_debug_take(struct ivs_mempool *p, const uint32_t *objects, uint32_t n)
{
    int first = 0;
    for (uint32_t i = 0; i < n; i++) {
        int result = change_state(p, objects[i], IVS_COOKIE_FREE, IVS_COOKIE_TAKEN, p->owner);
        if (result == -EOVERFLOW) /* the cookie has been restored: the second try succeeds */
            (void)change_state(p, objects[i], IVS_COOKIE_FREE, IVS_COOKIE_TAKEN, p->owner);
        if (first == 0 && result != 0) {
            first = result;
            p->culprit = objects[i];
        }
    }
    return first;
}

/* Returns whether objects[i] is in use although its cookie says free, and does not occur earlier in the array. A cookie
 * changes after the get and before the put of its object. If a participant is killed between the two steps, the object
 * is lost, and a caller that found it by an audit may put it. A live participant gets PUT_NS to complete its step. */
static bool is_lost(struct ivs_mempool *p, const uint32_t *objects, uint32_t i)
{
    struct ivs_wait wait = IVS_WAIT_INIT(PUT_NS);
    uint32_t object = objects[i];
    for (uint32_t earlier = 0; earlier < i; earlier++)
        if (objects[earlier] == object)
            return false;
    while (ivs_mempool_is_out(p, object))
        if (!ivs_wait_step(&wait))
            return true;
    return false;
}

int ivs_mempool_debug_put(struct ivs_mempool *p, const uint32_t *objects, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        int result = change_state(p, objects[i], IVS_COOKIE_TAKEN, IVS_COOKIE_FREE, 0);
        if (result == 0 || (result == -EALREADY && is_lost(p, objects, i)))
            continue;
        uint32_t culprit = p->culprit;
        while (i-- > 0) /* roll back the cookies of the objects before; may overwrite p->culprit */
            (void)change_state(p, objects[i], IVS_COOKIE_FREE, IVS_COOKIE_TAKEN, p->owner);
        p->culprit = culprit;
        return result;
    }
    return 0;
}

uint64_t ivs_mempool_holder(const struct ivs_mempool *p, uint32_t object)
{
    if (p->debug == 0 || object >= p->n)
        return 0;
    return atomic_load_explicit(&cookie_of(p, object)->owner, memory_order_relaxed);
}
