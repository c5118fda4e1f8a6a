/* SPDX-License-Identifier: BSD-3-Clause */
/* mmap.h: map a file shared, allocate its pages, and bind them to a NUMA node. */
#ifndef IVS_MMAP_H
#define IVS_MMAP_H

#include <stdint.h>

/* Unless stated otherwise these return 0 or a negative errno. */

/* Maps `length` bytes of `fd` from `offset`, shared: at `hint` if it is not 0 and the range is free, otherwise at an
 * address chosen by the kernel. Returns the address, or a negative errno. */
int64_t ivs_map(int fd, uint64_t offset, uint64_t length, int writable, uint64_t hint);

int ivs_unmap(uint64_t address, uint64_t length);

/* Atomically replaces a mapping by private zero pages: threads that access the range do not fault, and their writes no
 * longer reach shared memory. */
int ivs_map_anonymous(uint64_t address, uint64_t length, int writable);

/* Atomically moves a mapping over another mapping of the same length; `from` is unmapped afterwards. */
int ivs_map_move(uint64_t from, uint64_t length, uint64_t to);

/* Faults in every page of a writable mapping. -EFAULT or -ENOMEM: too few pages are available. */
int ivs_populate(uint64_t address, uint64_t length, uint64_t page_size);

/* Binds the range to a NUMA node; call it before the first access (mbind, MPOL_BIND). */
int ivs_bind(uint64_t address, uint64_t length, int node);

/* Returns the NUMA node of the page at `address`, or a negative errno (get_mempolicy). */
int ivs_node_of(uint64_t address);

/* Returns how many pages of a populated range are on another node than `node`, or a negative errno (move_pages). */
int64_t ivs_count_remote_pages(uint64_t address, uint64_t length, uint64_t page_size, int node);

/* Writes `length` zero bytes at base + offset. */
void ivs_zero(void *base, uint64_t offset, uint64_t length);

#endif
