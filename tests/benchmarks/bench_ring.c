/* SPDX-License-Identifier: BSD-3-Clause */
/* bench_ring.c: the cells of the ring benchmark: sync mode x bulk size x element size x cores. */
#include <rte_ring.h>

#include "bench_ring_kernels.h"
#include "ring.h"

#define MODES 4u
#define BULKS 4u
#define ESIZES 3u
#define STALL_NS 1000000000u

static const struct {
    const char *name;
    unsigned flags;
} modes[MODES] = {
    {"ST", RING_F_SP_ENQ | RING_F_SC_DEQ},
    {"MT", 0},
    {"RTS", RING_F_MP_RTS_ENQ | RING_F_MC_RTS_DEQ},
    {"HTS", RING_F_MP_HTS_ENQ | RING_F_MC_HTS_DEQ},
};
static const uint32_t bulks[BULKS] = {1, 8, 32, 128};
static const uint32_t esizes[ESIZES] = {4, 8, 16};

/* The rings of one mode and element size. ivs_ring has one handle per thread. */
struct rings {
    unsigned char padding[2048];
    struct ivs_ring producer, consumer;
    struct rte_ring *dpdk[2];
};

struct detail {
    struct rings *rings;
    const struct ring_kernels *kernels[2]; /* ivs_ring, rte_ring */
    uint32_t n;
};

static void attach(struct ivs_ring *handle, void *memory, uint64_t bytes)
{
    struct ivs_ring_info info;
    if (ivs_ring_attach(handle, memory, bytes, STALL_NS, &info) != 0)
        bench_fail("ivs_ring_attach failed");
}

static struct rte_ring *make_dpdk(uint32_t esize, uint32_t count, unsigned flags)
{
    struct rte_ring *ring = bench_memory((size_t)rte_ring_get_memsize_elem(esize, count));
    if (rte_ring_init(ring, "bench", count, flags) != 0)
        bench_fail("rte_ring_init failed");
    return ring;
}

static void make_rings(struct rings *rings, uint32_t esize, uint32_t count, unsigned flags)
{
    struct ivs_ring_info info = {.name = "bench", .count = count, .elem_size = esize, .flags = flags};
    int64_t bytes = ivs_ring_plan(&info);
    if (bytes < 0)
        bench_fail("ivs_ring_plan failed: count out of range");
    void *memory = bench_memory((size_t)bytes);
    if (ivs_ring_create(memory, (uint64_t)bytes, &info) != 0)
        bench_fail("ivs_ring_create failed");
    attach(&rings->producer, memory, (uint64_t)bytes);
    attach(&rings->consumer, memory, (uint64_t)bytes);
    for (int i = 0; i < 2; i++)
        rings->dpdk[i] = make_dpdk(esize, count, flags);
}

static uint64_t run(const struct bench_cell *cell, enum bench_subject subject)
{
    const struct detail *d = cell->detail;
    struct ring_work work = {.operations = cell->operations, .n = d->n};
    const struct ring_kernels *kernels = d->kernels[subject != BENCH_OURS];

    if (subject == BENCH_OURS) {
        work.producer = &d->rings->producer;
        /* a thread uses one handle for both directions */
        work.consumer = cell->cores == BENCH_ONE_CORE ? &d->rings->producer : &d->rings->consumer;
    } else {
        work.producer = work.consumer = d->rings->dpdk[subject == BENCH_DPDK_AGAIN];
    }
    if (cell->cores == BENCH_TWO_CORES)
        return bench_both(kernels->produce, kernels->consume, &work);
    uint64_t begin = ivs_now_ns();
    kernels->alone(&work);
    return ivs_now_ns() - begin;
}

static struct bench_cell make_cell(struct rings *rings, uint32_t mode, uint32_t esize, uint32_t bulk, uint32_t cores,
                                   bool constant_n)
{
    struct detail *detail = bench_memory(sizeof(*detail));
    struct bench_cell cell = {.run = run, .cores = (enum bench_cores)cores, .detail = detail};
    /* DPDK's own test has a separate call for single elements, and a variable for bulk sizes. */
    uint32_t kernel = constant_n || bulk == 0 ? bulk : BULKS;

    detail->rings = rings;
    detail->n = bulks[bulk];
    detail->kernels[0] = &ours_kernels[esize][kernel];
    detail->kernels[1] = &dpdk_kernels[esize][kernel];
    cell.elements_per_operation = bulks[bulk];
    snprintf(cell.name, sizeof(cell.name), "%s\t%u\t%u\t%u", modes[mode].name, bulks[bulk], esizes[esize], cores);
    return cell;
}

void bench_ring(const struct bench_options *options)
{
    struct bench_cell cells[MODES * ESIZES * BULKS * 2];
    uint32_t n = 0;

    for (uint32_t mode = 0; mode < MODES; mode++) {
        for (uint32_t esize = 0; esize < ESIZES; esize++) {
            struct rings *rings = bench_memory(sizeof(*rings));
            make_rings(rings, esizes[esize], options->ring_count, modes[mode].flags);
            for (uint32_t bulk = 0; bulk < BULKS; bulk++) {
                if (!options->all && (bulks[bulk] == 128 || esizes[esize] != 8))
                    continue;
                for (uint32_t cores = 1; cores <= (options->cpu[1] < 0 ? 1 : 2); cores++)
                    cells[n++] = make_cell(rings, mode, esize, bulk, cores, options->constant_n);
            }
        }
    }
    bench_measure(cells, n, options);
}
