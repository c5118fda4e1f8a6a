/* SPDX-License-Identifier: BSD-3-Clause */
/* table.h: table files (metadata and registry): a header page and two slots, one of them in force. */
#ifndef IVS_TABLE_H
#define IVS_TABLE_H

#include "fault.h"
#include "layout.h"

/* The identity of a table file. */
struct ivs_table_info {
    uint8_t uuid[16];
    uint64_t size; /* bytes of the file */
    uint32_t version;
    char name[IVS_NAME_SIZE];
};

/* Writes the header of a zeroed file of info->size bytes, and an empty table with that epoch. `magic` is
 * IVS_METADATA_MAGIC or IVS_REGISTRY_MAGIC. */
void ivs_table_format(void *base, uint64_t magic, const struct ivs_table_info *info, uint64_t epoch);

/* Checks the header in `length` mapped bytes and fills `info`; name and version are filled where they can be read
 * even if the check fails. Returns 0 or an enum ivs_fault. */
int ivs_table_check_file(const void *base, uint64_t length, uint64_t magic, struct ivs_table_info *info);

/* Bytes that one table may have in a file of `size` bytes. */
uint64_t ivs_table_room(uint64_t size);

/* The selector: changes whenever another table comes into force. */
uint64_t ivs_table_selector(const void *base);

/* Copies the table in force out of a checked file of `size` bytes to `copy` (ivs_table_room bytes) and checks the copy.
 * Returns its length, or a negative enum ivs_fault. */
int64_t ivs_table_read(const void *base, uint64_t size, void *copy);

/* Checks a table in private memory, all of it. Returns 0 or an enum ivs_fault. */
int ivs_table_check(const void *table, uint64_t length, uint64_t selector);

/* Completes a table (length, selector, CRC) and brings it into force. Returns 0, -ENOSPC, or -EINVAL if it fails
 * ivs_table_check. One writer at a time. */
int ivs_table_publish(void *base, uint64_t size, void *table, uint64_t length);

/* The announcement of an unplug: a number to be acknowledged by every process, 0 when there is none. */
void ivs_table_set_leaving(void *base, uint32_t number);
uint32_t ivs_table_leaving(const void *base);

#endif
