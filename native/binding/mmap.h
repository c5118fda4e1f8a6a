/* SPDX-License-Identifier: BSD-3-Clause */
/* map.h: mapping a file shared, taking its pages, and binding them to a NUMA node. */
#ifndef IVS_MAP_H
#define IVS_MAP_H

#include <stdint.h>

/* Maps `length` bytes of `fd` from `offset` on, shared. At `hint` if that range is free and hint is not 0, anywhere
 * otherwise. Returns the address, or a negative errno. */
int64_t ivs_map(int fd, uint64_t offset, uint64_t length, int writable, uint64_t hint);

/* Unmaps; returns 0 or a negative errno. */
int ivs_unmap(uint64_t address, uint64_t length);

/* Puts private zero pages where something is mapped, in one step: who reads or writes there meanwhile goes on, and
 * reaches nobody. Returns 0 or a negative errno. */
int ivs_map_nothing(uint64_t address, uint64_t length, int writable);

/* Moves a mapping over another one of the same length, in one step for who reads or writes there; nothing is left at
 * `from`. Returns 0 or a negative errno. */
int ivs_map_move(uint64_t from, uint64_t length, uint64_t to);

/* Takes every page of a writable mapping now. Returns 0, or -EFAULT / -ENOMEM where there are too few. */
int ivs_populate(uint64_t address, uint64_t length, uint64_t page_size);

/* Binds the range to a NUMA node, before its pages are touched (mbind, MPOL_BIND). Returns 0 or a negative errno. */
int ivs_bind(uint64_t address, uint64_t length, int node);

/* The NUMA node of the page at `address` (get_mempolicy), or a negative errno. */
int ivs_node_of(uint64_t address);

/* How many pages of a range that was populated do not lie on `node` (move_pages). Or a negative errno. */
int64_t ivs_count_elsewhere(uint64_t address, uint64_t length, uint64_t page_size, int node);

/* Fills `length` bytes from base + offset on with zero bytes. */
void ivs_zero(void *base, uint64_t offset, uint64_t length);

#endif
