/*
 * The simulation: the real engine on simulated ports, clients, disks, copies, clock and randomness.
 *
 * All of it follows from one seed, bit for bit: `sim --seed N --steps N` runs a run again. A step
 * lets a client act, lets something that is under way go on, lets time pass, or breaks something:
 * clients die or lie, reads and writes fail or come back corrupt, late and in any order, tiers go
 * down, the broker crashes or loses power and comes back with the tables it had.
 *
 * The oracle knows what every key must hold (content follows from model, epoch, key, part, layer and
 * block) and stops the run at the first thing that is wrong:
 * - a byte of a retrieved block, or of any block that nobody may touch;
 * - a job with no DONE, two, or stages that go back; a copy that touches blocks after DONE;
 * - arena or disk units used by two at once, or a place reused while its table entry says otherwise;
 * - a chunk claimed that was never stored; in roomy worlds also a stored chunk that is not found;
 * - a chunk of a living lease that is not retrieved; progress of layers that have not been copied;
 * - what one tenant may not have of another, quotas and shares that are exceeded, a refusal of what is
 *   within them;
 * - a world that is asleep though somebody waits (calm.c): a wake that was lost;
 * - a client that is passed over, a job or a read that is not the most urgent one (inside.c);
 * - an object that a tier should have and has not, evicted while that tier takes writes;
 * - parts of a chunk on two tiers; a copy of another version than the arena's; numbers of stores given twice;
 * - a reset that is said to be done while its epoch would not survive a crash;
 * - anything left over (jobs, leases, pins) when all clients are gone; an audit that complains;
 * - a deadline that passes unsaid while a copy runs; what GPUs must keep, whatever happens to them (gpu.h).
 *
 * What an oracle would notice is worth nothing if no world comes there: sim_reach() counts that the corners
 * of SIM_REACHES are reached, and `sim --worlds N --cover` fails if one is not.
 *
 * Rooms: memory.c (arena, tiers, tables, who touches what), ports.c (what is under way and how it goes on),
 * client.c (what clients ask), request.c (blocks, segments, ready words), pools.c (registered, dropped, dead),
 * chain.c (chained lookups, renewals, thefts), bulk.c (thousands of blocks, rushes), gpu.c, devices.c, copier.c, runs.c,
 * kernel.c (GPUs: gpu.h says what is real of them), oracle.c (what answers must be), inside.c (what only the engine's
 * inside shows: whose turn it is), world.c (making a world, crashes, admin), calm.c (the shell that sleeps; the end),
 * main.c (options, steps).
 */
#ifndef STOKER_TESTS_SIMULATION_SIM_H
#define STOKER_TESTS_SIMULATION_SIM_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/engine/engine.h"

#define SIM_UNIT	4096u
#define SIM_CLIENTS	6u
#define SIM_SLOTS	6u	/* the last one large */
#define SIM_MODELS	3u
#define SIM_KEYS	512u
#define SIM_DEPTH	24u	/* longest chain */
#define SIM_BLOCKS	192u	/* of a pool */
#define SIM_LAYERS	3u
#define SIM_PENDING	1024u
#define SIM_LEASES	64u	/* remembered by clients */
#define SIM_INPUT	16384u
#define SIM_PARTS	8u	/* of a simulated model at most */
#define SIM_TENANTS	2u
#define SIM_STRAY(model)	(SIM_MODELS * SIM_PARTS + (model))	/* number of a second pool, see pools_add() */
#define SIM_HOLDS	12u	/* of a client */
#define SIM_GPUS	2u	/* devices 1 and 2; 0 is the host's */
#define SIM_PIECES	3u	/* of a chained lookup after its head */
#define SIM_SCRATCH_BYTES(slot) ((slot) == SIM_SLOTS - 1 \
	? STOKER_SCRATCH_BYTES(STOKER_LARGE_KEYS, STOKER_LARGE_KEYS * 32u) : STOKER_SCRATCH_BYTES(STOKER_SMALL_KEYS, SIM_INPUT))

/* ---- randomness ------------------------------------------------------------------------------ */

struct sim_random { uint64_t state; };
static inline uint64_t sim_mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}
static inline uint64_t sim_draw(struct sim_random *random)
{
	random->state += 0x9e3779b97f4a7c15ull;
	return sim_mix(random->state);
}
static inline uint32_t sim_below(struct sim_random *random, uint32_t n)	/* 0 to n - 1; n > 0 */
{
	return (uint32_t)(sim_draw(random) % n);
}
static inline bool sim_chance(struct sim_random *random, uint32_t permille)
{
	return sim_below(random, 1000) < permille;
}

/* ---- corners that worlds have to come to ------------------------------------------------------- */

#define SIM_REACHES(R) \
	R(TURNS,	"a client was served while another one waited for the same") \
	R(FULL_TURN,	"a turn used up its steps") \
	R(LEFT_OVER,	"... and left jobs over") \
	R(CHECKS,	"a store or retrieve was checked in several steps") \
	R(BULK_STORE,	"a store of more than 4,096 block ids was taken") \
	R(BULK_RETRIEVE, "a retrieve of more than 1,024 objects went well") \
	R(URGENT_READ,	"a read began before others that are less urgent") \
	R(RAISED,	"a queued read became more urgent by another lookup") \
	R(SECOND_TIER,	"a write ended well, but its chunk was on another tier by then") \
	R(EPOCH_LOST,	"a crash came before a new epoch was durable, and it was lost") \
	R(EPOCH_KEPT,	"... and it had landed all the same") \
	R(LEAVES_OFF,	"an object that is on no tier was evicted: write-back is off") \
	R(LEAVES_DOWN,	"... all tiers are down") \
	R(LEAVES_LOST,	"... it could not be written") \
	R(OLD_COPY,	"a tier's table had another version of an object than the arena's") \
	R(CHAINED,	"a chunk behind thousands of others was retrieved by the lease of a chained lookup") \
	R(WIDE,		"a chunk was retrieved by a wide lease") \
	R(OUTSIDE,	"a chunk that the lease has not was asked for, and not given") \
	R(BEYOND,	"a chunk beyond the lease's end was asked for") \
	R(DEVICES,	"pools of two devices were named in one request") \
	R(READY,	"a store's blocks were filled when its ready word was reached, and not before") \
	R(ENDING,	"a deadline passed while a copy ran: ENDING, and DONE when it had ended") \
	R(GPU_THREE,	"copies of both GPUs and of the host's pools were under way at once") \
	R(GPU_KILLED,	"a copier was killed with copies under way") \
	R(GPU_STICKY,	"a context was lost with copies under way") \
	R(GPU_STUCK,	"a device hung, and its copier said so and ended") \
	R(GPU_HUNG,	"a driver hung with copies under way, and its copier was replaced") \
	R(GPU_DEADLINE,	"... a deadline passed meanwhile: ENDING, and DONE after that") \
	R(GPU_FULL,	"... or its socket was full by then") \
	R(GPU_NEVER_UP,	"a copier could not open its device, or hung there") \
	R(GPU_DOWN,	"a copy was asked for while its GPU had no copier") \
	R(GPU_BOTH,	"both GPUs went down at once") \
	R(GPU_OTHER,	"a copy of one GPU ended well while the other one was down") \
	R(GPU_BACK,	"a pool that a copier before had was used again, by the next one") \
	R(GPU_LATE_DMA,	"a device wrote for a copier that was dead already, and not reaped") \
	R(GPU_END_OF_FILE, "... whose socket had ended before") \
	R(GPU_STORE,	"a store's copy failed with its GPU") \
	R(GPU_LAYERS,	"layers of a retrieve were told, and its copy failed then") \
	R(GPU_CLIENT,	"a client died while its copy was under way on a GPU, which failed too") \
	R(GPU_CANCEL,	"a copy on a GPU was cancelled in its midst") \
	R(GPU_CANCEL_LATE, "a copy was cancelled, and ended well all the same") \
	R(GPU_PASSED,	"a load ended before a store that had begun before it") \
	R(GPU_WAITED,	"a copy waited for room in the rings") \
	R(GPU_NO_IMPORT, "memory could not be imported") \
	R(GPU_NO_MEMORY, "... because the device had too little") \
	R(GPU_NOBODY,	"a registration was answered when its client had gone") \
	R(GPU_POOL,	"a pool died: its memory could not be imported again") \
	R(GPU_IDLE,	"a copier without regions was let go")
#define SIM_AS_REACH(symbol, text) SIM_REACH_##symbol,
#define SIM_AS_TEXT(symbol, text) text,
enum sim_reach { SIM_REACHES(SIM_AS_REACH) SIM_REACH_END };

/* ---- what there is --------------------------------------------------------------------------- */

struct sim_key {		/* a node of a forest of prefixes */
	struct stoker_wire_key key;	/* word[0] is its number + 1 */
	uint32_t parent;		/* ENGINE_NONE: a root */
	uint32_t depth;
	bool is_short;			/* a leaf with fewer tokens than a chunk */
};

struct sim_model {
	struct engine_model_config config;
	uint32_t number;	/* the engine's; changes with each engine */
	uint32_t epoch;
	uint32_t durable;	/* the epoch that a crash leaves; newer ones may be lost, and are never used again */
	uint32_t newest;	/* of all that were begun */
	uint32_t resetting;	/* resets that have not been answered; the new epoch holds at once */
	/* Its end: to be asked for when its tenant's clients are gone; asked for; forgotten. None attaches meanwhile. */
	enum { SIM_OPEN, SIM_TO_CLOSE, SIM_CLOSING, SIM_CLOSED } life;
	bool emptied;		/* CLOSING: its objects may be evicted for it */
	uint64_t group_parts[STOKER_GROUPS_MAX];
	/* By key: the epochs (modulo 64) in which a part may exist, or must exist (roomy worlds): a bit each. */
	uint64_t may[SIM_KEYS][SIM_PARTS];
	uint64_t must[SIM_KEYS][SIM_PARTS];
};

struct sim_pool {
	uint64_t word[SIM_LAYERS][SIM_BLOCKS];		/* what copies read and write */
	uint64_t shadow[SIM_LAYERS][SIM_BLOCKS];	/* what must be there */
	bool busy[SIM_BLOCKS];				/* belongs to a job that is under way */
	bool dropped;					/* or never registered */
	bool dropping;					/* the engine has not said yet that it is quiet */
	bool dead;					/* its memory faults */
	bool opening;					/* it is being registered with a GPU; `dropped` until then */
	uint32_t model, part;
};

struct sim_lease {		/* what a client knows of a lease that it was given */
	uint64_t token[2];
	uint32_t model, epoch, n, have, owner;
	/* Of a long lease the clients know this much: chunk base + i is keys[i], `have` counts from base too. */
	uint32_t base, length;	/* length: of the lease as the engine has it */
	uint32_t end;		/* of a wide one: after the last chunk that exists */
	uint32_t keys[SIM_DEPTH];
	uint32_t exists;	/* ANY: mask of keys that exist */
	uint32_t groups;	/* mask */
	uint64_t readers;	/* that have not returned */
	uint64_t returned;	/* that have given their share back, and the engine has said so */
	uint64_t leaving;	/* whose shares end with a job: from then on nobody knows */
	uint64_t session, expires_ns;
	bool any;
	bool vague;		/* ANY: covers fewer keys than exist, and nobody knows which */
	bool renewed;		/* ... since: it may have chunks of lookups before */
	bool ended;		/* released, or its session or owner ended, or is about to: may still be tried */
	bool over;		/* ... beyond doubt: it must not be served any more */
};

enum sim_slot_state { SIM_FREE, SIM_ASKED };
struct sim_slot {
	enum sim_slot_state state;
	uint32_t generation, stage, ready, layers;
	struct engine_request request;
	uint64_t input[SIM_INPUT / 8];		/* keys, tokens, segments, ids: private memory of the shell */
	uint8_t *scratch;
	bool watched;
	uint32_t watch_value;
	bool lies;			/* must not end OK, nor copy anything */
	bool certain;			/* its lease is alive beyond doubt */
	bool cut;			/* cancelled, or with a deadline: may end early */
	bool harmed;			/* a fault was drawn for its copy, or its pool is dead */
	bool copying;			/* a copy of it is under way */
	bool waits;			/* for its ready word: until then its blocks are the worker's */
	enum stoker_status ending;	/* as ENDING said */
	uint64_t asked_ns;		/* when the engine had its first turn since; 0: not yet */
	bool renews;			/* LOOKUP: of `lease` */
	uint32_t outside;		/* RETRIEVE: mask of chunks that its lease cannot have */
	uint32_t loose;			/* RETRIEVE: mask of chunks with a part that it need not have */
	uint32_t owed;			/* LOOKUP in a roomy world: the length that was stored when it was asked */
	enum stoker_status must;	/* how it must end, whatever else; OK: not said */
	/* What was asked, for the oracle: */
	uint32_t model, epoch, n;
	uint32_t keys[SIM_DEPTH];
	struct sim_lease lease;
	uint32_t part_pool[SIM_PARTS];		/* pool number of each part copied; ENGINE_NONE: not asked */
	uint32_t blocks[SIM_PARTS][SIM_DEPTH][8];
	uint32_t asked;				/* STORE: mask of the parts given */
	uint32_t map_part;
	uint32_t hold;				/* UNMAP: which hold of the client */
	uint32_t junk;				/* LOOKUP: keys before them that nobody ever stored */
	bool wide;				/* LOOKUP of any: `n` keys of the forest from keys[0] on, around */
	uint8_t *big;				/* large slot: room for keys, segments and ids if they are many */
	bool bulk;				/* they lie there; of `total` chunks, keys[0] is number `base` */
	uint32_t base, total, asked_blocks;
	uint32_t pieces, sent;			/* chained LOOKUP: pieces after the head; that have been sent */
	uint32_t split[SIM_PIECES + 2];		/* piece i has the keys split[i] to split[i + 1] - 1 */
};

struct sim_client {
	bool attached, leaving;		/* leaving: engine_client_out() was called, not yet gone */
	bool expelled;
	struct sim_slot slots[SIM_SLOTS];
	struct sim_pool pools[SIM_MODELS * SIM_PARTS];
	bool strays[SIM_MODELS];	/* it has a second pool of the model's first part, on another device */
	struct sim_hold { uint64_t token[2], offset; uint32_t key, model, epoch, part; bool used; } holds[SIM_HOLDS];
};

enum sim_pending_kind { SIM_READ, SIM_WRITE, SIM_SEAL, SIM_VERIFY, SIM_COPY, SIM_EPOCH };
struct sim_pending {
	enum sim_pending_kind kind;
	struct engine_io io;
	struct engine_check check;
	struct engine_copy copy;
	uint32_t model;			/* stable number of the object's model */
	uint32_t item, layer, slot;	/* COPY: where it stands */
	bool cancelled, any_failed;
	uint64_t serial;		/* COPY: no other one ever has it */
	uint64_t ends;			/* COPY on a GPU: copiers of it that had ended when it was asked for */
	bool excused;			/* COPY on a GPU: something has happened to it, so it may fail */
	uint32_t epoch;
};

struct sim_table_entry {		/* arena table */
	bool used, held;
	bool written;			/* arena: a tier has had it, or a life before this one left it */
	struct engine_place place;
	struct engine_object object;
	uint32_t model;			/* stable number */
};

struct sim_tier {
	uint8_t *bytes;
	uint32_t units;
	bool up, dead;
	struct sim_table_entry *slabs;	/* by first unit */
	struct { bool add; struct sim_table_entry entry; } log[256];	/* the newest changes, for power loss */
	uint32_t log_n;
	uint16_t *readers;
	uint8_t *writer;
};

/* The device of a client's pools of a model. */
static inline uint32_t sim_device(uint32_t client, uint32_t model)
{
	return (client + model) % 3;
}

struct sim {
	uint64_t seed, step, now_ns;
	uint64_t turned_ns;		/* what the engine takes for now */
	struct sim_random random;
	uint64_t fingerprint;		/* of all that the engine did: equal runs have equal ones */
	bool roomy;			/* no faults, room for all: what was stored must be found */
	uint32_t fault_permille;
	const char *plant;		/* a bug of the simulated world that the oracle must find, or NULL */
	bool starving;			/* random bits come in drops */
	bool resurrected;		/* what had been removed from a tier's table came back: quotas may be exceeded */
	uint64_t clock_from;		/* step: until then the engine has no turn */
	uint64_t crash_at;		/* step: what was cleared is stored anew by then; 0: never */
	uint32_t slow_tier;		/* its reads and writes take long; ENGINE_NONE: of none */
	bool shifting;			/* tiers go down while a slow one writes, chunks come part by part, crashes are many */
	uint64_t storm_until;		/* step: until then all deadlines are short */
	uint32_t n_tenants;
	struct engine_quota quotas[SIM_TENANTS];
	bool verbose;

	struct engine_config config;
	struct control_block *counters;
	void *memory;
	size_t memory_bytes;
	struct engine *engine;
	bool serving;

	struct sim_key keys[SIM_KEYS];
	uint32_t n_models;
	struct sim_model models[SIM_MODELS];
	struct sim_client clients[SIM_CLIENTS];
	struct sim_lease leases[SIM_LEASES];
	uint32_t n_leases;

	uint8_t *arena;
	uint32_t arena_units;
	uint16_t *readers;		/* of each arena unit: operations that read it */
	uint8_t *writer;		/* 1: an operation writes it */
	bool *extent_added, *extent_failed;
	struct sim_table_entry *table;
	struct sim_tier tiers[ENGINE_TIERS_MAX];

	struct sim_pending pending[SIM_PENDING];
	uint32_t n_pending;
	uint64_t tokens_given, tokens_answered;
	uint64_t sequence;		/* the greatest that tables had when they were recovered */
	uint64_t figures[9];		/* for the closing line: see main.c */
	uint64_t reached[SIM_REACH_END];
	struct sim_inside *inside;
	struct sim_gpus *gpus;
	uint64_t copies;		/* ever */
};
enum { SIM_FIG_LOOKUPS, SIM_FIG_HITS, SIM_FIG_STORED, SIM_FIG_RETRIEVED, SIM_FIG_CRASHES, SIM_FIG_CORRUPT,
       SIM_FIG_DEATHS, SIM_FIG_RESETS, SIM_FIG_FORGOTTEN };

static inline void sim_reach(struct sim *sim, enum sim_reach corner)
{
	sim->reached[corner]++;
}

/* Stop: say what, where, and how to run it again. Does not return. */
__attribute__((noreturn, format(printf, 2, 3))) void sim_fail(struct sim *sim, const char *format, ...);
__attribute__((format(printf, 2, 3))) void sim_say(struct sim *sim, const char *format, ...);
static inline void sim_note(struct sim *sim, uint64_t a, uint64_t b)	/* into the fingerprint */
{
	sim->fingerprint = sim_mix(sim->fingerprint ^ sim_mix(a) ^ (b * 0x9e3779b97f4a7c15ull));
}

/* ---- memory.c -------------------------------------------------------------------------------- */

void memory_make(struct sim *sim);
void memory_free(struct sim *sim);
void memory_hold_arena(struct sim *sim, uint32_t unit, uint64_t bytes, bool write, const char *who);
void memory_drop_arena(struct sim *sim, uint32_t unit, uint64_t bytes, bool write);
void memory_hold_tier(struct sim *sim, uint32_t tier, uint32_t unit, uint64_t bytes, bool write);
void memory_drop_tier(struct sim *sim, uint32_t tier, uint32_t unit, uint64_t bytes, bool write);
uint64_t memory_payload_sum(const uint8_t *image, uint64_t payload_bytes);
bool memory_was_written(const struct sim *sim, uint32_t record);
void memory_see_sequences(struct sim *sim);
uint32_t memory_other_tier(const struct sim *sim, uint32_t tier, const struct engine_object *object);
void memory_quiet(struct sim *sim);	/* at a crash: nobody touches anything any more */
/* Ports: tables. */
void memory_commit(void *shell, uint32_t record, const struct engine_place *place, const struct engine_object *object);
void memory_uncommit(void *shell, uint32_t record);
void memory_held(void *shell, uint32_t record, bool held);
void memory_slab_add(void *shell, const struct engine_place *disk, const struct engine_object *object);
void memory_slab_remove(void *shell, const struct engine_place *disk, const struct engine_object *object);

/* ---- ports.c --------------------------------------------------------------------------------- */

extern const struct engine_ports sim_ports;	/* shell is set by world.c */
void ports_progress(struct sim *sim);		/* let one thing that is under way go on */
void ports_crash(struct sim *sim);		/* all of it ends here, landed or not */
bool ports_copy_touches(const struct sim *sim, uint32_t client, uint32_t pool);
bool ports_copy_runs(const struct sim *sim, uint32_t client, uint32_t slot);	/* slot: or ENGINE_NONE */
uint32_t ports_copy_find(const struct sim *sim, uint32_t device, uint32_t copy);	/* in the bag, or ENGINE_NONE */
uint64_t ports_copy_serial(const struct sim *sim, uint32_t device, uint32_t copy);	/* 0: it is not under way */
void ports_copy_excuse(struct sim *sim, uint32_t device, uint32_t copy);	/* it may fail */
void ports_copy_end(struct sim *sim, uint32_t at, enum engine_result result);	/* out of the bag, and told */

/* ---- main.c ---------------------------------------------------------------------------------- */

void sim_feed_random(struct sim *sim);
bool sim_turn(struct sim *sim);	/* engine_turn(), by the simulated clock */
static inline uint64_t sim_epoch_bit(uint32_t epoch)
{
	return 1ull << epoch % 64;
}
static inline bool sim_is_planted(const struct sim *sim, const char *bug)
{
	return sim->plant && strcmp(sim->plant, bug) == 0;
}

/* ---- client.c -------------------------------------------------------------------------------- */

void client_act(struct sim *sim, uint32_t client);
void client_attach(struct sim *sim, uint32_t client);
void client_leave(struct sim *sim, uint32_t client);
void client_slot_over(struct sim *sim, uint32_t client, uint32_t slot);
struct sim_slot *client_slot(struct sim *sim, uint32_t client, uint32_t slot);
uint32_t model_stable(const struct sim *sim, uint32_t number);	/* stable number of an engine's number */
static inline uint32_t client_tenant(const struct sim *sim, uint32_t client)
{
	return client % sim->n_tenants;
}
static inline uint32_t client_user(uint32_t client)	/* two or three clients are one user's */
{
	return 1000 + client / 3;
}
static inline uint32_t model_tenant(const struct sim *sim, uint32_t model)
{
	return model % sim->n_tenants;
}
uint32_t client_model(struct sim *sim, uint32_t client);	/* any of its tenant's */

/* For chain.c: a request in the making, and out with it. */
struct sim_slot *client_begin(struct sim *sim, uint32_t client, uint32_t slot, enum stoker_op op, uint32_t model);
void client_ask(struct sim *sim, uint32_t client, struct sim_slot *slot);
uint32_t client_chain(const struct sim *sim, uint32_t tip, uint32_t keys[SIM_DEPTH]);	/* its prefix; how many */
void client_put_keys(const struct sim *sim, struct sim_slot *slot, uint32_t first, uint32_t end);
bool client_lease_certain(const struct sim *sim, const struct sim_lease *lease, uint32_t reader);
struct sim_lease *client_lease(struct sim *sim);	/* mostly one that lives */

/* ---- request.c ------------------------------------------------------------------------------- */

struct sim_writer {			/* appends segments and ids to the input, segments first */
	struct stoker_segment segments[SIM_PARTS];
	uint32_t ids[SIM_INPUT / 8];
	uint32_t n_segments, n_ids;
};
bool request_take_blocks(struct sim *sim, uint32_t number, struct sim_slot *slot, uint32_t part, uint32_t c,
			uint32_t n);
void request_untake(struct sim *sim, uint32_t number, struct sim_slot *slot, uint32_t part, uint32_t c);
void request_segment(struct sim *sim, struct sim_writer *w, const struct sim_slot *slot, uint32_t part,
			uint32_t first, uint32_t chunks);
void request_write(struct sim_slot *slot, const struct sim_writer *w, size_t at);
void request_bend(struct sim *sim, struct sim_slot *slot);
void request_fill(struct sim *sim, uint32_t number, struct sim_slot *slot, uint32_t part, uint32_t c);
void request_watch_maybe(struct sim *sim, uint32_t number, struct sim_slot *slot);	/* it gets a ready word */
void request_reach(struct sim *sim, uint32_t client, uint32_t slot);	/* its ready word is reached */
void request_ready_some(struct sim *sim);		/* any watched word, if there is one */

/* ---- pools.c ---------------------------------------------------------------------------------- */

void pools_add(struct sim *sim, uint32_t client, uint32_t pool);
void pools_known(struct sim *sim, uint32_t client, uint32_t pool);	/* the core hears of it */
bool pools_lack(struct sim *sim, uint32_t client, uint32_t model);	/* an honest one does not ask yet */
void pools_drop_some(struct sim *sim);
void pools_kill_some(struct sim *sim);
void pools_died(struct sim *sim, uint32_t client, uint32_t pool);

/* ---- chain.c --------------------------------------------------------------------------------- */

void chain_ask(struct sim *sim, uint32_t client, bool long_one);	/* the head of a chained lookup */
bool chain_send(struct sim *sim, uint32_t client, bool honest);	/* its next piece; false: there is none to send */
void chain_renew(struct sim *sim, uint32_t client, uint32_t slot);
void chain_renew_long(struct sim *sim, uint32_t client);
void chain_steal(struct sim *sim, uint32_t client, uint32_t slot);	/* use another tenant's lease */
void chain_wide(struct sim *sim, uint32_t client);		/* a lookup of very many keys in no order */
void chain_nonsense(struct sim *sim, uint32_t client, uint32_t slot);	/* requests that are plainly wrong */
void chain_bend(struct sim *sim, struct sim_slot *slot);	/* a head that no library sends */

/* ---- bulk.c ---------------------------------------------------------------------------------- */

void bulk_store(struct sim *sim, uint32_t client);
void bulk_retrieve(struct sim *sim, uint32_t client);
void bulk_rush(struct sim *sim);

/* ---- oracle.c -------------------------------------------------------------------------------- */

/* Word of the content of a block. */
uint64_t oracle_word(const struct sim *sim, uint32_t model, uint32_t epoch, uint32_t key, uint32_t part,
		     uint32_t layer, uint32_t block);
void oracle_publish(void *shell, uint32_t client, uint32_t slot, uint32_t generation,
		    const struct engine_answer *answer);
void oracle_pool(struct sim *sim, uint32_t client, uint32_t pool);	/* blocks that nobody may touch are as they were */
uint32_t oracle_owed(const struct sim *sim, const struct sim_slot *slot);	/* what a lookup must find, if there is room for all */
uint32_t oracle_blocks(const struct sim *sim, uint32_t model, uint32_t part, uint32_t key);	/* that hold tokens */

void oracle_deadlines(struct sim *sim);	/* whose deadline has passed is at its end, or ENDING */

/* ---- gpu.c, devices.c (see gpu.h) ------------------------------------------ */

void gpus_make(struct sim *sim);
void gpus_free(struct sim *sim);
void gpus_stop(struct sim *sim);	/* the broker ends: nothing may be left of its GPUs */
void gpus_extent(struct sim *sim, uint32_t extent);
void gpus_pool_add(struct sim *sim, uint32_t client, uint32_t pool, uint32_t device);	/* known later, or refused */
void gpus_pool_dropped(struct sim *sim, uint32_t client, uint32_t pool);	/* the engine has let go of it */
void gpus_client_gone(struct sim *sim, uint32_t client);
void gpus_copy(struct sim *sim, const struct engine_copy *copy);
void gpus_cancel(struct sim *sim, uint32_t device, uint32_t copy);
void gpus_step(struct sim *sim);		/* some of what their threads and copiers do */
void gpus_progress(struct sim *sim, uint32_t device);	/* one step of its copier */
void gpus_calm(struct sim *sim);
bool gpus_work(struct sim *sim);	/* in a calm: whoever was woken; true: the engine has been told something */
bool gpus_awake(const struct sim *sim);
bool gpus_stuck(const struct sim *sim);	/* there is something under way that only time ends: */
void gpus_wait(struct sim *sim);	/* ... let it pass */
void gpus_check(struct sim *sim);	/* in a calm, at its end */
void gpus_end(struct sim *sim);		/* when all clients are gone */

/* ---- inside.c -------------------------------------------------------------------------------- */

void inside_make(struct sim *sim);		/* again with each engine */
void inside_free(struct sim *sim);
bool inside_turn(struct sim *sim);		/* engine_turn() */
void inside_read(struct sim *sim, const struct engine_io *io);	/* which begins */

/* ---- world.c --------------------------------------------------------------------------------- */

void world_make(struct sim *sim);
uint32_t world_share(const struct sim *sim, uint32_t set, uint32_t all);	/* of a tenant's, as configured or equal */
void world_free(struct sim *sim);
void world_crash(struct sim *sim, bool power);
void world_admin(struct sim *sim);
void world_break_tier(struct sim *sim);		/* one goes down, or none */
bool world_extent(struct sim *sim);		/* one more extent is populated; false: none is left */
void world_tier(struct sim *sim);		/* one more tier comes up, if any is left */
void world_serve(struct sim *sim);		/* the rest of recovery, then serve */
/* Tokens of control operations: a count, and what is to be done at the answer. */
enum sim_after { SIM_AFTER_NOTHING, SIM_AFTER_RESET, SIM_AFTER_DROP, SIM_AFTER_CLOSE };
engine_token world_token(struct sim *sim, enum sim_after after, uint32_t what);
void world_answered(struct sim *sim, engine_token token, enum stoker_status status, uint64_t value);
void world_close_some(struct sim *sim);		/* models whose clients have gone are forgotten */
bool world_may_attach(struct sim *sim, uint32_t client);	/* opens what was forgotten anew */

/* ---- calm.c ---------------------------------------------------------------------------------- */

/*
 * Nobody asks anything new, and the shell turns the engine only when it must: after an event, while there
 * is more to do, and at its deadline. All that is under way has to come to its end.
 */
void calm(struct sim *sim);
void calm_bounds(struct sim *sim);	/* at any instant: nobody has more than its share of what all share */
void world_end(struct sim *sim);		/* calm; all clients leave; nothing may be left over */

#endif
