/* SPDX-License-Identifier: BSD-3-Clause */
/* test_table.c: publish and read tables; each kind of damage to a file or a table is rejected. */
#include <errno.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "table.h"

#define SIZE 65536u

struct made {
    struct ivs_table head;
    struct ivs_table_segment segments[2];
    struct ivs_table_entry entries[2];
    char heap[64];
};
_Static_assert(sizeof(struct made) == 64 + 2 * 96 + 2 * 96 + 64, "no padding");

static void fill(struct made *t)
{
    memset(t, 0, sizeof(*t));
    t->head.n_segments = t->head.n_entries = 2;
    t->head.heap = sizeof(t->heap);
    t->head.epoch = 7;
    for (uint32_t i = 0; i < 2; i++) {
        t->segments[i].size = 1u << 21;
        t->segments[i].page_size = 4096;
        t->segments[i].path = (struct ivs_heap_ref){0, 10};
        strcpy(t->segments[i].group, "default");
        strcpy(t->entries[i].name, i ? "RG_ring" : "zone");
        t->entries[i].kind = i ? IVS_KIND_RING : IVS_KIND_MEMZONE;
        t->entries[i].segment = i;
        t->entries[i].offset = 4096;
        t->entries[i].length = 8192;
        t->entries[i].dtype = (struct ivs_heap_ref){10, 5};
        t->entries[i].shape = (struct ivs_heap_ref){16, 16};
    }
}

static unsigned char *make_file(uint64_t magic)
{
    struct ivs_table_info info = {.size = SIZE, .name = "vm1", .uuid = {1, 2, 3}};
    unsigned char *file = check_memory(SIZE);
    ivs_table_format(file, magic, &info, 7);
    return file;
}

static void test_new_file_contains_empty_table(void)
{
    static unsigned char copy[SIZE];
    struct ivs_table_info info;
    unsigned char *file = make_file(IVS_METADATA_MAGIC);
    CHECK_EQ(ivs_table_check_file(file, SIZE, IVS_METADATA_MAGIC, &info), IVS_OK);
    CHECK_EQ(info.size, SIZE);
    CHECK_EQ(info.uuid[2], 3);
    CHECK_EQ(strcmp(info.name, "vm1"), 0);
    CHECK_EQ(ivs_table_check_file(file, SIZE, IVS_REGISTRY_MAGIC, &info), IVS_FAULT_MAGIC);
    CHECK_EQ(ivs_table_check_file(file, SIZE - 1, IVS_METADATA_MAGIC, &info), IVS_FAULT_LENGTH);
    CHECK_EQ(ivs_table_check_file(file, 100, IVS_METADATA_MAGIC, &info), IVS_FAULT_LENGTH);
    CHECK_EQ(ivs_table_read(file, SIZE, copy), sizeof(struct ivs_table));
    CHECK_EQ(((struct ivs_table *)(void *)copy)->epoch, 7);
    free(file);
}

static void test_check_newer_version_still_returns_name(void)
{
    struct ivs_table_info info;
    unsigned char *file = make_file(IVS_METADATA_MAGIC);
    ((struct ivs_table_file *)(void *)file)->version = 2;
    CHECK_EQ(ivs_table_check_file(file, SIZE, IVS_METADATA_MAGIC, &info), IVS_FAULT_VERSION);
    CHECK_EQ(info.version, 2);
    CHECK_EQ(strcmp(info.name, "vm1"), 0);
    free(file);
}

static void test_read_returns_last_published_table(void)
{
    static unsigned char copy[SIZE];
    struct made t, *read = (struct made *)(void *)copy;
    unsigned char *file = make_file(IVS_REGISTRY_MAGIC);
    uint64_t before = ivs_table_selector(file);
    for (uint32_t i = 1; i <= 5; i++) {
        fill(&t);
        t.entries[0].align = i;
        CHECK_EQ(ivs_table_publish(file, SIZE, &t, sizeof(t)), 0);
        CHECK_EQ(ivs_table_selector(file), before + i);
        CHECK_EQ(ivs_table_read(file, SIZE, copy), sizeof(t));
        CHECK_EQ(read->entries[0].align, i);
        CHECK_EQ(memcmp(read, &t, sizeof(t)), 0);
    }
    free(file);
}

/* A writer died while it wrote to the slot that is not current. */
static void test_read_ignores_incomplete_table(void)
{
    static unsigned char copy[SIZE];
    struct made t;
    unsigned char *file = make_file(IVS_REGISTRY_MAGIC);
    fill(&t);
    CHECK_EQ(ivs_table_publish(file, SIZE, &t, sizeof(t)), 0);
    uint64_t other = (ivs_table_selector(file) + 1) & 1;
    memset(file + 4096 + other * ivs_table_room(SIZE), 0x5a, 1000);
    CHECK_EQ(ivs_table_read(file, SIZE, copy), sizeof(t));
    free(file);
}

static void test_publish_too_large_table_returns_enospc(void)
{
    static unsigned char table[SIZE];
    unsigned char *file = make_file(IVS_REGISTRY_MAGIC);
    CHECK_EQ(ivs_table_publish(file, SIZE, table, ivs_table_room(SIZE) + 64), -ENOSPC);
    ((struct ivs_table *)(void *)table)->heap = ivs_table_room(SIZE) - sizeof(struct ivs_table);
    CHECK_EQ(ivs_table_publish(file, SIZE, table, ivs_table_room(SIZE)), 0);
    CHECK_EQ(ivs_table_room(0), 0);
    CHECK_EQ(ivs_table_room(4095), 0);
    free(file);
}

static void check_rejected(int fault, void (*damage)(struct made *))
{
    static unsigned char copy[SIZE];
    struct made t;
    unsigned char *file = make_file(IVS_METADATA_MAGIC);
    fill(&t);
    damage(&t);
    uint64_t before = ivs_table_selector(file);
    CHECK_EQ(ivs_table_publish(file, SIZE, &t, sizeof(t)), fault == IVS_OK ? 0 : -EINVAL);
    CHECK_EQ(ivs_table_selector(file), fault == IVS_OK ? before + 1 : before);
    /* publish has set length, selector and CRC: only the damage remains */
    CHECK_EQ(ivs_table_check(&t, sizeof(t), t.head.selector), fault);
    CHECK(ivs_table_read(file, SIZE, copy) > 0);
    free(file);
}

#define DAMAGE(name, statement)                                                                                        \
    static void name(struct made *t)                                                                                   \
    {                                                                                                                  \
        statement;                                                                                                     \
    }
DAMAGE(none, (void)t)
DAMAGE(segment_size, t->segments[0].size = 3000000)
DAMAGE(segment_small, t->segments[1].size = 4096)
DAMAGE(page_size, t->segments[0].page_size = 1u << 22)
DAMAGE(group, memset(t->segments[1].group, 'g', IVS_NAME_SIZE))
DAMAGE(path, t->segments[0].path.offset = 0xffffffffu)
DAMAGE(name_empty, t->entries[1].name[0] = 0)
DAMAGE(kind_zero, t->entries[0].kind = 0)
DAMAGE(kind_four, t->entries[0].kind = 4)
DAMAGE(entry_segment, t->entries[0].segment = 2)
DAMAGE(entry_in_header, t->entries[0].offset = 4095)
DAMAGE(entry_beyond, t->entries[0].length = (1u << 21) - 4095)
DAMAGE(entry_huge, t->entries[0].offset = UINT64_MAX - 100)
DAMAGE(entry_wraps, t->entries[0].length = UINT64_MAX - 4096)
DAMAGE(entry_nothing, t->entries[0].length = 0)
DAMAGE(dtype, t->entries[1].dtype.length = 55)
DAMAGE(shape, t->entries[1].shape.length = 9)
DAMAGE(counts, t->head.n_entries = 3)
DAMAGE(counts_huge, t->head.n_segments = 0xffffffffu)
DAMAGE(heap, t->head.heap = 63)
DAMAGE(heap_huge, t->head.heap = UINT64_MAX)

static void test_publish_rejects_each_damage(void)
{
    check_rejected(IVS_OK, none);
    check_rejected(IVS_FAULT_SEGMENT, segment_size);
    check_rejected(IVS_FAULT_SEGMENT, segment_small);
    check_rejected(IVS_FAULT_SEGMENT, page_size);
    check_rejected(IVS_FAULT_NAME, group);
    check_rejected(IVS_FAULT_TABLE_SIZE, path);
    check_rejected(IVS_FAULT_NAME, name_empty);
    check_rejected(IVS_FAULT_ENTRY_KIND, kind_zero);
    check_rejected(IVS_FAULT_ENTRY_KIND, kind_four);
    check_rejected(IVS_FAULT_ENTRY_SEGMENT, entry_segment);
    check_rejected(IVS_FAULT_ENTRY_RANGE, entry_in_header);
    check_rejected(IVS_FAULT_ENTRY_RANGE, entry_beyond);
    check_rejected(IVS_FAULT_ENTRY_RANGE, entry_huge);
    check_rejected(IVS_FAULT_ENTRY_RANGE, entry_wraps);
    check_rejected(IVS_FAULT_ENTRY_RANGE, entry_nothing);
    check_rejected(IVS_FAULT_ENTRY_HEAP, dtype);
    check_rejected(IVS_FAULT_ENTRY_HEAP, shape);
    check_rejected(IVS_FAULT_TABLE_SIZE, counts);
    check_rejected(IVS_FAULT_TABLE_SIZE, counts_huge);
    check_rejected(IVS_FAULT_TABLE_SIZE, heap);
    check_rejected(IVS_FAULT_TABLE_SIZE, heap_huge);
}

static void test_read_rejects_each_flipped_bit(void)
{
    static unsigned char copy[SIZE];
    struct ivs_table_info info;
    struct made t;
    unsigned char *file = make_file(IVS_METADATA_MAGIC);
    fill(&t);
    CHECK_EQ(ivs_table_publish(file, SIZE, &t, sizeof(t)), 0);
    unsigned char *slot = file + 4096 + (ivs_table_selector(file) & 1) * ivs_table_room(SIZE);
    for (uint32_t bit = 0; bit < sizeof(t) * 8; bit++) {
        slot[bit / 8] ^= (unsigned char)(1u << bit % 8);
        CHECK(ivs_table_read(file, SIZE, copy) < 0);
        slot[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    for (uint32_t bit = 0; bit < 128 * 8; bit++) {
        file[bit / 8] ^= (unsigned char)(1u << bit % 8);
        CHECK(ivs_table_check_file(file, SIZE, IVS_METADATA_MAGIC, &info) != IVS_OK);
        file[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    CHECK_EQ(ivs_table_check_file(file, SIZE, IVS_METADATA_MAGIC, &info), IVS_OK);
    CHECK_EQ(ivs_table_read(file, SIZE, copy), sizeof(t));
    free(file);
}

/* References to the heap may overlap: without a limit, many entries could each refer to a heap of megabytes. */
static void test_publish_rejects_long_heap_references(void)
{
    static unsigned char raw[32768];
    struct ivs_table *t = (struct ivs_table *)(void *)raw;
    struct ivs_table_segment *segment = (struct ivs_table_segment *)(void *)(t + 1);
    struct ivs_table_entry *entry = (struct ivs_table_entry *)(void *)(segment + 1);
    const struct {
        struct ivs_heap_ref *ref;
        uint32_t most;
        uint32_t step;
        int fault;
    } cases[] = {
        {&segment->path, IVS_PATH_MOST, 1, IVS_FAULT_TABLE_SIZE},
        {&entry->dtype, IVS_DTYPE_MOST, 1, IVS_FAULT_ENTRY_HEAP},
        {&entry->shape, 8 * IVS_DIMS_MOST, 8, IVS_FAULT_ENTRY_HEAP},
    };
    *t = (struct ivs_table){.n_segments = 1, .n_entries = 1, .heap = sizeof(raw) - 64 - 96 - 96};
    *segment = (struct ivs_table_segment){.size = 1u << 21, .page_size = 4096, .group = "default"};
    *entry = (struct ivs_table_entry){.name = "zone", .kind = IVS_KIND_MEMZONE, .offset = 4096, .length = 64};
    unsigned char *file = check_memory(2 * SIZE);
    for (uint32_t i = 0; i < 3; i++) {
        cases[i].ref->length = cases[i].most;
        CHECK_EQ(ivs_table_publish(file, 2 * SIZE, raw, sizeof(raw)), 0);
        cases[i].ref->length += cases[i].step;
        CHECK_EQ(ivs_table_publish(file, 2 * SIZE, raw, sizeof(raw)), -EINVAL);
        CHECK_EQ(ivs_table_check(raw, sizeof(raw), t->selector), cases[i].fault);
        cases[i].ref->length = 0;
    }
    free(file);
}

/* Every length except the real one, in the header or as an argument. */
static void test_check_and_read_reject_wrong_length(void)
{
    static unsigned char copy[SIZE];
    struct made t;
    unsigned char *file = make_file(IVS_METADATA_MAGIC);
    fill(&t);
    CHECK_EQ(ivs_table_publish(file, SIZE, &t, sizeof(t)), 0);
    for (uint64_t length = 0; length < sizeof(t); length++)
        CHECK(ivs_table_check(&t, length, t.head.selector) != IVS_OK);
    struct ivs_table *slot =
        (struct ivs_table *)(void *)(file + 4096 + (ivs_table_selector(file) & 1) * ivs_table_room(SIZE));
    static const uint64_t lengths[] = {0, 63, 64, sizeof(t) - 1, sizeof(t) + 1, SIZE, UINT64_MAX};
    for (uint32_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        slot->length = lengths[i];
        CHECK(ivs_table_read(file, SIZE, copy) < 0);
    }
    free(file);
}

/* Another process publishes continuously. */
static void test_read_during_publish_returns_complete_tables(void)
{
    enum { TABLES = 20000 };
    static unsigned char copy[SIZE];
    struct ivs_table_info info = {.size = SIZE, .name = "vm1"};
    unsigned char *file = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(file != MAP_FAILED);
    ivs_table_format(file, IVS_REGISTRY_MAGIC, &info, 0);
    pid_t writer = fork();
    if (writer == 0) {
        for (uint32_t i = 1; i <= TABLES; i++) {
            struct made t;
            fill(&t);
            t.head.epoch = t.entries[0].serial = t.entries[1].serial = i;
            if (ivs_table_publish(file, SIZE, &t, sizeof(t)) != 0)
                _exit(1);
        }
        _exit(0);
    }
    const struct made *t = (const struct made *)(const void *)copy;
    uint64_t seen = 0;
    while (seen < TABLES) {
        int64_t length = ivs_table_read(file, SIZE, copy);
        CHECK(length > 0);
        if (length != sizeof(*t))
            continue;
        CHECK(t->head.epoch >= seen && t->entries[0].serial == t->head.epoch && t->entries[1].serial == t->head.epoch);
        seen = t->head.epoch;
    }
    int status;
    CHECK_EQ(waitpid(writer, &status, 0), writer);
    CHECK_EQ(status, 0);
    munmap(file, SIZE);
}

static void test_leaving_returns_announced_number(void)
{
    unsigned char *file = make_file(IVS_METADATA_MAGIC);
    CHECK_EQ(ivs_table_leaving(file), 0);
    ivs_table_set_leaving(file, 5);
    CHECK_EQ(ivs_table_leaving(file), 5);
    free(file);
}

int main(void)
{
    RUN(test_new_file_contains_empty_table);
    RUN(test_check_newer_version_still_returns_name);
    RUN(test_read_returns_last_published_table);
    RUN(test_read_ignores_incomplete_table);
    RUN(test_publish_too_large_table_returns_enospc);
    RUN(test_publish_rejects_each_damage);
    RUN(test_read_rejects_each_flipped_bit);
    RUN(test_publish_rejects_long_heap_references);
    RUN(test_check_and_read_reject_wrong_length);
    RUN(test_read_during_publish_returns_complete_tables);
    RUN(test_leaving_returns_announced_number);
    return check_result();
}
