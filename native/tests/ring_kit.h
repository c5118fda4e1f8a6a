/* SPDX-License-Identifier: BSD-3-Clause */
/* ring_kit.h: rings for tests: create, attach, set the index. */
#ifndef RING_KIT_H
#define RING_KIT_H

#include "check.h"
#include "fault.h"
#include "ring.h"

#define KIT_STALL_NS 50000000u

struct kit_mode {
    const char *name;
    uint32_t flags;
};

/* Both sides equal, then mixed. */
static const struct kit_mode kit_modes[] = {
    {"ST", IVS_RING_SP_ENQ | IVS_RING_SC_DEQ},
    {"MT", 0},
    {"RTS", IVS_RING_MP_RTS_ENQ | IVS_RING_MC_RTS_DEQ},
    {"HTS", IVS_RING_MP_HTS_ENQ | IVS_RING_MC_HTS_DEQ},
    {"MT-ST", IVS_RING_SC_DEQ},
    {"ST-MT", IVS_RING_SP_ENQ},
    {"RTS-HTS", IVS_RING_MP_RTS_ENQ | IVS_RING_MC_HTS_DEQ},
    {"HTS-RTS", IVS_RING_MP_HTS_ENQ | IVS_RING_MC_RTS_DEQ},
};
#define KIT_MODES (sizeof(kit_modes) / sizeof(kit_modes[0]))

struct kit {
    struct ivs_ring_shared *memory;
    uint64_t bytes;
    struct ivs_ring_info info;
    struct ivs_ring r;
};

static inline int64_t kit_plan(struct kit *k, uint32_t count, uint32_t elem_size, uint32_t flags)
{
    memset(k, 0, sizeof(*k));
    strcpy(k->info.name, "test");
    k->info.count = count;
    k->info.elem_size = elem_size;
    k->info.flags = flags;
    int64_t bytes = ivs_ring_plan(&k->info);
    k->bytes = bytes < 0 ? 0 : (uint64_t)bytes;
    return bytes;
}

/* Move both sides of an empty ring to `index`, as after that many elements. */
static inline void kit_set_index(struct ivs_ring_shared *ring, uint32_t index)
{
    uint64_t both = (uint64_t)index << 32 | index;
    union ivs_ring_end *ends[2] = {&ring->prod, &ring->cons};
    for (int i = 0; i < 2; i++) {
        if (ends[i]->sync_type == IVS_SYNC_RTS) {
            atomic_store(&ends[i]->rts.tail, (uint64_t)index << 32);
            atomic_store(&ends[i]->rts.head, (uint64_t)index << 32);
        } else {
            atomic_store(&ends[i]->hts.raw, both);
        }
    }
}

static inline void kit_attach(struct kit *k, struct ivs_ring *r)
{
    struct ivs_ring_info seen;
    REQUIRE(ivs_ring_attach(r, k->memory, k->bytes, KIT_STALL_NS, &seen) == IVS_OK);
}

static inline void kit_make(struct kit *k, uint32_t count, uint32_t elem_size, uint32_t flags)
{
    REQUIRE(kit_plan(k, count, elem_size, flags) > 0);
    k->memory = check_memory(k->bytes);
    REQUIRE(ivs_ring_create(k->memory, k->bytes, &k->info) == 0);
    kit_attach(k, &k->r);
}

static inline void kit_free(struct kit *k)
{
    free(k->memory);
    k->memory = NULL;
}

#endif
