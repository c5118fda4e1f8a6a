/* SPDX-License-Identifier: BSD-3-Clause */
/* fault.h: why something in shared memory was refused. Checks return one of these, or 0. */
#ifndef IVS_FAULT_H
#define IVS_FAULT_H

enum ivs_fault {
    IVS_OK = 0,
    IVS_FAULT_MAGIC,
    IVS_FAULT_VERSION,
    IVS_FAULT_CRC,
    IVS_FAULT_LENGTH,
    IVS_FAULT_ALIGNMENT,
    IVS_FAULT_NAME,
    IVS_FAULT_GEOMETRY,
    IVS_FAULT_INDEX,
    IVS_FAULT_SYNC,
    IVS_FAULT_FLAGS,
    IVS_FAULT_SELECTOR,
    IVS_FAULT_TABLE_SIZE,
    IVS_FAULT_SEGMENT,
    IVS_FAULT_ENTRY_KIND,
    IVS_FAULT_ENTRY_SEGMENT,
    IVS_FAULT_ENTRY_RANGE,
    IVS_FAULT_ENTRY_HEAP,
    IVS_FAULT_COUNT
};

/* An English half sentence for a fault, such as "bad CRC". Never NULL. */
const char *ivs_fault_text(int fault);

#endif
