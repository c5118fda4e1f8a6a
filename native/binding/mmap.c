/* SPDX-License-Identifier: BSD-3-Clause */
/* mmap.c: the system calls that Python's mmap module does not offer. */
#define _GNU_SOURCE
#include "mmap.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* From linux/mempolicy.h, which not every system installs. */
#define MPOL_BIND_ 2
#define MPOL_F_NODE_ 1ul
#define MPOL_F_ADDR_ 2ul

static void *pointer(uint64_t address)
{
    return (void *)(uintptr_t)address;
}

int64_t ivs_map(int fd, uint64_t offset, uint64_t length, int writable, uint64_t hint)
{
    int prot = PROT_READ | (writable ? PROT_WRITE : 0);
    void *at = MAP_FAILED;

    if (hint != 0) {
        at = mmap(pointer(hint), length, prot, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, (off_t)offset);
        /* A kernel before 4.17 treats the flag as a plain hint and may map at another address, which is allowed too. */
        if (at == MAP_FAILED && errno != EEXIST && errno != ENOMEM && errno != EINVAL && errno != EPERM)
            return -errno;
    }
    if (at == MAP_FAILED)
        at = mmap(NULL, length, prot, MAP_SHARED, fd, (off_t)offset);
    return at == MAP_FAILED ? -errno : (int64_t)(uintptr_t)at;
}

int ivs_unmap(uint64_t address, uint64_t length)
{
    return munmap(pointer(address), length) == 0 ? 0 : -errno;
}

int ivs_map_anonymous(uint64_t address, uint64_t length, int writable)
{
    int prot = PROT_READ | (writable ? PROT_WRITE : 0);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
    return mmap(pointer(address), length, prot, flags, -1, 0) == MAP_FAILED ? -errno : 0;
}

int ivs_map_move(uint64_t from, uint64_t length, uint64_t to)
{
    void *moved = mremap(pointer(from), length, length, MREMAP_MAYMOVE | MREMAP_FIXED, pointer(to));
    return moved == MAP_FAILED ? -errno : 0;
}

int ivs_populate(uint64_t address, uint64_t length, uint64_t page_size)
{
    if (madvise(pointer(address), length, MADV_POPULATE_WRITE) == 0)
        return 0;
    if (errno != EINVAL)
        return -errno;
    /* Kernel before 5.14: write to each page. The caller has reserved the pages, so there is no SIGBUS. */
    for (uint64_t at = 0; at < length; at += page_size) {
        volatile unsigned char *byte = (volatile unsigned char *)pointer(address + at);
        *byte = *byte;
    }
    return 0;
}

int ivs_bind(uint64_t address, uint64_t length, int node)
{
    unsigned long mask[16] = {0};
    const unsigned bits = 8 * sizeof(mask[0]);

    if (node < 0 || (unsigned)node >= bits * 16)
        return -EINVAL;
    mask[(unsigned)node / bits] = 1ul << ((unsigned)node % bits);
    /* + 1: the kernel reads one bit fewer than maxnode. */
    long result = syscall(SYS_mbind, pointer(address), length, MPOL_BIND_, mask, bits * 16 + 1, 0);
    return result == 0 ? 0 : -errno;
}

int ivs_node_of(uint64_t address)
{
    int node = -1;
    long result = syscall(SYS_get_mempolicy, &node, NULL, 0, pointer(address), MPOL_F_NODE_ | MPOL_F_ADDR_);
    return result == 0 ? node : -errno;
}

/* move_pages reports no node for some hugetlbfs pages: ask get_mempolicy about those. */
static int node_of_page(uint64_t address, int status)
{
    return status >= 0 ? status : ivs_node_of(address);
}

int64_t ivs_count_remote_pages(uint64_t address, uint64_t length, uint64_t page_size, int node)
{
    enum { BATCH = 512 };
    void *pages[BATCH];
    int status[BATCH];
    int64_t remote = 0;

    for (uint64_t at = 0; at < length;) {
        unsigned long count = 0;
        for (uint64_t next = at; count < BATCH && next < length; next += page_size)
            pages[count++] = pointer(address + next);
        /* Without target nodes, move_pages only reports the node of each page. */
        if (syscall(SYS_move_pages, 0, count, pages, NULL, status, 0) < 0)
            return -errno;
        for (unsigned long i = 0; i < count; i++)
            remote += node_of_page(address + at + i * page_size, status[i]) != node;
        at += count * page_size;
    }
    return remote;
}

void ivs_zero(void *base, uint64_t offset, uint64_t length)
{
    memset((unsigned char *)base + offset, 0, length);
}
