/* SPDX-License-Identifier: BSD-3-Clause */
/* sizes.h: powers of two, alignment and segment sizes. */
#ifndef IVS_SIZES_H
#define IVS_SIZES_H

#include <stdbool.h>
#include <stdint.h>

#include "layout.h"

static inline bool ivs_is_power_of_two(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

/* Rounds up to a multiple of `alignment`, a power of two. */
static inline uint64_t ivs_align_up(uint64_t value, uint64_t alignment)
{
    return (value + alignment - 1) & ~(alignment - 1);
}

/* Valid: powers of two (a PCI BAR is one) that hold at least one page, and more than the header page. */
static inline bool ivs_is_segment_size(uint64_t size, uint64_t page_size)
{
    return ivs_is_power_of_two(size) && ivs_is_power_of_two(page_size) && page_size <= size && size > IVS_HEADER_SIZE;
}

#endif
