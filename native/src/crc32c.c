/* SPDX-License-Identifier: BSD-3-Clause */
/* crc32c.c: CRC-32C by the SSE4.2 instruction, with a bitwise fallback. */
#include "pvt/crc32c.h"

#include <string.h>

#define POLYNOMIAL 0x82f63b78u /* Castagnoli, bit-reversed */

static uint32_t crc32c_sw(uint32_t crc, const unsigned char *p, size_t length)
{
    while (length-- > 0) {
        crc ^= *p++;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (POLYNOMIAL & (0u - (crc & 1u)));
    }
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const unsigned char *p, size_t length)
{
    uint64_t wide = crc;
    for (; length >= 8; p += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = (uint32_t)wide;
    while (length-- > 0)
        crc = __builtin_ia32_crc32qi(crc, *p++);
    return crc;
}
#endif

uint32_t ivs_crc32c(uint32_t crc, const void *data, size_t length)
{
    const unsigned char *p = (const unsigned char *)data;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return ~crc32c_sse42(~crc, p, length);
#endif
    return ~crc32c_sw(~crc, p, length);
}
