/*
 * What the end-to-end tests begin with: a stokerd as it is built, under a private name with private
 * directories, workers with a small model and a pool, and KV bytes that are known everywhere.
 */
#ifndef TESTS_END_TO_END_H
#define TESTS_END_TO_END_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <stoker/stoker.h>

#define LAYERS		3u
#define PLANES		2u
#define BLOCK_BYTES	4096u	/* of one plane */
#define BLOCKS		4u	/* of a chunk: 64 tokens in blocks of 16 */
#define POOL_BLOCKS	512u
#define PLANE_BYTES	((size_t)POOL_BLOCKS * BLOCK_BYTES)
#define POOL_BYTES	(LAYERS * PLANES * PLANE_BYTES)
#define OBJECT_BYTES	(LAYERS * PLANES * BLOCKS * BLOCK_BYTES)

struct worker {
	struct stoker *c;
	struct stoker_model *model;
	struct stoker_region *region;
	struct stoker_pool *pool;
	uint8_t *memory, *expected;	/* what the pool holds, and what it ought to */
};

extern char name[64];		/* of the broker */
extern pid_t broker;		/* 0: none */

/* stokerctl with @arguments, which a shell reads: its exit status. */
int run_ctl(const char *arguments);
/* Wait until stokerctl's status in JSON has @text. */
void await_status(const char *text);
/* Become a broker that prints its readiness to @ready. */
void broker_exec(int ready);
void broker_start(void);
/* End the broker by a signal; its exit status, or 1000 + the signal. */
int broker_end(int signal_number);
void worker_start(struct worker *w);
void worker_end(struct worker *w);

/* Byte @i of plane @row of block @block of chunk number @chunk: what its KV is, everywhere. */
uint8_t kv(uint32_t chunk, uint32_t row, uint32_t block, uint32_t i);
/* Write chunk @chunk's KV for blocks @first to @first + 3 into @memory. */
void fill(uint8_t *memory, uint32_t first, uint32_t chunk);
/* Every byte of the pool is what was expected. */
void check_pool(const struct worker *w);
/* Keys of chunks @first to @first + @n - 1. */
void keys_of(struct stoker_key *keys, uint32_t first, uint32_t n);
void ids_from(uint32_t *ids, uint32_t first, uint32_t n);

/* Wait for @job and take its result. */
struct stoker_result finish(struct worker *w, struct stoker_job job);
/* Store chunks @first to @first + @n - 1 from blocks @block on. */
struct stoker_result store(struct worker *w, uint32_t first, uint32_t n, uint32_t block);
struct stoker_result lookup(struct worker *w, uint32_t first, uint32_t n);
/* Retrieve the first @n chunks of @lease, which are @first and following, into blocks @block and following. */
struct stoker_job retrieve_submit(struct worker *w, const struct stoker_lease *lease, uint32_t first, uint32_t n,
				  uint32_t block, const struct stoker_retrieve_options *options);
struct stoker_result retrieve(struct worker *w, const struct stoker_lease *lease, uint32_t first, uint32_t n,
			      uint32_t block);

/* Fixtures of every test. */
void setup(void);
void setup_with_tier(void);
void teardown(void);
/* Which broker is to be killed when the test ends without its teardown; 0: none. */
void janitor_tell(pid_t pid);

#endif
