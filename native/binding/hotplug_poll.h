/* SPDX-License-Identifier: BSD-3-Clause */
/* hotplug_poll.h: the hotplug monitor's poll of all shares of a process, about 20 times per second. */
#ifndef IVS_HOTPLUG_POLL_H
#define IVS_HOTPLUG_POLL_H

#include "layout.h"

/* Events that a poll may report; any combination. */
#define IVS_EVENT_GONE 1u    /* no metadata file, or another one, is mapped: the device was removed without notice */
#define IVS_EVENT_LEAVING 2u /* an unplug is announced */
#define IVS_EVENT_TABLE 4u   /* the current table's selector differs from `selector` */
#define IVS_EVENT_RETIRED 8u /* a segment is retired */

/* One share. The struct is private memory; its pointers point into shared memory. */
struct ivs_polled_share {
    const void *file; /* the metadata file's header page */
    uint8_t uuid[16];
    uint64_t selector;
    void *page;     /* header page of the segment that contains the monitor slot; NULL: no slot */
    uint64_t owner; /* the monitor slot's owner word */
    int32_t slot;
    uint32_t n_segments;
    const void *const *segments; /* the segments' header pages */
    uint32_t events;             /* out: IVS_EVENT_* */
};

/* Sends a heartbeat per share and sets its `events`. Returns the number of shares with events. */
uint32_t ivs_hotplug_poll(struct ivs_polled_share *shares, uint32_t n);

#endif
