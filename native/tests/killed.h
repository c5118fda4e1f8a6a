/* SPDX-License-Identifier: BSD-3-Clause */
/* killed.h: a process that is killed after a given number of instructions, and memory that outlives it.
 *
 * A kill leaves only the shared memory behind. So the kill is tried before the first instruction and after each one
 * that changed the memory, which also represents the following ones that change nothing. */
#ifndef KILLED_H
#define KILLED_H

#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define KILLED_INSTRUCTIONS 20000u /* a longer operation is an endless loop */
#define KILLED_POINTS 400u

typedef void (*killed_work)(void *subject);

/* Memory shared with children. */
static inline void *killed_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    return memory;
}

/* A child that stops before `work`, and exits after it without another instruction of libc. */
static inline pid_t killed_start(killed_work work, void *subject)
{
    killed_work volatile called = work; /* volatile: not inlined, so the instructions are the same each time */
    int status;
    pid_t victim = fork();
    REQUIRE(victim >= 0);
    if (victim == 0) {
        (void)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        (void)syscall(SYS_kill, syscall(SYS_getpid), SIGSTOP);
        called(subject);
        (void)syscall(SYS_exit_group, 0);
    }
    REQUIRE(waitpid(victim, &status, 0) == victim && WIFSTOPPED(status));
    return victim;
}

/* Execute one instruction. Returns false if the victim has exited. */
static inline bool killed_step(pid_t victim)
{
    int status;
    REQUIRE(ptrace(PTRACE_SINGLESTEP, victim, NULL, NULL) == 0);
    REQUIRE(waitpid(victim, &status, 0) == victim);
    if (WIFEXITED(status)) {
        CHECK_EQ(WEXITSTATUS(status), 0);
        return false;
    }
    REQUIRE(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
    return true;
}

/* Run a victim to its end. Writes to `points` the rising numbers of instructions after which `memory` had changed, with
 * 0 as the first. Returns the number of points. */
static inline uint32_t killed_points(killed_work work, void *subject, const void *memory, size_t bytes,
                                     uint32_t *points)
{
    pid_t victim = killed_start(work, subject);
    void *last = malloc(bytes);
    uint32_t n = 0;
    REQUIRE(last != NULL);
    memcpy(last, memory, bytes);
    points[n++] = 0;
    for (uint32_t done = 1; killed_step(victim); done++) {
        REQUIRE(done < KILLED_INSTRUCTIONS);
        if (memcmp(last, memory, bytes) == 0)
            continue;
        memcpy(last, memory, bytes);
        REQUIRE(n < KILLED_POINTS);
        points[n++] = done;
    }
    free(last);
    return n;
}

/* Run `work` in a child and kill it after this many instructions. */
static inline void killed_after(uint32_t instructions, killed_work work, void *subject)
{
    int status;
    pid_t victim = killed_start(work, subject);
    for (uint32_t i = 0; i < instructions; i++)
        REQUIRE(killed_step(victim));
    REQUIRE(kill(victim, SIGKILL) == 0);
    REQUIRE(waitpid(victim, &status, 0) == victim && WIFSIGNALED(status));
}

#endif
