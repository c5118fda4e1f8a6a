/* SPDX-License-Identifier: BSD-3-Clause */
/* table.c: table files (metadata files and registries): a header page and two slots, one of which is current. */
#include "table.h"

#include <errno.h>
#include <string.h>

#include "pvt/identity.h"
#include "pvt/name.h"
#include "pvt/sizes.h"

#define READ_TRIES 100 /* bounds the retries against a hostile writer */

static uint32_t table_crc(const void *table, uint64_t length)
{
    const uint32_t zero = 0;
    const unsigned char *bytes = (const unsigned char *)table;
    _Static_assert(offsetof(struct ivs_table, crc) == 0, "the CRC comes first");
    return ivs_crc32c(ivs_crc32c(0, &zero, 4), bytes + 4, length - 4);
}

uint64_t ivs_table_room(uint64_t size)
{
    return size < IVS_HEADER_SIZE ? 0 : (size - IVS_HEADER_SIZE) / 2 & ~UINT64_C(63);
}

static uint64_t slot_offset(uint64_t size, uint64_t selector)
{
    return IVS_HEADER_SIZE + (selector & 1) * ivs_table_room(size);
}

void ivs_table_format(void *base, uint64_t magic, const struct ivs_table_info *info, uint64_t epoch)
{
    struct ivs_table_file *f = (struct ivs_table_file *)base;
    struct ivs_table empty = {.epoch = epoch};

    f->version = IVS_TABLE_VERSION;
    f->header_size = IVS_HEADER_SIZE;
    memcpy(f->uuid, info->uuid, sizeof(f->uuid));
    f->size = info->size;
    memcpy(f->name, info->name, sizeof(f->name));
    f->crc = IVS_IDENTITY_CRC(ivs_table_file, f);
    (void)ivs_table_publish(base, info->size, &empty, sizeof(empty));
    /* release: pairs with ivs_table_check_file() in table.c */
    atomic_store_explicit(&f->magic, magic, memory_order_release);
}

int ivs_table_check_file(const void *base, uint64_t length, uint64_t magic, struct ivs_table_info *info)
{
    const struct ivs_table_file *shared = (const struct ivs_table_file *)base;
    struct ivs_table_file f;

    memset(info, 0, sizeof(*info));
    if (length < IVS_HEADER_SIZE)
        return IVS_FAULT_LENGTH;
    /* acquire: pairs with ivs_table_format() in table.c */
    if (atomic_load_explicit(&shared->magic, memory_order_acquire) != magic)
        return IVS_FAULT_MAGIC;
    memcpy(&f, base, sizeof(f));
    info->version = f.version;
    if (ivs_name_ok(f.name))
        memcpy(info->name, f.name, sizeof(info->name));
    if (f.version != IVS_TABLE_VERSION || f.header_size != IVS_HEADER_SIZE)
        return IVS_FAULT_VERSION;
    if (f.crc != IVS_IDENTITY_CRC(ivs_table_file, &f))
        return IVS_FAULT_CRC;
    if (info->name[0] == 0)
        return IVS_FAULT_NAME;
    if (f.size > length)
        return IVS_FAULT_LENGTH;
    if (ivs_table_room(f.size) < sizeof(struct ivs_table))
        return IVS_FAULT_TABLE_SIZE;
    memcpy(info->uuid, f.uuid, sizeof(info->uuid));
    info->size = f.size;
    return IVS_OK;
}

uint64_t ivs_table_selector(const void *base)
{
    /* acquire: pairs with ivs_table_publish() in table.c: the table is complete before its selector is stored */
    return atomic_load_explicit(&((const struct ivs_table_file *)base)->selector, memory_order_acquire);
}

int64_t ivs_table_read(const void *base, uint64_t size, void *copy)
{
    const unsigned char *file = (const unsigned char *)base;
    int fault = IVS_FAULT_SELECTOR;

    for (int i = 0; i < READ_TRIES; i++) {
        uint64_t selector = ivs_table_selector(base);
        const unsigned char *slot = file + slot_offset(size, selector);
        struct ivs_table head;
        memcpy(&head, slot, sizeof(head));
        uint64_t length = head.length;
        if (length >= sizeof(head) && length <= ivs_table_room(size)) {
            memcpy(copy, slot, length);
            memcpy(copy, &head, sizeof(head)); /* a peer may have changed `length` since it was checked */
            fault = ivs_table_check(copy, length, selector);
            if (fault == IVS_OK)
                return (int64_t)length;
        }
        /* acquire: pairs with ivs_table_publish() in table.c: the copy precedes this second load of the selector */
        atomic_thread_fence(memory_order_acquire);
        if (ivs_table_selector(base) == selector)
            break;
    }
    return -(int64_t)fault;
}


static bool in_heap(struct ivs_heap_ref ref, uint64_t heap)
{
    return (uint64_t)ref.offset + ref.length <= heap;
}

static int check_segment(const struct ivs_table_segment *s, uint64_t heap)
{
    if (!ivs_is_segment_size(s->size, s->page_size))
        return IVS_FAULT_SEGMENT;
    if (!ivs_name_ok(s->group))
        return IVS_FAULT_NAME;
    return in_heap(s->path, heap) && s->path.length <= IVS_PATH_MOST ? IVS_OK : IVS_FAULT_TABLE_SIZE;
}

static int check_entry(const struct ivs_table_entry *e, const struct ivs_table_segment *segments, uint32_t n_segments,
                       uint64_t heap)
{
    if (!ivs_name_ok(e->name))
        return IVS_FAULT_NAME;
    if (e->kind < IVS_KIND_MEMZONE || e->kind > IVS_KIND_MEMPOOL)
        return IVS_FAULT_ENTRY_KIND;
    if (e->segment >= n_segments)
        return IVS_FAULT_ENTRY_SEGMENT;
    uint64_t size = segments[e->segment].size;
    if (e->offset < IVS_HEADER_SIZE || e->offset > size || e->length > size - e->offset || e->length == 0)
        return IVS_FAULT_ENTRY_RANGE;
    if (!in_heap(e->dtype, heap) || e->dtype.length > IVS_DTYPE_MOST)
        return IVS_FAULT_ENTRY_HEAP;
    if (!in_heap(e->shape, heap) || e->shape.length % 8 != 0 || e->shape.length > 8 * IVS_DIMS_MOST)
        return IVS_FAULT_ENTRY_HEAP;
    return IVS_OK;
}

int ivs_table_check(const void *table, uint64_t length, uint64_t selector)
{
    const struct ivs_table *t = (const struct ivs_table *)table;

    if (length < sizeof(*t) || t->length != length)
        return IVS_FAULT_TABLE_SIZE;
    if (t->selector != selector)
        return IVS_FAULT_SELECTOR;
    if (t->crc != table_crc(table, length))
        return IVS_FAULT_CRC;
    /* No overflow: 32-bit counts times 96 fit 64 bits, and the heap is compared, not added. */
    uint64_t fixed = sizeof(*t) + (uint64_t)t->n_segments * sizeof(struct ivs_table_segment) +
                     (uint64_t)t->n_entries * sizeof(struct ivs_table_entry);
    if (fixed > length || t->heap != length - fixed)
        return IVS_FAULT_TABLE_SIZE;

    const struct ivs_table_segment *segments = (const struct ivs_table_segment *)(const void *)(t + 1);
    const struct ivs_table_entry *entries = (const struct ivs_table_entry *)(const void *)(segments + t->n_segments);
    for (uint32_t i = 0; i < t->n_segments; i++) {
        int fault = check_segment(&segments[i], t->heap);
        if (fault != IVS_OK)
            return fault;
    }
    for (uint32_t i = 0; i < t->n_entries; i++) {
        int fault = check_entry(&entries[i], segments, t->n_segments, t->heap);
        if (fault != IVS_OK)
            return fault;
    }
    return IVS_OK;
}

int ivs_table_publish(void *base, uint64_t size, void *table, uint64_t length)
{
    struct ivs_table_file *f = (struct ivs_table_file *)base;
    struct ivs_table *t = (struct ivs_table *)table;
    uint64_t selector = atomic_load_explicit(&f->selector, memory_order_relaxed) + 1;

    if (length > ivs_table_room(size))
        return -ENOSPC;
    t->length = length;
    t->selector = selector;
    t->crc = table_crc(table, length);
    if (ivs_table_check(table, length, selector) != IVS_OK)
        return -EINVAL;
    memcpy((unsigned char *)base + slot_offset(size, selector), table, length);
    /* release: pairs with ivs_table_selector() in table.c */
    atomic_store_explicit(&f->selector, selector, memory_order_release);
    return 0;
}

void ivs_table_set_leaving(void *base, uint32_t number)
{
    /* seq_cst: pairs with ivs_participant_guard() in segment.c */
    atomic_store(&((struct ivs_table_file *)base)->leaving, number);
}

uint32_t ivs_table_leaving(const void *base)
{
    /* seq_cst: pairs with ivs_table_set_leaving() in table.c */
    return atomic_load(&((const struct ivs_table_file *)base)->leaving);
}
