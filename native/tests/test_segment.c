/* SPDX-License-Identifier: BSD-3-Clause */
/* test_segment.c: header and participant slots of a segment; CRC-32C; fault texts. */
#include <errno.h>

#include "check.h"
#include "pvt/crc32c.h"
#include "fault.h"
#include "segment.h"

#define SIZE 65536u

static unsigned char *make(void)
{
    struct ivs_segment_info info = {.size = SIZE,
                                    .page_size = 4096,
                                    .socket_id = -1,
                                    .epoch = 9,
                                    .host_address = 0x200000000000u,
                                    .group = "default"};
    unsigned char *segment = check_memory(SIZE);
    ivs_segment_format(segment, &info);
    return segment;
}

static void seal(struct ivs_segment *s)
{
    unsigned char bytes[128];
    memcpy(bytes, s, sizeof(bytes));
    memset(bytes, 0, 8);
    memset(bytes + offsetof(struct ivs_segment, crc), 0, 4);
    s->crc = ivs_crc32c(0, bytes, sizeof(bytes));
}

static void test_crc32c_of_known_data(void)
{
    unsigned char zeros[32] = {0}, ones[32];
    memset(ones, 0xff, sizeof(ones));
    /* the examples of RFC 3720, and the usual check value of "123456789" */
    CHECK_EQ(ivs_crc32c(0, zeros, 32), 0x8a9136aau);
    CHECK_EQ(ivs_crc32c(0, ones, 32), 0x62a8ab43u);
    CHECK_EQ(ivs_crc32c(0, "123456789", 9), 0xe3069283u);
    CHECK_EQ(ivs_crc32c(ivs_crc32c(0, "1234", 4), "56789", 5), 0xe3069283u);
}

static void test_check_returns_identity(void)
{
    struct ivs_segment_info info;
    unsigned char *segment = make();
    CHECK_EQ(ivs_segment_check(segment, SIZE, &info), IVS_OK);
    CHECK_EQ(info.size, SIZE);
    CHECK_EQ(info.epoch, 9);
    CHECK_EQ(info.socket_id, -1);
    CHECK_EQ(info.host_address, 0x200000000000);
    CHECK_EQ(strcmp(info.group, "default"), 0);
    CHECK_EQ(ivs_segment_check(segment, SIZE - 1, &info), IVS_FAULT_LENGTH);
    CHECK_EQ(ivs_segment_check(segment, 4095, &info), IVS_FAULT_LENGTH);
    free(segment);
}

#define REFUSED(fault, damage)                                                                                         \
    do {                                                                                                               \
        struct ivs_segment_info info;                                                                                  \
        unsigned char *memory = make();                                                                                \
        struct ivs_segment *s = (struct ivs_segment *)(void *)memory;                                                  \
        damage;                                                                                                        \
        seal(s);                                                                                                       \
        CHECK_EQ(ivs_segment_check(memory, SIZE, &info), fault);                                                       \
        free(memory);                                                                                                  \
    } while (0)

static void test_check_returns_fault_of_each_damage(void)
{
    REFUSED(IVS_OK, (void)s);
    REFUSED(IVS_FAULT_MAGIC, atomic_store(&s->magic, 1));
    REFUSED(IVS_FAULT_VERSION, s->version = 0);
    REFUSED(IVS_FAULT_VERSION, s->header_size = 8192);
    REFUSED(IVS_FAULT_SEGMENT, s->size = 65535);
    REFUSED(IVS_FAULT_SEGMENT, s->size = 4096);
    REFUSED(IVS_FAULT_SEGMENT, s->size = 0);
    REFUSED(IVS_FAULT_SEGMENT, s->page_size = 131072);
    REFUSED(IVS_FAULT_SEGMENT, s->page_size = 4097);
    REFUSED(IVS_FAULT_LENGTH, s->size = 131072);
    REFUSED(IVS_FAULT_NAME, s->group[0] = 0);
}

static void test_check_rejects_each_flipped_bit(void)
{
    struct ivs_segment_info info;
    unsigned char *segment = make();
    for (uint32_t bit = 0; bit < 128 * 8; bit++) {
        segment[bit / 8] ^= (unsigned char)(1u << bit % 8);
        CHECK(ivs_segment_check(segment, SIZE, &info) != IVS_OK);
        segment[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    CHECK_EQ(ivs_segment_check(segment, SIZE, &info), IVS_OK);
    free(segment);
}

static void test_retire_sets_flag(void)
{
    struct ivs_segment_info info;
    unsigned char *segment = make();
    CHECK(!ivs_segment_retired(segment));
    ivs_segment_retire(segment);
    CHECK(ivs_segment_retired(segment));
    CHECK_EQ(ivs_segment_check(segment, SIZE, &info), IVS_OK); /* the header remains valid */
    free(segment);
}

static void test_slots_are_claimed_released_and_adopted(void)
{
    unsigned char *segment = make();
    for (uint32_t i = 0; i < IVS_PARTICIPANTS; i++)
        CHECK_EQ(ivs_participant_claim(segment, 100 + i, 1000 + i), i);
    CHECK_EQ(ivs_participant_claim(segment, 7, 7), -ENOSPC);
    CHECK_EQ(ivs_participant_release(segment, 5, 104), -EINVAL); /* owned by 105 */
    CHECK_EQ(ivs_participant_release(segment, 5, 105), 0);
    CHECK_EQ(ivs_participant_owner(segment, 5), 0);
    CHECK_EQ(ivs_participant_claim(segment, 7, 77), 5);
    CHECK_EQ(ivs_participant_owner(segment, 5), 7);
    CHECK_EQ(ivs_participant_process(segment, 5), 77);
    CHECK_EQ(ivs_participant_adopt(segment, 6, 106, 8, 88), 0);
    CHECK_EQ(ivs_participant_adopt(segment, 6, 106, 9, 99), -EBUSY); /* already adopted */
    CHECK_EQ(ivs_participant_owner(segment, 6), 8);
    CHECK_EQ(ivs_participant_adopt(segment, 64, 0, 9, 99), -EINVAL);
    CHECK_EQ(ivs_participant_adopt(segment, -1, 0, 9, 99), -EINVAL);
    CHECK_EQ(ivs_participant_release(segment, 64, 1), -EINVAL);
    free(segment);
}

static void test_monitor_slot_has_heartbeat_and_acknowledgement(void)
{
    const uint8_t uuid[16] = {0x78, 0x56, 0x34, 0x12, 0xff}, none[16] = {0};
    struct ivs_participant_info seen;
    unsigned char *segment = make();

    CHECK_EQ(ivs_share_word(uuid), 0x12345678);
    CHECK_EQ(ivs_share_word(none), 1);
    CHECK_EQ(ivs_participant_claim(segment, 7, 77), 0);
    ivs_participant_read(segment, 0, &seen);
    CHECK(seen.owner == 7 && seen.process == 77 && seen.heartbeat == 0 && seen.ack == 0 && seen.share == 0);
    CHECK_EQ(ivs_participant_guard(segment, 0, 7, 0x12345678), 0);
    CHECK_EQ(ivs_participant_beat(segment, 0, 7), 0);
    CHECK_EQ(ivs_participant_acknowledge(segment, 0, 7, 3), 0);
    ivs_participant_read(segment, 0, &seen);
    CHECK(seen.owner == 7 && seen.process == 77 && seen.heartbeat == 2 && seen.ack == 3 && seen.share == 0x12345678);
    /* another owner, or an invalid slot */
    CHECK_EQ(ivs_participant_guard(segment, 0, 8, 1), -EINVAL);
    CHECK_EQ(ivs_participant_beat(segment, 0, 8), -EINVAL);
    CHECK_EQ(ivs_participant_acknowledge(segment, 0, 8, 4), -EINVAL);
    CHECK_EQ(ivs_participant_beat(segment, 64, 7), -EINVAL);
    CHECK_EQ(ivs_participant_beat(segment, -1, 7), -EINVAL);
    /* the next owner starts without share, heartbeat and acknowledgement */
    CHECK_EQ(ivs_participant_adopt(segment, 0, 7, 9, 99), 0);
    ivs_participant_read(segment, 0, &seen);
    CHECK(seen.owner == 9 && seen.process == 99 && seen.heartbeat == 0 && seen.ack == 0 && seen.share == 0);
    CHECK_EQ(ivs_participant_guard(segment, 0, 9, 1), 0);
    CHECK_EQ(ivs_participant_release(segment, 0, 9), 0);
    ivs_participant_read(segment, 0, &seen);
    CHECK(seen.owner == 0 && seen.share == 0);
    free(segment);
}

static void test_fault_texts_are_distinct(void)
{
    for (int fault = -1; fault <= IVS_FAULT_COUNT; fault++) {
        CHECK(ivs_fault_text(fault) != NULL);
        CHECK(strlen(ivs_fault_text(fault)) > 0);
    }
    for (int a = 1; a < IVS_FAULT_COUNT; a++)
        for (int b = a + 1; b < IVS_FAULT_COUNT; b++)
            CHECK(strcmp(ivs_fault_text(a), ivs_fault_text(b)) != 0);
}

int main(void)
{
    RUN(test_crc32c_of_known_data);
    RUN(test_check_returns_identity);
    RUN(test_check_returns_fault_of_each_damage);
    RUN(test_check_rejects_each_flipped_bit);
    RUN(test_retire_sets_flag);
    RUN(test_slots_are_claimed_released_and_adopted);
    RUN(test_monitor_slot_has_heartbeat_and_acknowledgement);
    RUN(test_fault_texts_are_distinct);
    return check_result();
}
