/* SPDX-License-Identifier: BSD-3-Clause */
/* guard.h: one look at every share of a process, as its guard takes it twenty times a second. */
#ifndef IVS_GUARD_H
#define IVS_GUARD_H

#include "layout.h"

/* What a look may find; several at once. */
#define IVS_NEWS_GONE 1u     /* another file is there, or nothing: the device went without a word */
#define IVS_NEWS_LEAVING 2u  /* an unplug is announced */
#define IVS_NEWS_TABLE 4u    /* another table is in force than `selector` says */
#define IVS_NEWS_RETIRED 8u  /* a segment bears the retired mark */

/* One share. All of it is the caller's own memory but what the pointers lead to. */
struct ivs_watched {
    const void *file; /* the metadata's header page */
    uint8_t uuid[16];
    uint64_t selector;
    void *page;     /* the header page of the segment in which the guard stands; NULL: it stands in none */
    uint64_t owner; /* the guard's slot there is `owner`'s */
    int32_t slot;
    uint32_t n_segments;
    const void *const *segments; /* where each of them begins */
    uint32_t news;               /* out: IVS_NEWS_* */
};

/* Gives one heartbeat for each share and looks for news of it. Returns how many have some. */
uint32_t ivs_guard_look(struct ivs_watched *shares, uint32_t n);

#endif
