/* copy.h: copies of a few elements. */
#ifndef IVS_COPY_H
#define IVS_COPY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "inline.h"

#define IVS_COPY_SHORT 64u /* bytes up to which a call of memcpy costs more than it saves */

/* One move of a fixed size: read whole before it is written. */
#define IVS_MOVE(d, s, size)                                                                                           \
    do {                                                                                                               \
        unsigned char moved[size];                                                                                     \
        memcpy(moved, (s), (size));                                                                                    \
        memcpy((d), moved, (size));                                                                                    \
    } while (0)

/* Copies `bytes`, a multiple of 4, between places that do not overlap. A length that is no multiple of the move's is
 * finished by a move that overlaps the one before. */
IVS_INLINE void ivs_copy(void *to, const void *from, size_t bytes)
{
    unsigned char *d = (unsigned char *)to;
    const unsigned char *s = (const unsigned char *)from;

    if (__builtin_constant_p(bytes) || bytes > IVS_COPY_SHORT) {
        memcpy(d, s, bytes);
    } else if (bytes >= 32) {
        size_t last = bytes - 32;
        for (size_t i = 0; i < last; i += 32)
            IVS_MOVE(d + i, s + i, 32);
        IVS_MOVE(d + last, s + last, 32);
    } else if (bytes >= 16) {
        IVS_MOVE(d, s, 16);
        IVS_MOVE(d + bytes - 16, s + bytes - 16, 16);
    } else if (bytes >= 8) {
        IVS_MOVE(d, s, 8);
        IVS_MOVE(d + bytes - 8, s + bytes - 8, 8);
    } else if (bytes != 0) {
        IVS_MOVE(d, s, 4);
    }
}

#endif
