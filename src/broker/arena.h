/*
 * The arena and its table: POSIX shm objects /NAME.arena (DRAM tier) and /NAME.table (one entry of
 * 128 bytes an object, never given to anyone), both 0600, kept over restarts.
 *
 * Table entry: a check sum covers key to version; state, recency and held are separate words outside
 * it. Order of a store: state := 0 (release), hand the place to any writer, payload complete, fields
 * and check, state := committed (release). A new broker trusts only what is committed and in range;
 * a bitmap of places finds overlaps. An arena of another geometry is dropped, with one log line.
 */
#ifndef STOKER_BROKER_ARENA_H
#define STOKER_BROKER_ARENA_H

#include "shm/model.h"
#include "src/engine/engine.h"

/** struct arena_entry - what is known of the object of one record. One writer: the core thread. */
struct arena_entry {
	_Atomic uint32_t state;		/* 0, or ARENA_COMMITTED: all below is valid and so is the image */
	_Atomic uint16_t held;		/* 1 = somebody has it mapped */
	uint8_t group, shard;
	struct stoker_wire_key key, parent;
	uint64_t account;
	uint64_t sequence;
	uint64_t checksum;		/* of the payload */
	uint64_t model_digest64;
	uint64_t tokens;		/* first token 40 bits | tokens of the chunk 24 bits */
	uint32_t unit, units;		/* place, in units of 4,096 bytes */
	uint32_t epoch;
	uint32_t check;			/* XXH3 of `group` to `epoch` */
};
static_assert(sizeof(struct arena_entry) == 128, "the layout outlives the broker: raise ARENA_FORMAT");
static_assert(offsetof(struct arena_entry, check) == 124, "the layout outlives the broker: raise ARENA_FORMAT");

#define ARENA_MAGIC	0x616e657261656b73ull	/* "skearena" */
#define ARENA_FORMAT	1u	/* of the table */
#define ARENA_COMMITTED	0x6d6d6f43u
#define ARENA_PART	(2u << 20)	/* bytes that are populated at once: a huge page */
#define ARENA_HEADER	4096u	/* bytes of the table object before its entries */

/** struct arena_header - first page of the table: what the two objects were made for. */
struct arena_header {
	uint64_t magic;
	uint32_t format, records;
	uint64_t bytes, extent_bytes;
	uint64_t inode;			/* of the arena that this table describes */
	uint64_t check;			/* XXH3-64 of all before */
};

struct arena {
	int fd, table_fd;
	uint8_t *base;		/* mapped read-write, not populated */
	uint64_t bytes;		/* extents x extent_bytes */
	uint64_t extent_bytes;
	uint32_t extents;
	uint32_t records;	/* entries of the table */
	_Atomic uint64_t huge_bytes;	/* of what was populated: in huge pages */
	bool warm;		/* taken over from a broker before, of the same geometry */
	bool whole;		/* and it lacks no page: nothing is left to reserve */
	struct arena_entry *table;
	struct arena_header *header;	/* the mapping that `table` is part of */
};

/*
 * Check @bytes against file system, MemAvailable and cgroup limits (10 % of RAM stays free), open
 * or make both objects; @bytes is rounded down to extents. @fresh: do not take over (the I/O lock of an older broker is still held):
 * the old names are unlinked first. Returns 0 or -errno with reason and remedy in @why (256 bytes).
 */
int arena_open(const char *name, uint64_t bytes, uint64_t extent_bytes, uint32_t records, bool fresh,
	       char *why, struct arena **ret);
/*
 * One that is never to be populated, for measurements that touch no payload: new, and as large as one
 * likes, because nothing but the table takes memory.
 */
int arena_open_null(const char *name, uint64_t bytes, uint64_t extent_bytes, uint32_t records, char *why,
		    struct arena **ret);
void arena_close(struct arena *arena);		/* unmaps; the objects stay for the next broker */
void arena_unlink(const char *name);
/*
 * Could the objects of @name be taken over or replaced? 0 if each is missing or ours; -EPERM with the
 * reason in @why (256 bytes) if one belongs to somebody else. For whoever says "ready" before arena_open().
 */
int arena_check(const char *name, char *why);

/*
 * Reserve memory for one extent, and enter it into this process's page tables (any thread, 5 to 40 ms and
 * more): whole, or from @at on @bytes of it. @huge: by huge pages where there are any, ten times faster; but
 * the kernel may keep the processor of whoever asks for 0.1 ms and more at a time. 0, or -errno: then nothing
 * of a whole extent is reserved, and of one that was populated in parts arena_vacate() gives back the rest.
 */
int arena_populate(struct arena *arena, uint32_t extent);	/* huge */
int arena_populate_part(struct arena *arena, uint32_t extent, uint64_t at, uint64_t bytes, bool huge);
void arena_vacate(struct arena *arena, uint32_t extent);	/* it was never handed to anybody */

/* Largest arena that this machine can give now, in bytes, and what bounds it. */
uint64_t arena_limit(const char **ret_bound);

/* --- table; commit and uncommit by the core thread --- */
void arena_commit(struct arena *arena, uint32_t record, const struct engine_place *place,
		  const struct engine_object *object, const uint8_t model_digest[MODEL_DIGEST_BYTES]);
void arena_uncommit(struct arena *arena, uint32_t record);
/* Its object gets its first hold, or has lost its last: a hint for who comes after a crash. */
void arena_set_held(struct arena *arena, uint32_t record, bool held);

struct arena_found {
	struct engine_place place;
	struct engine_object object;		/* `model`, `part` not set: looked up by digest */
	uint64_t model_digest64;		/* first 8 bytes of the (tenant) digest */
	uint32_t record;
	bool was_held;
};
/*
 * Each committed, checked, non-overlapping entry; others are uncommitted and counted in @dropped.
 * Stops if @each returns false. What the caller then has no use for it has to uncommit, or it would
 * overlap with what comes to its place.
 */
int arena_recover(struct arena *arena, bool (*each)(void *arg, const struct arena_found *found), void *arg,
		  uint64_t *dropped);

#endif
