/*
 * How a tier's thread moves bytes between the arena and its file: io_uring (uring.c, the one file of
 * the broker that names it) or, where that is forbidden, pread and pwrite (tier-slow.c). tier-io.c
 * decides what moves when; a way only moves it.
 *
 * All functions are called by the tier's thread alone, open among them: io_uring's ring belongs to
 * the thread that made it.
 */
#ifndef STOKER_BROKER_TIER_WAY_H
#define STOKER_BROKER_TIER_WAY_H

#include <stdbool.h>
#include <stdint.h>

#define TIER_TRANSFERS	64u	/* under way at most: a fuller device queue blocks the submitter */
#define TIER_SYNC_LOG	TIER_TRANSFERS	/* tokens of the two syncs */
#define TIER_SYNC_FILE	(TIER_TRANSFERS + 1u)
#define TIER_TOKENS	(TIER_TRANSFERS + 2u)

struct tier_way_config {
	const char *name;		/* of the tier, for the log */
	int file, io_lock, dir_lock;	/* the latter two are only held: -1 = there is none */
	int bell;			/* wakes turn() when it becomes readable */
	uint8_t *arena;
	uint64_t arena_bytes, extent_bytes;
	bool direct;			/* for the name of the way */
};

/** struct transfer - a run of bytes within one extent of the arena. */
struct transfer {
	uint32_t token;		/* below TIER_TRANSFERS, and not under way */
	bool write;
	uint32_t extent;	/* of the arena, that memory lies in */
	uint32_t bytes;
	uint8_t *memory;
	uint64_t offset;	/* in the file */
};

struct transfer_end {
	uint32_t token;
	int32_t result;		/* bytes moved, 0 of a sync, or -errno */
};

struct tier_way {
	/* 0, or -errno: this way does not work here. The reason is logged by who then takes another. */
	int (*open)(const struct tier_way_config *config, void **ret);
	void (*close)(void *way);		/* nothing is under way */
	const char *(*name)(const void *way);
	uint32_t (*transfers)(const void *way);	/* that it is worth to have under way, at most */
	void (*extent_ready)(void *way, uint32_t extent);
	void (*start)(void *way, const struct transfer *transfer);
	void (*sync)(void *way, int fd, uint32_t token);	/* fdatasync */
	/* Hand over what was started; then wait until something ends, the bell rings or @wait_ns pass. */
	void (*turn)(void *way, uint64_t wait_ns);
	uint32_t (*ends)(void *way, struct transfer_end *ret, uint32_t n);
};

extern const struct tier_way tier_way_uring, tier_way_slow;

#endif
