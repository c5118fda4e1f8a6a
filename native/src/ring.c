/* SPDX-License-Identifier: BSD-3-Clause */
/* ring.c: creation, attachment, reset and wait; the operations are inline in ring.h. */
#include "ring.h"

#include <inttypes.h>
#include <stdio.h>

#include "fault.h"
#include "pvt/identity.h"
#include "pvt/name.h"
#include "pvt/sizes.h"

#define COUNT_MAX 0x7fffffffu /* as in DPDK: 32-bit indices must be distinguishable */
#define HTD_MAX_PART 8u       /* DPDK's default: the head may be an eighth of the ring ahead */
#define INDEX_TRIES 1000      /* attempts to read two indices that peers move */
#define WAIT_SLEEP_FIRST_NS 1000u
#define WAIT_SLEEP_MOST_NS 1000000u


/* The sync type selected by the three flags of one side; -1 if they contradict each other. */
static int end_sync(uint32_t flags, uint32_t single, uint32_t rts, uint32_t hts)
{
    switch (flags & (single | rts | hts)) {
    case 0:
        return IVS_SYNC_MT;
    default:
        if ((flags & (single | rts | hts)) == single)
            return IVS_SYNC_ST;
        if ((flags & (single | rts | hts)) == rts)
            return IVS_SYNC_RTS;
        return (flags & (single | rts | hts)) == hts ? IVS_SYNC_HTS : -1;
    }
}

static int prod_sync(uint32_t flags)
{
    return end_sync(flags, IVS_RING_SP_ENQ, IVS_RING_MP_RTS_ENQ, IVS_RING_MP_HTS_ENQ);
}

static int cons_sync(uint32_t flags)
{
    return end_sync(flags, IVS_RING_SC_DEQ, IVS_RING_MC_RTS_DEQ, IVS_RING_MC_HTS_DEQ);
}

static uint32_t default_htd_max(uint32_t capacity)
{
    return capacity < HTD_MAX_PART ? 1 : capacity / HTD_MAX_PART;
}

int ivs_ring_info_fault(const struct ivs_ring_info *info)
{
    if (info->elem_size == 0 || info->elem_size % 4 != 0)
        return IVS_FAULT_RING_ELEM_SIZE;
    if ((info->flags & ~IVS_RING_FLAGS) != 0 || prod_sync(info->flags) < 0 || cons_sync(info->flags) < 0)
        return IVS_FAULT_RING_FLAGS;
    if (info->count == 0 || info->count > COUNT_MAX)
        return IVS_FAULT_RING_COUNT;
    if (!(info->flags & IVS_RING_EXACT_SZ) && !ivs_is_power_of_two(info->count))
        return IVS_FAULT_RING_POWER_OF_TWO;
    return IVS_OK;
}

int64_t ivs_ring_plan(struct ivs_ring_info *info)
{
    if (ivs_ring_info_fault(info) != IVS_OK)
        return -EINVAL;
    if (info->flags & IVS_RING_EXACT_SZ) {
        info->size = 1;
        while (info->size < info->count + 1)
            info->size *= 2;
        info->capacity = info->count;
    } else {
        info->size = info->count;
        info->capacity = info->count - 1;
    }
    return (int64_t)(sizeof(struct ivs_ring_shared) + (uint64_t)info->size * info->elem_size);
}


static void format_end(union ivs_ring_end *end, int sync, uint32_t capacity)
{
    memset(end, 0, sizeof(*end));
    end->sync_type = (uint32_t)sync;
    if (sync == IVS_SYNC_RTS)
        end->rts.htd_max = default_htd_max(capacity);
}

int ivs_ring_create(void *base, uint64_t length, const struct ivs_ring_info *asked)
{
    struct ivs_ring_info info = *asked;
    struct ivs_ring_shared *ring = (struct ivs_ring_shared *)base;
    int64_t need = ivs_ring_plan(&info);

    if (need < 0)
        return (int)need;
    if (!ivs_name_ok(info.name) || (uintptr_t)base % IVS_CACHE_LINE != 0)
        return -EINVAL;
    if ((uint64_t)need > length)
        return -ENOSPC;
    memset(ring, 0, sizeof(*ring));
    memcpy(ring->name, info.name, sizeof(ring->name));
    ring->flags = info.flags;
    ring->size = info.size;
    ring->mask = info.size - 1;
    ring->capacity = info.capacity;
    ring->version = IVS_RING_VERSION;
    ring->elem_size = info.elem_size;
    format_end(&ring->prod, prod_sync(info.flags), info.capacity);
    format_end(&ring->cons, cons_sync(info.flags), info.capacity);
    ring->crc = IVS_IDENTITY_CRC(ivs_ring_shared, ring);
    /* release: pairs with ivs_ring_attach() in ring.c */
    atomic_store_explicit(&ring->magic, IVS_RING_MAGIC, memory_order_release);
    return 0;
}

static int check_geometry(const struct ivs_ring_shared *ring, uint64_t length)
{
    if (ring->elem_size == 0 || ring->elem_size % 4 != 0 || !ivs_is_power_of_two(ring->size) ||
        ring->size > COUNT_MAX + 1u)
        return IVS_FAULT_GEOMETRY;
    if (ring->mask != ring->size - 1 || ring->capacity > ring->mask)
        return IVS_FAULT_GEOMETRY;
    if (!(ring->flags & IVS_RING_EXACT_SZ) && ring->capacity != ring->mask)
        return IVS_FAULT_GEOMETRY;
    if (sizeof(*ring) + (uint64_t)ring->size * ring->elem_size > length)
        return IVS_FAULT_LENGTH;
    if ((ring->flags & ~IVS_RING_FLAGS) != 0)
        return IVS_FAULT_FLAGS;
    if ((int)ring->prod.sync_type != prod_sync(ring->flags) || (int)ring->cons.sync_type != cons_sync(ring->flags))
        return IVS_FAULT_SYNC;
    return IVS_OK;
}

/* Peers may be using the ring: two tails are consistent if the first one did not move in between. */
static int check_indices(struct ivs_ring_shared *ring, uint32_t capacity)
{
    for (int i = 0; i < INDEX_TRIES; i++) {
        /* acquire: pairs with ivs_ring_publish() in pvt/ring_update_tail.h; keeps the three loads in order */
        uint32_t cons = atomic_load_explicit(&ring->cons.tail, memory_order_acquire);
        uint32_t prod = atomic_load_explicit(&ring->prod.tail, memory_order_acquire);
        if (prod - cons <= capacity)
            return IVS_OK;
        if (atomic_load_explicit(&ring->cons.tail, memory_order_acquire) == cons)
            return IVS_FAULT_INDEX;
    }
    return IVS_OK; /* it moves, so a peer is using it */
}

int ivs_ring_attach(struct ivs_ring *r, void *base, uint64_t length, uint64_t stall_ns, struct ivs_ring_info *info)
{
    struct ivs_ring_shared *shared = (struct ivs_ring_shared *)base;
    struct ivs_ring_shared copy;

    if ((uintptr_t)base % IVS_CACHE_LINE != 0)
        return IVS_FAULT_ALIGNMENT;
    if (length < sizeof(copy))
        return IVS_FAULT_LENGTH;
    /* acquire: pairs with ivs_ring_create() in ring.c */
    if (atomic_load_explicit(&shared->magic, memory_order_acquire) != IVS_RING_MAGIC)
        return IVS_FAULT_MAGIC;
    memcpy(&copy, shared, sizeof(copy));
    copy.prod_owner = copy.cons_owner = 0;
    if (copy.version != IVS_RING_VERSION)
        return IVS_FAULT_VERSION;
    if (copy.crc != IVS_IDENTITY_CRC(ivs_ring_shared, &copy))
        return IVS_FAULT_CRC;
    if (!ivs_name_ok(copy.name))
        return IVS_FAULT_NAME;
    int fault = check_geometry(&copy, length);
    if (fault == IVS_OK)
        fault = check_indices(shared, copy.capacity);
    if (fault != IVS_OK)
        return fault;

    memset(r, 0, sizeof(*r));
    r->shared = shared;
    r->stall_ns = stall_ns;
    r->size = copy.size;
    r->mask = copy.mask;
    r->capacity = copy.capacity;
    r->elem_size = copy.elem_size;
    r->prod_sync = copy.prod.sync_type;
    r->cons_sync = copy.cons.sync_type;
    /* no limit yet: a head that differs makes the first operation reload the opposite tail */
    r->prod.cached = ivs_ring_word(copy.prod.head - 1);
    r->cons.cached = ivs_ring_word(copy.cons.head - 1);
    ivs_ring_refuse(r, 0);

    memcpy(info->name, copy.name, sizeof(info->name));
    info->count = copy.capacity == copy.mask ? copy.size : copy.capacity;
    info->elem_size = copy.elem_size;
    info->flags = copy.flags;
    info->size = copy.size;
    info->capacity = copy.capacity;
    return IVS_OK;
}

void ivs_ring_refuse(struct ivs_ring *r, int32_t code)
{
    uint64_t prod = code != 0 ? IVS_STATE_SHUT : (uint64_t)r->elem_size + r->prod_sync;
    uint64_t cons = code != 0 ? IVS_STATE_SHUT : (uint64_t)r->elem_size + r->cons_sync;

    atomic_store_explicit(&r->refuse, code, memory_order_relaxed);
    atomic_store_explicit(&r->prod.state_word, prod, memory_order_relaxed);
    atomic_store_explicit(&r->cons.state_word, cons, memory_order_relaxed);
}

int ivs_ring_reset(struct ivs_ring *r)
{
    int32_t refuse = atomic_load_explicit(&r->refuse, memory_order_relaxed);
    if (refuse != 0)
        return refuse;
    union ivs_ring_end *prod = &r->shared->prod;
    union ivs_ring_end *cons = &r->shared->cons;
    /* acquire, release: pairs with ivs_ring_publish() in pvt/ring_update_tail.h and ivs_ring_tail() in
     * pvt/ring_handle.h */
    uint32_t to = atomic_load_explicit(&prod->tail, memory_order_acquire);

    /* both words of an RTS side have the count in their low half: equal counts mean that no operation is in progress */
    if (r->prod_sync == IVS_SYNC_RTS)
        atomic_store_explicit(&prod->rts.head, atomic_load(&prod->rts.tail), memory_order_release);
    else
        atomic_store_explicit(&prod->head, to, memory_order_release);
    if (r->cons_sync == IVS_SYNC_RTS) {
        atomic_store_explicit(&cons->rts.tail, (uint64_t)to << 32, memory_order_release);
        atomic_store_explicit(&cons->rts.head, (uint64_t)to << 32, memory_order_release);
    } else {
        atomic_store_explicit(&cons->hts.raw, (uint64_t)to << 32 | to, memory_order_release);
    }
    return 0;
}

int ivs_ring_wait(struct ivs_ring *r, uint64_t limit_ns)
{
    uint64_t sleep_ns = WAIT_SLEEP_FIRST_NS;
    uint64_t deadline = 0;

    for (uint32_t spins = 0; ivs_ring_count(r) == 0; spins++) {
        if (spins < IVS_WAIT_SPINS) {
            ivs_pause();
            continue;
        }
        uint64_t now = ivs_now_ns();
        if (deadline == 0)
            deadline = now + limit_ns;
        if (now >= deadline)
            return 0;
        uint64_t nap = sleep_ns < deadline - now ? sleep_ns : deadline - now;
        struct timespec t = {.tv_sec = 0, .tv_nsec = (long)nap};
        nanosleep(&t, NULL);
        sleep_ns = sleep_ns * 2 < WAIT_SLEEP_MOST_NS ? sleep_ns * 2 : WAIT_SLEEP_MOST_NS;
    }
    return 1;
}

uint32_t ivs_ring_htd_max(const struct ivs_ring *r, enum ivs_ring_role role)
{
    if (ivs_ring_sync(r, role) != IVS_SYNC_RTS)
        return UINT32_MAX;
    return __atomic_load_n(&ivs_ring_own(r, role)->rts.htd_max, __ATOMIC_RELAXED);
}

int ivs_ring_set_htd_max(struct ivs_ring *r, enum ivs_ring_role role, uint32_t value)
{
    int32_t refuse = atomic_load_explicit(&r->refuse, memory_order_relaxed);
    if (refuse != 0)
        return refuse;
    if (ivs_ring_sync(r, role) != IVS_SYNC_RTS)
        return -ENOTSUP;
    __atomic_store_n(&ivs_ring_own(r, role)->rts.htd_max, value, __ATOMIC_RELAXED);
    return 0;
}

void ivs_ring_headtail_get(const struct ivs_ring *r, enum ivs_ring_role role, struct ivs_ring_headtail *info)
{
    const union ivs_ring_end *own = ivs_ring_own(r, role);
    uint32_t sync = ivs_ring_sync(r, role);
    const _Atomic uint64_t *owner = role == IVS_PRODUCER ? &r->shared->prod_owner : &r->shared->cons_owner;

    *info = (struct ivs_ring_headtail){.sync = sync};
    info->owner = atomic_load_explicit(owner, memory_order_relaxed);
    /* acquire: pairs with ivs_ring_publish() in pvt/ring_update_tail.h */
    if (sync == IVS_SYNC_RTS) {
        info->word = atomic_load_explicit(&own->rts.tail, memory_order_acquire);
        uint64_t head = atomic_load_explicit(&own->rts.head, memory_order_acquire);
        info->head = (uint32_t)(head >> 32);
        info->tail = (uint32_t)(info->word >> 32);
        info->incomplete = (uint32_t)head != (uint32_t)info->word;
    } else {
        uint64_t raw = atomic_load_explicit(&own->hts.raw, memory_order_acquire);
        info->head = (uint32_t)raw;
        info->tail = (uint32_t)(raw >> 32);
        info->word = info->tail;
        info->incomplete = info->head != info->tail;
    }
}

int ivs_ring_rollback(struct ivs_ring *r, enum ivs_ring_role role, const struct ivs_ring_headtail *seen)
{
    int32_t refuse = atomic_load_explicit(&r->refuse, memory_order_relaxed);
    uint64_t raw = (uint64_t)seen->tail << 32 | seen->head;

    if (refuse != 0)
        return refuse;
    if (ivs_ring_sync(r, role) != IVS_SYNC_ST)
        return -ENOTSUP;
    /* acquire, release: pairs with ivs_ring_acquire_end() in pvt/ring_stall.h */
    return atomic_compare_exchange_strong_explicit(&ivs_ring_own(r, role)->hts.raw, &raw,
                                                   (uint64_t)seen->tail << 32 | seen->tail, memory_order_acq_rel,
                                                   memory_order_relaxed);
}

/* Copy a name that a peer may have overwritten, with unprintable characters replaced by question marks. */
static void printable_name(const struct ivs_ring_shared *ring, char name[IVS_NAME_SIZE])
{
    memcpy(name, ring->name, IVS_NAME_SIZE);
    name[IVS_NAME_SIZE - 1] = 0;
    for (char *c = name; *c != 0; c++)
        if ((unsigned char)*c < 0x20 || (unsigned char)*c == 0x7f)
            *c = '?';
}

int ivs_ring_dump(const struct ivs_ring *r, char *text, uint32_t size)
{
    static const char *const syncs[] = {"MT", "ST", "MT_RTS", "MT_HTS"};
    const struct ivs_ring_shared *ring = r->shared;
    struct ivs_ring_headtail prod, cons;
    char name[IVS_NAME_SIZE];
    int32_t refuse = atomic_load_explicit(&r->refuse, memory_order_relaxed);

    if (refuse != 0)
        return refuse;
    printable_name(ring, name);
    uint32_t used = ivs_ring_count(r);
    ivs_ring_headtail_get(r, IVS_PRODUCER, &prod);
    ivs_ring_headtail_get(r, IVS_CONSUMER, &cons);
    return snprintf(text, size,
                    "ring <%s>\n  flags=%" PRIx32 "\n  size=%" PRIu32 "\n  capacity=%" PRIu32 "\n  elem_size=%" PRIu32
                    "\n  prod=%s ph=%" PRIu32 " pt=%" PRIu32 "\n  cons=%s ch=%" PRIu32 " ct=%" PRIu32
                    "\n  used=%" PRIu32 "\n  avail=%" PRIu32 "\n",
                    name, ring->flags, r->size, r->capacity, r->elem_size, syncs[prod.sync & 3], prod.head, prod.tail,
                    syncs[cons.sync & 3], cons.head, cons.tail, used, r->capacity - used);
}
