/* SPDX-License-Identifier: BSD-3-Clause */
/* guard.c: one look at every share of a process. One call, since each call from Python gives the GIL away. */
#include "hotplug_poll.h"

#include <string.h>

#include "segment.h"
#include "table.h"

static uint32_t look(const struct ivs_watched *w)
{
    const struct ivs_table_file *file = (const struct ivs_table_file *)w->file;
    uint32_t news = 0;

    if (w->page != NULL)
        (void)ivs_participant_beat(w->page, w->slot, w->owner);
    /* A mapping of a device that is gone shows zeros, then the next device. No VM may write a metadata. */
    if (atomic_load_explicit(&file->magic, memory_order_relaxed) != IVS_METADATA_MAGIC ||
        memcmp(file->uuid, w->uuid, sizeof(w->uuid)) != 0)
        return IVS_NEWS_GONE;
    if (ivs_table_leaving(file) != 0)
        news |= IVS_NEWS_LEAVING;
    if (ivs_table_selector(file) != w->selector)
        news |= IVS_NEWS_TABLE;
    for (uint32_t i = 0; i < w->n_segments; i++) {
        const struct ivs_segment *s = (const struct ivs_segment *)w->segments[i];
        if (atomic_load_explicit(&s->magic, memory_order_relaxed) == IVS_SEGMENT_MAGIC && ivs_segment_retired(s))
            news |= IVS_NEWS_RETIRED;
    }
    return news;
}

uint32_t ivs_guard_look(struct ivs_watched *shares, uint32_t n)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < n; i++) {
        shares[i].news = look(&shares[i]);
        found += shares[i].news != 0;
    }
    return found;
}
