/* SPDX-License-Identifier: BSD-3-Clause */
/* spin_wait.h: a bounded wait for a peer: spin, then yield, then time out. */
#ifndef IVS_SPIN_WAIT_H
#define IVS_SPIN_WAIT_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define IVS_WAIT_SPINS 64u /* pauses before the clock is read and the processor is yielded */

struct ivs_wait {
    uint64_t limit_ns;
    uint64_t deadline;
    uint32_t spins;
};

#define IVS_WAIT_INIT(ns) {.limit_ns = (ns), .deadline = 0, .spins = 0}

static inline uint64_t ivs_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void ivs_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#endif
}

/* One step of a wait. Returns false once `limit_ns` have passed since the clock was first read. */
static inline bool ivs_wait_step(struct ivs_wait *w)
{
    if (w->spins < IVS_WAIT_SPINS) {
        w->spins++;
        ivs_pause();
        return true;
    }
    uint64_t now = ivs_now_ns();
    if (w->deadline == 0)
        w->deadline = now + w->limit_ns;
    if (now >= w->deadline)
        return false;
    sched_yield();
    return true;
}

#endif
