/*
 * The inside of the index, for index.c (entries and links), index_table.c (where a key lies) and
 * index_records.c alone.
 */
#ifndef STOKER_ENGINE_INDEX_INSIDE_H
#define STOKER_ENGINE_INDEX_INSIDE_H

#include "src/engine/index.h"

#define BUCKET_SLOTS	12u
#define SLOT_GHOST	0x80000000u	/* in bucket.entry: a ghost, to be seen by no probe */

/**
 * struct bucket - one cache line: numbers of entries whose keys hash here, and 8 bits of each hash.
 * @tag: 0 = empty. Slots are filled from the first on, and the buckets of a chain one after the
 *	other, so only the last one has empty slots.
 * @next: number of the next bucket of the chain; 0 (which is never a next one) = none.
 */
struct bucket {
	uint32_t entry[BUCKET_SLOTS];
	uint8_t tag[BUCKET_SLOTS];
	uint32_t next;
};
static_assert(sizeof(struct bucket) == 64, "a bucket is one cache line");

struct index {
	struct index_open open;		/* first: the inline functions of index.h look here */
	uint64_t seed;
	struct bucket *buckets;		/* heads of chains, then those that lengthen them */
	uint32_t heads;
	uint32_t extra_fresh;		/* buckets from here on have never lengthened a chain */
	uint32_t extra_free;		/* list of those that no longer do, by next; 0 = none */

	uint32_t entries_max, entries_fresh, entries_free, used, ghosts;
	uint32_t records_max, records_fresh, records_free, records_used;
	bool (*forget_one)(void *arg);
	void *forget_arg;
};

/* Free entries and records are listed by these fields; numbers not below `fresh` were never used. */
#define entry_next_free		records
#define record_next_free	next
#define record_prev_free	place

size_t table_buckets(uint32_t entries);		/* how many buckets serve so many entries */
uint32_t table_heads(uint32_t entries);		/* how many of them are heads */
/* The entry of that key, ghosts included; ENGINE_NONE: none. */
uint32_t table_find(const struct index *index, uint32_t model, const struct stoker_wire_key *key);
void table_insert(struct index *index, uint32_t entry);
void table_remove(struct index *index, uint32_t entry);
void table_set_ghost(struct index *index, uint32_t entry, bool ghost);
const char *table_audit(const struct index *index);

const char *records_audit(const struct index *index);

#endif
