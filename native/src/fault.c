/* SPDX-License-Identifier: BSD-3-Clause */
/* fault.c: what each fault is called. */
#include "fault.h"

static const char *const texts[IVS_FAULT_COUNT] = {
    [IVS_OK] = "no fault",
    [IVS_FAULT_MAGIC] = "bad magic",
    [IVS_FAULT_VERSION] = "a format version that this release does not know",
    [IVS_FAULT_CRC] = "bad CRC",
    [IVS_FAULT_LENGTH] = "larger than the memory it lies in (truncated?)",
    [IVS_FAULT_ALIGNMENT] = "not aligned to a cache line",
    [IVS_FAULT_NAME] = "a bad name",
    [IVS_FAULT_GEOMETRY] = "sizes that do not fit each other",
    [IVS_FAULT_INDEX] = "head and tail further apart than the ring is long",
    [IVS_FAULT_SYNC] = "a sync type that does not fit the flags",
    [IVS_FAULT_FLAGS] = "unknown flags",
    [IVS_FAULT_SELECTOR] = "a selector that names no whole table",
    [IVS_FAULT_TABLE_SIZE] = "table sizes that do not add up",
    [IVS_FAULT_SEGMENT] = "a segment with an impossible size",
    [IVS_FAULT_ENTRY_KIND] = "an entry of unknown kind",
    [IVS_FAULT_ENTRY_SEGMENT] = "an entry in a segment that is not listed",
    [IVS_FAULT_ENTRY_RANGE] = "an entry outside its segment",
    [IVS_FAULT_ENTRY_HEAP] = "an entry whose dtype or shape lies outside the table",
};

const char *ivs_fault_text(int fault)
{
    return fault >= 0 && fault < IVS_FAULT_COUNT ? texts[fault] : "an unknown fault";
}
