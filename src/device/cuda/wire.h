/*
 * What the broker and the copier of one GPU say to each other. Both are the same program under the same
 * uid, started for each other: what arrives here has been checked by the broker, and only mistakes of our
 * own are guarded against (by assertion).
 *
 * Two ways. Control, rare and answered later: messages on a SOCK_SEQPACKET pair, between the broker's
 * control thread and the copier; the end of file on either side is the death of the other. Data: two
 * rings of 64-byte entries in one sealed memfd (src/common/queue.h, shared queues), commands from the broker's
 * core thread to the copier and events back, and a byte ring in which the items and block ids of a COPY
 * lie until the copier has copied them to its own memory.
 *
 * Invariants:
 * - Every COPY that was taken is answered by exactly one DONE, after its FAILED and its last PROGRESS;
 *   when DONE is put, no stream touches the blocks or the arena for it any more.
 * - A pool or region is named by COPY commands only between the ANSWER to its POOL or REGION and its
 *   *_CLOSE; closing is asked for when its copies have had their DONE.
 * - Numbers of regions and pools are the broker's, unique among all clients of this GPU.
 */
#ifndef STOKER_DEVICE_CUDA_WIRE_H
#define STOKER_DEVICE_CUDA_WIRE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/message.h"
#include "src/common/queue.h"

/* ---- control --------------------------------------------------------------------------------- */

/* WIRE(symbol, from, meaning) */
#define STOKER_WIRE_MESSAGES(WIRE) \
	WIRE(START,        "broker", "first: arena, segment, bells, lock come along as descriptors") \
	WIRE(UP,           "copier", "the driver is open and the device is ours; or not, with the reason") \
	WIRE(REGION,       "broker", "import memory of a worker; VMM descriptors come along") \
	WIRE(REGION_CLOSE, "broker", "no pool uses it any more: close the import") \
	WIRE(POOL,         "broker", "a view of regions: rows follow") \
	WIRE(POOL_CLOSE,   "broker", "forget it") \
	WIRE(EXTENT,       "broker", "an extent of the arena is populated: register it") \
	WIRE(ANSWER,       "copier", "how REGION, REGION_CLOSE, POOL or POOL_CLOSE ended") \
	WIRE(FIGURES,      "copier", "bytes registered, bounced, memory imported: now and then") \
	WIRE(FATAL,        "copier", "last: the context is lost, for this reason")
#define STOKER_AS_WIRE(symbol, from, meaning) WIRE_##symbol,
enum wire_type { STOKER_WIRE_MESSAGES(STOKER_AS_WIRE) WIRE_END };

struct wire_header {
	uint32_t type;
	uint32_t bytes;			/* of the whole message */
};

/* Descriptors, in this order: arena, segment, bell of the copier, bell of the core (eventfds), I/O lock. */
#define WIRE_START_FDS 5u
struct wire_start {
	struct wire_header header;
	uint8_t uuid[16];		/* of the device */
	uint64_t arena_bytes, extent_bytes;
	uint64_t segment_bytes;
	uint64_t bounce_bytes;		/* pinned memory for extents that are not registered */
	uint64_t slice_bytes;		/* a store is issued in slices of about this many bytes */
	uint32_t copies;		/* under way at once, at most */
	uint32_t streams_load, streams_store;
	uint32_t hang_ms;		/* a slice that takes longer: the device hangs; 0: it may take for ever */
	uint32_t log_level, reserved;
	char library[192];		/* of the driver */
};

struct wire_up {
	struct wire_header header;
	int32_t result;			/* 0 or -errno */
	char device[96];		/* its name */
	char how[256];			/* which ways of copying and completing it has, for the log */
	char why[MESSAGE_REASON];
};

/*
 * VMM: n_fds descriptors come along, mapped one behind the other; more follow while `more` is set. With `fence`
 * one more comes along, the last: the write end of the fence of the worker, which the copier keeps open until
 * the region is closed, or could not be opened, so that the worker sees that nobody touches it any more.
 */
enum wire_region_kind { WIRE_REGION_IPC, WIRE_REGION_VMM };
#define WIRE_FDS_MAX 129u		/* of a message: 128 allocations and a fence */
struct wire_region {
	struct wire_header header;
	uint32_t region;
	uint32_t kind;			/* enum wire_region_kind */
	uint64_t offset, bytes;		/* of the region in the memory that is imported */
	uint32_t n_fds, more;
	uint32_t fence, reserved;
	uint8_t handle[64];		/* IPC */
	uint64_t fd_bytes[WIRE_FDS_MAX];	/* VMM: of each descriptor's memory */
};

/** struct wire_row - a row of a pool: as struct pool_row, with its place in a region. */
struct wire_row {
	uint64_t payload, block_bytes;
	uint64_t offset;		/* of block 0 in the region */
	uint64_t block_stride, run_stride;
	uint32_t runs, run_bytes;
	uint32_t region, layer;		/* layer: counted from 0 among those of the part */
};

struct wire_pool {
	struct wire_header header;
	uint32_t pool, part;
	uint32_t blocks, n_blocks;	/* of an object; ids 0 to n_blocks - 1 */
	uint32_t n_rows, n_layers;
	uint64_t payload_bytes;
	/* n_rows of struct wire_row follow, ascending by layer */
};

struct wire_number {			/* REGION_CLOSE, POOL_CLOSE, EXTENT */
	struct wire_header header;
	uint32_t number;
	uint32_t reserved;
};

struct wire_answer {
	struct wire_header header;
	uint32_t to;			/* enum wire_type */
	uint32_t number;
	int32_t result;			/* 0 or -errno */
	char why[MESSAGE_REASON];
};

struct wire_figures {
	struct wire_header header;
	uint64_t registered_bytes, imported_bytes, bounced_bytes;
	uint64_t load_bytes, store_bytes;
	uint64_t refusals;		/* of registrations of extents */
};

struct wire_fatal {
	struct wire_header header;
	char why[MESSAGE_REASON];
};

/* ---- data ------------------------------------------------------------------------------------ */

enum wire_command_type { WIRE_COPY, WIRE_CANCEL };
struct wire_command {
	uint32_t type;
	uint32_t copy;			/* number to answer with */
	uint8_t store, priority;
	uint16_t layer_first, layer_end;
	uint16_t reserved;
	uint32_t n_items;
	uint64_t at;			/* free-running place of its items in the byte ring */
	uint64_t bytes;			/* of them; they do not wrap: what is left at the end is skipped */
	uint64_t spare[3];
};

/* In the byte ring: n_items of these, each with its ids, each on 8 bytes. */
struct wire_item {
	uint64_t payload;		/* offset in the arena */
	uint32_t pool;			/* the broker's number; WIRE_NO_POOL: there is none, the item fails */
	uint32_t n_ids;
	uint32_t ids[];
};
#define WIRE_NO_POOL 0xffffffffu

enum wire_event_type { WIRE_PROGRESS, WIRE_FAILED, WIRE_DONE };
struct wire_event {
	uint32_t type;
	uint32_t copy;
	uint32_t value;			/* PROGRESS: layers of the range; FAILED: item; DONE: enum engine_result */
	uint32_t reserved;
	uint64_t spare[6];
};
static_assert(sizeof(struct wire_command) == QUEUE_ENTRY_BYTES, "a command is an entry");
static_assert(sizeof(struct wire_event) == QUEUE_ENTRY_BYTES, "an event is an entry");

/** struct wire_segment - the head of the memfd. The two queues and the byte ring follow, each on 4,096. */
struct wire_segment {
	alignas(128) _Atomic uint64_t bytes_taken;	/* of the byte ring, free-running; the copier's */
	alignas(128) _Atomic uint64_t beats;		/* rises at every turn of the copier's loop */
	alignas(128) struct shared_bell copier_bell, core_bell;
	uint64_t commands_at, events_at, items_at;	/* offsets; written once */
	uint64_t item_bytes;				/* of the byte ring, a power of two */
};

/* ---- both sides' means ------------------------------------------------------------------------- */

#define WIRE_MESSAGE_MAX (sizeof(struct wire_pool) + MESSAGE_PLANES_MAX * sizeof(struct wire_row))

/* Bytes of a segment with room for so many entries (powers of two) and bytes of items (likewise). */
size_t wire_segment_bytes(uint32_t commands, uint32_t events, uint64_t item_bytes);
/* The broker lays it out in @memory: zero, of that size, on 4,096. */
struct wire_segment *wire_segment_make(void *memory, uint32_t commands, uint32_t events, uint64_t item_bytes);
struct shared_queue *wire_commands(struct wire_segment *segment);
struct shared_queue *wire_events(struct wire_segment *segment);
uint8_t *wire_items(struct wire_segment *segment);

/*
 * Send @message (its header says its length) with @n_fds descriptors, which stay the caller's. Returns 0,
 * -EAGAIN (@wait is false and the peer has not read enough yet) or -errno (-EPIPE: the peer is gone).
 */
int wire_send(int fd, bool wait, const void *message, const int *fds, uint32_t n_fds);
/*
 * Take a message into @room bytes, and its descriptors, WIRE_FDS_MAX at most, which are the caller's then.
 * Returns its length; -EAGAIN: there is none; -EPIPE: the peer is gone; -EBADMSG: it is none of ours.
 */
int wire_receive(int fd, void *message, size_t room, int *fds, uint32_t *n_fds);

#endif
