/* SPDX-License-Identifier: BSD-3-Clause */
/* bench.c: the benchmark program. It reads its options, measures all cells in rounds and prints a line per sample.
 * run.py builds and runs it and computes the statistics. */
#define _GNU_SOURCE
#include "bench.h"

#include <sched.h>
#include <string.h>

void bench_fail(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

void *bench_memory(size_t bytes)
{
    size_t whole = (bytes + 4095) & ~(size_t)4095;
    void *memory = aligned_alloc(4096, whole);
    if (memory == NULL)
        bench_fail("out of memory");
    return memset(memory, 0, whole);
}

static uint32_t current_round;

void *bench_buffer(uint32_t thread, size_t bytes)
{
    static unsigned char area[2][16384] __attribute__((aligned(4096)));
    size_t offset = current_round * 11 % 64 * 64; /* visits all 64 lines of a page, with large steps */
    if (thread > 1 || offset + bytes > sizeof(area[0]))
        bench_fail("bench_buffer: thread or size out of range");
    return area[thread] + offset;
}

static uint64_t wanted_ns(const struct bench_cell *cell, const struct bench_options *options)
{
    return cell->cores == BENCH_ONE_CORE ? options->one_core_ns : options->two_core_ns;
}

/* Set cell->operations so that DPDK takes `wanted` ns: double it until a run takes an eighth of that, then extrapolate.
 * All subjects run the same number of operations. */
static void calibrate(struct bench_cell *cell, uint64_t wanted)
{
    uint64_t duration = 0;
    for (cell->operations = 64;; cell->operations *= 2) {
        duration = cell->run(cell, BENCH_DPDK);
        if (duration >= wanted / 8 || cell->operations >= UINT64_C(1) << 32)
            break;
    }
    cell->operations = cell->operations * wanted / (duration + 1) + 1;
}

void bench_measure(struct bench_cell *cells, uint32_t n, const struct bench_options *options)
{
    static const char *const names[BENCH_SUBJECTS] = {"ours", "dpdk", "dpdk_again"};

    for (uint32_t i = 0; i < n; i++)
        calibrate(&cells[i], wanted_ns(&cells[i], options));
    for (uint32_t round = 0; round < options->rounds; round++) {
        current_round = round;
        for (uint32_t i = 0; i < n; i++) {
            double elements = (double)cells[i].operations * cells[i].elements_per_operation;
            for (uint32_t turn = 0; turn < BENCH_SUBJECTS; turn++) {
                uint32_t subject = (turn + round) % BENCH_SUBJECTS; /* rotate the order */
                uint64_t ns = cells[i].run(&cells[i], (enum bench_subject)subject);
                printf("%s\t%s\t%u\t%.4f\n", cells[i].name, names[subject], round, (double)ns / elements);
            }
        }
        fflush(stdout);
    }
}

static void choose_cpus(struct bench_options *options)
{
    cpu_set_t set;
    int found = 0;
    options->cpu[0] = options->cpu[1] = -1;
    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        bench_fail("cannot read the affinity of this process");
    for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++)
        if (CPU_ISSET(cpu, &set))
            options->cpu[found++] = cpu;
}

int main(int argc, char **argv)
{
    struct bench_options options = {.what = "ring", .ring_count = 1024};

    if (argc != 8)
        bench_fail("arguments: ring|mempool ROUNDS ONE_CORE_NS TWO_CORE_NS RING_COUNT CONSTANT_N(0|1) ALL(0|1)");
    options.what = argv[1];
    options.rounds = (uint32_t)strtoul(argv[2], NULL, 10);
    options.one_core_ns = strtoull(argv[3], NULL, 10);
    options.two_core_ns = strtoull(argv[4], NULL, 10);
    options.ring_count = (uint32_t)strtoul(argv[5], NULL, 10);
    options.constant_n = argv[6][0] == '1';
    options.all = argv[7][0] == '1';
    choose_cpus(&options);
    bench_pair_start(&options);
    if (strcmp(options.what, "ring") == 0)
        bench_ring(&options);
    else if (strcmp(options.what, "mempool") == 0)
        bench_pool(&options);
    else
        bench_fail("first argument must be ring or mempool");
    bench_pair_end();
    return 0;
}
