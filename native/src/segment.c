/* SPDX-License-Identifier: BSD-3-Clause */
/* segment.c: the header page of a segment file and its participant slots. */
#include "segment.h"

#include <errno.h>
#include <string.h>

#include "pvt/identity.h"
#include "pvt/name.h"
#include "pvt/sizes.h"

void ivs_segment_format(void *base, const struct ivs_segment_info *info)
{
    struct ivs_segment *s = (struct ivs_segment *)base;

    s->version = IVS_SEGMENT_VERSION;
    s->header_size = IVS_HEADER_SIZE;
    memcpy(s->uuid, info->uuid, sizeof(s->uuid));
    s->size = info->size;
    s->page_size = info->page_size;
    s->host_address = info->host_address;
    s->socket_id = info->socket_id;
    s->epoch = info->epoch;
    memcpy(s->group, info->group, sizeof(s->group));
    s->crc = IVS_IDENTITY_CRC(ivs_segment, s);
    /* release: pairs with ivs_segment_check() in segment.c */
    atomic_store_explicit(&s->magic, IVS_SEGMENT_MAGIC, memory_order_release);
}

int ivs_segment_check(const void *base, uint64_t length, struct ivs_segment_info *info)
{
    const struct ivs_segment *shared = (const struct ivs_segment *)base;
    struct ivs_segment s;

    if (length < IVS_HEADER_SIZE)
        return IVS_FAULT_LENGTH;
    /* acquire: pairs with ivs_segment_format() in segment.c */
    if (atomic_load_explicit(&shared->magic, memory_order_acquire) != IVS_SEGMENT_MAGIC)
        return IVS_FAULT_MAGIC;
    memcpy(&s, base, sizeof(s));
    if (s.version < IVS_SEGMENT_OLDEST || s.version > IVS_SEGMENT_VERSION || s.header_size != IVS_HEADER_SIZE)
        return IVS_FAULT_VERSION;
    if (s.crc != IVS_IDENTITY_CRC(ivs_segment, &s))
        return IVS_FAULT_CRC;
    if (!ivs_is_segment_size(s.size, s.page_size))
        return IVS_FAULT_SEGMENT;
    if (s.size > length)
        return IVS_FAULT_LENGTH;
    if (!ivs_name_ok(s.group))
        return IVS_FAULT_NAME;
    memcpy(info->uuid, s.uuid, sizeof(info->uuid));
    info->size = s.size;
    info->page_size = s.page_size;
    info->host_address = s.host_address;
    info->epoch = s.epoch;
    info->socket_id = s.socket_id;
    memcpy(info->group, s.group, sizeof(info->group));
    return IVS_OK;
}

void ivs_segment_retire(void *base)
{
    /* release: pairs with ivs_segment_retired() in segment.c */
    atomic_store_explicit(&((struct ivs_segment *)base)->retired, 1u, memory_order_release);
}

int ivs_segment_retired(const void *base)
{
    /* acquire: pairs with ivs_segment_retire() in segment.c */
    return atomic_load_explicit(&((const struct ivs_segment *)base)->retired, memory_order_acquire) != 0;
}

int ivs_segment_takes_writes(void *base)
{
    _Atomic uint32_t *scratch = &((struct ivs_segment *)base)->scratch;
    /* Three tries: a peer that toggles the word in between can hide our change. */
    for (int i = 0; i < 3; i++) {
        uint32_t old = atomic_fetch_xor(scratch, 1u);
        if (atomic_load(scratch) != old)
            return 1;
    }
    return 0;
}

static struct ivs_participant *participant(const void *base, int slot)
{
    return &((struct ivs_segment *)(uintptr_t)base)->participants[slot];
}

static void init_slot(struct ivs_participant *p, uint64_t process)
{
    atomic_store_explicit(&p->process, process, memory_order_relaxed);
    atomic_store_explicit(&p->heartbeat, 0, memory_order_relaxed);
    atomic_store_explicit(&p->ack, 0, memory_order_relaxed);
    atomic_store_explicit(&p->share, 0, memory_order_relaxed);
}

int ivs_participant_claim(void *base, uint64_t owner, uint64_t process)
{
    for (int slot = 0; slot < (int)IVS_PARTICIPANTS; slot++) {
        struct ivs_participant *p = participant(base, slot);
        uint64_t expected = 0;
        /* acquire: pairs with ivs_participant_release() in segment.c: the slot's caches may be written from here on */
        if (atomic_compare_exchange_strong_explicit(&p->owner, &expected, owner, memory_order_acquire,
                                                    memory_order_relaxed)) {
            init_slot(p, process);
            return slot;
        }
    }
    return -ENOSPC;
}

int ivs_participant_adopt(void *base, int slot, uint64_t dead, uint64_t owner, uint64_t process)
{
    if (slot < 0 || slot >= (int)IVS_PARTICIPANTS)
        return -EINVAL;
    struct ivs_participant *p = participant(base, slot);
    /* acquire: pairs with ivs_participant_release() in segment.c by the owner before `dead`, through the release
     * sequence of the owner word. The caches of `dead` itself are read with acquire in ivs_mempool_join(). */
    if (!atomic_compare_exchange_strong_explicit(&p->owner, &dead, owner, memory_order_acquire, memory_order_relaxed))
        return -EBUSY;
    init_slot(p, process);
    return 0;
}

int ivs_participant_release(void *base, int slot, uint64_t owner)
{
    if (slot < 0 || slot >= (int)IVS_PARTICIPANTS)
        return -EINVAL;
    struct ivs_participant *p = participant(base, slot);
    if (atomic_load_explicit(&p->owner, memory_order_relaxed) != owner)
        return -EINVAL;
    /* Cleared before the slot is free, so that the next owner is never seen with this process or share. */
    atomic_store_explicit(&p->share, 0, memory_order_relaxed);
    atomic_store_explicit(&p->process, 0, memory_order_relaxed);
    /* release: pairs with ivs_participant_claim() in segment.c */
    return atomic_compare_exchange_strong_explicit(&p->owner, &owner, 0, memory_order_release, memory_order_relaxed)
               ? 0
               : -EINVAL;
}

uint64_t ivs_participant_owner(const void *base, int slot)
{
    /* acquire: pairs with ivs_participant_release() in segment.c */
    return atomic_load_explicit(&participant(base, slot)->owner, memory_order_acquire);
}

uint64_t ivs_participant_process(const void *base, int slot)
{
    return atomic_load_explicit(&participant(base, slot)->process, memory_order_relaxed);
}

void ivs_participant_read(const void *base, int slot, struct ivs_participant_info *info)
{
    const struct ivs_participant *p = participant(base, slot);

    /* acquire: pairs with ivs_participant_release() in segment.c */
    info->owner = atomic_load_explicit(&p->owner, memory_order_acquire);
    /* acquire: pairs with ivs_participant_guard() in segment.c: a share word is seen with its first heartbeat */
    info->share = atomic_load_explicit(&p->share, memory_order_acquire);
    info->process = atomic_load_explicit(&p->process, memory_order_relaxed);
    info->heartbeat = atomic_load_explicit(&p->heartbeat, memory_order_relaxed);
    /* acquire: pairs with ivs_participant_acknowledge() in segment.c: the share was released before */
    info->ack = atomic_load_explicit(&p->ack, memory_order_acquire);
}

uint32_t ivs_share_word(const uint8_t *uuid)
{
    uint32_t word = (uint32_t)uuid[0] | (uint32_t)uuid[1] << 8 | (uint32_t)uuid[2] << 16 | (uint32_t)uuid[3] << 24;
    return word != 0 ? word : 1;
}

/* Returns the slot, or NULL if `owner` does not own it: a peer may have overwritten the owner word. */
static struct ivs_participant *own_slot(void *base, int slot, uint64_t owner)
{
    if (slot < 0 || slot >= (int)IVS_PARTICIPANTS)
        return NULL;
    struct ivs_participant *p = participant(base, slot);
    return atomic_load_explicit(&p->owner, memory_order_relaxed) == owner ? p : NULL;
}

int ivs_participant_guard(void *base, int slot, uint64_t owner, uint32_t share)
{
    struct ivs_participant *p = own_slot(base, slot, owner);
    if (p == NULL)
        return -EINVAL;
    atomic_store_explicit(&p->heartbeat, 1, memory_order_relaxed);
    /* seq_cst: pairs with ivs_table_set_leaving() in table.c: either the host, which reads the slots next, sees this
     * monitor slot, or the monitor, which reads `leaving` next, sees the announcement. */
    atomic_store(&p->share, share);
    return 0;
}

int ivs_participant_beat(void *base, int slot, uint64_t owner)
{
    struct ivs_participant *p = own_slot(base, slot, owner);
    if (p == NULL)
        return -EINVAL;
    atomic_fetch_add_explicit(&p->heartbeat, 1, memory_order_relaxed);
    return 0;
}

int ivs_participant_acknowledge(void *base, int slot, uint64_t owner, uint32_t announcement)
{
    struct ivs_participant *p = own_slot(base, slot, owner);
    if (p == NULL)
        return -EINVAL;
    /* release: pairs with ivs_participant_read() in segment.c */
    atomic_store_explicit(&p->ack, announcement, memory_order_release);
    return 0;
}
