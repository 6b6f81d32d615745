/*
 * The layout of what a client and the broker both map: the channel.
 *
 * One channel a client: a sealed memfd of the broker's, mode 0600, passed by descriptor. From its
 * start:
 *
 *	header page	magic, ABI, geometry; the line `need_wake`. Written by the broker only, and
 *			read by the client only: the broker keeps its own copy of everything here
 *	request ring	client -> broker, struct stoker_entry
 *	response ring	broker -> client, one 64-bit word an entry (hints; see shm/ring.h)
 *	ready words	a page or more of 32-bit counters that the client's device may write
 *	slot headers	struct stoker_slot, small ones first
 *	payloads	of the small slots, then of the large ones: input area, output area
 *
 * Invariants:
 * - The broker never reads back what it wrote, and never keeps a pointer, size or index that it
 *   read here: where things are follows from the geometry (struct channel_plan), of which each
 *   side has a private copy.
 * - What the client may write, the broker loads once, by shm_take(), into private memory; it
 *   checks the copy and uses the copy.
 * - A slot belongs to the client except from submit to DONE.
 * - No pointer, pid, lock or function pointer lives in shared memory.
 *
 * The layout is ABI: a change of any offset raises STOKER_ABI.
 */
#ifndef STOKER_SHM_LAYOUT_H
#define STOKER_SHM_LAYOUT_H

#include <assert.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/tables.h"

#define STOKER_ABI		2u
#define STOKER_LINE		64u
#define STOKER_PAGE		4096u
#define STOKER_CHANNEL_MAGIC	0x6b6f7473636c6e31ull	/* "1nlcstok" */

#define STOKER_KEY_BYTES	32u
#define STOKER_NO_BLOCK		0xffffffffu	/* a block id that names no block; as in stoker.h */
#define STOKER_PARTS_MAX	64u
#define STOKER_GROUPS_MAX	8u
#define STOKER_PIECES_MAX	16u		/* pieces of a chained lookup after its head */
#define STOKER_SEGMENTS_MAX	1024u		/* segments of one RETRIEVE or STORE */

/* The two classes of slots: keys, and bytes of the input and the output area of the payload. */
#define STOKER_SMALL_KEYS	64u
#define STOKER_LARGE_KEYS	4096u
#define STOKER_SMALL_INPUT	8192u
#define STOKER_LARGE_INPUT	524288u
#define STOKER_SMALL_OUTPUT	128u
#define STOKER_LARGE_OUTPUT	4672u		/* 512 bitmap + 4,096 statuses + 64 to break the power of two */

static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "a hidden lock would not span processes");
static_assert(ATOMIC_INT_LOCK_FREE == 2, "a hidden lock would not span processes");

/** struct stoker_wire_key - 32 opaque bytes; the same as struct stoker_key of the public header. */
struct stoker_wire_key {
	uint64_t word[4];
};

/**
 * struct stoker_entry - one request, as the client writes it: arrival and content travel together.
 * @word: the fields of struct stoker_request_head below, in that order.
 * @sequence: written last: the place in the stream, from 1. Sequentially consistent, because
 *	need_wake is loaded after it.
 */
struct stoker_entry {
	_Atomic uint64_t word[7];
	_Atomic uint64_t sequence;
};
static_assert(sizeof(struct stoker_entry) == STOKER_LINE, "an entry is one cache line");

/* Flags of a request head. A flag that its operation does not know is a bad request. */
#define STOKER_F_PROBE		0x01u	/* LOOKUP: only say what exists: no lease, no prefetch */
#define STOKER_F_PREFETCH	0x02u	/* LOOKUP: load from lower tiers what the arena lacks */
#define STOKER_F_PARTIAL	0x04u	/* LOOKUP: at deadline or load error answer what is in the arena */
#define STOKER_F_ANY		0x08u	/* LOOKUP: keys are independent of each other */
#define STOKER_F_RENEW		0x10u	/* LOOKUP: lease[] names a lease to extend or renew */
#define STOKER_F_END_SHARE	0x20u	/* RETRIEVE: the reader's share of the lease ends with the job */
#define STOKER_F_WAIT		0x40u	/* STORE: wait for chunks that are under way elsewhere */
#define STOKER_F_READY		0x80u	/* RETRIEVE, STORE: start when the ready word has been reached */

/** struct stoker_request_head - the 56 bytes of an entry before its sequence, decoded. */
struct stoker_request_head {
	uint8_t op;		/* enum stoker_op */
	uint8_t priority;	/* 0 (first) to 7 (last), within the class of its operation */
	uint16_t slot;
	uint32_t generation;	/* of the slot, from 1, never 0 */
	uint32_t flags;		/* STOKER_F_* */
	uint32_t model;		/* number of the model, as this client opened it */
	uint32_t n_keys;	/* keys in the input area: LOOKUP, LOOKUP_MORE, STORE */
	uint32_t n_segments;	/* segments in the input area: RETRIEVE, STORE */
	uint32_t n_ids;		/* block ids in the input area: RETRIEVE, STORE */
	uint32_t deadline_us;	/* from acceptance; 0 = the broker's default; bounded by the broker */
	uint64_t session;	/* 0 = none */
	uint64_t lease[2];	/* RETRIEVE, RELEASE, MAP, LOOKUP with F_RENEW; UNMAP: the hold */
};
static_assert(sizeof(struct stoker_request_head) == 56, "a head fills an entry but for its sequence");

/** union stoker_request_line - what does not fit the entry, by operation. */
union stoker_request_line {
	uint64_t word[8];
	struct {				/* LOOKUP */
		uint64_t account;
		uint64_t readers;		/* mask of the lease's readers; 0 = reader 0 alone */
		uint32_t have;			/* leading chunks of full groups that the asker holds */
		uint32_t groups;		/* mask of groups; 0 = all */
		uint32_t tiers;			/* mask: bit 0 arena, bit 1 + i tier i; 0 = all */
		uint32_t lease_ms;		/* life of the lease; 0 = default; bounded by the broker */
		uint32_t pieces;		/* LOOKUP_MORE entries that follow, 0 to STOKER_PIECES_MAX */
		uint32_t reserved[5];		/* 0 */
	} lookup;
	struct {				/* LOOKUP_MORE */
		uint32_t head_slot;
		uint32_t head_generation;
		uint32_t piece;			/* from 1, in order */
		uint32_t reserved[13];
	} more;
	struct {				/* RETRIEVE */
		uint32_t reader;		/* 0 to 63: whose share of the lease */
		uint32_t layer_first;		/* index into the part's layers, of the first to copy */
		uint32_t layer_count;		/* 0 = all from layer_first on */
		uint32_t ready_index;		/* with F_READY: which ready word */
		uint32_t ready_value;		/* begin when (int32_t)(word - ready_value) >= 0 */
		uint32_t reserved[11];
	} retrieve;
	struct {				/* STORE */
		struct stoker_wire_key parent;	/* of the first key; all zero = a root */
		uint64_t account;
		uint64_t first_token;		/* position of the first key's first token */
		uint32_t ready_index;
		uint32_t ready_value;
		uint32_t flags;			/* STOKER_STORE_* */
		uint32_t reserved;
	} store;
	struct {				/* RELEASE */
		uint32_t reader;
		uint32_t reserved[15];
	} release;
	struct {				/* MAP */
		uint32_t chunk;			/* place in the lease, from 0 */
		uint32_t group;
		uint32_t shard;
		uint32_t reserved[13];
	} map;
};
static_assert(sizeof(union stoker_request_line) == STOKER_LINE, "a request line is one cache line");
#define STOKER_STORE_TOKENS	1u	/* token counts (uint32_t, one a key) follow the keys */

/**
 * struct stoker_segment - blocks of one pool that belong to a run of chunks.
 *
 * The input area holds, without gaps: n_keys keys (LOOKUP, LOOKUP_MORE, STORE), n_keys token
 * counts (STORE with STOKER_STORE_TOKENS; an odd number is followed by 4 zero bytes), n_segments
 * segments, n_ids block ids. The segments take their ids one after the other: chunks x
 * blocks-per-object each, chunk after chunk, in token order; with STOKER_SEGMENT_RUNS as pairs
 * (first id, count) that add up to as many.
 */
struct stoker_segment {
	uint32_t pool;		/* number of the pool, as this client registered it */
	uint8_t group;
	uint8_t shard;
	uint16_t flags;		/* STOKER_SEGMENT_* */
	uint32_t first;		/* chunk: place in the lease (RETRIEVE) or among the keys (STORE) */
	uint32_t chunks;
	uint32_t n_ids;		/* words of the id area that belong to this segment */
	uint32_t reserved;	/* 0 */
};
static_assert(sizeof(struct stoker_segment) == 24, "segments are packed in the input area");
#define STOKER_SEGMENT_RUNS	1u

/*
 * What the broker keeps for a job, by the class of its slot, and what a STORE or RETRIEVE needs of it at most.
 * A few runs can name more blocks than fit there once each is spelled out, so a client counts as well:
 * @items: objects that segments name (chunks of each, summed up); @spelled: ids that runs stand for.
 */
#define STOKER_SCRATCH_BYTES(keys_max, input_bytes) \
	((size_t)(keys_max) * 64 + (size_t)(input_bytes) / 4 * 40 + 65536)
#define STOKER_SCRATCH_NEED(chunks, n_segments, items, spelled) \
	((uint64_t)(chunks) * 17 + (uint64_t)(n_segments) * 4 + (uint64_t)(items) * 29 + (uint64_t)(spelled) * 4 + 256)

/** struct stoker_slot_client - what the client says about a slot. Written by the client only. */
struct stoker_slot_client {
	_Atomic uint32_t generation;	/* of the job that is being asked for; informative */
	_Atomic uint32_t want_wake;	/* generation to wake for, seq_cst; 0 = none */
	_Atomic uint32_t cancel;	/* generation to cancel; a CANCEL entry says when to look */
	_Atomic uint32_t want_done;	/* generation whose DONE a device waits for, seq_cst; 0 = none */
	uint32_t reserved[12];
};

/**
 * struct stoker_slot_broker - what the broker says about a slot. Written by the broker only and
 * never read back by it. Fields first, `word` last: `found`, `found_l1` and `expected_us` before
 * PROBED, the rest of the results before DONE; `ready` and `layers` only rise.
 *
 * counts[] by operation: LOOKUP: usable chunks that were in the arena, on disk, in a remote tier.
 * STORE: chunks present, under way elsewhere, refused or incomplete. RETRIEVE: [0] chunks failed.
 */
struct stoker_slot_broker {
	_Atomic uint64_t word;		/* generation 32 | status 16 | stage 16, seq_cst */
	_Atomic uint32_t found;		/* usable length as probed, in chunks */
	_Atomic uint32_t found_l1;	/* of it, usable length wholly in the arena */
	_Atomic uint32_t expected_us;	/* time until all of it is ready */
	_Atomic uint32_t ready;		/* usable length that is ready now */
	_Atomic uint32_t layers;	/* RETRIEVE: layers of the range that are wholly copied */
	_Atomic uint32_t n;		/* final: usable length (LOOKUP), chunks copied or stored */
	_Atomic uint32_t counts[3];
	_Atomic uint32_t lease_ms;	/* life of the lease from now; 0 = there is none */
	_Atomic uint64_t lease[2];	/* token of the lease; MAP: of the hold */
};

/**
 * struct stoker_slot_device - for a device of the client that waits for a job. Devices compare 32 bits, and a
 * stream may come to its wait when the slot serves another job already: so this is the generation of
 * the last job that was DONE and waited for, and a wait is (int32_t)(done - generation) >= 0. Written by the
 * broker after `word`, if want_done asks for it; by the client before it asks, and when the broker is gone.
 */
struct stoker_slot_device {
	_Atomic uint32_t done;
	uint32_t reserved[15];
};

/** struct stoker_slot - header of a slot. Client and broker line are 128 bytes apart. */
struct stoker_slot {
	alignas(64) struct stoker_slot_client client;
	alignas(64) union stoker_request_line request;	/* written by the client, taken by shm_take() */
	alignas(64) struct stoker_slot_broker broker;
	alignas(64) struct stoker_slot_device device;	/* and keeps neighbours 128 bytes apart */
};
static_assert(sizeof(struct stoker_slot_client) == STOKER_LINE, "the client line is one line");
static_assert(sizeof(struct stoker_slot_broker) == STOKER_LINE, "the broker line is one line");
static_assert(sizeof(struct stoker_slot_device) == STOKER_LINE, "the device line is one line");
static_assert(offsetof(struct stoker_slot, request) == 64, "the layout is ABI: raise STOKER_ABI");
static_assert(offsetof(struct stoker_slot, broker) == 128, "client and broker lines are 128 apart");
static_assert(sizeof(struct stoker_slot) == 256, "the layout is ABI: raise STOKER_ABI");

static inline uint64_t slot_word(uint32_t generation, uint32_t status, uint32_t stage)
{
	return (uint64_t)generation << 32 | (uint64_t)(status & 0xffff) << 16 | (stage & 0xffff);
}
static inline uint32_t slot_word_generation(uint64_t word) { return (uint32_t)(word >> 32); }
static inline uint32_t slot_word_status(uint64_t word) { return (uint32_t)(word >> 16) & 0xffff; }
static inline uint32_t slot_word_stage(uint64_t word) { return (uint32_t)word & 0xffff; }

/*
 * The output area of a payload, valid at DONE: LOOKUP: the bitmap of usable lengths, keys/64 words
 * (bit i: length i + 1 is usable; F_ANY: key i exists); of a chained lookup it covers the last
 * STOKER_LARGE_KEYS lengths. RETRIEVE, STORE: after the place of the bitmap, one byte a chunk
 * (enum stoker_chunk), from the first key (STORE) or the first chunk that a segment names (RETRIEVE).
 * MAP, UNMAP: struct stoker_mapped at its start. What a job that did not end OK has not come to is 0.
 */
struct stoker_mapped {
	uint64_t offset;	/* of the payload in the arena */
	uint64_t bytes;		/* of the payload */
	uint64_t version;	/* odd or changed at UNMAP = it did not hold throughout */
	uint64_t held;		/* UNMAP: 1 if it held throughout */
};

/** struct channel_geometry - what a client may wish for; the broker bounds it. */
struct channel_geometry {
	uint32_t slots_small;	/* 1 to CHANNEL_SMALL_MAX */
	uint32_t slots_large;	/* 1 to CHANNEL_LARGE_MAX */
	uint32_t ready_words;	/* a multiple of 1,024, up to CHANNEL_READY_MAX */
	uint32_t reserved;
};
#define CHANNEL_SMALL_MAX	256u
#define CHANNEL_LARGE_MAX	16u
#define CHANNEL_READY_MAX	65536u

/** struct channel_header - first page of a channel. */
struct channel_header {
	uint64_t magic;
	uint32_t abi;
	uint32_t bytes_pages;			/* size of the channel in pages of 4,096 bytes */
	struct channel_geometry geometry;
	alignas(128) _Atomic uint32_t need_wake; /* seq_cst; 1 = ring the doorbell after a submit */
	uint32_t reserved[31];
};
static_assert(offsetof(struct channel_header, need_wake) == 128, "the layout is ABI: raise STOKER_ABI");

/** struct channel_plan - where everything is, worked out from a geometry; private to each side. */
struct channel_plan {
	struct channel_geometry geometry;
	uint32_t slots;			/* small + large; small ones have the low indices */
	uint32_t requests;		/* entries of the request ring: a power of two >= 4 x slots */
	uint32_t responses;		/* entries of the response ring: a power of two >= 2 x slots */
	uint64_t request_offset, response_offset, ready_offset, slot_offset;
	uint64_t small_offset, large_offset;	/* payloads */
	uint64_t bytes;			/* a multiple of 4,096 */
};

/* Returns 0, or -EINVAL if @geometry is out of bounds. */
int channel_plan_make(const struct channel_geometry *geometry, struct channel_plan *ret);

static inline uint32_t plan_slot_keys(const struct channel_plan *plan, uint32_t slot)
{
	return slot < plan->geometry.slots_small ? STOKER_SMALL_KEYS : STOKER_LARGE_KEYS;
}
static inline uint32_t plan_slot_input(const struct channel_plan *plan, uint32_t slot)
{
	return slot < plan->geometry.slots_small ? STOKER_SMALL_INPUT : STOKER_LARGE_INPUT;
}
/* Offset in the channel of the input area of @slot, which must be below plan->slots. */
uint64_t plan_input_offset(const struct channel_plan *plan, uint32_t slot);
/* Offset in the channel of the output area of @slot. */
uint64_t plan_output_offset(const struct channel_plan *plan, uint32_t slot);
/* Offset of the status bytes within an output area: they follow the bitmap. */
static inline uint32_t plan_status_offset(const struct channel_plan *plan, uint32_t slot)
{
	return plan_slot_keys(plan, slot) / 8;
}

/*
 * Load @bytes (a multiple of 8, both sides 8-aligned) of memory that a peer can write into private
 * memory, each word once. The peer can rewrite them at any instant: check the copy, use the copy.
 */
static inline void shm_take(void *to, const void *shared, size_t bytes)
{
	const _Atomic uint64_t *from = shared;
	uint64_t *words = to;

	for (size_t i = 0; i < bytes / 8; i++)
		words[i] = atomic_load_explicit(&from[i], memory_order_relaxed);
}

#endif
