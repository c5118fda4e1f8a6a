/* SPDX-License-Identifier: BSD-3-Clause */
/* identity.h: the CRC over the identity of an object: its first two cache lines. */
#ifndef IVS_IDENTITY_H
#define IVS_IDENTITY_H

#include <string.h>

#include "layout.h"
#include "pvt/crc32c.h"

#define IVS_IDENTITY_SIZE (2 * IVS_CACHE_LINE)

/* Returns the CRC of the identity at `object`, computed with the fields at the offsets `magic` and `crc` set to 0. */
static inline uint32_t ivs_identity_crc(const void *object, size_t magic, size_t crc)
{
    unsigned char bytes[IVS_IDENTITY_SIZE];
    memcpy(bytes, object, sizeof(bytes));
    memset(bytes + magic, 0, sizeof(uint64_t));
    memset(bytes + crc, 0, sizeof(uint32_t));
    return ivs_crc32c(0, bytes, sizeof(bytes));
}

#define IVS_IDENTITY_CRC(type, object)                                                                                 \
    ivs_identity_crc(object, offsetof(struct type, magic), offsetof(struct type, crc))

#endif
