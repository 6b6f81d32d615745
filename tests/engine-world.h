/*
 * A small world for tests of the engine: ports that remember what they were asked and answer when the
 * test lets them, an arena, tiers and pools whose blocks are one number each, and clients with slots.
 * Everything is deterministic; engine_audit() is run after every event.
 */
#ifndef STOKER_TESTS_ENGINE_WORLD_H
#define STOKER_TESTS_ENGINE_WORLD_H

#include <check.h>

#include "src/engine/engine.h"

#define WORLD_CLIENTS	4u
#define WORLD_SMALL	8u	/* slots of a client, small ones first */
#define WORLD_SLOTS	10u
#define WORLD_EXTENT	65536u	/* 8 objects of model PLAIN */
#define WORLD_EXTENTS	16u
#define WORLD_TIERS	2u
#define WORLD_TIER_EXTENTS 32u
#define WORLD_BLOCKS	4u	/* of an object */
#define WORLD_POOL	1024u	/* blocks of a pool */
#define WORLD_POOLS	16u
#define WORLD_UNITS	(WORLD_EXTENT / 4096u * WORLD_TIER_EXTENTS)

enum world_model { PLAIN, SHARDED, MIXED, BIG, WORLD_MODELS, OTHER = WORLD_MODELS /* as PLAIN, of tenant 1 */ };

/* What is asked of the shell and not answered yet. */
enum pending_kind { PENDING_READ, PENDING_WRITE, PENDING_SEAL, PENDING_VERIFY, PENDING_COPY, PENDING_KINDS };
struct pending {
	enum pending_kind kind;
	struct engine_io io;
	struct engine_check check;
	struct engine_copy copy;
};

struct image {			/* what lies in a place: identity and blocks */
	struct stoker_wire_key key;
	uint64_t sequence;
	uint32_t epoch;
	uint64_t block[WORLD_BLOCKS];
	bool rotten;
};

struct seen {			/* what was published in a slot */
	uint32_t generation;
	uint32_t n;		/* publications since the submit */
	uint32_t stages[64];
	struct engine_answer answer;
	uint64_t bitmap[64];
	uint8_t chunks[4096];
	struct stoker_mapped mapped;
	bool done;
};

struct slot_memory {
	struct stoker_wire_key keys[4096];
	uint32_t tokens[4096];
	struct stoker_segment segments[64];
	uint32_t ids[16384];
	uint8_t *scratch;
	size_t scratch_bytes;
};

struct world_options {
	uint32_t tiers;			/* up at once */
	uint32_t extents;		/* of the arena, 64 at most; 0: WORLD_EXTENTS */
	uint32_t later_extents;		/* the last ones, which the test adds itself */
	uint32_t tier_extents;		/* 0: WORLD_TIER_EXTENTS */
	uint32_t entries, records;	/* 0: plenty */
	uint32_t leased_chunks, leases;	/* 0: plenty */
	uint32_t holds;			/* 0: plenty */
	uint32_t accounts;		/* told apart */
	uint32_t tenants;		/* 0: 1. With 2, clients 2 and 3 and the model OTHER are of the second one.
					   Each client is a user of its own */
	enum engine_policy policy;
	uint32_t refill_permille;
	bool not_serving, no_random, no_write_back, tiers_later;	/* later: the test brings them up */
};

struct world {
	struct engine_config config;
	struct engine *engine;
	void *memory;
	uint64_t now;
	struct control_block counters;
	struct pending pending[4096];
	uint32_t n_pending;
	bool hold[PENDING_KINDS];		/* world_run() leaves these unanswered */
	uint32_t fail[PENDING_KINDS];		/* so many of the next ones fail */
	bool corrupt;				/* ... as corrupt ones */
	uint32_t fail_item;			/* with fail[PENDING_COPY]: 1 + the item that fails; 0: all */
	uint32_t asked[PENDING_KINDS];		/* ever */
	uint32_t cancelled_copy;
	struct image arena[2 * WORLD_UNITS], disk[WORLD_TIERS][WORLD_UNITS];
	uint64_t blocks[WORLD_CLIENTS][WORLD_POOLS][WORLD_POOL];
	struct seen seen[WORLD_CLIENTS][WORLD_SLOTS];
	struct slot_memory *slots[WORLD_CLIENTS][WORLD_SLOTS];
	bool out[WORLD_CLIENTS], gone[WORLD_CLIENTS], expelled[WORLD_CLIENTS], watched[WORLD_CLIENTS][WORLD_SLOTS];
	bool committed[4096], held[4096];
	struct engine_object committed_object[4096];
	struct engine_place committed_place[4096];
	uint32_t slab_adds, slab_removes;
	uint32_t n_controls;
	struct { engine_token token; enum stoker_status status; uint64_t value; } controls[64];
	struct { uint32_t model, epoch; } persisting[8];
	uint32_t n_persisting;
	uint64_t random;
};

struct world *world_new(const struct world_options *options);	/* NULL: defaults, no tier */
void world_free(struct world *w);	/* all clients go, all is drained, nothing may be left */
void world_run(struct world *w);	/* turns and answers until nothing moves */
void world_turn(struct world *w);	/* one turn, no answers */
void world_answer(struct world *w, uint32_t i);	/* answer pending[i] */
void world_pass(struct world *w, uint64_t ms);	/* time passes, then world_run() */
void world_out(struct world *w, uint32_t client);	/* it leaves */
void world_audit(struct world *w);
uint64_t world_counter(const struct world *w, enum stoker_counter counter);
uint64_t world_gauge(const struct world *w, enum stoker_gauge gauge);

struct stoker_wire_key key_of(uint64_t chain, uint32_t chunk);
/* Requests, with arguments in the slot's own memory; change what is special before submit(). */
struct engine_request ask(struct world *w, uint32_t client, uint32_t slot, enum stoker_op op, uint32_t model);
struct engine_request ask_lookup(struct world *w, uint32_t client, uint32_t slot, uint32_t model, uint64_t chain,
				 uint32_t n, uint32_t flags);
struct engine_request ask_store(struct world *w, uint32_t client, uint32_t slot, uint32_t model, uint64_t chain,
				uint32_t first, uint32_t n);
struct engine_request ask_retrieve(struct world *w, uint32_t client, uint32_t slot, uint32_t model,
				   const uint64_t lease[2], uint32_t first, uint32_t n);
/* Append a segment of all blocks from id @base on; in ask_store() and ask_retrieve() base is 0. */
void add_segment(struct world *w, struct engine_request *request, uint32_t client, uint32_t pool, uint32_t group,
		 uint32_t shard, uint32_t first, uint32_t chunks, uint32_t base);
const struct seen *submit(struct world *w, uint32_t client, struct engine_request *request);

/* The same and world_run(): for what is not the point of a test. */
const struct seen *do_store(struct world *w, uint64_t chain, uint32_t n);	/* client 0, slot 0, PLAIN */
const struct seen *do_lookup(struct world *w, uint64_t chain, uint32_t n, uint32_t flags);	/* slot 1 */
const struct seen *do_retrieve(struct world *w, const uint64_t lease[2], uint32_t n);	/* slot 2 */
void do_release(struct world *w, const uint64_t lease[2]);	/* slot 3 */
uint64_t block_value(uint64_t chain, uint32_t chunk, uint32_t block);	/* what do_store() stores */

#endif
