/* SPDX-License-Identifier: BSD-3-Clause */
/* crew.h: concurrent workers on shared memory: threads of this process, or child processes. */
#ifndef CREW_H
#define CREW_H

#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define CREW_MOST 8u

typedef void (*crew_work)(uint32_t number, void *shared);

struct crew_member {
    crew_work work;
    uint32_t number;
    void *shared;
};

static inline void *crew_thread(void *argument)
{
    const struct crew_member *member = argument;
    member->work(member->number, member->shared);
    return NULL;
}

/* Memory shared with children. */
static inline void *crew_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    return memory;
}

static inline void crew_threads(uint32_t n, crew_work work, void *shared)
{
    pthread_t threads[CREW_MOST];
    struct crew_member members[CREW_MOST];
    for (uint32_t i = 0; i < n; i++) {
        members[i] = (struct crew_member){work, i, shared};
        REQUIRE(pthread_create(&threads[i], NULL, crew_thread, &members[i]) == 0);
    }
    for (uint32_t i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

/* A failed check in a child makes its exit status 1, which is a failed check here. */
static inline void crew_processes(uint32_t n, crew_work work, void *shared)
{
    pid_t children[CREW_MOST];
    for (uint32_t i = 0; i < n; i++) {
        children[i] = fork();
        REQUIRE(children[i] >= 0);
        if (children[i] == 0) {
            work(i, shared);
            fflush(stderr);
            _exit(check_result());
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        int status = -1;
        CHECK_EQ(waitpid(children[i], &status, 0), children[i]);
        CHECK_EQ(status, 0);
    }
}

/* Run work(0..n-1, shared) concurrently: "threads" or "processes". */
static inline void crew_run(const char *kind, uint32_t n, crew_work work, void *shared)
{
    if (strcmp(kind, "threads") == 0)
        crew_threads(n, work, shared);
    else
        crew_processes(n, work, shared);
}

#endif
