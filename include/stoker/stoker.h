/*
 * stoker.h - client library of Stoker, a node-local KV-cache broker.
 *
 * Store the KV of token chunks once, find the longest usable prefix of a prompt, have it brought
 * from disk into shared DRAM, and copied into the blocks of a paged KV cache: asked once through a
 * ring in shared memory, answered in a slot that the caller has mapped. To poll is one load.
 *
 * Threads: a struct stoker belongs to one thread at a time; handles are independent. A call that
 * finds another one running on the handle answers -EBUSY: that finds mistakes, it is no lock. A
 * handle does not survive fork(): in the child every call answers -EOWNERDEAD, and stoker_close() frees.
 * Memory: nothing is allocated after stoker_attach() and the opening of models, regions, pools.
 * Errors: functions that return int give 0 or a negative errno value; stoker_error() has the text
 * of the last one of a handle that has any: -EAGAIN, -EBUSY, -ENOENT and -ETIMEDOUT of calls for jobs
 * have none. A NULL where something is needed is -EINVAL. -EPIPE: there is no broker, nothing was asked.
 * A broker that is gone is a miss, never an error that stops serving: its jobs end with
 * STOKER_STATUS_BROKER_GONE, a RETRIEVE or STORE as soon as nobody can touch its blocks any more.
 * Calls that would ask something then look for a broker every 100 ms, without waiting for it; when
 * one is there, models, regions and pools are opened again, and handles stay valid. Leases and
 * mappings of the broker before are void.
 * Sizes: bytes, unless a name says otherwise; times: _us, _ms, _ns. Structs that begin with `size`
 * grow at the end: set it to sizeof the struct, in those that are written to as well; a field beyond
 * it takes its default (0). -E2BIG: a field is set that this library does not know yet.
 */
#ifndef STOKER_STOKER_H
#define STOKER_STOKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <stoker/status.h>

#ifdef __cplusplus
extern "C" {
#endif

#define STOKER_API __attribute__((visibility("default")))
#define STOKER_VERSION_MAJOR 0
#define STOKER_VERSION_MINOR 1

/** Name of a chunk of tokens and of its whole prefix; compared whole; shorter names: pad with 0. */
struct stoker_key {
	uint8_t bytes[32];
};

struct stoker;			/* an attached client */
struct stoker_model;		/* an open model, owned by its handle until stoker_model_close() */
struct stoker_region;		/* registered memory, owned by its handle until stoker_region_drop() */
struct stoker_pool;		/* a view of regions, owned by its handle until stoker_pool_drop() */
struct stoker_hasher;		/* makes keys from tokens */

/** A submitted job: slot and generation. Copy it freely; it is a number, not a resource. */
struct stoker_job {
	uint32_t slot;
	uint32_t generation;
};

/** A lease as it is passed from a scheduler to its workers. All zero: none. */
struct stoker_lease {
	uint64_t token[2];
};

/* ---- attach ------------------------------------------------------------------------------ */

#define STOKER_OPTION_NO_REATTACH 1u	/* attach again only when stoker_reattach() is called */
#define STOKER_OPTION_NO_ARENA	  2u	/* do not map the arena: stoker_map() is refused */

struct stoker_options {
	uint32_t size;
	uint32_t flags;			/* STOKER_OPTION_*; an unrecognized bit is -EINVAL */
	const char *client_name;	/* shown by stokerctl clients; NULL: the program's name */
	uint32_t attach_timeout_ms;	/* 0: 1,000 */
	uint32_t slots_small;		/* jobs of up to 64 keys at once; 0: 64 */
	uint32_t slots_large;		/* jobs of up to 4,096 keys at once; 0: 4 */
	uint32_t ready_words;		/* 0: 1,024 */
	uint32_t broker_uid;		/* accept a broker of this uid too; 0: root's and one's own only */
};

/**
 * stoker_attach() - attach to the broker of that name.
 * @name: "/stoker", or the path of a broker's socket.
 * @options: NULL for the defaults.
 * @ret: written on success only.
 * Returns 0; -ENOENT (no broker of that name), -EACCES (not one's own, root's or the given uid's, or
 * the broker refused), -EPROTONOSUPPORT (its layout version differs), -ETIMEDOUT, -EINVAL, -ENOMEM.
 * Waits for the broker's answer for attach_timeout_ms at most. On failure stoker_attach_error() says why.
 */
STOKER_API int stoker_attach(const char *name, const struct stoker_options *options, struct stoker **ret);
STOKER_API const char *stoker_attach_error(void);	/* of this thread's last stoker_attach() */
/** NULL is fine. Frees what is still open. Copies that run are drained by the broker, which this does
 * not wait for: before a pool's memory is used for anything else, drop the pool. */
STOKER_API void stoker_close(struct stoker *c);
STOKER_API const char *stoker_error(const struct stoker *c);
STOKER_API bool stoker_is_attached(const struct stoker *c);
/* Attach again now, re-open models, regions and pools. 0 (also if nothing was lost) or as stoker_attach(). */
STOKER_API int stoker_reattach(struct stoker *c);
/* Which attachment this is: another number than before says that leases, mappings and the values of
 * ready words that a device writes are to be made anew. 0: there is no broker now. */
STOKER_API uint32_t stoker_attachments(const struct stoker *c);

/* ---- models ------------------------------------------------------------------------------ */

enum stoker_group_kind {
	STOKER_GROUP_FULL   = 0,	/* every chunk of the prefix is needed */
	STOKER_GROUP_WINDOW = 1,	/* only the last `window` chunks (sliding-window attention) */
	STOKER_GROUP_STATE  = 2,	/* only the last chunk (Mamba and its kin) */
};

struct stoker_group {
	uint32_t kind;			/* enum stoker_group_kind */
	uint32_t window;		/* chunks; for STOKER_GROUP_WINDOW alone */
	uint32_t block_tokens;		/* tokens of a block of this group's pools; divides chunk_tokens */
	uint32_t blocks;		/* blocks that an object holds; 0: chunk_tokens / block_tokens */
};

/** Bytes of one block in one plane. Rows strictly ascending by (group, shard, layer, plane). */
struct stoker_plane_bytes {
	uint16_t group, shard, layer, plane;
	uint32_t bytes;
};

struct stoker_model_description {
	uint32_t size;
	uint32_t chunk_tokens;
	const char *name;		/* up to 127 bytes */
	const char *revision;		/* up to 63 bytes */
	const void *tag;		/* opaque, up to 64 bytes: dtype, byte order, interleave ... */
	size_t tag_bytes;
	const struct stoker_group *groups;
	uint32_t n_groups;		/* 1 to 8 */
	uint32_t n_rows;		/* 1 to 8,192 */
	const struct stoker_plane_bytes *rows;
};

/** stoker_model_open() - open a model by full description (workers do). Blocks for one round trip.
 * Returns 0; -EINVAL (stoker_error() says which field), -E2BIG (its objects are too large for this broker,
 * or of too many sizes), -EPIPE, -EACCES, -ENOMEM, -ETIMEDOUT (30 s). */
STOKER_API int stoker_model_open(struct stoker *c, const struct stoker_model_description *description,
				 struct stoker_model **ret);
/** By digest alone (schedulers do): until a worker has described it, LOOKUP answers NO_LAYOUT. */
STOKER_API int stoker_model_open_digest(struct stoker *c, const uint8_t digest[32], struct stoker_model **ret);
STOKER_API void stoker_model_digest(const struct stoker_model *model, uint8_t ret[32]);
/* Tells the broker nothing: objects stay. Pools of the model may outlive it. */
STOKER_API void stoker_model_close(struct stoker_model *model);
/** Begin a new epoch: all objects of older ones are dead. Blocks until no older job touches a pool.
 * @tag: shared by the brokers of a fleet; NULL: random. -ETIMEDOUT: it goes on. */
STOKER_API int stoker_reset(struct stoker *c, struct stoker_model *model, const uint64_t *tag, uint32_t timeout_ms);

/* ---- regions and pools ------------------------------------------------------------------- */

struct stoker_range {
	int fd;				/* shared memory (shm_open, memfd), fully allocated. The library keeps a
					 * duplicate, to register it with the next broker: the caller may close it */
	uint64_t offset, bytes;		/* multiples of 4,096 */
};
/** stoker_region_add() - register memory: @n ranges (1 to 16) joined in order. Blocks for a round trip. */
STOKER_API int stoker_region_add(struct stoker *c, const struct stoker_range *ranges, uint32_t n,
				 struct stoker_region **ret);
/** Returns when nobody touches the memory any more. -EBUSY: a pool still uses it. -ETIMEDOUT (30 s):
 * it is still registered: call again, and free nothing before. */
STOKER_API int stoker_region_drop(struct stoker_region *region);

/** Block b of this plane is `rows` runs of `bytes`, at offset + b * block_stride + r * row_stride. */
struct stoker_plane {
	struct stoker_region *region;
	uint16_t layer, plane;
	uint32_t bytes;			/* of one row; rows x bytes = the model's bytes of this plane */
	uint32_t rows;			/* 0: 1 */
	uint64_t offset, block_stride, row_stride;
};
/** stoker_pool_add() - a view for (group, shard) of @model with block ids 0 to @n_blocks - 1.
 * @planes: one for each of the model's rows of (group, shard), in any order. */
STOKER_API int stoker_pool_add(struct stoker_model *model, uint32_t group, uint32_t shard, uint32_t n_blocks,
			       const struct stoker_plane *planes, uint32_t n_planes, struct stoker_pool **ret);
/** As stoker_region_drop(): returns when no copy touches its blocks any more. */
STOKER_API int stoker_pool_drop(struct stoker_pool *pool);

/* ---- keys -------------------------------------------------------------------------------- */

/**
 * stoker_hasher_new() - keys from tokens: key(i) = SHA-256(key(i-1), tokens of chunk i, its extras),
 * seeded by @seed. @chunk_tokens: of the model. A hasher belongs to one thread at a time and to no
 * handle; it survives fork().
 */
STOKER_API int stoker_hasher_new(uint32_t chunk_tokens, const void *seed, size_t seed_bytes,
				 struct stoker_hasher **ret);
STOKER_API void stoker_hasher_free(struct stoker_hasher *hasher);
STOKER_API void stoker_hasher_restart(struct stoker_hasher *hasher);
/* What else the next whole chunk depends on (an image's hash, an adapter), before its last token. */
STOKER_API int stoker_hasher_extra(struct stoker_hasher *hasher, const void *bytes, size_t n);
/** Add tokens; keys of chunks that they complete are written to @ret (room for @max). Returns how many. -ENOSPC: @max is too few, nothing was taken. */
STOKER_API int stoker_hasher_tokens(struct stoker_hasher *hasher, const uint32_t *tokens, size_t n,
				    struct stoker_key *ret, size_t max);
/** Key of the tokens left over (a short last chunk); *ret_tokens: how many; 0: none left. */
STOKER_API int stoker_hasher_tail(const struct stoker_hasher *hasher, struct stoker_key *ret, uint32_t *ret_tokens);

/* ---- jobs -------------------------------------------------------------------------------- */

#define STOKER_LOOKUP_PROBE	 0x01u	/* only say what exists */
#define STOKER_LOOKUP_NO_PREFETCH 0x02u	/* answer what is in the arena, load nothing */
#define STOKER_LOOKUP_NO_PARTIAL 0x04u	/* at deadline or error: 0 chunks, not what is there */
#define STOKER_LOOKUP_ANY	 0x08u	/* keys are independent of each other */

struct stoker_lookup_options {
	uint32_t size;
	uint32_t flags;
	uint32_t have;			/* leading chunks of full groups that the caller holds already */
	uint32_t groups;		/* mask; 0: all */
	uint32_t tiers;			/* mask: bit 0 arena, bit 1 + i tier i; 0: all */
	uint32_t priority;		/* 0 (first) to 7; default 0 */
	uint64_t readers;		/* mask of the readers of the lease; 0: reader 0 */
	uint32_t deadline_ms;		/* 0: the broker's default */
	uint32_t lease_ms;		/* 0: the broker's default */
	uint64_t session;		/* 0: none */
	uint64_t account;		/* 0: none */
	struct stoker_lease extend;	/* renew or extend this lease, by its keys and more; all zero: a new one */
};

/**
 * stoker_lookup() - ask for the longest usable prefix of a key chain; the answer appears in @ret.
 * @keys: @n_keys keys (1 to stoker_keys_max()), oldest first, read during the call only.
 * Returns 0; -EINVAL (argument out of range), -EAGAIN (every slot is in use: finish a job first) or
 * -EPIPE (no broker: nothing was asked, treat it as a miss). Makes no system call while the broker
 * is awake; never logs, never allocates.
 */
STOKER_API int stoker_lookup(struct stoker *c, struct stoker_model *model, const struct stoker_key *keys,
			     uint32_t n_keys, const struct stoker_lookup_options *options, struct stoker_job *ret);
STOKER_API uint32_t stoker_keys_max(const struct stoker *c);	/* 0: there is no broker now */

/** Blocks of one pool for a run of chunks. */
struct stoker_blocks {
	struct stoker_pool *pool;
	uint32_t first;			/* chunk: place in the lease, or among the keys of the store */
	uint32_t chunks;
	const uint32_t *ids;		/* chunks x blocks of an object, in token order; STOKER_NO_BLOCK: none */
	uint32_t runs;			/* 0: ids as above; else so many pairs (first id, count) */
};
#ifndef STOKER_NO_BLOCK
#define STOKER_NO_BLOCK 0xffffffffu
#endif

struct stoker_retrieve_options {
	uint32_t size;
	uint32_t flags;			/* STOKER_RETRIEVE_* */
	uint32_t reader;		/* 0 to 63 */
	uint32_t priority;
	uint32_t layer_first, layer_count;	/* 0, 0: all layers */
	uint32_t ready_index, ready_value;	/* with STOKER_RETRIEVE_READY */
	uint32_t deadline_ms;
	uint64_t session;
};
#define STOKER_RETRIEVE_END_SHARE 1u	/* the reader's share of the lease ends with this job */
#define STOKER_RETRIEVE_READY	  2u	/* begin when the ready word has been reached */

/**
 * stoker_retrieve() - copy leased chunks into blocks. DONE: nobody touches the blocks any more.
 * @blocks: @n runs of chunks, read during the call only, as are their ids. The first byte of
 *	stoker_finish()'s @chunks is the smallest chunk that they name.
 * Returns as stoker_lookup(); -E2BIG: it does not fit this handle's large slots all together (each
 * holds some 100,000 block ids, or a million blocks that runs name): make it in several calls.
 */
STOKER_API int stoker_retrieve(struct stoker *c, struct stoker_model *model, const struct stoker_lease *lease,
			       const struct stoker_blocks *blocks, uint32_t n,
			       const struct stoker_retrieve_options *options, struct stoker_job *ret);

struct stoker_store_options {
	uint32_t size;
	uint32_t flags;			/* STOKER_STORE_* */
	const struct stoker_key *parent;	/* of the first key; NULL: it is a root */
	const uint32_t *tokens;		/* of each chunk; NULL: all whole */
	uint64_t first_token;		/* position of the first key's first token */
	uint64_t account;
	uint32_t priority;
	uint32_t ready_index, ready_value;	/* with STOKER_STORE_READY */
	uint32_t deadline_ms;
	uint64_t session;
};
#define STOKER_STORE_WAIT  1u		/* wait for chunks that others are storing */
#define STOKER_STORE_READY 2u

/**
 * stoker_store() - copy blocks into the cache. DONE: nobody touches the blocks any more.
 * @keys, @blocks, ids and options are read during the call only. The first byte of
 *	stoker_finish()'s @chunks is that of the first key.
 * Returns as stoker_retrieve().
 */
STOKER_API int stoker_store(struct stoker *c, struct stoker_model *model, const struct stoker_key *keys,
			    uint32_t n_keys, const struct stoker_blocks *blocks, uint32_t n,
			    const struct stoker_store_options *options, struct stoker_job *ret);

/* These need no finishing: the library takes a slot of its own and forgets it. -EAGAIN: the broker has
 * not taken earlier ones within a millisecond: try again, or leave it to the lease's expiry. */
STOKER_API int stoker_release(struct stoker *c, const struct stoker_lease *lease, uint32_t reader);
STOKER_API int stoker_end_session(struct stoker *c, uint64_t session);

STOKER_API int stoker_ping(struct stoker *c, struct stoker_job *ret);
/** Stop what can be stopped. The job still ends with DONE, and must still be finished. */
STOKER_API int stoker_cancel(struct stoker *c, struct stoker_job job);

/* ---- answers ----------------------------------------------------------------------------- */

/** stoker_poll() - the stage of a job: one load. NONE also for a job that is not this handle's, or is
 * finished. At times it looks whether the broker is still there (at most every 10 ms). */
STOKER_API enum stoker_stage stoker_poll(struct stoker *c, struct stoker_job job);

struct stoker_progress {
	uint32_t size;
	uint32_t stage, status;		/* status: valid at ENDING and DONE */
	uint32_t found, found_l1;	/* from PROBED on: usable chunks, and of them wholly in the arena */
	uint32_t expected_us;		/* time until all of it is ready, as estimated at PROBED */
	uint32_t ready;			/* usable chunks that are ready now */
	uint32_t layers;		/* RETRIEVE: layers of the range wholly copied */
};
STOKER_API int stoker_progress(struct stoker *c, struct stoker_job job, struct stoker_progress *ret);

/** The result of a job, valid at DONE. */
struct stoker_result {
	uint32_t size;
	uint32_t status;		/* enum stoker_status */
	uint32_t n;			/* usable chunks; or chunks retrieved, or stored */
	uint32_t counts[3];		/* LOOKUP: chunks from arena, disk, remote. STORE: present, elsewhere, refused */
	uint32_t lease_ms;		/* life of the lease from DONE; 0: there is none */
	struct stoker_lease lease;
};
/**
 * stoker_finish() - take the result and give the slot back.
 * @bitmap: NULL, or room for @bitmap_words words: bit i: length i + 1 is usable (ANY: key i exists).
 * @chunks: NULL, or room for @n_chunks bytes (enum stoker_chunk): STORE: of each key; RETRIEVE: of each
 *	chunk of the lease from the lowest that @blocks named on.
 * @ret: may be NULL. The bitmap of a lookup of more than 4,096 keys has bits for the last 4,096 lengths.
 * Returns 0; -EAGAIN (not DONE yet: nothing happened) or -ENOENT (no such job).
 */
STOKER_API int stoker_finish(struct stoker *c, struct stoker_job job, struct stoker_result *ret,
			     uint64_t *bitmap, uint32_t bitmap_words, uint8_t *chunks, uint32_t n_chunks);
/** Sleep until the job is DONE. 0, -ETIMEDOUT (it goes on) or -ENOENT. @timeout_us: UINT64_MAX: for ever */
STOKER_API int stoker_wait(struct stoker *c, struct stoker_job job, uint64_t timeout_us);
/** Jobs that are DONE and not yet finished, up to @n; returns how many. */
STOKER_API uint32_t stoker_done(struct stoker *c, struct stoker_job *ret, uint32_t n);
/**
 * For event loops: poll() this descriptor for POLLIN after stoker_arm() has returned 0; -EAGAIN: a
 * job is DONE already, do not sleep. It is ready too when the broker goes away.
 */
STOKER_API int stoker_fd(const struct stoker *c);
STOKER_API int stoker_arm(struct stoker *c);

/* ---- zero copies ------------------------------------------------------------------------- */

struct stoker_mapping {
	uint32_t size;
	const void *data;		/* payload in the arena, read-only, layer-major */
	uint64_t bytes;
	uint64_t hold[3];		/* the library's own */
};
/** Map one object of a lease: pinned until stoker_unmap(), for CPU readers. Blocks for a round trip.
 * -EACCES: this client was not given the arena. */
STOKER_API int stoker_map(struct stoker *c, const struct stoker_lease *lease, uint32_t chunk, uint32_t group,
			  uint32_t shard, struct stoker_mapping *ret);
/** Returns 0 if it held throughout, -ESTALE if what was read must not be used. */
STOKER_API int stoker_unmap(struct stoker *c, struct stoker_mapping *mapping);

/* ---- ready words ------------------------------------------------------------------------- */

/** The array of ready words, shared with the broker: 32-bit counters that a worker or its device raises.
 * It begins on a page. After another attachment (stoker_attachments()) ask again: the address is the same
 * unless the number changed, the values are kept, but a device has to be given the memory anew. */
STOKER_API volatile uint32_t *stoker_ready_words(struct stoker *c, uint32_t *ret_n);
/** Raise one from the CPU (release order). */
STOKER_API void stoker_ready_set(struct stoker *c, uint32_t index, uint32_t value);

/* ---- texts ------------------------------------------------------------------------------- */

STOKER_API const char *stoker_stage_name(uint32_t stage);	/* "?" for an unknown number */
STOKER_API const char *stoker_status_name(uint32_t status);
STOKER_API const char *stoker_status_meaning(uint32_t status);
STOKER_API const char *stoker_chunk_name(uint32_t chunk);
STOKER_API const char *stoker_version(void);

#ifdef __cplusplus
}
#endif

#endif
