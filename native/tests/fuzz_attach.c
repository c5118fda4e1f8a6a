/* SPDX-License-Identifier: BSD-3-Clause */
/* fuzz_attach.c: fuzz the validation of table files, segments, rings and mempools.
 *
 *   fuzz_attach [INPUTS [SEED]]      INPUTS: number of random images (default 100000), in addition to systematic ones
 *
 * Failures are crashes, hangs (two minutes), and accepted images whose content exceeds their length. The seed is
 * printed; the same seed generates the same inputs.
 */
#include "pvt/crc32c.h"
#include "fuzz.h"
#include "mempool.h"
#include "pvt/name.h"
#include "pvt/sizes.h"
#include "ring.h"
#include "segment.h"
#include "table.h"

#define STALL_NS 1000u
typedef unsigned __int128 wide; /* no sum or product below can overflow */

#define FIELDS(name) name, sizeof(name) / sizeof(name[0])

/* Returns the CRC of the first two cache lines with the fields in `holes` set to 0. */
static uint32_t identity(const unsigned char *image, const struct fuzz_field *holes, uint32_t n)
{
    unsigned char bytes[128];
    memcpy(bytes, image, sizeof(bytes));
    for (uint32_t i = 0; i < n; i++)
        memset(bytes + holes[i].offset, 0, holes[i].size);
    return ivs_crc32c(0, bytes, sizeof(bytes));
}

/* ---- table files ---------------------------------------------------------------------------------------------- */

struct made {
    struct ivs_table head;
    struct ivs_table_segment segments[2];
    struct ivs_table_entry entries[3];
    char heap[64];
};
#define TABLE_AT 4096u /* the second table of a file is in the first slot */
#define TABLE_FILE (TABLE_AT + 2 * 704u)
_Static_assert(sizeof(struct made) <= 704, "a table fits a slot");

#define IN_TABLE(field) {TABLE_AT + offsetof(struct made, field), sizeof(((struct made *)0)->field)}
#define SEGMENT_FIELDS(i)                                                                                              \
    IN_TABLE(segments[i].size), IN_TABLE(segments[i].page_size), IN_TABLE(segments[i].host_address),                   \
        IN_TABLE(segments[i].socket_id), IN_TABLE(segments[i].flags), IN_TABLE(segments[i].group),                     \
        IN_TABLE(segments[i].path.offset), IN_TABLE(segments[i].path.length), IN_TABLE(segments[i].epoch)
#define ENTRY_FIELDS(i)                                                                                                \
    IN_TABLE(entries[i].name), IN_TABLE(entries[i].kind), IN_TABLE(entries[i].segment), IN_TABLE(entries[i].offset),   \
        IN_TABLE(entries[i].length), IN_TABLE(entries[i].align), IN_TABLE(entries[i].flags),                           \
        IN_TABLE(entries[i].dtype.offset), IN_TABLE(entries[i].dtype.length), IN_TABLE(entries[i].shape.offset),       \
        IN_TABLE(entries[i].shape.length), IN_TABLE(entries[i].serial)

static const struct fuzz_field table_fields[] = {
    FUZZ_FIELD(ivs_table_file, magic),
    FUZZ_FIELD(ivs_table_file, version),
    FUZZ_FIELD(ivs_table_file, header_size),
    FUZZ_FIELD(ivs_table_file, uuid),
    FUZZ_FIELD(ivs_table_file, size),
    FUZZ_FIELD(ivs_table_file, name),
    FUZZ_FIELD(ivs_table_file, crc),
    FUZZ_FIELD(ivs_table_file, selector),
    FUZZ_FIELD(ivs_table_file, leaving),
    IN_TABLE(head.crc),
    IN_TABLE(head.flags),
    IN_TABLE(head.selector),
    IN_TABLE(head.epoch),
    IN_TABLE(head.n_segments),
    IN_TABLE(head.n_entries),
    IN_TABLE(head.heap),
    IN_TABLE(head.length),
    SEGMENT_FIELDS(0),
    SEGMENT_FIELDS(1),
    ENTRY_FIELDS(0),
    ENTRY_FIELDS(1),
    ENTRY_FIELDS(2),
};

static uint32_t table_make(unsigned char *image, uint64_t *seed)
{
    struct ivs_table_info info = {.size = TABLE_FILE, .name = "vm1"};
    struct made t = {.head = {.n_segments = 2, .n_entries = 3, .heap = sizeof(t.heap)}};
    memset(image, 0, TABLE_FILE);
    ivs_table_format(image, IVS_METADATA_MAGIC, &info, 7);
    for (uint32_t i = 0; i < 2; i++) {
        t.segments[i].size = UINT64_C(4096) << (1 + check_random(seed) % 50);
        t.segments[i].page_size = 4096;
        strcpy(t.segments[i].group, "default");
    }
    for (uint32_t i = 0; i < 3; i++) {
        t.entries[i].name[0] = (char)('a' + i);
        t.entries[i].kind = 1 + i;
        t.entries[i].segment = i % 2;
        t.entries[i].offset = 4096;
        t.entries[i].length = 1 + check_random(seed) % 4096;
        t.entries[i].dtype = (struct ivs_heap_ref){check_random(seed) % 16, check_random(seed) % 16};
        t.entries[i].shape = (struct ivs_heap_ref){32, check_random(seed) % 5 * 8};
    }
    REQUIRE(ivs_table_publish(image, TABLE_FILE, &t, sizeof(t)) == 0);
    return TABLE_FILE;
}

static void table_seal(unsigned char *image, uint32_t length)
{
    static const struct fuzz_field holes[] = {{0, 8}, FUZZ_FIELD(ivs_table_file, crc)};
    struct ivs_table_file *f = (struct ivs_table_file *)(void *)image;
    struct made *t = (struct made *)(void *)(image + TABLE_AT);
    if (length < TABLE_FILE)
        return;
    f->crc = identity(image, holes, 2);
    uint64_t fixed = sizeof(t->head) + (uint64_t)t->head.n_segments * 96 + (uint64_t)t->head.n_entries * 96;
    if (t->head.n_segments % 2 == 0 && fixed <= t->head.length) /* otherwise validation always stops at the sizes */
        t->head.heap = t->head.length - fixed;
    uint64_t bytes = t->head.length >= 4 && t->head.length <= 704 ? t->head.length : sizeof(*t);
    t->head.crc = 0;
    t->head.crc = ivs_crc32c(0, t, bytes);
}

static void check_table(const unsigned char *copy, uint64_t length)
{
    const struct ivs_table *t = (const struct ivs_table *)(const void *)copy;
    const struct ivs_table_segment *segments = (const struct ivs_table_segment *)(const void *)(t + 1);
    const struct ivs_table_entry *entries = (const struct ivs_table_entry *)(const void *)(segments + t->n_segments);
    CHECK((wide)sizeof(*t) + (wide)t->n_segments * 96 + (wide)t->n_entries * 96 + t->heap == length);
    for (uint32_t i = 0; i < t->n_segments; i++) {
        CHECK(ivs_is_power_of_two(segments[i].size) && ivs_is_power_of_two(segments[i].page_size) &&
              ivs_name_ok(segments[i].group));
        CHECK((wide)segments[i].path.offset + segments[i].path.length <= t->heap);
    }
    for (uint32_t i = 0; i < t->n_entries; i++) {
        const struct ivs_table_entry *e = &entries[i];
        REQUIRE(e->segment < t->n_segments);
        CHECK(ivs_name_ok(e->name) && e->kind >= 1 && e->kind <= 3 && e->length > 0 && e->offset >= 4096);
        CHECK((wide)e->offset + e->length <= segments[e->segment].size);
        CHECK((wide)e->dtype.offset + e->dtype.length <= t->heap);
        CHECK((wide)e->shape.offset + e->shape.length <= t->heap && e->shape.length % 8 == 0);
        CHECK(e->dtype.length <= IVS_DTYPE_MOST && e->shape.length <= 8 * IVS_DIMS_MOST);
    }
}

static bool table_use(unsigned char *memory, uint32_t length)
{
    struct ivs_table_info info;
    int fault = ivs_table_check_file(memory, length, IVS_METADATA_MAGIC, &info);
    CHECK(fault >= 0 && fault < IVS_FAULT_COUNT);
    CHECK(memchr(info.name, 0, sizeof(info.name)) != NULL);
    (void)ivs_table_check_file(memory, length, IVS_REGISTRY_MAGIC, &(struct ivs_table_info){0});
    if (fault != IVS_OK)
        return false;
    CHECK(info.size <= length && ivs_name_ok(info.name));
    unsigned char *copy = malloc(ivs_table_room(info.size)); /* the exact size, for AddressSanitizer */
    REQUIRE(copy != NULL);
    int64_t read = ivs_table_read(memory, info.size, copy);
    CHECK(read > -IVS_FAULT_COUNT && read <= (int64_t)ivs_table_room(info.size));
    if (read > 0)
        check_table(copy, (uint64_t)read);
    free(copy);
    (void)ivs_table_leaving(memory);
    return read > 0;
}

/* ---- segments -------------------------------------------------------------------------------------------------- */

static const struct fuzz_field segment_fields[] = {
    FUZZ_FIELD(ivs_segment, magic),
    FUZZ_FIELD(ivs_segment, version),
    FUZZ_FIELD(ivs_segment, header_size),
    FUZZ_FIELD(ivs_segment, uuid),
    FUZZ_FIELD(ivs_segment, size),
    FUZZ_FIELD(ivs_segment, page_size),
    FUZZ_FIELD(ivs_segment, host_address),
    FUZZ_FIELD(ivs_segment, socket_id),
    FUZZ_FIELD(ivs_segment, crc),
    FUZZ_FIELD(ivs_segment, epoch),
    FUZZ_FIELD(ivs_segment, group),
    FUZZ_FIELD(ivs_segment, retired),
    FUZZ_FIELD(ivs_segment, scratch),
    FUZZ_FIELD(ivs_segment, participants[0]),
    FUZZ_FIELD(ivs_segment, participants[63]),
};

static uint32_t segment_make(unsigned char *image, uint64_t *seed)
{
    struct ivs_segment_info info = {.size = 8192u << check_random(seed) % 3, .page_size = 4096, .group = "default"};
    memset(image, 0, info.size);
    ivs_segment_format(image, &info);
    return (uint32_t)info.size;
}

static void segment_seal(unsigned char *image, uint32_t length)
{
    static const struct fuzz_field holes[] = {{0, 8}, FUZZ_FIELD(ivs_segment, crc)};
    if (length >= 128)
        ((struct ivs_segment *)(void *)image)->crc = identity(image, holes, 2);
}

static bool segment_use(unsigned char *memory, uint32_t length)
{
    struct ivs_segment_info info;
    int fault = ivs_segment_check(memory, length, &info);
    CHECK(fault >= 0 && fault < IVS_FAULT_COUNT);
    if (fault != IVS_OK)
        return false;
    CHECK(ivs_is_power_of_two(info.size) && info.size <= length && info.size > IVS_HEADER_SIZE &&
          ivs_name_ok(info.group));
    CHECK(ivs_is_power_of_two(info.page_size) && info.page_size <= info.size);
    int slot = ivs_participant_claim(memory, 5, 6);
    CHECK(slot >= -ENOSPC && slot < (int)IVS_PARTICIPANTS);
    for (int i = -1; i <= (int)IVS_PARTICIPANTS; i += 13)
        (void)ivs_participant_release(memory, i, 5);
    (void)ivs_segment_retired(memory);
    (void)ivs_segment_takes_writes(memory);
    return true;
}

/* ---- rings ----------------------------------------------------------------------------------------------------- */

static const struct fuzz_field ring_fields[] = {
    FUZZ_FIELD(ivs_ring_shared, name),
    FUZZ_FIELD(ivs_ring_shared, flags),
    FUZZ_FIELD(ivs_ring_shared, memzone),
    FUZZ_FIELD(ivs_ring_shared, size),
    FUZZ_FIELD(ivs_ring_shared, mask),
    FUZZ_FIELD(ivs_ring_shared, capacity),
    FUZZ_FIELD(ivs_ring_shared, magic),
    FUZZ_FIELD(ivs_ring_shared, version),
    FUZZ_FIELD(ivs_ring_shared, elem_size),
    FUZZ_FIELD(ivs_ring_shared, prod_owner),
    FUZZ_FIELD(ivs_ring_shared, cons_owner),
    FUZZ_FIELD(ivs_ring_shared, crc),
    FUZZ_FIELD(ivs_ring_shared, prod.head),
    FUZZ_FIELD(ivs_ring_shared, prod.tail),
    FUZZ_FIELD(ivs_ring_shared, prod.sync_type),
    FUZZ_FIELD(ivs_ring_shared, prod.rts.htd_max),
    FUZZ_FIELD(ivs_ring_shared, prod.rts.head),
    FUZZ_FIELD(ivs_ring_shared, cons.head),
    FUZZ_FIELD(ivs_ring_shared, cons.tail),
    FUZZ_FIELD(ivs_ring_shared, cons.sync_type),
    FUZZ_FIELD(ivs_ring_shared, cons.rts.htd_max),
    FUZZ_FIELD(ivs_ring_shared, cons.rts.head),
};

static uint32_t ring_make(unsigned char *image, uint64_t *seed)
{
    static const uint32_t flags[] = {IVS_RING_SP_ENQ | IVS_RING_SC_DEQ, 0, IVS_RING_MP_RTS_ENQ | IVS_RING_MC_RTS_DEQ,
                                     IVS_RING_MP_HTS_ENQ | IVS_RING_MC_HTS_DEQ, IVS_RING_EXACT_SZ | IVS_RING_SC_DEQ};
    struct ivs_ring_info info = {
        .name = "ring", .count = 1u << check_random(seed) % 8, .flags = flags[check_random(seed) % 5]};
    info.elem_size = 4 * (1 + check_random(seed) % 8);
    int64_t bytes = ivs_ring_plan(&info);
    REQUIRE(bytes > 0 && bytes <= (int64_t)FUZZ_MOST);
    memset(image, 0, (size_t)bytes);
    REQUIRE(ivs_ring_create(image, (uint64_t)bytes, &info) == 0);
    return (uint32_t)bytes;
}

static void ring_seal(unsigned char *image, uint32_t length)
{
    static const struct fuzz_field holes[] = {FUZZ_FIELD(ivs_ring_shared, magic),
                                              FUZZ_FIELD(ivs_ring_shared, crc),
                                              {offsetof(struct ivs_ring_shared, prod_owner), 16}};
    if (length >= 128)
        ((struct ivs_ring_shared *)(void *)image)->crc = identity(image, holes, 3);
}

static bool ring_use(unsigned char *memory, uint32_t length)
{
    struct ivs_ring ring;
    struct ivs_ring_info info;
    int fault = ivs_ring_attach(&ring, memory, length, STALL_NS, &info);
    CHECK(fault >= 0 && fault < IVS_FAULT_COUNT);
    if (fault != IVS_OK)
        return false;
    CHECK(ivs_is_power_of_two(info.size) && info.capacity < info.size && info.elem_size > 0 && info.elem_size % 4 == 0);
    REQUIRE((wide)sizeof(struct ivs_ring_shared) + (wide)info.size * info.elem_size <= length);
    char text[64];
    unsigned char *objects = calloc(5, info.elem_size);
    REQUIRE(objects != NULL);
    for (uint32_t n = 0; n <= 5; n++) {
        CHECK(ivs_ring_enqueue_burst(&ring, objects, info.elem_size, n, NULL) <= (int)n);
        CHECK(ivs_ring_count(&ring) <= info.capacity);
        CHECK(ivs_ring_dequeue_bulk(&ring, objects, info.elem_size, n, NULL) <= (int)n);
    }
    (void)ivs_ring_dump(&ring, text, sizeof(text));
    free(objects);
    return true;
}

/* ---- pools ----------------------------------------------------------------------------------------------------- */

static const struct fuzz_field pool_fields[] = {
    FUZZ_FIELD(ivs_mempool_shared, magic),
    FUZZ_FIELD(ivs_mempool_shared, version),
    FUZZ_FIELD(ivs_mempool_shared, n),
    FUZZ_FIELD(ivs_mempool_shared, elt_size),
    FUZZ_FIELD(ivs_mempool_shared, elt_stride),
    FUZZ_FIELD(ivs_mempool_shared, cache_size),
    FUZZ_FIELD(ivs_mempool_shared, flags),
    FUZZ_FIELD(ivs_mempool_shared, bitmap_offset),
    FUZZ_FIELD(ivs_mempool_shared, caches_offset),
    FUZZ_FIELD(ivs_mempool_shared, objects_offset),
    FUZZ_FIELD(ivs_mempool_shared, cache_stride),
    FUZZ_FIELD(ivs_mempool_shared, crc),
    FUZZ_FIELD(ivs_mempool_shared, name),
    FUZZ_FIELD(ivs_mempool_shared, private_size),
    FUZZ_FIELD(ivs_mempool_shared, mbuf_version),
    FUZZ_FIELD(ivs_mempool_shared, taken),
    FUZZ_FIELD(ivs_mempool_shared, returned),
    FUZZ_FIELD(ivs_mempool_shared, slots),
    {sizeof(struct ivs_mempool_shared), 8}, /* bitmap */
    {256, 4},
    {264, 8},
    {272, 8},
    {320, 4},
    {324, 4}, /* first cache: len, taken, returned, two indices */
};

static uint32_t pool_make(unsigned char *image, uint64_t *seed)
{
    static const uint32_t flags[] = {0, 0, IVS_MEMPOOL_NO_CACHE_ALIGN, IVS_MEMPOOL_DEBUG, IVS_MEMPOOL_MBUF};
    struct ivs_mempool_info info = {
        .name = "pool", .n = 8 + check_random(seed) % 57, .flags = flags[check_random(seed) % 5]};
    info.elt_size = 256 + check_random(seed) % 40;
    info.private_size = info.flags & IVS_MEMPOOL_MBUF ? 64 : 0;
    info.cache_size = check_random(seed) % 5;
    int64_t bytes = ivs_mempool_plan(&info);
    REQUIRE(bytes > 0 && bytes <= (int64_t)FUZZ_MOST);
    memset(image, 0, (size_t)bytes);
    REQUIRE(ivs_mempool_create(image, (uint64_t)bytes, &info) == 0);
    return (uint32_t)bytes;
}

static void pool_seal(unsigned char *image, uint32_t length)
{
    static const struct fuzz_field holes[] = {FUZZ_FIELD(ivs_mempool_shared, magic),
                                              FUZZ_FIELD(ivs_mempool_shared, crc)};
    if (length >= 128)
        ((struct ivs_mempool_shared *)(void *)image)->crc = identity(image, holes, 2);
}

static void exercise_pool(struct ivs_mempool *pool, uint32_t n)
{
    uint32_t objects[8];
    uint16_t *where = malloc((size_t)n * sizeof(*where));
    REQUIRE(where != NULL);
    ivs_mempool_join(pool, 0);
    for (uint32_t round = 0; round < 3; round++) {
        int got = ivs_mempool_get_bulk(pool, objects, 3 + round);
        for (int i = 0; i < got; i++) {
            REQUIRE(objects[i] < n);
            memset(pool->objects + (size_t)objects[i] * pool->elt_stride, 0x77, pool->elt_size);
        }
        if (got > 0)
            (void)ivs_mempool_put_bulk(pool, objects, (uint32_t)got);
    }
    CHECK(ivs_mempool_available(pool) <= n && ivs_mempool_out(pool) <= n);
    (void)ivs_mempool_audit(pool, where);
    ivs_mempool_leave(pool);
    free(where);
}

static bool pool_use(unsigned char *memory, uint32_t length)
{
    struct ivs_mempool_info info;
    int fault = ivs_mempool_check(memory, length, &info);
    CHECK(fault >= 0 && fault < IVS_FAULT_COUNT);
    if (fault != IVS_OK)
        return false;
    REQUIRE(info.n > 0 && info.elt_stride >= info.elt_size && info.cache_size <= IVS_MEMPOOL_CACHE_MAX);
    REQUIRE((wide)info.objects_offset + (wide)info.n * info.elt_stride <= (wide)length + 64);
    struct ivs_mempool *pool = malloc(ivs_mempool_handle_size(info.cache_size));
    REQUIRE(pool != NULL);
    ivs_mempool_attach(pool, memory, &info);
    exercise_pool(pool, info.n);
    free(pool);
    return true;
}

/* ---- main ------------------------------------------------------------------------------------------------------ */

static const struct fuzz_target targets[] = {
    {"table", FIELDS(table_fields), table_make, table_seal, table_use},
    {"segment", FIELDS(segment_fields), segment_make, segment_seal, segment_use},
    {"ring", FIELDS(ring_fields), ring_make, ring_seal, ring_use},
    {"mempool", FIELDS(pool_fields), pool_make, pool_seal, pool_use},
};
#define TARGETS (sizeof(targets) / sizeof(targets[0]))

int main(int argc, char **argv)
{
    uint64_t inputs = argc > 1 ? strtoull(argv[1], NULL, 0) : 100000;
    uint64_t seed = hostile_seed(argc - 1, argv + 1);
    fuzz_begin();
    for (uint32_t i = 0; i < TARGETS; i++) {
        const struct fuzz_target *t = &targets[i];
        fuzz_now.target = t->name;
        fuzz_now.number = 0;
        fuzz_each_field(t, &seed);
        uint64_t accepted = fuzz_random(t, inputs / TARGETS, &seed);
        CHECK(inputs / TARGETS < 1000 || (accepted > inputs / TARGETS / 100 && accepted < inputs / TARGETS));
        fuzz_concurrently(t, inputs / TARGETS / 4, &seed);
        printf("%s: %llu inputs, %llu of the random ones accepted\n", t->name, (unsigned long long)fuzz_now.number,
               (unsigned long long)accepted);
    }
    return check_result();
}
