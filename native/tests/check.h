/* SPDX-License-Identifier: BSD-3-Clause */
/* check.h: checks for the test programs: a failed check is printed and counted, and makes the program fail. */
#ifndef CHECK_H
#define CHECK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK_PRINTED 20 /* failures that are printed; one failure often causes many others */

static _Atomic int check_failures;

static inline void check_that(bool holds, const char *file, int line, const char *what)
{
    if (!holds && atomic_fetch_add(&check_failures, 1) < CHECK_PRINTED)
        fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
}

static inline void check_equal(long long a, long long b, const char *file, int line, const char *what)
{
    if (a != b && atomic_fetch_add(&check_failures, 1) < CHECK_PRINTED)
        fprintf(stderr, "%s:%d: %s: %lld and %lld\n", file, line, what, a, b);
}

#define CHECK(condition) check_that((condition), __FILE__, __LINE__, #condition)
#define CHECK_EQ(a, b) check_equal((long long)(a), (long long)(b), __FILE__, __LINE__, #a " == " #b)

/* Ends the program at once if later checks would be meaningless. */
#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: needed: %s\n", __FILE__, __LINE__, #condition);                                    \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* Runs one test function and prints its name if it failed. */
#define RUN(test)                                                                                                      \
    do {                                                                                                               \
        int before = atomic_load(&check_failures);                                                                     \
        test();                                                                                                        \
        if (atomic_load(&check_failures) != before)                                                                    \
            fprintf(stderr, "FAILED: %s\n", #test);                                                                    \
    } while (0)

static inline int check_result(void)
{
    return atomic_load(&check_failures) == 0 ? 0 : 1;
}

/* Zeroed memory of exactly `bytes` bytes at a cache line, so that a sanitizer detects accesses beyond it. */
static inline void *check_memory(size_t bytes)
{
    void *memory = NULL;
    REQUIRE(posix_memalign(&memory, 64, bytes) == 0);
    return memset(memory, 0, bytes);
}

/* xorshift: the same sequence for the same seed on every machine. */
static inline uint32_t check_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(*state >> 32);
}

#endif
