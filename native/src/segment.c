/* SPDX-License-Identifier: BSD-3-Clause */
/* segment.c: the header page of a segment file, and the participants that stand in it. */
#include "segment.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "pvt/crc32c.h"
#include "pvt/name.h"

#define IDENTITY 128u /* bytes that the CRC covers */

static uint32_t identity_crc(const struct ivs_segment *copy)
{
    unsigned char bytes[IDENTITY];
    memcpy(bytes, copy, IDENTITY);
    memset(bytes + offsetof(struct ivs_segment, magic), 0, 8);
    memset(bytes + offsetof(struct ivs_segment, crc), 0, 4);
    return ivs_crc32c(0, bytes, IDENTITY);
}

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
    s->crc = identity_crc(s);
    /* release: pairs with the acquire in ivs_segment_check */
    atomic_store_explicit(&s->magic, IVS_SEGMENT_MAGIC, memory_order_release);
}

static bool power_of_two(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

int ivs_segment_check(const void *base, uint64_t length, struct ivs_segment_info *info)
{
    const struct ivs_segment *shared = (const struct ivs_segment *)base;
    struct ivs_segment s;

    if (length < IVS_HEADER_SIZE)
        return IVS_FAULT_LENGTH;
    /* acquire: pairs with the release in ivs_segment_format */
    if (atomic_load_explicit(&shared->magic, memory_order_acquire) != IVS_SEGMENT_MAGIC)
        return IVS_FAULT_MAGIC;
    memcpy(&s, base, sizeof(s));
    if (s.version < IVS_SEGMENT_OLDEST || s.version > IVS_SEGMENT_VERSION || s.header_size != IVS_HEADER_SIZE)
        return IVS_FAULT_VERSION;
    if (s.crc != identity_crc(&s))
        return IVS_FAULT_CRC;
    if (!power_of_two(s.size) || !power_of_two(s.page_size) || s.page_size > s.size || s.size <= IVS_HEADER_SIZE)
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
    /* release: what was written before stands before the mark; pairs with the acquire in ivs_segment_retired */
    atomic_store_explicit(&((struct ivs_segment *)base)->retired, 1u, memory_order_release);
}

int ivs_segment_retired(const void *base)
{
    return atomic_load_explicit(&((const struct ivs_segment *)base)->retired, memory_order_acquire) != 0;
}

int ivs_segment_takes_writes(void *base)
{
    _Atomic uint32_t *scratch = &((struct ivs_segment *)base)->scratch;
    /* Another one may flip it at the same time: two of three looks then still see a change. */
    for (int i = 0; i < 3; i++) {
        uint32_t before = atomic_fetch_xor(scratch, 1u);
        if (atomic_load(scratch) != before)
            return 1;
    }
    return 0;
}

static struct ivs_participant *participant(const void *base, int slot)
{
    return &((struct ivs_segment *)(uintptr_t)base)->participants[slot];
}

static void settle(struct ivs_participant *p, uint64_t process)
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
        uint64_t nobody = 0;
        /* acquire: pairs with the release in ivs_participant_release, after which the caches are ours to write */
        if (atomic_compare_exchange_strong_explicit(&p->owner, &nobody, owner, memory_order_acquire,
                                                    memory_order_relaxed)) {
            settle(p, process);
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
    if (!atomic_compare_exchange_strong_explicit(&p->owner, &dead, owner, memory_order_acquire, memory_order_relaxed))
        return -EBUSY;
    settle(p, process);
    return 0;
}

int ivs_participant_release(void *base, int slot, uint64_t owner)
{
    if (slot < 0 || slot >= (int)IVS_PARTICIPANTS)
        return -EINVAL;
    struct ivs_participant *p = participant(base, slot);
    if (atomic_load_explicit(&p->owner, memory_order_relaxed) != owner)
        return -EINVAL;
    /* before the slot is free: the next owner must not be taken for this process while it has not settled */
    atomic_store_explicit(&p->share, 0, memory_order_relaxed);
    atomic_store_explicit(&p->process, 0, memory_order_relaxed);
    /* release: pairs with the acquire in ivs_participant_claim */
    return atomic_compare_exchange_strong_explicit(&p->owner, &owner, 0, memory_order_release, memory_order_relaxed)
               ? 0
               : -EINVAL;
}

uint64_t ivs_participant_owner(const void *base, int slot)
{
    return atomic_load_explicit(&participant(base, slot)->owner, memory_order_acquire);
}

uint64_t ivs_participant_process(const void *base, int slot)
{
    return atomic_load_explicit(&participant(base, slot)->process, memory_order_relaxed);
}

void ivs_participant_read(const void *base, int slot, struct ivs_participant_info *info)
{
    const struct ivs_participant *p = participant(base, slot);

    info->owner = atomic_load_explicit(&p->owner, memory_order_acquire);
    /* acquire: pairs with the release in ivs_participant_guard, so that a share word comes with its first heartbeat */
    info->share = atomic_load_explicit(&p->share, memory_order_acquire);
    info->process = atomic_load_explicit(&p->process, memory_order_relaxed);
    info->heartbeat = atomic_load_explicit(&p->heartbeat, memory_order_relaxed);
    /* acquire: pairs with the release in ivs_participant_acknowledge: what was let go of before is let go of */
    info->ack = atomic_load_explicit(&p->ack, memory_order_acquire);
}

uint32_t ivs_share_word(const uint8_t *uuid)
{
    uint32_t word = (uint32_t)uuid[0] | (uint32_t)uuid[1] << 8 | (uint32_t)uuid[2] << 16 | (uint32_t)uuid[3] << 24;
    return word != 0 ? word : 1;
}

/* The slot, if it is still `owner`'s: a peer may have written anything there. */
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
    /* sequentially consistent: pairs with ivs_table_set_leaving. Either the host's look at the slots sees this guard, or
     * the guard's look at `leaving`, which follows, sees the announcement. */
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
    /* release: pairs with the acquire in ivs_participant_read */
    atomic_store_explicit(&p->ack, announcement, memory_order_release);
    return 0;
}
