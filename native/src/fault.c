/* SPDX-License-Identifier: BSD-3-Clause */
/* fault.c: the text of each fault. */
#include "fault.h"

static const char *const texts[IVS_FAULT_COUNT] = {
    [IVS_OK] = "no fault",
    [IVS_FAULT_MAGIC] = "bad magic",
    [IVS_FAULT_VERSION] = "format version not supported by this release",
    [IVS_FAULT_CRC] = "bad CRC",
    [IVS_FAULT_LENGTH] = "larger than the memory that contains it (truncated?)",
    [IVS_FAULT_ALIGNMENT] = "not aligned to a cache line",
    [IVS_FAULT_NAME] = "invalid name",
    [IVS_FAULT_GEOMETRY] = "inconsistent size, mask and capacity",
    [IVS_FAULT_INDEX] = "distance between head and tail exceeds the capacity",
    [IVS_FAULT_SYNC] = "sync type does not match the flags",
    [IVS_FAULT_FLAGS] = "unknown flags",
    [IVS_FAULT_SELECTOR] = "selector does not identify a complete table",
    [IVS_FAULT_TABLE_SIZE] = "inconsistent table sizes",
    [IVS_FAULT_SEGMENT] = "invalid segment size or page size",
    [IVS_FAULT_ENTRY_KIND] = "entry of unknown kind",
    [IVS_FAULT_ENTRY_SEGMENT] = "entry in a segment that is not listed",
    [IVS_FAULT_ENTRY_RANGE] = "entry outside its segment",
    [IVS_FAULT_ENTRY_HEAP] = "dtype or shape of an entry outside the table",
    [IVS_FAULT_RING_COUNT] = "count must be from 1 to 2147483647",
    [IVS_FAULT_RING_POWER_OF_TWO] = "count must be a power of two, or any number with RingFlag.EXACT_SZ",
    [IVS_FAULT_RING_ELEM_SIZE] = "elem_size must be a multiple of 4 bytes",
    [IVS_FAULT_RING_FLAGS] = "flags must be of RingFlag, with one of ST, RTS and HTS per side",
    [IVS_FAULT_POOL_N] = "n must be 1 to 2147483647",
    [IVS_FAULT_POOL_ELT_SIZE] = "elt_size must be 1 to 1073741824",
    [IVS_FAULT_POOL_CACHE_SIZE] = "cache_size must be at most 512, and 1.5 * cache_size at most n",
    [IVS_FAULT_POOL_FLAGS] = "flags must be a combination of NO_CACHE_ALIGN and DEBUG",
    [IVS_FAULT_MBUF_FLAGS] = "a pool of mbufs does not support NO_CACHE_ALIGN",
    [IVS_FAULT_MBUF_PRIVATE_SIZE] = "private_size must be a multiple of 8, at most 65528",
    [IVS_FAULT_MBUF_DATA_ROOM] = "data_room must be 0 to 65535",
    [IVS_FAULT_OBJECT] = "index must be less than n",
    [IVS_FAULT_NOT_OUT] = "more objects are freed than are in use",
    [IVS_FAULT_SHARED_SEGMENT] = "the packets have a segment in common",
    [IVS_FAULT_ATTACHED] = "already attached to the buffer of another mbuf",
    [IVS_FAULT_CHAINED] = "has more than one segment",
    [IVS_FAULT_REFERENCED] = "has more than one reference",
    [IVS_FAULT_SAME_BUFFER] = "the other segment uses the buffer of this mbuf",
    [IVS_FAULT_DIRECT] = "not attached to the buffer of another mbuf",
};

const char *ivs_fault_text(int fault)
{
    return fault >= 0 && fault < IVS_FAULT_COUNT ? texts[fault] : "unknown fault";
}
