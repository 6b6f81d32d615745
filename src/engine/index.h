/*
 * The index: one entry of two cache lines per (model incarnation, key), and a record per object.
 *
 * Invariants:
 * - The first line of an entry is all that a probe needs: key, model, pins, and masks of parts that
 *   are filling, in the arena (l1), on disk. Masks are the truth of what is where; records say the places.
 * - pins counts leases and running jobs for the whole chunk; io counts its I/Os, copies and checks
 *   under way. Space is freed only at pins = io = 0.
 * - An entry lives while it has a record, a pin, an io, or is a ghost (key only, for ARC). Ghosts
 *   are the first to go when entries run out.
 * - parent links are hints for eviction order: children_l1 and children_disk count the live entries
 *   that name this one as parent and have an object there.
 * - Numbers, not pointers; ENGINE_NONE is none. No allocation: all arrays are given at start.
 */
#ifndef STOKER_ENGINE_INDEX_H
#define STOKER_ENGINE_INDEX_H

#include "src/engine/engine.h"

enum entry_list {
	LIST_NONE, LIST_LRU, LIST_RECENT, LIST_FREQUENT, LIST_INCOMPLETE,
	LIST_GHOST_RECENT, LIST_GHOST_FREQUENT,	/* not there any more, but remembered (evict.h) */
};
#define ENTRY_GHOST_RECENT   0x1u	/* key only: was evicted from the recent list */
#define ENTRY_GHOST_FREQUENT 0x2u
#define ENTRY_SEEN_TWICE     0x4u	/* used again since it came (ARC: belongs to the frequent list) */
#define ENTRY_ORPHAN	     0x8u	/* index_link() found no parent: a root that ages */
/* Kept by evict.c alone: */
#define ENTRY_DISK_SEEN_TWICE 0x10u	/* as ENTRY_SEEN_TWICE, of the disk tier */
#define ENTRY_L1_RESIDENT    0x20u	/* counted as being in the arena */
#define ENTRY_DISK_RESIDENT  0x40u	/* counted as being on its tier */
/* Kept by index.c alone: */
#define ENTRY_PARENT	     0x80u	/* an entry has linked to it since it was added */

struct entry {
	/* line 1: what a probe reads */
	struct stoker_wire_key key;
	uint32_t model;		/* incarnation: a reset gives the model a new one */
	uint32_t pins;
	uint64_t l1, disk, filling;	/* masks of parts */
	/* line 2 */
	uint32_t parent;	/* entry, or ENGINE_NONE */
	uint32_t records;	/* first record of the chunk's list, or ENGINE_NONE */
	uint32_t children_l1, children_disk;
	uint32_t l1_prev, l1_next, disk_prev, disk_next;	/* eviction lists */
	uint8_t l1_list, disk_list;	/* enum entry_list */
	uint8_t flags, tenant;
	uint32_t tokens;
	uint32_t first_token;
	uint32_t io;
	uint64_t account;
	uint64_t touched;	/* engine's count of uses at the last one: recency */
};
static_assert(sizeof(struct entry) == 128, "an entry is two cache lines");

enum record_state {
	RECORD_FREE,
	RECORD_FILLING,		/* being stored, or read from a tier: no byte of it may be served */
	RECORD_UNVERIFIED,	/* survived a restart: verify before the first service */
	RECORD_READY,		/* in the arena, to be served */
	RECORD_ABSENT,		/* not in the arena; on disk only */
};

/** struct record - one object: a part of a chunk. Its number is its place in the arena table. */
struct record {
	uint32_t entry;
	uint32_t next;		/* of the same entry, or ENGINE_NONE; in the free list: the next free */
	uint32_t place;		/* unit in the arena, ENGINE_NONE = not there */
	uint32_t disk_place;	/* unit on the tier, ENGINE_NONE = not there */
	uint8_t part, state, tier;
	uint8_t flags;		/* RECORD_* of the engine's own */
	uint32_t version;	/* even; odd while invalid: raised before the place is reused */
	uint64_t checksum;	/* 0 = not sealed */
	uint64_t sequence;
};
static_assert(sizeof(struct record) == 40, "a record is small");

struct index;

/*
 * 1 to 2^31 - 1 entries, 1 to 2^32 - 2 records; memory is zeroed and 64-aligned, touched as it fills. Give
 * it huge pages: without them a probe among 10 M entries waits for the page walk, and takes three
 * times as long.
 */
size_t index_bytes(uint32_t entries, uint32_t records);
struct index *index_init(void *memory, uint32_t entries, uint32_t records, uint64_t seed);

static inline struct entry *index_entry(struct index *index, uint32_t number);
static inline struct record *index_record(struct index *index, uint32_t number);

/*
 * Ghosts are found by nobody. Probe @n keys (any number; done in batches of 32 with prefetching: bucket, then entry). ret[i]:
 * the entry, or ENGINE_NONE. With @stop_at_gap the rest after the first absent key, or after the
 * first entry that has not all parts of @need in (l1 | disk), is not probed: returns how many
 * were (the gap's own included).
 */
uint32_t index_probe(struct index *index, uint32_t model, const struct stoker_wire_key *keys, uint32_t n,
		     bool stop_at_gap, uint64_t need, uint32_t *ret);
uint32_t index_find(struct index *index, uint32_t model, const struct stoker_wire_key *key);
/* 64 bits instead of a key that is not kept: two keys have the same ones by chance alone, once in 2^64. */
uint64_t index_print(const struct index *index, const struct stoker_wire_key *key);

/*
 * A new entry, or the ghost of that key come back to life (or the live entry of that key, unchanged).
 * Entries run out: the coldest ghost is forgotten for it. ENGINE_NONE: full and no ghost left: evict,
 * try again. A new entry has masks, pins, io, children 0, parent and records ENGINE_NONE; tokens,
 * first_token, tenant, account and touched are the caller's to set.
 */
uint32_t index_add(struct index *index, uint32_t model, const struct stoker_wire_key *key);
/*
 * Call it when an entry has no record, pin, io or mask bit left and evict_update() has seen that: it is
 * given back, or stays as a ghost, found by no probe, if eviction wants to remember it. Children's
 * links to it end lazily: index_parent() is what knows whether a link still holds.
 */
void index_remove(struct index *index, uint32_t entry);
/*
 * Link to the parent key's entry if it exists (all zero: a root); counts are kept by this and by
 * index_mask_changed(). May be called again at any time: it mends the link of an orphan whose
 * parent has come (back), and does nothing to one that holds.
 */
void index_link(struct index *index, uint32_t entry, const struct stoker_wire_key *parent);
uint32_t index_parent(struct index *index, uint32_t entry);	/* ENGINE_NONE: a root or an orphan */
/*
 * Call after every change of l1 or disk masks with the masks before: keeps the parents' child counts.
 * If a mask became 0 or stopped being 0, evict_update() the parent next: it may go now, or no longer.
 */
void index_mask_changed(struct index *index, uint32_t entry, uint64_t l1_before, uint64_t disk_before);

/*
 * A new record is RECORD_ABSENT with both places ENGINE_NONE; `version` keeps the value that the
 * number's last user left. ENGINE_NONE: full.
 */
uint32_t index_record_add(struct index *index, uint32_t entry, uint32_t part);
bool index_record_add_at(struct index *index, uint32_t record, uint32_t entry, uint32_t part);	/* recovery */
uint32_t index_record_find(struct index *index, uint32_t entry, uint32_t part);
void index_record_remove(struct index *index, uint32_t record);

uint32_t index_used(const struct index *index);		/* entries, ghosts included */
uint32_t index_ghosts(const struct index *index);
uint32_t index_max(const struct index *index);
uint32_t index_records_used(const struct index *index);
/* The next live entry after that number (ENGINE_NONE: the first), no ghost; ENGINE_NONE: the end. */
uint32_t index_next(struct index *index, uint32_t after);
const char *index_audit(const struct index *index);

/** struct entry_side - what neither a probe nor the engine's operations need of an entry. */
struct entry_side {
	uint32_t serial;		/* raised when the number is given back: links to it end */
	uint32_t parent_serial;		/* the parent's serial when it was linked */
	uint32_t l1_units, disk_units;	/* size as eviction counts it, in 4,096 bytes; a ghost keeps it */
};

/* The open part of struct index, for the inline functions here. */
struct index_open {
	struct entry *entries;
	struct record *records;
	struct entry_side *sides;
};
static inline struct entry_side *index_side(struct index *index, uint32_t number)
{
	return &((struct index_open *)index)->sides[number];
}

/*
 * For evict.c: @entry has left a ghost list. If it is a key alone that nobody else remembers, it is
 * given back: returns whether it was.
 */
bool index_forget(struct index *index, uint32_t entry);
/* For evict.c: how index_add() has a ghost forgotten; it returns whether an entry came free. Returns the @arg before. */
void *index_on_full(struct index *index, bool (*forget_one)(void *arg), void *arg);
static inline struct entry *index_entry(struct index *index, uint32_t number)
{
	return &((struct index_open *)index)->entries[number];
}
static inline struct record *index_record(struct index *index, uint32_t number)
{
	return &((struct index_open *)index)->records[number];
}

#endif
