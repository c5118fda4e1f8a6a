/* SPDX-License-Identifier: BSD-3-Clause */
/* killed.h: a process that is killed after so many instructions of what it does, and memory that outlives it.
 *
 * What a kill leaves behind is the shared memory. So it is tried after each instruction that changed any of it, which
 * stands for those that follow and change nothing, and before the first one.
 */
#ifndef KILLED_H
#define KILLED_H

#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define KILLED_INSTRUCTIONS 20000u /* an operation of more is a loop that does not end */
#define KILLED_POINTS 400u

typedef void (*killed_work)(void *subject);

/* Memory that children share. */
static inline void *killed_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    return memory;
}

/* A child that stops before it works, and ends behind it without another instruction of libc's. */
static inline pid_t killed_start(killed_work work, void *subject)
{
    killed_work volatile called = work; /* the same instructions each time: nothing of it is inlined */
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

/* One instruction. False if the victim has come to its end. */
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

/* Lets a victim come to its end. Writes to `points` after how many instructions `memory` was not as before, rising, and
 * 0 as the first. Returns how many points there are. */
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

/* Runs `work` in a child and kills it after so many instructions. */
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
