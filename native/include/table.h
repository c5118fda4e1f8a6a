/* SPDX-License-Identifier: BSD-3-Clause */
/* table.h: table files (metadata files and registries): a header page and two slots, one of which is current. */
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

/* Writes the header of a zeroed file of info->size bytes and an empty table with this epoch. `magic` is
 * IVS_METADATA_MAGIC or IVS_REGISTRY_MAGIC. */
void ivs_table_format(void *base, uint64_t magic, const struct ivs_table_info *info, uint64_t epoch);

/* Validates the header in `length` mapped bytes and fills `info`. If it is invalid, name and version are still filled
 * where they can be read. Returns 0 or an enum ivs_fault. */
int ivs_table_check_file(const void *base, uint64_t length, uint64_t magic, struct ivs_table_info *info);

/* Returns the maximum bytes of a table in a file of `size` bytes. */
uint64_t ivs_table_room(uint64_t size);

/* Returns the selector, which changes with each new table. */
uint64_t ivs_table_selector(const void *base);

/* Copies the current table of a validated file of `size` bytes to `copy` (ivs_table_room bytes) and validates the copy.
 * Returns its length, or a negative enum ivs_fault. */
int64_t ivs_table_read(const void *base, uint64_t size, void *copy);

/* Validates a complete table in private memory. Returns 0 or an enum ivs_fault. */
int ivs_table_check(const void *table, uint64_t length, uint64_t selector);

/* Sets length, selector and CRC of a table, and makes the table current. Returns 0, -ENOSPC, or -EINVAL if
 * ivs_table_check rejects the table. Writers must be serialized. */
int ivs_table_publish(void *base, uint64_t size, void *table, uint64_t length);

/* The number of the current unplug announcement, which every process must acknowledge; 0: none. */
void ivs_table_set_leaving(void *base, uint32_t number);
uint32_t ivs_table_leaving(const void *base);

#endif
