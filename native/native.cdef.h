/* SPDX-License-Identifier: BSD-3-Clause */
/* layout.h */
#define IVS_HEADER_SIZE ...
#define IVS_CACHE_LINE ...
#define IVS_NAME_SIZE ...
#define IVS_PARTICIPANTS ...
#define IVS_SEGMENT_MAGIC ...
#define IVS_METADATA_MAGIC ...
#define IVS_REGISTRY_MAGIC ...
#define IVS_RING_MAGIC ...
#define IVS_MEMPOOL_MAGIC ...
#define IVS_SEGMENT_VERSION ...
#define IVS_TABLE_VERSION ...
#define IVS_RING_VERSION ...
#define IVS_MEMPOOL_VERSION ...
#define IVS_MBUF_VERSION ...
#define IVS_TABLE_KEPT ...
#define IVS_SEGMENT_READONLY ...
#define IVS_KIND_MEMZONE ...
#define IVS_KIND_RING ...
#define IVS_KIND_MEMPOOL ...

/* layout.h: headers that `ivshmem inspect` reads although they are damaged */
struct ivs_segment {
    uint64_t magic;
    uint32_t version;
    uint8_t uuid[16];
    uint64_t size;
    uint64_t page_size;
    uint64_t host_address;
    int32_t socket_id;
    uint64_t epoch;
    char group[32];
    ...;
};
struct ivs_table_file {
    uint64_t magic;
    uint32_t version;
    uint8_t uuid[16];
    uint64_t size;
    char name[32];
    uint64_t selector;
    ...;
};
struct ivs_ring_shared {
    char name[32];
    uint64_t magic;
    ...;
};
struct ivs_mempool_shared {
    uint64_t magic;
    uint32_t flags;
    char name[32];
    ...;
};

struct ivs_table {
    uint32_t crc;
    uint32_t flags;
    uint64_t selector;
    uint64_t epoch;
    uint32_t n_segments;
    uint32_t n_entries;
    uint64_t heap;
    uint64_t length;
    ...;
};
struct ivs_heap_ref {
    uint32_t offset;
    uint32_t length;
};
struct ivs_table_segment {
    uint8_t uuid[16];
    uint64_t size;
    uint64_t page_size;
    uint64_t host_address;
    int32_t socket_id;
    uint32_t flags;
    char group[32];
    struct ivs_heap_ref path;
    uint64_t epoch;
};
struct ivs_table_entry {
    char name[32];
    uint32_t kind;
    uint32_t segment;
    uint64_t offset;
    uint64_t length;
    uint32_t align;
    uint32_t flags;
    struct ivs_heap_ref dtype;
    struct ivs_heap_ref shape;
    uint64_t serial;
    ...;
};

/* fault.h */
#define IVS_FAULT_MAGIC ...
#define IVS_FAULT_VERSION ...
#define IVS_FAULT_LENGTH ...
#define IVS_FAULT_OBJECT ...
#define IVS_FAULT_NOT_OUT ...
#define IVS_FAULT_SHARED_SEGMENT ...
#define IVS_FAULT_DIRECT ...
const char *ivs_fault_text(int fault);

/* pvt/crc32c.h */
uint32_t ivs_crc32c(uint32_t crc, const void *data, size_t length);

/* hypervisor.h */
void ivs_hypervisor(char name[13]);

/* latency.h */
uint64_t ivs_time_loads(const void *word, uint32_t rounds);
uint64_t ivs_time_atomics(void *word, uint32_t rounds);

/* mmap.h */
int64_t ivs_map(int fd, uint64_t offset, uint64_t length, int writable, uint64_t hint);
int ivs_unmap(uint64_t address, uint64_t length);
int ivs_map_anonymous(uint64_t address, uint64_t length, int writable);
int ivs_map_move(uint64_t from, uint64_t length, uint64_t to);
int ivs_populate(uint64_t address, uint64_t length, uint64_t page_size);
int ivs_bind(uint64_t address, uint64_t length, int node);
int ivs_node_of(uint64_t address);
int64_t ivs_count_remote_pages(uint64_t address, uint64_t length, uint64_t page_size, int node);
void ivs_zero(void *base, uint64_t offset, uint64_t length);

/* segment.h */
struct ivs_segment_info {
    uint8_t uuid[16];
    uint64_t size;
    uint64_t page_size;
    uint64_t host_address;
    uint64_t epoch;
    int32_t socket_id;
    char group[32];
};
void ivs_segment_format(void *base, const struct ivs_segment_info *info);
int ivs_segment_check(const void *base, uint64_t length, struct ivs_segment_info *info);
void ivs_segment_retire(void *base);
int ivs_segment_retired(const void *base);
#define IVS_SEGMENT_SCRATCH ...
int ivs_segment_takes_writes(void *base);
int ivs_participant_claim(void *base, uint64_t owner, uint64_t process);
int ivs_participant_adopt(void *base, int slot, uint64_t dead, uint64_t owner, uint64_t process);
int ivs_participant_release(void *base, int slot, uint64_t owner);
uint64_t ivs_participant_owner(const void *base, int slot);
uint64_t ivs_participant_process(const void *base, int slot);
struct ivs_participant_info {
    uint64_t owner;
    uint64_t process;
    uint64_t heartbeat;
    uint32_t ack;
    uint32_t share;
};
void ivs_participant_read(const void *base, int slot, struct ivs_participant_info *info);
uint32_t ivs_share_word(const uint8_t *uuid);
int ivs_participant_guard(void *base, int slot, uint64_t owner, uint32_t share);
int ivs_participant_beat(void *base, int slot, uint64_t owner);
int ivs_participant_acknowledge(void *base, int slot, uint64_t owner, uint32_t announcement);

/* hotplug_poll.h */
#define IVS_EVENT_GONE ...
#define IVS_EVENT_LEAVING ...
#define IVS_EVENT_TABLE ...
#define IVS_EVENT_RETIRED ...
struct ivs_polled_share {
    const void *file;
    uint8_t uuid[16];
    uint64_t selector;
    void *page;
    uint64_t owner;
    int32_t slot;
    uint32_t n_segments;
    const void *const *segments;
    uint32_t events;
};
uint32_t ivs_hotplug_poll(struct ivs_polled_share *shares, uint32_t n);

/* table.h */
struct ivs_table_info {
    uint8_t uuid[16];
    uint64_t size;
    uint32_t version;
    char name[32];
};
void ivs_table_format(void *base, uint64_t magic, const struct ivs_table_info *info, uint64_t epoch);
int ivs_table_check_file(const void *base, uint64_t length, uint64_t magic, struct ivs_table_info *info);
uint64_t ivs_table_room(uint64_t size);
uint64_t ivs_table_selector(const void *base);
int64_t ivs_table_read(const void *base, uint64_t size, void *copy);
int ivs_table_publish(void *base, uint64_t size, void *table, uint64_t length);
void ivs_table_set_leaving(void *base, uint32_t number);
uint32_t ivs_table_leaving(const void *base);

/* ring.h and calls.h */
struct ivs_ring { uint64_t owner; ...; };
struct ivs_ring_info {
    char name[32];
    uint32_t count;
    uint32_t elem_size;
    uint32_t flags;
    uint32_t size;
    uint32_t capacity;
};
int ivs_ring_info_fault(const struct ivs_ring_info *info);
int64_t ivs_ring_plan(struct ivs_ring_info *info);
int ivs_ring_create(void *base, uint64_t length, const struct ivs_ring_info *info);
int ivs_ring_attach(struct ivs_ring *r, void *base, uint64_t length, uint64_t stall_ns, struct ivs_ring_info *info);
void ivs_ring_refuse(struct ivs_ring *r, int32_t code);
int ivs_ring_reset(struct ivs_ring *r);
int ivs_ring_wait(struct ivs_ring *r, uint64_t limit_ns);
int ivs_call_enqueue_bulk(struct ivs_ring *r, const void *objects, uint32_t n);
int ivs_call_enqueue_burst(struct ivs_ring *r, const void *objects, uint32_t n);
int ivs_call_dequeue_bulk(struct ivs_ring *r, void *objects, uint32_t n);
int ivs_call_dequeue_burst(struct ivs_ring *r, void *objects, uint32_t n);
uint32_t ivs_call_count(const struct ivs_ring *r);
enum ivs_ring_role { IVS_PRODUCER, IVS_CONSUMER, ... };
enum ivs_ring_behavior { IVS_BULK, IVS_BURST, ... };
#define IVS_RING_HEADER_SIZE ...
struct ivs_ring_zc {
    void *first;
    void *second;
    uint32_t n1;
    uint32_t n2;
};
int ivs_call_move(struct ivs_ring *r, enum ivs_ring_role role, void *objects, uint32_t n, enum ivs_ring_behavior amount,
                  uint32_t *left);
int ivs_call_zc_start(struct ivs_ring *r, enum ivs_ring_role role, uint32_t n, enum ivs_ring_behavior amount,
                      struct ivs_ring_zc *zc, uint32_t *left);
int ivs_call_zc_finish(struct ivs_ring *r, enum ivs_ring_role role, uint32_t n);
uint32_t ivs_ring_htd_max(const struct ivs_ring *r, enum ivs_ring_role role);
int ivs_ring_set_htd_max(struct ivs_ring *r, enum ivs_ring_role role, uint32_t value);
struct ivs_ring_headtail {
    uint64_t owner;
    uint64_t word;
    uint32_t head;
    uint32_t tail;
    uint32_t sync;
    uint32_t incomplete;
};
void ivs_ring_headtail_get(const struct ivs_ring *r, enum ivs_ring_role role, struct ivs_ring_headtail *info);
int ivs_ring_rollback(struct ivs_ring *r, enum ivs_ring_role role, const struct ivs_ring_headtail *seen);
int ivs_ring_dump(const struct ivs_ring *r, char *text, uint32_t size);
int ivs_call_status(void);

/* jit.h */
int ivs_jit_enqueue_bulk(uint64_t ring, uint64_t array, uint64_t bytes, uint32_t n);
int ivs_jit_enqueue_burst(uint64_t ring, uint64_t array, uint64_t bytes, uint32_t n);
int ivs_jit_dequeue_bulk(uint64_t ring, uint64_t array, uint64_t bytes, uint32_t n);
int ivs_jit_dequeue_burst(uint64_t ring, uint64_t array, uint64_t bytes, uint32_t n);
uint32_t ivs_jit_count(uint64_t ring);
int ivs_jit_get_bulk(uint64_t pool, uint64_t array, uint64_t bytes, uint32_t n);
int ivs_jit_put_bulk(uint64_t pool, uint64_t array, uint64_t bytes, uint32_t n);

/* mempool.h and ring_mempool_calls.h */
#define IVS_MEMPOOL_NO_CACHE_ALIGN ...
#define IVS_MEMPOOL_MBUF ...
#define IVS_MEMPOOL_CACHE_MAX ...
#define IVS_HELD_BY_NOBODY_SEEN ...
#define IVS_HELD_FREE ...
#define IVS_HELD_CACHE ...
#define IVS_HELD_TWICE ...
#define IVS_MEMPOOL_DEBUG ...
struct ivs_mempool { uint32_t culprit; uint32_t fault; uint64_t owner; ...; };
struct ivs_mempool_info {
    char name[32];
    uint32_t n;
    uint32_t elt_size;
    uint32_t elt_stride;
    uint32_t cache_size;
    uint32_t flags;
    uint64_t objects_offset;
    uint32_t private_size;
};
int ivs_mempool_info_fault(const struct ivs_mempool_info *info);
int64_t ivs_mempool_plan(struct ivs_mempool_info *info);
int ivs_mempool_create(void *base, uint64_t length, const struct ivs_mempool_info *info);
uint64_t ivs_mempool_handle_size(uint32_t cache_size);
int ivs_mempool_check(const void *base, uint64_t length, struct ivs_mempool_info *info);
void ivs_mempool_attach(struct ivs_mempool *p, void *base, const struct ivs_mempool_info *info);
void ivs_mempool_join(struct ivs_mempool *p, uint32_t slot);
void ivs_mempool_leave(struct ivs_mempool *p);
void ivs_mempool_refuse(struct ivs_mempool *p, int32_t code);
uint32_t ivs_mempool_out(const struct ivs_mempool *p);
uint32_t ivs_mempool_available(const struct ivs_mempool *p);
uint64_t ivs_mempool_holder(const struct ivs_mempool *p, uint32_t object);
uint32_t ivs_mempool_audit(const struct ivs_mempool *p, uint16_t *where);
int ivs_call_get_bulk(struct ivs_mempool *p, uint32_t *objects, uint32_t n);
int ivs_call_put_bulk(struct ivs_mempool *p, const uint32_t *objects, uint32_t n);
uint32_t ivs_call_get(struct ivs_mempool *p);
int ivs_call_put(struct ivs_mempool *p, uint32_t object);

/* mbuf.h and mbuf_calls.h */
#define IVS_MBUF_NONE ...
#define IVS_MBUF_HEADROOM ...
#define IVS_MBUF_SEGS_MAX ...
struct ivs_mbuf {
    uint16_t data_off;
    uint16_t refcnt;
    uint16_t nb_segs;
    uint16_t port;
    uint64_t ol_flags;
    uint32_t packet_type;
    uint32_t pkt_len;
    uint16_t data_len;
    uint16_t vlan_tci;
    uint32_t rss;
    uint16_t vlan_tci_outer;
    uint16_t buf_len;
    uint32_t next;
    uint32_t buf;
    uint16_t priv_size;
    uint16_t timesync;
    uint64_t tx_offload;
    uint64_t timestamp;
};
struct ivs_call_seg {
    int64_t place;
    uint32_t data_off;
    uint32_t data_len;
    uint32_t tailroom;
    uint32_t buf;
    uint32_t next;
    uint32_t nb_segs;
    uint32_t pkt_len;
};
int ivs_mbuf_pool_create(void *base, uint64_t length, const struct ivs_mempool_info *info);
int ivs_mbuf_reset(const struct ivs_mempool *p, uint32_t index);
int ivs_mbuf_refcnt_update(const struct ivs_mempool *p, uint32_t index, int32_t by);
int ivs_mbuf_refcnt_update_all(const struct ivs_mempool *p, uint32_t index, int32_t by);
int ivs_mbuf_free_seg(struct ivs_mempool *p, uint32_t index);
int ivs_mbuf_chain(const struct ivs_mempool *p, uint32_t head, uint32_t tail);
int ivs_mbuf_attach(const struct ivs_mempool *p, uint32_t index, uint32_t to);
int ivs_mbuf_attach_fault(const struct ivs_mempool *p, uint32_t index, uint32_t to);
int ivs_mbuf_detach(struct ivs_mempool *p, uint32_t index);
int64_t ivs_mbuf_clone(struct ivs_mempool *p, uint32_t index);
int64_t ivs_mbuf_copy(struct ivs_mempool *p, uint32_t index, uint32_t offset, uint32_t length);
int ivs_mbuf_linearize(struct ivs_mempool *p, uint32_t index);
int ivs_mbuf_read(const struct ivs_mempool *p, uint32_t index, uint32_t offset, uint32_t length, void *to);
int ivs_mbuf_check(const struct ivs_mempool *p, uint32_t index, int is_header, const char **reason);
int ivs_call_mbuf_alloc_bulk(struct ivs_mempool *p, uint32_t *indices, uint32_t n);
int64_t ivs_call_mbuf_alloc(struct ivs_mempool *p);
int ivs_call_mbuf_free_bulk(struct ivs_mempool *p, const uint32_t *indices, uint32_t n);
int ivs_call_mbuf_free(struct ivs_mempool *p, uint32_t index);
int64_t ivs_call_mbuf_append(const struct ivs_mempool *p, uint32_t index, uint32_t length);
int64_t ivs_call_mbuf_prepend(const struct ivs_mempool *p, uint32_t index, uint32_t length);
int64_t ivs_call_mbuf_adj(const struct ivs_mempool *p, uint32_t index, uint32_t length);
int ivs_call_mbuf_trim(const struct ivs_mempool *p, uint32_t index, uint32_t length);
int ivs_call_mbuf_refcnt(const struct ivs_mempool *p, uint32_t index);
int ivs_call_mbuf_segment(const struct ivs_mempool *p, uint32_t index, struct ivs_call_seg *found);
int ivs_call_mbuf_segments(const struct ivs_mempool *p, uint32_t index, uint32_t *indices, uint32_t most);
