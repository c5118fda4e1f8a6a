/* SPDX-License-Identifier: BSD-3-Clause */
/* copy.h: copies of a few elements. */
#ifndef IVS_COPY_H
#define IVS_COPY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "pvt/compiler.h"

#define IVS_COPY_SHORT 128u /* bytes up to which a call of memcpy costs more than it saves */

/* Sixteen bytes of any type and alignment. */
typedef unsigned char ivs_sixteen __attribute__((vector_size(16), aligned(1), may_alias));

IVS_INLINE void ivs_move_4(unsigned char *d, const unsigned char *s)
{
    uint32_t moved;
    memcpy(&moved, s, sizeof(moved));
    memcpy(d, &moved, sizeof(moved));
}

IVS_INLINE void ivs_move_8(unsigned char *d, const unsigned char *s)
{
    uint64_t moved;
    memcpy(&moved, s, sizeof(moved));
    memcpy(d, &moved, sizeof(moved));
}

IVS_INLINE void ivs_move_16(unsigned char *d, const unsigned char *s)
{
    *(ivs_sixteen *)d = *(const ivs_sixteen *)s;
}

IVS_INLINE void ivs_move_32(unsigned char *d, const unsigned char *s)
{
    ivs_move_16(d, s);
    ivs_move_16(d + 16, s + 16);
}

IVS_INLINE void ivs_move_64(unsigned char *d, const unsigned char *s)
{
    ivs_move_32(d, s);
    ivs_move_32(d + 32, s + 32);
}

/* Copy `bytes`, a multiple of 4, between areas that do not overlap. A length between two powers of two takes two moves
 * of the lower power, from the start and up to the end. No move is wider than 16 bytes: an element of 16 bytes stays
 * within one cache line, and is read back by a load as wide as the store. */
IVS_INLINE void ivs_copy(void *to, const void *from, size_t bytes)
{
    unsigned char *d = (unsigned char *)to;
    const unsigned char *s = (const unsigned char *)from;

    if (__builtin_constant_p(bytes)) {
        memcpy(d, s, bytes);
        return;
    }
    /* Hides the pointers' origin from gcc, which would warn of branches that an array of that length never takes. */
    __asm__("" : "+r"(d), "+r"(s));
    if (bytes <= 32) {
        if (bytes >= 16) {
            ivs_move_16(d, s);
            ivs_move_16(d + bytes - 16, s + bytes - 16);
        } else if (bytes >= 8) {
            ivs_move_8(d, s);
            ivs_move_8(d + bytes - 8, s + bytes - 8);
        } else if (bytes != 0) {
            ivs_move_4(d, s);
        }
    } else if (bytes <= 64) {
        ivs_move_32(d, s);
        ivs_move_32(d + bytes - 32, s + bytes - 32);
    } else if (bytes <= IVS_COPY_SHORT) {
        ivs_move_64(d, s);
        ivs_move_64(d + bytes - 64, s + bytes - 64);
    } else {
        memcpy(d, s, bytes);
    }
}

#endif
