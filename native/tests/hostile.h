/* SPDX-License-Identifier: BSD-3-Clause */
/* hostile.h: an object between guard pages, and a process that overwrites any part of it. */
#ifndef HOSTILE_H
#define HOSTILE_H

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

#define HOSTILE_PAGE 4096u
#define HOSTILE_STALL_NS 10000u
#define HOSTILE_WATCHDOG_S 120u /* for the whole program; a hang ends in SIGALRM */

/* `bytes` shared bytes with an inaccessible page on each side, adjacent to the one before or the one after. */
static inline unsigned char *hostile_arena(size_t bytes, bool flush_behind)
{
    size_t whole = (bytes + HOSTILE_PAGE - 1) / HOSTILE_PAGE * HOSTILE_PAGE;
    unsigned char *pages =
        mmap(NULL, whole + 2 * HOSTILE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(pages != MAP_FAILED);
    REQUIRE(mprotect(pages, HOSTILE_PAGE, PROT_NONE) == 0);
    REQUIRE(mprotect(pages + HOSTILE_PAGE + whole, HOSTILE_PAGE, PROT_NONE) == 0);
    return pages + HOSTILE_PAGE + (flush_behind ? whole - bytes : 0);
}

static inline void hostile_release(unsigned char *memory, size_t bytes)
{
    unsigned char *pages = (unsigned char *)((uintptr_t)memory & ~(uintptr_t)(HOSTILE_PAGE - 1)) - HOSTILE_PAGE;
    size_t whole = (bytes + HOSTILE_PAGE - 1) / HOSTILE_PAGE * HOSTILE_PAGE;
    munmap(pages, whole + 2 * HOSTILE_PAGE);
}

/* One corruption: 1 to 8 bytes, random or chosen values, at any offset; mostly in the first `busy` bytes. */
static inline void hostile_spoil(unsigned char *memory, size_t bytes, size_t busy, uint64_t *seed)
{
    static const uint64_t harmful[] = {0,
                                       1,
                                       63,
                                       64,
                                       65,
                                       0x7fffffff,
                                       0x80000000u,
                                       0xffffffffu,
                                       UINT64_MAX,
                                       UINT64_C(0x100000001),
                                       UINT64_C(0xffffffff00000000)};
    uint32_t choice = check_random(seed);
    size_t range = choice & 3 ? busy : bytes;
    size_t at = check_random(seed) % range;
    size_t n = (size_t)1 << (choice >> 2 & 3);
    uint64_t value = (uint64_t)check_random(seed) << 32 | check_random(seed);
    if (choice >> 4 & 1)
        value = harmful[choice >> 5 & 7];
    if (choice >> 9 & 1)
        value = harmful[choice % (sizeof(harmful) / sizeof(harmful[0]))];
    at = at / n * n;
    for (size_t i = 0; i < n && at + i < bytes; i++)
        ((volatile unsigned char *)memory)[at + i] = (unsigned char)(value >> (8 * i));
}

/* Another process that corrupts until it is killed; *count counts the corruptions. */
static inline pid_t hostile_vandal(unsigned char *memory, size_t bytes, size_t busy, uint64_t seed,
                                   _Atomic uint64_t *count)
{
    pid_t vandal = fork();
    REQUIRE(vandal >= 0);
    if (vandal != 0)
        return vandal;
    for (;;) {
        hostile_spoil(memory, bytes, busy, &seed);
        if (atomic_fetch_add(count, 1) % 64 == 0)
            usleep(1); /* leave the object intact for a moment, otherwise only rejections are tested */
    }
}

static inline void hostile_end(pid_t vandal)
{
    int status;
    REQUIRE(kill(vandal, SIGKILL) == 0);
    REQUIRE(waitpid(vandal, &status, 0) == vandal);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* The seed: the argument, or the time. Printed, so that a failure can be repeated. */
static inline uint64_t hostile_seed(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL) * 2654435761u;
    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    alarm(HOSTILE_WATCHDOG_S);
    return seed | 1;
}

#endif
