/*
 * What the engine is made of. For src/engine/ only; everybody else knows engine.h. What its rooms do for
 * each other is in rooms.h.
 *
 * Rooms: engine.c (life, turn), clock.c (deadlines and expiries), run.c (who is next), job.c (requests,
 * deadlines, ends), lookup.c, grant.c and load.c, segment.c, retrieve.c, store.c, lease.c, hold.c,
 * session.c, bound.c (shares); chunk.c (states and books of entries and records), account.c (who has how
 * much), make-room.c (allocation with eviction), check.c (seal, verify), tier.c (disk reads and writes);
 * model.c, pool.c, client.c, recover.c, sweep.c, admin.c (figures too), audit*.c.
 *
 * Numbers, not pointers, link things; ENGINE_NONE is none. A job's number is client * slots + slot,
 * and is the number of its copy and of its timer as well.
 */
#ifndef STOKER_ENGINE_INTERNAL_H
#define STOKER_ENGINE_INTERNAL_H

#include <errno.h>
#include <string.h>

#include "shm/model.h"
#include "src/engine/check.h"
#include "src/engine/engine.h"
#include "src/engine/evict.h"
#include "src/engine/index.h"
#include "src/engine/space.h"
#include "src/engine/timer.h"
#include "src/engine/usable.h"

#define NONE ENGINE_NONE
#define UNIT 4096u

#define PRIORITIES	8u
#define PROBE_KEYS	128u	/* keys of one job that a step probes */
#define TURN_STEPS	64u	/* steps of jobs in a turn */
#define DROP_CHUNKS	256u	/* pins given back in a turn by leases that have ended, beyond as many as it has taken */
#define SWEEP_RECORDS	2048u	/* records that a sweep looks at in a turn */
#define SCAN_VICTIMS	256u	/* candidates that one allocation looks at, at most */
#define SCAN_BUSY	4096u	/* ... not counting those that it meets in use */
#define SCAN_SLABS	1024u	/* ... in slabs of other sizes, when the first ones are all in use */
#define RANDOM_WORDS	2048u
#define RESETS		4u	/* of one model, not yet answered */
#define ADMINS		16u	/* admin operations, not yet answered */

/* ---- lists by number ---------------------------------------------------------------------- */

struct link { uint32_t next, prev; };
struct list { uint32_t first, last, n; };

/* ---- records ------------------------------------------------------------------------------ */

/* struct record's flags */
#define RECORD_DIRTY	 0x01u	/* is to reach a tier and has not yet */
#define RECORD_LOST	 0x02u	/* was to reach a tier and cannot: its eviction is counted */
#define RECORD_RETRIED	 0x04u	/* a write of it has failed once */
#define RECORD_COMMITTED 0x08u	/* the arena table names it */
#define RECORD_COPYING	 0x10u	/* being stored by a job (side.owner), not read */
#define RECORD_LANDED	 0x20u	/* read; waits for its verification with the entry's io held */

/* In struct entry's `tokens`: some part of it in the arena is to be verified before it is served. */
#define TOKENS_UNVERIFIED 0x80000000u

enum queue { QUEUE_NONE, QUEUE_READ, QUEUE_VERIFY, QUEUE_SEAL, QUEUE_WRITE };

/** struct side - what the engine keeps of a record beside struct record. */
struct side {
	struct link queued;		/* in the queue that `queue` names */
	struct link arena, disk;	/* objects whose place begins in the same extent */
	uint32_t io;			/* under way, or NONE; RECORD_COPYING: the job that stores it */
	uint8_t queue, priority, tier;	/* tier: READ: from; WRITE: to */
	uint32_t holds;			/* clients' mappings of it */
};

struct queued { uint32_t first, last, n; uint64_t bytes; };

enum io_kind { IO_FREE, IO_READ, IO_WRITE, IO_SEAL, IO_VERIFY };

struct io {
	uint32_t record;
	uint32_t next;			/* in the free list */
	uint32_t place;			/* WRITE: where it goes on the tier */
	uint8_t kind, tier;
	uint64_t bytes, started;
};

enum tier_state { TIER_STARTING, TIER_UP, TIER_DOWN };

struct tier {
	enum tier_state state;
	struct space *space;
	struct evict evict;
	uint32_t *extents;		/* first record whose place begins there */
	struct queued reads[PRIORITIES], writes;
	uint32_t n_queued;		/* reads queued */
	uint64_t queued_bytes;
	uint64_t flight_bytes;		/* of reads and writes under way */
	uint32_t reading, writing, evictions;
	uint64_t rate;			/* bytes a second that reads were seen to reach */
	uint64_t window_bytes, window_started;
	struct engine_tier_figures figures;
};

/* ---- models, clients, pools ---------------------------------------------------------------- */

struct reset { engine_token token; uint32_t epoch; bool ok; };

struct model {
	bool open, closing;		/* closing: it is forgotten when its last object has gone */
	uint32_t tenant, epoch, incarnation;
	uint32_t chunk_tokens, n_groups, n_parts;
	struct { uint32_t kind, window, block_tokens, blocks; uint64_t parts; } groups[STOKER_GROUPS_MAX];
	struct engine_part_config parts[STOKER_PARTS_MAX];
	uint64_t all;			/* mask of all parts */
	uint64_t bytes;			/* of the images of all parts of a chunk */
	uint32_t layers;		/* of the part that has most */
	uint32_t jobs;			/* first of its running jobs */
	uint32_t draining;		/* jobs of older incarnations whose copies still run */
	uint32_t objects;		/* records, of older incarnations too */
	struct reset resets[RESETS];
	uint32_t n_resets, n_persisted;
};

/** struct bound - how much of a table that all share a tenant may have, and has (bound.c). */
struct bound { uint32_t max, used; };

struct tenant {
	struct engine_quota quota;
	uint64_t used[2];		/* bytes of places in the arena, on the tiers: the sums of its accounts */
	struct bound leases, chunks, holds;
	struct bound entries, records;	/* of the index */
	uint32_t accounts, row;		/* rows of its accounts, less the others'; one of its rows, in turns */
	uint64_t pinned_max, pinned;	/* bytes of the arena that cannot be evicted: in use, or under I/O */
	uint64_t dirty;			/* ... or until they have reached a tier */
};

/** struct account - a row of the accounting table (account.c). The first rows are the tenants' others. */
struct account {
	uint64_t label;
	uint64_t used[2];		/* bytes of places in the arena, on the tiers (writes under way included) */
	uint32_t entries;		/* chunks that are booked here; 0: the row is free, or the others' */
	uint32_t hand[2];		/* in the ring of its chunks there: where a victim is looked for next */
	uint32_t next;			/* in its bucket, or in the free list */
	struct link of_tenant;		/* ring of the tenant's rows */
	struct link of_over[2];		/* list of the rows above their quota */
	bool over[2];
	uint8_t tenant;
};

/** struct user - one of a tenant's, who may be several clients: what they have together (bound.c). */
struct user { uint32_t number, tenant, clients, leases, chunks, holds; };

enum client_state { CLIENT_FREE, CLIENT_LIVE, CLIENT_LEAVING };

struct client {
	enum client_state state;
	uint32_t tenant, user, slots_small, slots;
	uint32_t jobs;			/* live */
	uint32_t leases, holds, pools;	/* first of each */
	uint64_t held_bytes;
	uint32_t chunks;		/* in its leases and lookups, and of those whose pins are still to be given back */
	struct engine_client_figures figures;
};

struct pool {
	bool used, dropping, dead;
	bool told;			/* nobody waits for the drop's answer */
	uint32_t client, number, model, part, n_blocks;
	uint32_t device;		/* whose memory it is */
	uint32_t users;			/* segments of running jobs */
	struct link of_client;
	uint32_t next;			/* in its bucket, or in the free list */
	engine_token token;
};

/* ---- leases and holds ----------------------------------------------------------------------- */

#define PIECE_CHUNKS 14u
#define PIECE_HIT 0x80000000u	/* of an entry's number in a piece: it was in the arena before the lookup */

/** struct piece - a run of a lease's chunks. Linked from the last to the first: that is the order of unpinning. */
struct piece {
	uint32_t entries[PIECE_CHUNKS];	/* | PIECE_HIT; NONE: that chunk is not leased */
	uint32_t before;
	uint32_t owner;			/* client whose chunks these count as; NONE: recovered, their tenants' */
};
static_assert(sizeof(struct piece) == 64, "a piece is one cache line");

/** struct chunks - entries of the places base to base + n - 1, one pin each. */
struct chunks { uint32_t last, base, n, owner; };

struct lease {
	bool used;
	uint32_t client, model, incarnation;
	uint64_t token[2];
	uint64_t session;
	uint64_t readers;		/* who have not returned */
	uint64_t expires;		/* while `fresh`: its span */
	bool fresh;
	uint32_t length;		/* usable chunks: places 0 to length - 1 */
	struct chunks chunks;
	struct link of_client, of_session, of_fresh;
	uint32_t next;			/* in the free list */
};

struct hold {
	bool used;
	uint32_t client, entry, record, version;
	uint64_t token[2], bytes;
	struct link of_client;
	uint32_t next;
};

/* ---- jobs ----------------------------------------------------------------------------------- */

enum phase {
	PHASE_FREE,
	PHASE_SERVE,		/* STORE: waits for engine_serve() */
	PHASE_PROBE,		/* LOOKUP: keys are being probed */
	PHASE_PIECES,		/* LOOKUP: waits for the next piece */
	PHASE_PIECE,		/* LOOKUP_MORE: waits until its keys have been probed */
	PHASE_LOAD,		/* LOOKUP: waits for fills */
	PHASE_RANDOM,		/* LOOKUP, MAP: waits for random bits */
	PHASE_CHECK,		/* RETRIEVE, STORE: segments are being checked */
	PHASE_READY,		/* RETRIEVE, STORE: waits for its ready word */
	PHASE_PLACE,		/* STORE: places are being found */
	PHASE_COPY,		/* RETRIEVE, STORE: a copy runs */
	PHASE_ELSEWHERE,	/* STORE: waits for another job's fill */
	PHASE_SESSION,		/* END_SESSION: leases are being ended */
};

/* Run queues: of the main link, then (ISSUE + tier bit) of the issue link. */
enum run { RUN_RETRIEVE, RUN_LOOKUP, RUN_STORE, RUN_ISSUE };
#define RUNS (RUN_ISSUE + 1u + ENGINE_TIERS_MAX)

enum where { WHERE_NOWHERE, WHERE_RUN, WHERE_ENTRY, WHERE_ROOM, WHERE_RANDOM };

struct lookup {
	const struct stoker_wire_key *keys;	/* of the piece that is being probed */
	uint32_t keys_left;
	uint32_t source;		/* job whose keys these are */
	uint32_t queue_first, queue_last;	/* pieces that have come and wait */
	uint32_t pieces, pieces_came;
	uint32_t keys_max;		/* capacity of entries[] */
	uint32_t total;			/* keys taken */
	uint32_t probed;		/* places of entries[] in use */
	bool gap;			/* no longer length can be usable */
	bool plain;			/* only full groups are asked for */
	bool announced;			/* PROBED has been published */
	bool unready;			/* something in the arena is to be verified first */
	bool loaded, failed, crowded;	/* it had to wait for bytes; a load failed; room was lacking */
	bool late;			/* its deadline has passed: it waits for nothing any more */
	uint64_t room_at;		/* it waits for room until engine.dropped is that; 0: room has not been lacking */
	uint64_t token[2];		/* of `renew` */
	uint32_t reserved;		/* of engine.chunks_taken */
	uint32_t kept;			/* chunks that stay pinned for the lease */
	uint32_t cut;			/* no room for what is asked for from this place on */
	uint32_t shown;			/* `ready` as last published */
	uint64_t waited_bytes;		/* that exist, but not in the arena */
	uint32_t have, tiers, lease_ms;
	uint64_t need;			/* parts of the groups asked for */
	uint64_t readers;
	uint32_t renew;			/* a lease to extend, or NONE */
	uint32_t found, found_l1, expected_us;
	uint32_t target;		/* length that is being loaded */
	uint32_t cursor;		/* places below it have been fed to `arena` */
	uint32_t issued;		/* places below it have been asked for */
	uint64_t load_bytes;		/* to be loaded, not yet asked for */
	uint32_t *entries;		/* in the scratch: pinned entry or NONE, by place */
	uint64_t *bitmap;		/* usable lengths */
	uint64_t *prints;		/* of all keys, by place, if it renews and has pieces; else NULL */
	uint64_t *hits;			/* places that needed no load */
	struct usable there, arena;	/* what exists; what is in the arena (re-fed while loading) */
};

/* What becomes of one object of a STORE or RETRIEVE. */
enum item_state {
	ITEM_NEW, ITEM_COPYING, ITEM_STORED, ITEM_PRESENT, ITEM_ELSEWHERE, ITEM_REFUSED, ITEM_INCOMPLETE,
	ITEM_FAILED,
};

/** struct item - one object of a STORE or RETRIEVE. Items are ordered by chunk. */
struct item {
	const uint32_t *ids;
	uint32_t pool;			/* number of the pool as the client knows it */
	uint32_t record;		/* STORE: while it is being filled; RETRIEVE: what is copied */
	uint16_t chunk;			/* less `first` */
	uint8_t part, state;
};
static_assert(sizeof(struct item) == 24, "the scratch is sized for it");

struct transfer {			/* RETRIEVE, STORE */
	uint32_t first;			/* smallest chunk that a segment names */
	uint32_t chunks;		/* from it on */
	uint32_t n_items;
	/* PHASE_CHECK's place in the request */
	uint32_t segment, chunk, id_at, run_at, run_left, run_next, spelled;
	/* in the scratch */
	uint8_t *statuses;		/* enum stoker_chunk, by chunk */
	uint32_t *ends;			/* by chunk: after its last item; CHECK: its next free one */
	uint64_t *given;		/* by chunk: parts that segments give */
	uint32_t *entries;		/* by chunk: RETRIEVE: of the lease, pinned */
	uint32_t *pools;		/* engine's pool of each segment */
	struct item *items;
	uint32_t *ids;			/* of runs, spelled out */
	struct engine_copy_item *copy;	/* the copy under way, or being made */
	uint32_t *copy_items;		/* item of each */
	uint8_t *copy_failed;
	uint32_t copy_max, n_copy;
	uint64_t copy_bytes;
	uint32_t cursor;		/* items below it have been placed or settled */
	uint32_t layer_first, layer_end, layers;
	uint32_t device;		/* of all pools */
	uint32_t reader;
	uint64_t token[2];		/* RETRIEVE: of the lease */
	uint32_t ready_index, ready_value;
	uint64_t account, first_token;
	struct stoker_wire_key parent;
	bool in_use;			/* its pools count it as a user */
	bool pool_dropped;		/* one of them is to go: no further round */
	bool pool_dead;			/* ... because its memory faulted */
	bool counted_wait;		/* STORES_WAITED has it */
	bool full;			/* no more room is looked for */
	bool faulted;			/* an item could not be copied */
	bool lacking;			/* RETRIEVE: an item is not there, so no layer will be whole */
	bool quota;			/* a quota was in the way, not room */
};

/** struct mapping - MAP: what is asked for, while it waits for random bits. */
struct mapping { uint64_t lease[2]; uint32_t chunk, group, shard; };

struct job {
	uint32_t generation;
	uint8_t op, phase, priority, where;
	uint8_t issuing;		/* enum where of the issue link */
	uint8_t run, issue_run;		/* run queue of each link */
	uint8_t status;			/* enum stoker_status once it is ending */
	bool ending;			/* ENDING has been published; a copy is drained */
	bool parked;			/* has a timer, is in its model's list */
	bool counted;			/* model->draining counts it */
	bool fresh;			/* `deadline` is a span yet */
	uint32_t flags;
	uint32_t client, slot, model, incarnation, keys_max;
	uint32_t entry;			/* WHERE_ENTRY: whose fill it waits for */
	uint32_t next_piece;
	uint64_t session, deadline;
	struct link link, issue, of_model, of_fresh;
	uint32_t n_keys, n_segments, n_ids;
	const struct stoker_wire_key *keys;
	const uint32_t *tokens, *ids;
	const struct stoker_segment *segments;
	uint8_t *scratch;
	size_t scratch_bytes;
	union {
		struct lookup lookup;
		struct transfer transfer;
		struct mapping mapping;
	};
};

/** struct run_node - jobs of one client, of one priority, in one run queue. */
struct run_node { uint32_t first, last; struct link ring; };
struct run_queue {
	uint32_t first[PRIORITIES];	/* client whose turn it is */
	uint32_t levels;		/* mask of priorities that have a job */
	struct run_node *nodes;		/* [PRIORITIES][clients] */
};

/* ---- the engine ------------------------------------------------------------------------------ */

enum admin_kind { ADMIN_EVICT, ADMIN_CLEAR, ADMIN_DRAIN, ADMIN_CLOSE };
struct admin {
	enum admin_kind kind;
	bool begun;
	uint32_t model;			/* CLOSE */
	uint64_t bytes, freed;
	engine_token token;
};

enum room { ROOM_OK, ROOM_WAIT, ROOM_NONE, ROOM_QUOTA };

struct engine {
	struct engine_config config;
	struct engine_ports ports;
	uint64_t now;
	bool clocked, in_turn, serving, draining;
	bool room_changed;		/* something was freed: who waits for room may try again */

	struct index *index;
	struct side *sides;
	uint32_t *waiters;		/* by entry: first job (+ 1) that waits for a fill of it */
	struct stoker_wire_key *parents;	/* by entry: the parent's key, which outlives the parent */
	uint8_t *last_tiers;		/* by entry: where its objects are on disk, or were last */
	uint32_t unverified;		/* records */
	uint64_t uses;			/* count for entry->touched */
	uint64_t sequence;

	struct space *space;
	struct evict evict;
	uint32_t *extents;		/* first record whose place begins there */
	uint64_t pinned_bytes, dirty_bytes;
	uint32_t arena_objects, dirty_objects, copying;
	uint32_t extents_failed, arena_evictions;

	struct tier tiers[ENGINE_TIERS_MAX];
	uint32_t tiers_up;		/* mask */
	struct io *ios;
	uint32_t free_io, ios_used, checks_used;
	struct queued verifies[PRIORITIES], seals;
	uint32_t n_verifies;
	uint64_t load_bytes;		/* that running lookups have still to ask for */

	struct model *models;
	uint32_t models_max, model_mask;	/* incarnation & model_mask = model */
	struct tenant *tenants;
	struct account *accounts;
	uint32_t *account_buckets, account_mask, free_account;
	struct list over[2];		/* accounts above their quota in the arena, on the tiers */
	uint16_t *owners;		/* by entry: 1 + the row that its bytes are booked to, 0: it has none */
	struct link *rings[2];		/* by entry: its neighbours in the rings of its account */
	struct client *clients;
	struct user *users;		/* as many as clients; a row without clients is free */
	struct pool *pools;
	uint32_t *pool_buckets, pool_mask, free_pool, pools_used;

	struct job *jobs;
	uint32_t n_jobs, jobs_live, stores, clients_live, clients_leaving, models_open;
	struct timers *timers;
	uint32_t fresh_jobs, fresh_leases;	/* first of each: since the last turn */
	struct run_queue runs[RUNS];
	struct list room_waiters, room_loads, random_waiters;

	struct lease *leases;
	uint32_t free_lease, leases_used;
	uint32_t *session_buckets, session_mask;
	struct piece *pieces;
	uint32_t free_piece, pieces_max;
	uint32_t chunks_taken;		/* of config.leased_chunks */
	uint32_t drop_piece, drop_last;	/* pieces whose pins are given back little by little: first come, first out */
	uint64_t to_drop, dropped;	/* ... that have come, and gone, ever */
	uint32_t turn_pins;		/* chunks that lookups have pinned in this turn */
	struct hold *holds;
	uint32_t free_hold, holds_used;
	struct chunks recovered;	/* kept for config.recovered_hold_ns */

	uint64_t random[RANDOM_WORDS];
	uint32_t n_random;

	bool sweeping, sweep_recovered, clearing;
	uint32_t sweep_at, sweep_lease;
	uint32_t records_high;		/* records from here on have never been used */
	uint64_t cleared;		/* bytes freed by clearing */
	struct admin admins[ADMINS];
	uint32_t n_admins;
};

static inline struct entry *entry_of(struct engine *engine, uint32_t number)
{
	return index_entry(engine->index, number);
}
static inline struct record *record_of(struct engine *engine, uint32_t number)
{
	return index_record(engine->index, number);
}
static inline struct model *entry_model(struct engine *engine, const struct entry *entry)
{
	return &engine->models[entry->model & engine->model_mask];
}
static inline bool entry_is_stale(struct engine *engine, const struct entry *entry)
{
	return entry_model(engine, entry)->incarnation != entry->model;
}
static inline uint32_t job_number(const struct engine *engine, const struct job *job)
{
	return (uint32_t)(job - engine->jobs);
}
static inline uint64_t record_bytes(struct engine *engine, const struct record *record)
{
	return entry_model(engine, entry_of(engine, record->entry))->parts[record->part].image_bytes;
}
static inline void count(struct engine *engine, enum stoker_counter counter, uint64_t n)
{
	if (engine->config.counters)
		block_add(engine->config.counters, counter, n);
}
static inline void measure(struct engine *engine, enum stoker_histogram histogram, uint64_t since)
{
	if (engine->config.counters)
		block_record(engine->config.counters, histogram, engine->now - since);
}

static inline bool bit_get(const uint64_t *words, uint32_t i)
{
	return words[i / 64] >> (i % 64) & 1;
}
static inline void bit_set(uint64_t *words, uint32_t i)
{
	words[i / 64] |= 1ull << (i % 64);
}

/* Numbers of timers: jobs, then leases, then this one. */
static inline uint32_t timer_of_lease(const struct engine *engine, uint32_t lease)
{
	return engine->n_jobs + lease;
}
static inline uint32_t timer_of_recovery(const struct engine *engine)
{
	return engine->n_jobs + engine->config.leases;
}

#include "src/engine/rooms.h"

#endif
