/* SPDX-License-Identifier: BSD-3-Clause */
/* hotplug_poll.c: polls all shares in a single call, because each call from Python releases the GIL. */
#include "hotplug_poll.h"

#include <string.h>

#include "segment.h"
#include "table.h"

static uint32_t poll_share(const struct ivs_polled_share *share)
{
    const struct ivs_table_file *file = (const struct ivs_table_file *)share->file;
    uint32_t events = 0;

    if (share->page != NULL)
        (void)ivs_participant_beat(share->page, share->slot, share->owner);
    /* The mapping of a removed device reads as zeros, and later as the next device at that address. A VM cannot change
     * the identity itself: its mapping of a metadata file is read-only. */
    if (atomic_load_explicit(&file->magic, memory_order_relaxed) != IVS_METADATA_MAGIC ||
        memcmp(file->uuid, share->uuid, sizeof(share->uuid)) != 0)
        return IVS_EVENT_GONE;
    if (ivs_table_leaving(file) != 0)
        events |= IVS_EVENT_LEAVING;
    if (ivs_table_selector(file) != share->selector)
        events |= IVS_EVENT_TABLE;
    for (uint32_t i = 0; i < share->n_segments; i++) {
        const struct ivs_segment *s = (const struct ivs_segment *)share->segments[i];
        if (atomic_load_explicit(&s->magic, memory_order_relaxed) == IVS_SEGMENT_MAGIC && ivs_segment_retired(s))
            events |= IVS_EVENT_RETIRED;
    }
    return events;
}

uint32_t ivs_hotplug_poll(struct ivs_polled_share *shares, uint32_t n)
{
    uint32_t with_events = 0;
    for (uint32_t i = 0; i < n; i++) {
        shares[i].events = poll_share(&shares[i]);
        with_events += shares[i].events != 0;
    }
    return with_events;
}
