/* SPDX-License-Identifier: BSD-3-Clause */
/* segment.h: the header page of a segment file, and the participants that stand in it. */
#ifndef IVS_SEGMENT_H
#define IVS_SEGMENT_H

#include "fault.h"
#include "layout.h"

/* The identity of a segment: what is written once, and what a check hands out. */
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

/* Checks the header in `length` mapped bytes and fills `info`. Returns 0 or an enum ivs_fault. */
int ivs_segment_check(const void *base, uint64_t length, struct ivs_segment_info *info);

/* The retired mark: whoever serves these objects is gone for good. */
void ivs_segment_retire(void *base);
int ivs_segment_retired(const void *base);

/* Whether writes reach the segment: QEMU drops them silently where the device is read-only. */
int ivs_segment_takes_writes(void *base);

/* Where the word is that it flips: whoever adds 0 to it changes nothing. */
#define IVS_SEGMENT_SCRATCH offsetof(struct ivs_segment, scratch)

/* Takes a free participant slot. Returns its number (0..63), or -ENOSPC. */
int ivs_participant_claim(void *base, uint64_t owner, uint64_t process);

/* Takes over the slot of `dead`, whom the caller knows to be dead. Returns 0, or -EBUSY if another one was faster. */
int ivs_participant_adopt(void *base, int slot, uint64_t dead, uint64_t owner, uint64_t process);

/* Gives a slot up. Returns 0, or -EINVAL if it is not `owner`'s. */
int ivs_participant_release(void *base, int slot, uint64_t owner);

/* Owner and process of slot `slot`, as in struct ivs_participant; the owner is 0 where it is free. */
uint64_t ivs_participant_owner(const void *base, int slot);
uint64_t ivs_participant_process(const void *base, int slot);

/* What stands in a slot, as in struct ivs_participant. */
struct ivs_participant_info {
    uint64_t owner;
    uint64_t process;
    uint64_t heartbeat;
    uint32_t ack;
    uint32_t share;
};
void ivs_participant_read(const void *base, int slot, struct ivs_participant_info *info);

/* The word by which guards name a metadata: the first 4 bytes of its uuid, or 1 where these are 0. */
uint32_t ivs_share_word(const uint8_t *uuid);

/* Makes a slot that was claimed the guard of a share, with a heartbeat of 1. Look at ivs_table_leaving afterwards. */
int ivs_participant_guard(void *base, int slot, uint64_t owner, uint32_t share);

/* One more heartbeat; and what a guard says when its process has let go of the share. -EINVAL: not `owner`'s slot. */
int ivs_participant_beat(void *base, int slot, uint64_t owner);
int ivs_participant_acknowledge(void *base, int slot, uint64_t owner, uint32_t announcement);

#endif
