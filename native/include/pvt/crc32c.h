/* SPDX-License-Identifier: BSD-3-Clause */
/* crc32c.h: the Castagnoli CRC that guards identities and tables in shared memory. */
#ifndef IVS_CRC32C_H
#define IVS_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of `length` bytes that follow bytes whose CRC is `crc` (0 at the start). */
uint32_t ivs_crc32c(uint32_t crc, const void *data, size_t length);

#endif
