/* SPDX-License-Identifier: BSD-3-Clause */
/* bench_pool.c: the cells of the mempool benchmark: cache or none x bulk size x cores. */
#define _GNU_SOURCE
#include <rte_eal.h>
#include <rte_lcore.h>
#include <rte_mempool.h>

#include "bench_pool_kernels.h"
#include "mempool.h"

#define BULKS 3u
#define OBJECTS 8191u
#define OBJECT_SIZE 64u
#define CACHE_SIZE 256u

static const uint32_t bulks[BULKS] = {1, 4, 32};

struct pools {
    struct ivs_mempool *ours[2]; /* one handle per thread */
    struct rte_mempool *dpdk[2]; /* one pool for BENCH_DPDK, one for BENCH_DPDK_AGAIN */
};

struct detail {
    struct pools *pools;
    const struct pool_kernels *kernels[2]; /* ivs_mempool, rte_mempool */
    uint32_t n;
};

/* rte_mempool requires rte_eal_init. */
static void start_eal(int cpu)
{
    char lcores[32];
    char *arguments[] = {"bench", "--no-huge", "--no-pci", "--no-shconf", "--no-telemetry", "--log-level=error", "-m",
                         "64",    "--lcores",  lcores,     NULL};
    snprintf(lcores, sizeof(lcores), "0@%d", cpu);
    if (rte_eal_init((int)(sizeof(arguments) / sizeof(arguments[0])) - 1, arguments) < 0)
        bench_fail("rte_eal_init failed");
}

static void do_nothing(void *unused)
{
    (void)unused;
}

/* In DPDK only threads with an lcore id have a mempool cache. */
static void become_lcore(void *unused)
{
    (void)unused;
    if (rte_lcore_id() == LCORE_ID_ANY && rte_thread_register() != 0)
        bench_fail("rte_thread_register failed");
}

static struct ivs_mempool *attach(void *memory, uint64_t bytes, uint32_t slot)
{
    struct ivs_mempool_info info;
    if (ivs_mempool_check(memory, bytes, &info) != 0)
        bench_fail("ivs_mempool_check failed");
    struct ivs_mempool *pool = bench_memory(ivs_mempool_handle_size(info.cache_size));
    ivs_mempool_attach(pool, memory, &info);
    ivs_mempool_join(pool, slot);
    return pool;
}

static struct pools *make_pools(uint32_t cache_size)
{
    struct ivs_mempool_info info = {.name = "bench", .n = OBJECTS, .elt_size = OBJECT_SIZE, .cache_size = cache_size};
    struct pools *pools = bench_memory(sizeof(*pools));
    int64_t bytes = ivs_mempool_plan(&info);
    void *memory = bytes < 0 ? NULL : bench_memory((size_t)bytes);
    if (memory == NULL || ivs_mempool_create(memory, (uint64_t)bytes, &info) != 0)
        bench_fail("ivs_mempool_plan or ivs_mempool_create failed");
    for (uint32_t i = 0; i < 2; i++) {
        char name[32];
        snprintf(name, sizeof(name), "bench%u_%u", cache_size, i);
        pools->ours[i] = attach(memory, (uint64_t)bytes, i);
        pools->dpdk[i] =
            rte_mempool_create(name, OBJECTS, OBJECT_SIZE, cache_size, 0, NULL, NULL, NULL, NULL, SOCKET_ID_ANY, 0);
        if (pools->dpdk[i] == NULL)
            bench_fail("rte_mempool_create failed");
    }
    return pools;
}

static uint64_t run(const struct bench_cell *cell, enum bench_subject subject)
{
    const struct detail *d = cell->detail;
    const struct pool_kernels *kernels = d->kernels[subject != BENCH_OURS];
    struct pool_work work = {.operations = cell->operations, .n = d->n};

    for (uint32_t i = 0; i < 2; i++)
        work.pool[i] =
            subject == BENCH_OURS ? (void *)d->pools->ours[i] : (void *)d->pools->dpdk[subject == BENCH_DPDK_AGAIN];
    if (cell->cores == BENCH_TWO_CORES)
        return bench_both(kernels->first, kernels->second, &work);
    uint64_t begin = ivs_now_ns();
    kernels->first(&work);
    return ivs_now_ns() - begin;
}

static struct bench_cell make_cell(struct pools *pools, uint32_t cache_size, uint32_t bulk, uint32_t cores,
                                   bool constant_n)
{
    struct detail *detail = bench_memory(sizeof(*detail));
    struct bench_cell cell = {.run = run, .cores = (enum bench_cores)cores, .detail = detail};
    uint32_t kernel = constant_n || bulk == 0 ? bulk : BULKS;

    detail->pools = pools;
    detail->n = bulks[bulk];
    detail->kernels[0] = &ours_pool_kernels[kernel];
    detail->kernels[1] = &dpdk_pool_kernels[kernel];
    cell.elements_per_operation = BENCH_KEEP;
    snprintf(cell.name, sizeof(cell.name), "%s\t%u\t%u", cache_size ? "cache" : "none", bulks[bulk], cores);
    return cell;
}

void bench_pool(const struct bench_options *options)
{
    static const uint32_t cache_sizes[2] = {CACHE_SIZE, 0};
    struct bench_cell cells[2 * BULKS * 2];
    uint32_t n = 0, cores = options->cpu[1] < 0 ? 1 : 2;

    start_eal(options->cpu[0]);
    if (cores == 2)
        (void)bench_both(do_nothing, become_lcore, NULL);
    for (uint32_t i = 0; i < 2; i++) {
        struct pools *pools = make_pools(cache_sizes[i]);
        for (uint32_t bulk = 0; bulk < BULKS; bulk++)
            for (uint32_t c = 1; c <= cores; c++)
                cells[n++] = make_cell(pools, cache_sizes[i], bulk, c, options->constant_n);
    }
    bench_measure(cells, n, options);
}
