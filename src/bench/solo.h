/*
 * The engine alone: the real one, on ports that do nothing and complete at once, in an arena that is
 * a number. For `policy` and `index`: what is measured is decisions, no byte moves.
 *
 * One client, one model with one full group of some shards, one request at a time.
 */
#ifndef STOKER_BENCH_SOLO_H
#define STOKER_BENCH_SOLO_H

#include <stdbool.h>
#include <stdint.h>

#include "src/engine/engine.h"

struct solo;

struct solo_config {
	enum engine_policy policy;
	uint64_t extent_bytes;
	uint32_t extents;
	uint64_t payload_bytes;		/* of an object; its image has a header of 4,096 more */
	uint32_t shards;		/* objects of a chunk */
	uint32_t entries;		/* of the index */
};

/* NULL, after saying why on stderr. */
struct solo *solo_new(const struct solo_config *config);
void solo_free(struct solo *solo);

struct solo_answer {
	uint32_t status, n;
	uint64_t lease[2];
};
/* The longest prefix of @n keys (at most STOKER_LARGE_KEYS), leased. */
struct solo_answer solo_lookup(struct solo *solo, const struct stoker_wire_key *keys, uint32_t n);
void solo_release(struct solo *solo, const struct solo_answer *answer);
/* Store @n keys whose parent is @parent (all zero: a root). Returns how many the engine took or had. */
uint32_t solo_store(struct solo *solo, const struct stoker_wire_key *keys, uint32_t n,
		    const struct stoker_wire_key *parent, uint64_t first_token);
const char *solo_audit(const struct solo *solo);

#endif
