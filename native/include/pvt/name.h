/* SPDX-License-Identifier: BSD-3-Clause */
/* name.h: validates names in shared memory. */
#ifndef IVS_NAME_H
#define IVS_NAME_H

#include <stdbool.h>
#include <stdint.h>

#include "layout.h"

/* Valid: 1 to 31 bytes without '/' and control characters, padded with NULs. */
static inline bool ivs_name_ok(const char name[IVS_NAME_SIZE])
{
    uint32_t length = 0;
    while (length < IVS_NAME_SIZE && name[length] != 0) {
        unsigned char c = (unsigned char)name[length++];
        if (c < 0x20 || c == 0x7f || c == '/')
            return false;
    }
    for (uint32_t i = length; i < IVS_NAME_SIZE; i++)
        if (name[i] != 0)
            return false;
    return length > 0 && length < IVS_NAME_SIZE;
}

#endif
