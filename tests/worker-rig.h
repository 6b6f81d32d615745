/*
 * Workers for tests of the whole: libstoker, a small model and a pool, attached to the broker of
 * whole-rig.h. Every byte of a pool is known, so that what comes back can be checked without asking
 * anybody.
 */
#ifndef STOKER_TESTS_WORKER_RIG_H
#define STOKER_TESTS_WORKER_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include <stoker/stoker.h>

#define WORKER_LAYERS	2u
#define WORKER_ROWS	4u	/* two planes a layer */
#define WORKER_BLOCKS	2u	/* of a chunk */
#define WORKER_BYTES	4096u	/* of a block in one plane */
#define WORKER_CHUNKS	64u	/* places for chunks in a pool */
#define WORKER_POOL_BLOCKS	(WORKER_CHUNKS * WORKER_BLOCKS)
#define WORKER_PLANE	((size_t)WORKER_POOL_BLOCKS * WORKER_BYTES)
#define WORKER_POOL	(WORKER_ROWS * WORKER_PLANE)

struct worker {
	struct stoker *c;
	struct stoker_model *model;
	struct stoker_region *region;
	struct stoker_pool *pool;
	uint8_t *memory, *expected;	/* what the pool holds, and what it has to */
};

void worker_attach(struct worker *w);		/* attached, model open */
void worker_start(struct worker *w);		/* attached, model open, pool added */
void worker_end(struct worker *w);
void worker_wipe(struct worker *w, uint8_t byte);	/* both copies */
/* KV of chunk @chunk at place @place of the pool: into one copy, or is it there? */
void worker_fill(uint8_t *memory, uint32_t place, uint32_t chunk);
bool worker_holds(const uint8_t *memory, uint32_t place, uint32_t chunk);
void worker_check(const struct worker *w);	/* the whole pool, byte for byte */

/* Chunks are numbered; the chain of chunk 1,000 c + i is c, and i its place in it. */
void worker_keys(struct stoker_key *keys, uint32_t first, uint32_t n);
/* Submit; 0 or what the library said. Places of the pool from @place on, every @step'th. */
int worker_store(struct worker *w, uint32_t first, uint32_t n, uint32_t place, uint32_t step, struct stoker_job *ret);
int worker_retrieve(struct worker *w, const struct stoker_lease *lease, uint32_t n, uint32_t place, uint32_t step,
		    const struct stoker_retrieve_options *options, struct stoker_job *ret);
/* Wait and finish. A job that does not end within 60 s is a hang, and fails the test. */
struct stoker_result worker_finish(struct worker *w, struct stoker_job job);

/* The same as whole steps that have to go well. */
void worker_stores(struct worker *w, uint32_t first, uint32_t n);
struct stoker_result worker_looks_up(struct worker *w, uint32_t first, uint32_t n);
/* Look up @n chunks from @first on, of which @found have to be there, retrieve those, and check every byte. */
struct stoker_result worker_gets(struct worker *w, uint32_t first, uint32_t n, uint32_t found);

#endif
