/* SPDX-License-Identifier: BSD-3-Clause */
/* crc32c.h: the CRC-32C (Castagnoli) that protects identities and tables in shared memory. */
#ifndef IVS_CRC32C_H
#define IVS_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Extends `crc`, the CRC of the preceding bytes (0 if there are none), by `length` bytes; returns the new CRC. */
uint32_t ivs_crc32c(uint32_t crc, const void *data, size_t length);

#endif
