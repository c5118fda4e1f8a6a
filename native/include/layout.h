/* SPDX-License-Identifier: BSD-3-Clause */
/* layout.h: all shared-memory formats, byte by byte.
 *
 * All numbers are little-endian and naturally aligned. There are no pointers: a location is an offset from the start of
 * the structure or file that contains it. Each change of a structure increments its version. "Line" is a cache line.
 *
 *   segment    one file (in a guest: a PCI BAR): a header page, then memzones
 *   table      content of a metadata file (for a VM) and of a registry (host only): two slots and a selector
 *   ring       byte-identical to rte_ring; our extension is in a line that DPDK leaves unused
 *   mempool    header, free bitmap, one cache per participant slot, objects
 *   mbuf       header of each object in a pool of mbufs; the private area and the buffer follow it
 */
#ifndef IVS_LAYOUT_H
#define IVS_LAYOUT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define IVS_CACHE_LINE 64u
#define IVS_HEADER_SIZE 4096u /* header page of a segment or table file */
#define IVS_NAME_SIZE 32u     /* bytes of a name, including its NUL */
#define IVS_PARTICIPANTS 64u

/* A magic is the little-endian value of the eight ASCII bytes in its comment. */
#define IVS_SEGMENT_MAGIC UINT64_C(0x4745534d48535649)  /* "IVSHMSEG" */
#define IVS_METADATA_MAGIC UINT64_C(0x54454d4d48535649) /* "IVSHMMET" */
#define IVS_REGISTRY_MAGIC UINT64_C(0x4745524d48535649) /* "IVSHMREG" */
#define IVS_RING_MAGIC UINT64_C(0x474e524d48535649)     /* "IVSHMRNG" */
#define IVS_MEMPOOL_MAGIC UINT64_C(0x4c4f504d48535649)  /* "IVSHMPOL" */

#define IVS_SEGMENT_VERSION 2u /* version 1 is also accepted: ivs_participant.share was reserved and is 0 */
#define IVS_SEGMENT_OLDEST 1u
#define IVS_TABLE_VERSION 1u
#define IVS_RING_VERSION 1u
#define IVS_MEMPOOL_VERSION 1u
#define IVS_MBUF_VERSION 1u

#define IVS_ASSERT_AT(type, field, offset)                                                                             \
    _Static_assert(offsetof(struct type, field) == (offset), #type "." #field " is not at " #offset)
#define IVS_ASSERT_SIZE(type, size) _Static_assert(sizeof(struct type) == (size), "sizeof " #type " is not " #size)

/* ---- segment ------------------------------------------------------------------------------------------- */

/* A participant slot: one thread that uses objects of the segment, or (a monitor slot) the hotplug monitor of a process
 * that has mapped a share. A slot is claimed by a compare-and-swap of `owner` from 0, and thus names its owner. */
struct ivs_participant {
    _Atomic uint64_t owner;     /* 0: free; else machine << 32 | thread id; machine: hash of boot id, pid namespace */
    _Atomic uint64_t process;   /* process id << 40 | start time of the process, in clock ticks since boot */
    _Atomic uint64_t heartbeat; /* monitor slot: incremented from 1 while the process lives; 0: no heartbeat yet */
    _Atomic uint32_t ack;       /* monitor slot: the last announcement (ivs_table_file.leaving) acknowledged */
    _Atomic uint32_t share;     /* monitor slot: the mapped share (ivs_share_word); 0: slot of a thread */
};
IVS_ASSERT_SIZE(ivs_participant, 32);
IVS_ASSERT_AT(ivs_participant, process, 8);
IVS_ASSERT_AT(ivs_participant, heartbeat, 16);
IVS_ASSERT_AT(ivs_participant, ack, 24);
IVS_ASSERT_AT(ivs_participant, share, 28);

struct ivs_segment {
    /* line 0 and 1: identity, written once; crc covers both lines with magic and crc set to 0 */
    _Atomic uint64_t magic; /* stored last. release: pairs with ivs_segment_check() in segment.c */
    uint32_t version;
    uint32_t header_size;
    uint8_t uuid[16];
    uint64_t size; /* bytes of the file, a power of two */
    uint64_t page_size;
    uint64_t host_address; /* address of the mapping in the creating process */
    int32_t socket_id;     /* NUMA node of its pages, -1: any */
    uint32_t crc;
    uint64_t epoch; /* epoch of the registry when the segment was created */
    char group[IVS_NAME_SIZE];
    uint8_t reserved0[24];
    /* line 2: mutable */
    _Atomic uint32_t retired; /* 1: the host restarted and no longer serves this segment */
    _Atomic uint32_t scratch; /* toggled to probe whether writes reach the segment */
    uint8_t reserved1[1912];
    /* second half of the page */
    struct ivs_participant participants[IVS_PARTICIPANTS];
};
IVS_ASSERT_SIZE(ivs_segment, IVS_HEADER_SIZE);
IVS_ASSERT_AT(ivs_segment, magic, 0);
IVS_ASSERT_AT(ivs_segment, version, 8);
IVS_ASSERT_AT(ivs_segment, header_size, 12);
IVS_ASSERT_AT(ivs_segment, uuid, 16);
IVS_ASSERT_AT(ivs_segment, size, 32);
IVS_ASSERT_AT(ivs_segment, page_size, 40);
IVS_ASSERT_AT(ivs_segment, host_address, 48);
IVS_ASSERT_AT(ivs_segment, socket_id, 56);
IVS_ASSERT_AT(ivs_segment, crc, 60);
IVS_ASSERT_AT(ivs_segment, epoch, 64);
IVS_ASSERT_AT(ivs_segment, group, 72);
IVS_ASSERT_AT(ivs_segment, retired, 128);
IVS_ASSERT_AT(ivs_segment, scratch, 132);
IVS_ASSERT_AT(ivs_segment, participants, 2048);

/* ---- table: metadata and registry ----------------------------------------------------------------------- */

/* A table file contains the header page and two slots of (size - 4096) / 2 bytes. `selector` counts changes; the
 * current table is in slot selector & 1 and contains the same number. A writer fills the other slot, then increments
 * the selector. Readers therefore see the complete old or the complete new table, even if the writer dies midway. */
struct ivs_table_file {
    /* line 0 and 1: identity, as in a segment */
    _Atomic uint64_t magic; /* stored last. release: pairs with ivs_table_check_file() in table.c */
    uint32_t version;
    uint32_t header_size;
    uint8_t uuid[16];
    uint64_t size; /* bytes of the file */
    char name[IVS_NAME_SIZE];
    uint32_t crc; /* of the first 128 bytes with magic and crc set to 0 */
    uint8_t reserved0[52];
    /* line 2: mutable */
    _Atomic uint64_t selector;
    _Atomic uint32_t leaving; /* number of the current unplug announcement, to be acknowledged; 0: none */
    uint8_t reserved1[3956];
};
IVS_ASSERT_SIZE(ivs_table_file, IVS_HEADER_SIZE);
IVS_ASSERT_AT(ivs_table_file, magic, 0);
IVS_ASSERT_AT(ivs_table_file, version, 8);
IVS_ASSERT_AT(ivs_table_file, header_size, 12);
IVS_ASSERT_AT(ivs_table_file, uuid, 16);
IVS_ASSERT_AT(ivs_table_file, size, 32);
IVS_ASSERT_AT(ivs_table_file, name, 40);
IVS_ASSERT_AT(ivs_table_file, crc, 72);
IVS_ASSERT_AT(ivs_table_file, selector, 128);
IVS_ASSERT_AT(ivs_table_file, leaving, 136);

/* A table: this header, then the segments, the entries, and a heap of strings and shapes. */
struct ivs_table {
    uint32_t crc;      /* of the whole table with crc set to 0 */
    uint32_t flags;    /* IVS_TABLE_* */
    uint64_t selector; /* the file's selector while this table is current */
    uint64_t epoch;    /* number of primary starts of the writer's file_prefix */
    uint32_t n_segments;
    uint32_t n_entries;
    uint64_t heap;   /* bytes */
    uint64_t length; /* bytes of the whole table */
    uint8_t reserved[16];
};
IVS_ASSERT_SIZE(ivs_table, 64);
IVS_ASSERT_AT(ivs_table, selector, 8);
IVS_ASSERT_AT(ivs_table, epoch, 16);
IVS_ASSERT_AT(ivs_table, n_segments, 24);
IVS_ASSERT_AT(ivs_table, heap, 32);
IVS_ASSERT_AT(ivs_table, length, 40);

#define IVS_TABLE_KEPT 1u /* registry: keep the files when the last process exits */

/* `length` bytes at `offset` in the heap. */
struct ivs_heap_ref {
    uint32_t offset;
    uint32_t length;
};

/* References may overlap. These limits bound the memory that decoding a small table can take. */
#define IVS_PATH_MOST 4096u   /* bytes of a path */
#define IVS_DTYPE_MOST 16384u /* bytes of a dtype description */
#define IVS_DIMS_MOST 64u     /* dimensions of a shape */

struct ivs_table_segment {
    uint8_t uuid[16];
    uint64_t size;
    uint64_t page_size;
    uint64_t host_address;
    int32_t socket_id;
    uint32_t flags; /* IVS_SEGMENT_* */
    char group[IVS_NAME_SIZE];
    struct ivs_heap_ref path; /* registry: path of the file; metadata file: empty */
    uint64_t epoch;
};
IVS_ASSERT_SIZE(ivs_table_segment, 96);
IVS_ASSERT_AT(ivs_table_segment, size, 16);
IVS_ASSERT_AT(ivs_table_segment, host_address, 32);
IVS_ASSERT_AT(ivs_table_segment, socket_id, 40);
IVS_ASSERT_AT(ivs_table_segment, group, 48);
IVS_ASSERT_AT(ivs_table_segment, path, 80);
IVS_ASSERT_AT(ivs_table_segment, epoch, 88);

#define IVS_SEGMENT_READONLY 1u

enum ivs_kind { IVS_KIND_MEMZONE = 1, IVS_KIND_RING = 2, IVS_KIND_MEMPOOL = 3 };

struct ivs_table_entry {
    char name[IVS_NAME_SIZE];
    uint32_t kind;    /* enum ivs_kind */
    uint32_t segment; /* index into the table's segments */
    uint64_t offset;  /* from the start of the segment */
    uint64_t length;
    uint32_t align;
    uint32_t flags;            /* as passed by the caller */
    struct ivs_heap_ref dtype; /* numpy dtype description as JSON; empty: no array */
    struct ivs_heap_ref shape; /* uint64 per dimension; empty: no array, or 0 dimensions */
    uint64_t serial;           /* selector when the object was created; differs if the name is reused later */
    uint8_t reserved[8];
};
IVS_ASSERT_SIZE(ivs_table_entry, 96);
IVS_ASSERT_AT(ivs_table_entry, kind, 32);
IVS_ASSERT_AT(ivs_table_entry, segment, 36);
IVS_ASSERT_AT(ivs_table_entry, offset, 40);
IVS_ASSERT_AT(ivs_table_entry, length, 48);
IVS_ASSERT_AT(ivs_table_entry, align, 56);
IVS_ASSERT_AT(ivs_table_entry, flags, 60);
IVS_ASSERT_AT(ivs_table_entry, dtype, 64);
IVS_ASSERT_AT(ivs_table_entry, shape, 72);
IVS_ASSERT_AT(ivs_table_entry, serial, 80);

/* ---- ring ------------------------------------------------------------------------------------------------ */

enum ivs_sync { IVS_SYNC_MT = 0, IVS_SYNC_ST = 1, IVS_SYNC_RTS = 2, IVS_SYNC_HTS = 3 };

/* Head and tail of the producer or consumer side, in DPDK's three variants. The sync type is at byte 8 in each. */
union ivs_ring_end {
    struct {
        _Atomic uint32_t head;
        _Atomic uint32_t tail;
        uint32_t sync_type;
    };
    struct {
        _Atomic uint64_t raw; /* tail << 32 | head, updated together */
    } hts;
    struct {
        _Atomic uint64_t tail; /* pos << 32 | cnt */
        uint32_t sync_type;
        uint32_t htd_max; /* maximum distance from tail to head */
        _Atomic uint64_t head;
    } rts;
    uint8_t line[IVS_CACHE_LINE];
};
_Static_assert(sizeof(union ivs_ring_end) == 64, "a headtail is one line");

struct ivs_ring_shared {
    /* line 0: as in rte_ring */
    char name[IVS_NAME_SIZE];
    uint32_t flags;
    uint32_t reserved0;
    uint64_t memzone; /* a pointer in DPDK; here 0, never read */
    uint32_t size;    /* elements, a power of two */
    uint32_t mask;
    uint32_t capacity;
    uint32_t reserved1;
    /* line 1: the extension, in a line that DPDK leaves unused */
    _Atomic uint64_t magic; /* stored last. release: pairs with ivs_ring_attach() in ring.c */
    uint32_t version;
    uint32_t elem_size;
    _Atomic uint64_t prod_owner; /* owner of an ST side, as in ivs_participant.owner; 0: not recorded */
    _Atomic uint64_t cons_owner;
    uint32_t crc; /* of lines 0 and 1 with magic, the owners and crc set to 0 */
    uint8_t reserved2[28];
    /* lines 2 to 5 */
    union ivs_ring_end prod;
    uint8_t guard1[IVS_CACHE_LINE];
    union ivs_ring_end cons;
    uint8_t guard2[IVS_CACHE_LINE];
    /* elements follow */
};
IVS_ASSERT_SIZE(ivs_ring_shared, 384);
IVS_ASSERT_AT(ivs_ring_shared, flags, 32);
IVS_ASSERT_AT(ivs_ring_shared, memzone, 40);
IVS_ASSERT_AT(ivs_ring_shared, size, 48);
IVS_ASSERT_AT(ivs_ring_shared, mask, 52);
IVS_ASSERT_AT(ivs_ring_shared, capacity, 56);
IVS_ASSERT_AT(ivs_ring_shared, magic, 64);
IVS_ASSERT_AT(ivs_ring_shared, version, 72);
IVS_ASSERT_AT(ivs_ring_shared, elem_size, 76);
IVS_ASSERT_AT(ivs_ring_shared, prod_owner, 80);
IVS_ASSERT_AT(ivs_ring_shared, cons_owner, 88);
IVS_ASSERT_AT(ivs_ring_shared, crc, 96);
IVS_ASSERT_AT(ivs_ring_shared, prod, 128);
IVS_ASSERT_AT(ivs_ring_shared, cons, 256);
IVS_ASSERT_AT(ivs_ring_shared, prod.tail, 132);
IVS_ASSERT_AT(ivs_ring_shared, prod.sync_type, 136);
IVS_ASSERT_AT(ivs_ring_shared, prod.hts.raw, 128);
IVS_ASSERT_AT(ivs_ring_shared, prod.rts.tail, 128);
IVS_ASSERT_AT(ivs_ring_shared, prod.rts.sync_type, 136);
IVS_ASSERT_AT(ivs_ring_shared, prod.rts.htd_max, 140);
IVS_ASSERT_AT(ivs_ring_shared, prod.rts.head, 144);

#define IVS_RING_HEADER_SIZE 384u /* bytes before the first element */
_Static_assert(sizeof(struct ivs_ring_shared) == IVS_RING_HEADER_SIZE, "elements follow the header");

/* DPDK: RING_F_*. */
#define IVS_RING_SP_ENQ 0x01u
#define IVS_RING_SC_DEQ 0x02u
#define IVS_RING_EXACT_SZ 0x04u
#define IVS_RING_MP_RTS_ENQ 0x08u
#define IVS_RING_MC_RTS_DEQ 0x10u
#define IVS_RING_MP_HTS_ENQ 0x20u
#define IVS_RING_MC_HTS_DEQ 0x40u
#define IVS_RING_FLAGS 0x7fu

/* ---- mempool --------------------------------------------------------------------------------------------- */

/* The header; its offsets locate the free bitmap (bit i % 64 of word i / 64 is set: object i is free), one cache per
 * participant slot of the segment, and the objects. */
struct ivs_mempool_shared {
    _Atomic uint64_t magic; /* stored last. release: pairs with ivs_mempool_check() in mempool.c */
    uint32_t version;
    uint32_t n;
    uint32_t elt_size;   /* bytes of an object, as requested */
    uint32_t elt_stride; /* bytes from one object to the next */
    uint32_t cache_size; /* objects; 0: no caches */
    uint32_t flags;
    uint64_t bitmap_offset;
    uint64_t caches_offset;
    uint64_t objects_offset;
    uint32_t cache_stride; /* bytes from one cache to the next */
    uint32_t crc;          /* of the first two lines with magic and crc set to 0 */
    char name[IVS_NAME_SIZE];
    uint32_t private_size; /* pool of mbufs: bytes between header and buffer of an mbuf */
    uint32_t mbuf_version; /* pool of mbufs: version of struct ivs_mbuf, else 0 */
    uint8_t reserved0[24];
    /* line 2: mutable */
    _Atomic uint64_t taken;    /* objects that participants without a slot got, in total */
    _Atomic uint64_t returned; /* objects that participants without a slot put, in total */
    _Atomic uint32_t slots;    /* 1 + the highest slot ever joined: the number of caches to read when counting */
    uint8_t reserved1[44];
};
IVS_ASSERT_SIZE(ivs_mempool_shared, 192);
IVS_ASSERT_AT(ivs_mempool_shared, n, 12);
IVS_ASSERT_AT(ivs_mempool_shared, elt_size, 16);
IVS_ASSERT_AT(ivs_mempool_shared, elt_stride, 20);
IVS_ASSERT_AT(ivs_mempool_shared, cache_size, 24);
IVS_ASSERT_AT(ivs_mempool_shared, flags, 28);
IVS_ASSERT_AT(ivs_mempool_shared, bitmap_offset, 32);
IVS_ASSERT_AT(ivs_mempool_shared, caches_offset, 40);
IVS_ASSERT_AT(ivs_mempool_shared, objects_offset, 48);
IVS_ASSERT_AT(ivs_mempool_shared, cache_stride, 56);
IVS_ASSERT_AT(ivs_mempool_shared, crc, 60);
IVS_ASSERT_AT(ivs_mempool_shared, name, 64);
IVS_ASSERT_AT(ivs_mempool_shared, private_size, 96);
IVS_ASSERT_AT(ivs_mempool_shared, mbuf_version, 100);
IVS_ASSERT_AT(ivs_mempool_shared, taken, 128);
IVS_ASSERT_AT(ivs_mempool_shared, slots, 144);

/* With IVS_MEMPOOL_DEBUG, this line precedes each object and IVS_COOKIE_TAIL follows its last byte. */
struct ivs_mempool_cookie {
    _Atomic uint64_t state; /* IVS_COOKIE_FREE or IVS_COOKIE_TAKEN; other values: overwritten */
    _Atomic uint64_t owner; /* the participant that got the object, as in ivs_participant.owner; 0: free */
    uint8_t reserved[48];
};
IVS_ASSERT_SIZE(ivs_mempool_cookie, 64);
IVS_ASSERT_AT(ivs_mempool_cookie, owner, 8);
#define IVS_COOKIE_FREE UINT64_C(0xf4eef4eef4eef4ee)
#define IVS_COOKIE_TAKEN UINT64_C(0x7a4e7a4e7a4e7a4e)
#define IVS_COOKIE_TAIL UINT64_C(0xe2d0e2d0e2d0e2d0)

/* The cache of one participant slot: written only by the slot's owner, read by all participants that count objects. */
struct ivs_mempool_cache {
    _Atomic uint32_t len; /* valid indices in objects[] */
    uint32_t reserved0;
    _Atomic uint64_t taken;    /* objects that owners of the slot got, in total */
    _Atomic uint64_t returned; /* objects that owners of the slot put, in total */
    uint8_t reserved1[40];
    uint32_t objects[];
};
IVS_ASSERT_SIZE(ivs_mempool_cache, 64);
IVS_ASSERT_AT(ivs_mempool_cache, taken, 8);
IVS_ASSERT_AT(ivs_mempool_cache, returned, 16);
IVS_ASSERT_AT(ivs_mempool_cache, objects, 64);

/* ---- mbuf ------------------------------------------------------------------------------------------------ */

#define IVS_MBUF_NONE UINT32_C(0xffffffff) /* `next` of the last segment of a packet */
#define IVS_MBUF_HEADROOM 128u             /* RTE_PKTMBUF_HEADROOM */

/* The header of an mbuf; private_size bytes and the buffer follow it. Field names as in rte_mbuf; pointers are replaced
 * by mbuf indices of the same pool. */
struct ivs_mbuf {
    uint16_t data_off;       /* offset of the data in the buffer */
    _Atomic uint16_t refcnt; /* references by packets and by attached mbufs; 0: the mbuf is free */
    uint16_t nb_segs;        /* first segment of a packet: number of segments */
    uint16_t port;
    uint64_t ol_flags;
    uint32_t packet_type;
    uint32_t pkt_len;  /* first segment of a packet: data bytes of all segments */
    uint16_t data_len; /* data bytes of this segment */
    uint16_t vlan_tci;
    uint32_t rss; /* hash.rss */
    uint16_t vlan_tci_outer;
    uint16_t buf_len;   /* bytes of the buffer including headroom; equal in all mbufs of a pool */
    uint32_t next;      /* next segment of the packet, or IVS_MBUF_NONE */
    uint32_t buf;       /* mbuf whose buffer contains the data: its own index, or another one if attached */
    uint16_t priv_size; /* equal in all mbufs of a pool */
    uint16_t timesync;
    uint64_t tx_offload;
    uint64_t timestamp;
};
IVS_ASSERT_SIZE(ivs_mbuf, 64);
IVS_ASSERT_AT(ivs_mbuf, data_off, 0);
IVS_ASSERT_AT(ivs_mbuf, refcnt, 2);
IVS_ASSERT_AT(ivs_mbuf, nb_segs, 4);
IVS_ASSERT_AT(ivs_mbuf, port, 6);
IVS_ASSERT_AT(ivs_mbuf, ol_flags, 8);
IVS_ASSERT_AT(ivs_mbuf, packet_type, 16);
IVS_ASSERT_AT(ivs_mbuf, pkt_len, 20);
IVS_ASSERT_AT(ivs_mbuf, data_len, 24);
IVS_ASSERT_AT(ivs_mbuf, vlan_tci, 26);
IVS_ASSERT_AT(ivs_mbuf, rss, 28);
IVS_ASSERT_AT(ivs_mbuf, vlan_tci_outer, 32);
IVS_ASSERT_AT(ivs_mbuf, buf_len, 34);
IVS_ASSERT_AT(ivs_mbuf, next, 36);
IVS_ASSERT_AT(ivs_mbuf, buf, 40);
IVS_ASSERT_AT(ivs_mbuf, priv_size, 44);
IVS_ASSERT_AT(ivs_mbuf, timesync, 46);
IVS_ASSERT_AT(ivs_mbuf, tx_offload, 48);
IVS_ASSERT_AT(ivs_mbuf, timestamp, 56);

#endif
