/* SPDX-License-Identifier: BSD-3-Clause */
/* segment.h: the header page of a segment file and its participant slots. */
#ifndef IVS_SEGMENT_H
#define IVS_SEGMENT_H

#include "fault.h"
#include "layout.h"

/* The identity of a segment. */
struct ivs_segment_info {
    uint8_t uuid[16];
    uint64_t size;
    uint64_t page_size;
    uint64_t host_address;
    uint64_t epoch;
    int32_t socket_id;
    char group[IVS_NAME_SIZE];
};

/* Writes the header of a zeroed segment of info->size bytes. */
void ivs_segment_format(void *base, const struct ivs_segment_info *info);

/* Validates the header in `length` mapped bytes and fills `info`. Returns 0 or an enum ivs_fault. */
int ivs_segment_check(const void *base, uint64_t length, struct ivs_segment_info *info);

/* Retired flag: the host no longer serves this segment. */
void ivs_segment_retire(void *base);
int ivs_segment_retired(const void *base);

/* Returns whether writes reach the segment. QEMU silently drops writes to a read-only device. */
int ivs_segment_takes_writes(void *base);

/* Offset of the word that ivs_segment_takes_writes toggles. An atomic addition of 0 to that word has no effect on other
 * participants. */
#define IVS_SEGMENT_SCRATCH offsetof(struct ivs_segment, scratch)

/* Claims a free participant slot. Returns its number (0..63), or -ENOSPC. */
int ivs_participant_claim(void *base, uint64_t owner, uint64_t process);

/* Claims the slot of `dead`, the owner word of a dead thread. Returns 0, -EBUSY if another participant claimed the slot
 * first, or -EINVAL for an invalid slot number. */
int ivs_participant_adopt(void *base, int slot, uint64_t dead, uint64_t owner, uint64_t process);

/* Releases a slot. Returns 0, or -EINVAL if the slot is not owned by `owner`. */
int ivs_participant_release(void *base, int slot, uint64_t owner);

/* Owner and process word of a slot, as in struct ivs_participant; the owner of a free slot is 0. */
uint64_t ivs_participant_owner(const void *base, int slot);
uint64_t ivs_participant_process(const void *base, int slot);

/* A snapshot of a slot, as in struct ivs_participant. */
struct ivs_participant_info {
    uint64_t owner;
    uint64_t process;
    uint64_t heartbeat;
    uint32_t ack;
    uint32_t share;
};
void ivs_participant_read(const void *base, int slot, struct ivs_participant_info *info);

/* The word that identifies a metadata file in monitor slots: the first 4 bytes of its uuid, or 1 if these are 0. */
uint32_t ivs_share_word(const uint8_t *uuid);

/* Turns a claimed slot into the monitor slot of a share, with a heartbeat of 1. Call ivs_table_leaving afterwards: an
 * announcement may have preceded. Returns 0, or -EINVAL if the slot is not owned by `owner`. */
int ivs_participant_guard(void *base, int slot, uint64_t owner, uint32_t share);

/* Increment the heartbeat; acknowledge an unplug announcement after the process has released the share. Return 0, or
 * -EINVAL if the slot is not owned by `owner`. */
int ivs_participant_beat(void *base, int slot, uint64_t owner);
int ivs_participant_acknowledge(void *base, int slot, uint64_t owner, uint32_t announcement);

#endif
