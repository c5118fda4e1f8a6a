/* SPDX-License-Identifier: BSD-3-Clause */
/* fuzz.h: generate damaged images of shared memory, with and without valid CRCs, and run targets on them.
 *
 * An image is a table file, a segment, a ring or a mempool. A target defines how to create a valid image, the offsets
 * of its fields, how to recompute its CRCs after damage, and the code under test. It must neither crash nor hang,
 * and each image that it accepts must pass the checks of the target.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include "hostile.h"

#define FUZZ_MOST 65536u /* bytes of an image */

struct fuzz_field {
    uint16_t offset;
    uint16_t size;
};
#define FUZZ_FIELD(type, field) {offsetof(struct type, field), sizeof(((struct type *)0)->field)}

struct fuzz_target {
    const char *name;
    const struct fuzz_field *fields; /* offsets and sizes in the image */
    uint32_t n_fields;
    uint32_t (*make)(unsigned char *image, uint64_t *seed); /* writes a valid image; returns its length */
    void (*seal)(unsigned char *image, uint32_t length);    /* recomputes the CRCs */
    bool (*use)(unsigned char *memory, uint32_t length);    /* returns whether the image was accepted */
};

/* Critical values of lengths, counts and offsets: limits of types, sign bits, and values that overflow when sizes
 * (4096, 384, 192, 96, 64) are added or multiplied (by 96, 64, 12). */
/* clang-format off */
static const uint64_t fuzz_values[] = {
    0, 1, 2, 3, 7, 31, 32, 63, 64, 65, 96, 127, 128, 255, 384, 4095, 4096, 4097, 65535, 65536,
    0x7ffffffe, 0x7fffffff, 0x80000000, 0x80000001, 0xfffffffe, 0xffffffff, UINT64_C(0x100000000),
    UINT32_MAX / 96, UINT32_MAX / 96 + 1, UINT32_MAX / 64 + 1, UINT32_MAX / 12 + 1, UINT32_MAX - 63, UINT32_MAX - 95,
    UINT32_MAX - 4095, UINT64_MAX / 96, UINT64_MAX / 96 + 1, UINT64_MAX / 64 + 1, UINT64_C(1) << 62,
    UINT64_MAX / 2, UINT64_MAX / 2 + 1, UINT64_MAX - 4096, UINT64_MAX - 4095, UINT64_MAX - 383, UINT64_MAX - 191,
    UINT64_MAX - 64, UINT64_MAX - 1, UINT64_MAX,
};
/* clang-format on */
#define FUZZ_VALUES (sizeof(fuzz_values) / sizeof(fuzz_values[0]))

static unsigned char *fuzz_arena; /* FUZZ_MOST bytes with a guard page on either side */
static struct {
    const char *target;
    uint64_t number;
} volatile fuzz_now; /* for the signal handler */

static void fuzz_died(int number)
{
    char text[160];
    int n = snprintf(text, sizeof(text), "signal %d at input %llu of target %s\n", number,
                     (unsigned long long)fuzz_now.number, fuzz_now.target);
    (void)!write(2, text, (size_t)n);
    _exit(3);
}

static inline void fuzz_begin(void)
{
    fuzz_arena = hostile_arena(FUZZ_MOST, false);
    signal(SIGSEGV, fuzz_died);
    signal(SIGBUS, fuzz_died);
    signal(SIGFPE, fuzz_died);
    signal(SIGABRT, fuzz_died);
    signal(SIGALRM, fuzz_died);
}

static inline void fuzz_set(unsigned char *image, const struct fuzz_field *field, uint64_t value)
{
    for (uint32_t i = 0; i < field->size; i++)
        image[field->offset + i] = (unsigned char)(i < 8 ? value >> (8 * i) : value);
}

/* Copies an image to a cache line, with its end at the guard page, and runs the target. */
static inline bool fuzz_use(const struct fuzz_target *t, const unsigned char *image, uint32_t length)
{
    unsigned char *memory = fuzz_arena + FUZZ_MOST - (length + 63) / 64 * 64;
    memcpy(memory, image, length);
    if (fuzz_now.number++ % 1024 == 0)
        alarm(HOSTILE_WATCHDOG_S);
    return t->use(memory, length);
}

/* Applies one to four changes: a field gets a critical value or changes by at most 8, or random bytes change. */
static inline void fuzz_damage(const struct fuzz_target *t, unsigned char *image, uint32_t *length, uint64_t *seed)
{
    uint32_t choice = check_random(seed), times = 1 + (choice & 3);
    for (uint32_t i = 0; i < times; i++) {
        uint32_t how = check_random(seed);
        const struct fuzz_field *field = &t->fields[check_random(seed) % t->n_fields];
        if ((how & 7) < 4) {
            fuzz_set(image, field, fuzz_values[check_random(seed) % FUZZ_VALUES]);
        } else if ((how & 7) < 6) {
            uint64_t value = 0;
            memcpy(&value, image + field->offset, field->size < 8 ? field->size : 8);
            fuzz_set(image, field, value + (uint64_t)(int64_t)((int)(how >> 8 & 15) - 8));
        } else {
            hostile_spoil(image, *length, *length < 640 ? *length : 640, seed);
        }
    }
    if ((choice >> 4 & 7) == 0)
        *length = check_random(seed) % (*length + 1);
    if ((choice >> 7 & 3) != 0)
        t->seal(image, *length);
}

/* Sets each field to each critical value, with the old and a new CRC; then each pair of fields. */
static inline void fuzz_each_field(const struct fuzz_target *t, uint64_t *seed)
{
    static _Alignas(64) unsigned char good[FUZZ_MOST], image[FUZZ_MOST];
    uint32_t length = t->make(good, seed);
    for (uint32_t f = 0; f < t->n_fields; f++)
        for (uint32_t v = 0; v < FUZZ_VALUES; v++) {
            memcpy(image, good, length);
            fuzz_set(image, &t->fields[f], fuzz_values[v]);
            (void)fuzz_use(t, image, length);
            t->seal(image, length);
            (void)fuzz_use(t, image, length);
            for (uint32_t g = 0; g < f; g++) {
                fuzz_set(image, &t->fields[g], fuzz_values[check_random(seed) % FUZZ_VALUES]);
                t->seal(image, length);
                (void)fuzz_use(t, image, length);
                memcpy(image + t->fields[g].offset, good + t->fields[g].offset, t->fields[g].size);
            }
        }
}

/* Runs `inputs` randomly damaged images; returns how many were accepted. */
static inline uint64_t fuzz_random(const struct fuzz_target *t, uint64_t inputs, uint64_t *seed)
{
    static _Alignas(64) unsigned char good[FUZZ_MOST], image[FUZZ_MOST];
    uint32_t whole = 0;
    uint64_t accepted = 0;
    for (uint64_t i = 0; i < inputs; i++) {
        if (i % 64 == 0)
            whole = t->make(good, seed);
        uint32_t length = whole;
        memcpy(image, good, length);
        fuzz_damage(t, image, &length, seed);
        accepted += fuzz_use(t, image, length);
    }
    return accepted;
}

/* Another process overwrites the image while the target uses it; every fourth run starts with a valid image. */
static inline void fuzz_concurrently(const struct fuzz_target *t, uint64_t inputs, uint64_t *seed)
{
    static _Alignas(64) unsigned char good[FUZZ_MOST];
    _Atomic uint64_t *count = (_Atomic uint64_t *)(void *)hostile_arena(sizeof(*count), false);
    uint32_t length = t->make(good, seed) / 64 * 64;
    unsigned char *memory = fuzz_arena + FUZZ_MOST - length;
    memcpy(memory, good, length);
    pid_t vandal = hostile_vandal(memory, length, length < 640 ? length : 640, *seed, count);
    for (uint64_t i = 0; i < inputs; i++) {
        if (i % 4 == 0)
            memcpy(memory, good, length);
        fuzz_now.number++;
        (void)t->use(memory, length);
    }
    hostile_end(vandal);
    hostile_release((unsigned char *)(void *)count, sizeof(*count));
}

#endif
