/* SPDX-License-Identifier: BSD-3-Clause */
/* fault.h: the reasons for which validation rejects shared memory or an argument. Validation returns IVS_OK or one. */
#ifndef IVS_FAULT_H
#define IVS_FAULT_H

enum ivs_fault {
    IVS_OK = 0,
    /* shared memory */
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
    /* arguments of ivs_ring_plan and ivs_ring_create */
    IVS_FAULT_RING_COUNT,
    IVS_FAULT_RING_POWER_OF_TWO,
    IVS_FAULT_RING_ELEM_SIZE,
    IVS_FAULT_RING_FLAGS,
    /* arguments of ivs_mempool_plan and ivs_mempool_create */
    IVS_FAULT_POOL_N,
    IVS_FAULT_POOL_ELT_SIZE,
    IVS_FAULT_POOL_CACHE_SIZE,
    IVS_FAULT_POOL_FLAGS,
    IVS_FAULT_MBUF_FLAGS,
    IVS_FAULT_MBUF_PRIVATE_SIZE,
    IVS_FAULT_MBUF_DATA_ROOM,
    /* arguments of operations on a mempool */
    IVS_FAULT_OBJECT,
    IVS_FAULT_NOT_OUT,
    IVS_FAULT_SHARED_SEGMENT,
    IVS_FAULT_ATTACHED,
    IVS_FAULT_CHAINED,
    IVS_FAULT_REFERENCED,
    IVS_FAULT_SAME_BUFFER,
    IVS_FAULT_DIRECT,
    IVS_FAULT_COUNT
};

/* Returns a phrase for a fault that completes "ring 'r': ...", such as "bad CRC"; never NULL. */
const char *ivs_fault_text(int fault);

#endif
