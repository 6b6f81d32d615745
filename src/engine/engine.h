/*
 * The engine: every decision of the broker, and nothing but decisions.
 *
 * It makes no system call, takes no lock, starts no thread, reads no clock, draws no random number
 * and allocates nothing after engine_new(). It is driven by events (the functions below, all
 * called by one thread) and acts through a table of ports. The broker plugs in the real ones,
 * tests/simulation/ simulated ones. The same events give the same actions, bit for bit.
 *
 * Data's way: a request comes in decoded and copied (struct engine_request); the index says which
 * chunks exist; missing objects are read from disk into places of the arena; a lease pins them;
 * copies go between places and pools through the copy port; what is stored is sealed (checksum and
 * header), committed to the arena table, and written back to a disk tier.
 *
 * Invariants:
 * - Every accepted request ends in exactly one DONE, published after ENDING if it had one; DONE of
 *   a RETRIEVE or STORE means that no copy of it runs or will run.
 * - A place of the arena or of a tier is given out again only at pins = io = 0 of its object.
 * - No object is served before its last byte has arrived and, if it came from disk or survived a
 *   restart, before its checksum has been verified.
 * - A port that is called "asynchronous" below is answered by exactly one event, later, never from
 *   within the call. The engine never has more than the configured number of those under way.
 * - Nothing that a client sends can make the engine abort; what cannot be asked for is answered
 *   BAD_REQUEST, and what an honest library cannot send is reported through the port `expel`.
 */
#ifndef STOKER_ENGINE_ENGINE_H
#define STOKER_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/control.h"
#include "shm/layout.h"

#define ENGINE_TIERS_MAX	16u
#define ENGINE_NONE		0xffffffffu	/* no entry, no record, no number */

struct engine;

enum engine_policy { ENGINE_POLICY_LRU, ENGINE_POLICY_ARC };

/** struct engine_tier_config - a disk tier, as large as its file may become. */
struct engine_tier_config {
	uint32_t extents;	/* of extent_bytes each */
	uint64_t depth_bytes;	/* bytes of reads and writes under way at most */
};

struct engine_config {
	uint32_t clients;		/* attached at once, at most */
	uint32_t slots;			/* of a client, at most, small and large together */
	uint32_t models;		/* open at once, at most */
	uint32_t pools;			/* registered at once, at most, all clients together */
	uint32_t tenants;
	uint32_t accounts;		/* told apart, all tenants together; the others of a tenant count as one */
	uint32_t entries;		/* chunks in the index, at most */
	uint32_t records;		/* objects (parts of chunks), at most; = entries of the arena table */
	uint32_t leases, holds;		/* at once, at most */
	uint32_t leased_chunks;		/* chunks in all leases and running lookups together, at most */
	uint32_t ios;			/* reads, writes, seals and verifies under way, at most */
	uint64_t extent_bytes;		/* 64 MiB; simulations use less. A multiple of 4,096 */
	uint32_t extents;		/* of the arena as configured; they come by engine_extent_added() */
	uint32_t n_tiers;
	struct engine_tier_config tiers[ENGINE_TIERS_MAX];
	enum engine_policy policy;
	uint32_t refill_permille;	/* background eviction keeps this much of the arena free; 0 = off */
	bool write_back;		/* false: disk tiers are only read */
	uint64_t deadline_default_ns, deadline_max_ns;
	uint64_t lease_default_ns, lease_max_ns;
	uint64_t recovered_hold_ns;	/* how long objects that were held at a crash are kept (30 s) */
	uint32_t held_bytes_permille;	/* of the arena that one client may hold mapped */
	uint64_t seed;			/* of placement in tables; per boot */
	struct control_block *counters;	/* written by the engine's thread only */
};

/** struct engine_quota - limits of a tenant, hard ones but for those of its accounts. */
struct engine_quota {
	uint64_t arena_bytes, disk_bytes;	/* 0 = none; but pins of several tenants have equal shares of the arena */
	uint64_t account_arena_bytes, account_disk_bytes;	/* soft, of each of its accounts; 0 = none */
	uint32_t leases, leased_chunks, holds;	/* 0 = an equal share of what there is */
};

/** struct engine_object - what is to be known of an object to find it again after a restart. */
struct engine_object {
	struct stoker_wire_key key, parent;
	uint64_t account;
	uint64_t sequence;	/* rises with every store of this broker's life; survives restarts */
	uint64_t first_token;
	uint64_t checksum;	/* XXH3-64 of the payload; 0 = not sealed yet */
	uint32_t model;		/* number given by engine_model_open() */
	uint32_t epoch;
	uint32_t tokens;	/* of the chunk; fewer than the model's in a short last one */
	uint8_t group, shard;
	uint16_t part;		/* number of (group, shard) in the model */
};

/*
 * Where objects are: a place counts units of 4,096 bytes from the start of the arena or of the
 * tier's file. An image (header + payload) lies there without gaps; it may cross extents.
 */
struct engine_place {
	uint32_t tier;		/* ENGINE_NONE = arena */
	uint32_t unit;
	uint64_t bytes;		/* of the image, a multiple of 4,096 */
};

/** struct engine_io - one read (tier to arena) or write (arena to tier) of a whole image. */
struct engine_io {
	uint32_t io;			/* number to answer with */
	uint32_t record;		/* number of the object's record */
	uint32_t tier;
	uint32_t priority;		/* 0 (first) to 7 */
	struct engine_place arena, disk;
	struct engine_object object;	/* what the image's header must say (read), or says (write) */
};

/** struct engine_check - one seal (make header and checksum) or verify (compare them). */
struct engine_check {
	uint32_t io;			/* number to answer with */
	uint32_t record;
	struct engine_place arena;
	struct engine_object object;
};

/** struct engine_copy_item - one object of a copy. */
struct engine_copy_item {
	uint64_t payload;	/* offset of the payload in the arena, in bytes */
	uint32_t pool;		/* number of the pool as its client knows it */
	uint32_t part;
	const uint32_t *ids;	/* blocks of the part: its block ids, checked; NO_BLOCK is skipped on */
				/* retrieve and zero-filled on store */
};

/**
 * struct engine_copy - the copies of one RETRIEVE or STORE, as one unit: a backend goes through it
 * layer by layer so that progress means something, and cuts it so that it cannot hold up others.
 * @items and their ids stay valid until the engine has had engine_copy_done().
 */
struct engine_copy {
	uint32_t copy;		/* number to answer with */
	uint32_t client;
	uint32_t model;
	uint32_t device;	/* of all its pools, as engine_pool_added() was told */
	bool store;		/* pools -> arena; else arena -> pools */
	uint8_t priority;
	uint32_t layer_first, layer_end;	/* of each item's part; layers it lacks are skipped */
	uint32_t n_items;
	const struct engine_copy_item *items;
	uint8_t *failed;	/* n_items bytes, 0 at submit: the backend sets 1 where an item failed */
};

/** struct engine_answer - what is to be published in a slot; the shell writes fields, then the word. */
struct engine_answer {
	uint32_t stage, status;
	uint32_t found, found_l1, expected_us;
	uint32_t ready, layers;
	uint32_t n, counts[3];
	uint32_t lease_ms;
	uint64_t lease[2];
	/* At DONE, else 0 and NULL: */
	uint32_t bitmap_words;
	const uint64_t *bitmap;
	uint32_t n_chunks;
	const uint8_t *chunks;			/* enum stoker_chunk, one a chunk */
	const struct stoker_mapped *mapped;	/* MAP, UNMAP */
	/* At DONE: 1 + enum stoker_histogram into which the job's time belongs, 0: none. The shell has the clock. */
	uint32_t measured;
};

/* Who answers a control operation later (engine_ports.control). */
typedef uint64_t engine_token;

struct engine_ports {
	void *shell;

	/* Asynchronous, answered by engine_io_done(). Whole images. */
	void (*read)(void *shell, const struct engine_io *io);
	void (*write)(void *shell, const struct engine_io *io);
	/* Asynchronous, answered by engine_check_done(). Header and payload of an image in the arena. */
	void (*seal)(void *shell, const struct engine_check *check);
	void (*verify)(void *shell, const struct engine_check *check);
	/* Asynchronous, answered by engine_copy_done(); engine_copy_progress() may come before. */
	void (*copy)(void *shell, const struct engine_copy *copy);
	/* Ask a running copy to start nothing more; engine_copy_done() still comes. */
	void (*copy_cancel)(void *shell, uint32_t device, uint32_t copy);
	/* Watch a ready word; engine_ready() when it has been reached. Ends with unwatch or the event. */
	void (*watch)(void *shell, uint32_t client, uint32_t slot, uint32_t index, uint32_t value);
	void (*unwatch)(void *shell, uint32_t client, uint32_t slot);

	/* At once. */
	void (*publish)(void *shell, uint32_t client, uint32_t slot, uint32_t generation,
			const struct engine_answer *answer);
	/* `client` broke the protocol: detach it. engine_client_out() follows later. */
	void (*expel)(void *shell, uint32_t client, const char *why);
	/* All that `client` had is over: its number may be used again. */
	void (*client_gone)(void *shell, uint32_t client);
	/* Arena table: the object of `record` lies sealed at its place; or the place is to be reused. */
	void (*commit)(void *shell, uint32_t record, const struct engine_place *place,
		       const struct engine_object *object);
	void (*uncommit)(void *shell, uint32_t record);
	/* A committed object is mapped by a client from now on, or by none any more: told after a crash. */
	void (*held)(void *shell, uint32_t record, bool held);
	/* Slab table of a tier: the image at `disk` is complete; or its place is to be reused. */
	void (*slab_add)(void *shell, const struct engine_place *disk, const struct engine_object *object);
	void (*slab_remove)(void *shell, const struct engine_place *disk, const struct engine_object *object);
	/* Asynchronous, answered by engine_epoch_persisted(). */
	void (*persist_epoch)(void *shell, uint32_t model, uint32_t epoch, uint64_t tag);
	/* The answer of a control operation that was given `token`. */
	void (*control)(void *shell, engine_token token, enum stoker_status status, uint64_t value);
};

/* ---- life ---------------------------------------------------------------------------------- */

/* Bytes of memory that an engine of this configuration needs; 0 if a value is out of range. */
size_t engine_bytes(const struct engine_config *config);

/*
 * Make an engine in @memory: engine_bytes() zeroed bytes, 64-aligned, owned by the caller, who may
 * let it be populated lazily. Ports are called from now on, from within events only.
 */
struct engine *engine_new(const struct engine_config *config, const struct engine_ports *ports, void *memory);

/*
 * Do queued work: at most a bounded batch. @now_ns: any monotonic clock, never going back. Returns
 * true if there is more to do at once. Call it after events, and at engine_deadline().
 */
bool engine_turn(struct engine *engine, uint64_t now_ns);

/* It is @now_ns: for events whose time matters, before them. A turn needs no telling. */
void engine_clock(struct engine *engine, uint64_t now_ns);

/* When engine_turn() must be called next even if nothing happens; UINT64_MAX = never. */
uint64_t engine_deadline(const struct engine *engine);

/* Feed random bits (leases are made of them). Below engine_random_wanted() words the engine grants no lease. */
void engine_random(struct engine *engine, const uint64_t *words, uint32_t n);
uint32_t engine_random_wanted(const struct engine *engine);

/* ---- space ----------------------------------------------------------------------------------- */

void engine_extent_added(struct engine *engine, uint32_t extent);	/* populated: take it into use */
void engine_extent_failed(struct engine *engine, uint32_t extent);	/* the arena is that much smaller */
void engine_tier_up(struct engine *engine, uint32_t tier);	/* after its recovered objects */
void engine_tier_down(struct engine *engine, uint32_t tier);	/* reads under way still end by event */

/*
 * Recovery, before engine_serve(): an object that a table names. The engine takes it if its model is
 * open, its epoch current, its place in range (in extents that have been added) and free. Returns the record it was given
 * (ENGINE_NONE: dropped). For the arena, @record is the table's number and is kept.
 */
uint32_t engine_recover(struct engine *engine, uint32_t record, const struct engine_place *place,
			const struct engine_object *object, bool was_held);
void engine_serve(struct engine *engine, uint64_t now_ns);	/* recovery is over: lookups answer */

/* ---- models ---------------------------------------------------------------------------------- */

struct engine_part_config {
	uint8_t group, shard;
	uint16_t layers;
	uint32_t blocks;	/* of an object */
	uint64_t image_bytes, payload_bytes;
};
struct engine_model_config {
	uint32_t tenant;
	uint32_t epoch;
	uint32_t chunk_tokens;
	uint32_t n_groups;
	struct { uint32_t kind, window, block_tokens, blocks; } groups[STOKER_GROUPS_MAX];
	uint32_t n_parts;
	struct engine_part_config parts[STOKER_PARTS_MAX];
};
/* Returns the model's number, which stays valid until it is closed, or -ENOMEM (table full), */
/* -E2BIG (an object is larger than 1 GiB or a quarter of the arena), -ENOSPC (its objects have so many sizes */
/* that no chunk could ever be whole in the arena, however empty: a size takes an extent at least). */
int64_t engine_model_open(struct engine *engine, const struct engine_model_config *config);
/*
 * Forget a model that no client has open, and let none open it until this is answered through `control`:
 * OK, and its number is free again; or REFUSED with the number of its objects, and nothing has changed:
 * it has some and @evict is false, or it is too early (recovery, objects kept for a crashed broker's
 * clients, a reset that is not answered). With @evict its objects go, written to a tier or not, and the answer
 * comes when the last I/O of them has ended.
 */
void engine_model_close(struct engine *engine, uint32_t model, bool evict, engine_token token);
/* Begin epoch @epoch: answered through `control` when it is durable and no older job touches a pool. */
void engine_reset(struct engine *engine, uint32_t model, uint32_t epoch, uint64_t tag, engine_token token);
void engine_epoch_persisted(struct engine *engine, uint32_t model, bool ok);

/* ---- clients --------------------------------------------------------------------------------- */

struct engine_client_config {
	uint32_t tenant;
	uint32_t user;			/* any number that is the same for all clients of one user (uid) */
	uint32_t slots_small, slots;
};
void engine_tenant(struct engine *engine, uint32_t tenant, const struct engine_quota *quota);
void engine_client_in(struct engine *engine, uint32_t client, const struct engine_client_config *config);
/* It left or died: its jobs end, drained, then port client_gone. Nothing is published to it any more. */
void engine_client_out(struct engine *engine, uint32_t client);

/*
 * Pool @pool of @client covers block ids 0 to n_blocks - 1 of one part, in memory of device @device: a number
 * that copies bear; all pools of one request are on one device, or it is bad. Returns 0 or -ENOMEM.
 */
int engine_pool_added(struct engine *engine, uint32_t client, uint32_t pool, uint32_t model, uint32_t part,
		      uint32_t n_blocks, uint32_t device);
/* Answered through `control` when no copy touches it any more; new jobs that name it are bad. */
void engine_pool_drop(struct engine *engine, uint32_t client, uint32_t pool, engine_token token);
void engine_pool_dead(struct engine *engine, uint32_t client, uint32_t pool);	/* its memory faulted */

/* ---- requests -------------------------------------------------------------------------------- */

/**
 * struct engine_request - a request, copied out of the channel into private memory of the shell.
 * Everything it points to stays valid and unchanged until its DONE has been published.
 */
struct engine_request {
	struct stoker_request_head head;	/* n_keys etc. are within the slot's payload */
	union stoker_request_line line;
	uint32_t model;				/* engine's number; ENGINE_NONE: by digest alone so far */
	uint32_t keys_max;			/* of the slot's class */
	const struct stoker_wire_key *keys;
	const uint32_t *tokens;			/* NULL: every chunk is whole */
	const struct stoker_segment *segments;
	const uint32_t *ids;
	/* Private memory of this slot, 64-aligned and populated lazily by its owner: items and failure bytes of a copy, */
	/* bitmap and chunk statuses, ids of runs spelled out. */
	uint8_t *scratch;
	size_t scratch_bytes;			/* at least STOKER_SCRATCH_BYTES(keys_max, input bytes) */
};
void engine_request(struct engine *engine, uint32_t client, const struct engine_request *request);
void engine_cancel(struct engine *engine, uint32_t client, uint32_t slot, uint32_t generation);
void engine_ready(struct engine *engine, uint32_t client, uint32_t slot);

/* ---- completions ----------------------------------------------------------------------------- */

enum engine_result {
	ENGINE_OK,
	ENGINE_FAILED,		/* error or short transfer */
	ENGINE_CORRUPT,		/* header or checksum did not match */
};
void engine_io_done(struct engine *engine, uint32_t io, enum engine_result result);
/* @checksum: of the payload, as sealed or as verified. */
void engine_check_done(struct engine *engine, uint32_t io, enum engine_result result, uint64_t checksum);
void engine_copy_progress(struct engine *engine, uint32_t copy, uint32_t layers);	/* whole layers of the range */
void engine_copy_done(struct engine *engine, uint32_t copy, enum engine_result result);

/* ---- admin ----------------------------------------------------------------------------------- */

void engine_evict(struct engine *engine, uint64_t bytes, engine_token token);	/* value: bytes freed */
void engine_clear(struct engine *engine, engine_token token);			/* value: bytes freed */
void engine_drain(struct engine *engine, engine_token token);	/* no stores from now; answer when written back */

/* The accounting table: how many rows it has, and what is in one of them; false: nothing. */
struct engine_account_figures {
	uint32_t tenant, chunks;
	bool others;		/* all those that found no row of their own; @account says nothing then */
	uint64_t account, arena_bytes, disk_bytes;
};
uint32_t engine_account_rows(const struct engine *engine);
bool engine_account_at(const struct engine *engine, uint32_t row, struct engine_account_figures *ret);

struct engine_client_figures { uint64_t jobs, leases, holds, pools, lookups, retrieves, stores; };
struct engine_tier_figures {
	uint64_t used_bytes, objects, read_errors, write_errors, checksum_errors;
	/* Checksums found wrong since the last that was right; not where another object lies than a table says. */
	uint64_t corrupt_in_a_row;
};
void engine_gauges(const struct engine *engine, uint64_t gauges[STOKER_GAUGE_END]);
void engine_client_figures(const struct engine *engine, uint32_t client, struct engine_client_figures *ret);
void engine_tier_figures(const struct engine *engine, uint32_t tier, struct engine_tier_figures *ret);

/*
 * For tests, at any quiet or busy instant: are all invariants kept (lists, counts, masks, places,
 * accounts)? Slow. Returns NULL, or what is broken.
 */
const char *engine_audit(const struct engine *engine);

#endif
