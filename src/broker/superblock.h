/*
 * The superblock of a tier: whose file it is, and the epochs of the models that have objects in it.
 *
 * Two copies of 64 KiB at the start of `stoker-tier`, written alternately and checksummed whole: a
 * torn write costs the newer one at most, and the older one was durable before. Images begin at
 * SUPERBLOCK_DATA. A file whose copies say another magic, format, machine or size of extents is
 * refused before anything is written.
 *
 * The table of models is bounded. A row is named by its number in the slab table, so it is durable
 * before the first entry that names it, and reused only after no entry does.
 */
#ifndef STOKER_BROKER_SUPERBLOCK_H
#define STOKER_BROKER_SUPERBLOCK_H

#include "shm/model.h"

#define SUPERBLOCK_MAGIC	0x7265697472656b73ull	/* "skertier" */
#define SUPERBLOCK_FORMAT	1u
#define SUPERBLOCK_BYTES	65536u
#define SUPERBLOCK_DATA		1048576u	/* where images begin in the file */
#define SUPERBLOCK_MODELS	1024u

struct superblock_model {
	uint8_t digest[MODEL_DIGEST_BYTES];	/* with tenant */
	uint64_t tag;
	uint32_t epoch;				/* objects of older ones are dead */
	uint32_t used;
};

struct superblock {
	uint64_t magic;
	uint32_t format;
	uint32_t reserved;
	uint64_t check;			/* XXH3-64 of the whole copy, this field 0 */
	uint64_t generation;		/* the higher of two good copies counts */
	uint8_t machine[16];		/* hash of /etc/machine-id */
	uint8_t uuid[16];		/* of this tier; every image on it bears it */
	uint64_t extent_bytes;
	uint64_t data, log_bytes;	/* block device: where images begin, and bytes of each area of the slab
					 * table; 0 in a file: SUPERBLOCK_DATA, and a file of its own */
	uint8_t unused[4096 - 88];
	struct superblock_model models[SUPERBLOCK_MODELS];
	uint8_t rest[SUPERBLOCK_BYTES - 4096 - SUPERBLOCK_MODELS * sizeof(struct superblock_model)];
};
static_assert(sizeof(struct superblock) == SUPERBLOCK_BYTES, "the layout on disk is a format");
static_assert(offsetof(struct superblock, models) == 4096, "the layout on disk is a format");

/* A new one, with a random uuid: page aligned memory that the caller frees. NULL: no memory or entropy. */
struct superblock *superblock_new(uint64_t extent_bytes);

/*
 * Read the file @fd, called @name in reasons, into @ret, and check that it is ours and fits. @anew: how
 * people begin anew, as "remove it". Returns 0 or -errno with the reason and the remedy in @why.
 */
int superblock_read(int fd, const char *name, const char *anew, uint64_t extent_bytes, char *why,
		    struct superblock *ret);

int superblock_write(int fd, struct superblock *superblock);	/* the next generation, durable on return */

/* The row of a model: its number, or -1. With @make a row is taken if there is one (not yet durable). */
int superblock_model(struct superblock *superblock, const uint8_t digest[MODEL_DIGEST_BYTES], bool make);

#endif
