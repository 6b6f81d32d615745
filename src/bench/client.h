/*
 * A worker as an engine has it, for the commands that move bytes: an attached client, a model with
 * layers and planes, and a paged pool of blocks in shared memory of its own. Bytes are those of
 * payload.h; blocks that nobody should have written hold the pattern.
 *
 * A pool has twice the blocks of its window, and those of one transfer are scattered over it: the
 * rest are guards, and every check looks at all of them.
 */
#ifndef STOKER_BENCH_CLIENT_H
#define STOKER_BENCH_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include <stoker/stoker.h>

#include "src/bench/sample.h"

#define CLIENT_POLLS 64u	/* polls in one sample of their time */
#define CLIENT_WHY   256u

struct client_config {
	const char *broker;
	const char *model;		/* name; part of every byte */
	uint64_t object_bytes;		/* a multiple of 64 */
	uint32_t blocks;		/* of an object */
	uint32_t window;		/* objects of one transfer, at most */
};

struct client {
	struct client_config config;
	struct stoker *stoker;
	struct stoker_model *model;
	struct stoker_region *region;
	struct stoker_pool *pool;
	uint32_t layers, planes;	/* of a model; planes of a layer */
	uint32_t block_bytes;		/* of one block in one plane */
	uint32_t pool_blocks;
	uint8_t *memory;
	size_t memory_bytes;
	uint32_t *ids;			/* of the transfer: window x blocks */
	uint8_t *taken;			/* by block: part of the transfer */
	struct samples *polls;		/* NULL, or times of CLIENT_POLLS polls of a pending job */
	char why[CLIENT_WHY];		/* of the last failure */
};

/* Is there a layout for such objects? Else -EINVAL after saying why on stderr. */
int client_check(uint64_t object_bytes, uint64_t blocks);

/* Returns 0 or -errno with the text in client->why. client_close() in any case. */
int client_open(const struct client_config *config, struct client *client);
void client_close(struct client *client);

/* Choose the blocks for @n objects; @turn varies them. */
void client_choose(struct client *client, uint64_t turn, uint32_t n);
/* The chosen blocks := bytes of these objects. */
void client_fill(struct client *client, const struct stoker_key *keys, uint32_t n);
/* The chosen blocks := the pattern again. */
void client_wipe(struct client *client, uint32_t n);
/* Bytes of the chosen blocks that are not those of these objects, and in all others, not the pattern. */
uint64_t client_wrong(const struct client *client, const struct stoker_key *keys, uint32_t n);

/* The chosen blocks as an argument, for chunks from @first on. */
struct stoker_blocks client_blocks(const struct client *client, uint32_t first, uint32_t n);

/* Wait for DONE: poll for a while, then sleep. 0, or -errno with a text. */
int client_wait(struct client *client, struct stoker_job job);
/*
 * Wait and take the result. 0 only if the status is OK; else -EIO, or -EPIPE if the broker is gone,
 * with a text that names @what.
 */
int client_finish(struct client *client, const char *what, struct stoker_job job, struct stoker_result *ret,
		  uint8_t *chunks, uint32_t n_chunks);
/* A text for client->why. Returns @r. */
__attribute__((format(printf, 3, 4))) int client_fail(struct client *client, int r, const char *format, ...);

#endif
