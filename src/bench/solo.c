#include "config.h"

#include "src/bench/solo.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shm/control.h"
#include "shm/model.h"
#include "src/bench/bench.h"

#define SLOT	    1u			/* the large one; slot 0 is small and for leases that are given back */
#define LATE_MAX    4096u
#define TURN_NS	    1000u		/* the engine's clock moves on by so much a turn */
#define CHUNK	    512u

/* A completion that the engine is owed: ports may not answer from within the call. */
struct late {
	enum { LATE_COPY, LATE_CHECK, LATE_EPOCH } type;
	uint32_t number;
};

struct solo {
	struct engine *engine;
	void *memory;
	size_t memory_bytes;
	struct control_block *counters;
	uint32_t model, shards;
	uint64_t now;
	uint64_t random;
	uint32_t generation[2];
	bool done[2];
	struct engine_answer answer[2];
	uint8_t chunks[STOKER_LARGE_KEYS];
	uint32_t n_late;
	struct late late[LATE_MAX];
	uint8_t *scratch[2];
	size_t scratch_bytes;
	struct stoker_segment segments[STOKER_PARTS_MAX];
	uint32_t *ids;
};

/* ---- ports --------------------------------------------------------------------------------------- */

static void late(struct solo *solo, int type, uint32_t number)
{
	if (solo->n_late == LATE_MAX)
		abort();	/* the configuration bounds what is under way below this */
	solo->late[solo->n_late].type = type;
	solo->late[solo->n_late++].number = number;
}

static void port_check(void *shell, const struct engine_check *check)
{
	late(shell, LATE_CHECK, check->io);
}

static void port_copy(void *shell, const struct engine_copy *copy)
{
	late(shell, LATE_COPY, copy->copy);
}

static void port_publish(void *shell, uint32_t client, uint32_t slot, uint32_t generation,
			 const struct engine_answer *answer)
{
	struct solo *solo = shell;

	(void)client;
	if (answer->stage != STOKER_STAGE_DONE || generation != solo->generation[slot])
		return;
	solo->answer[slot] = *answer;
	solo->done[slot] = true;
	if (answer->n_chunks)
		memcpy(solo->chunks, answer->chunks, answer->n_chunks);
}

static void port_expel(void *shell, uint32_t client, const char *why)
{
	(void)shell;
	(void)client;
	bench_say("the engine calls the bench a liar: %s", why);
	abort();
}

static void port_persist(void *shell, uint32_t model, uint32_t epoch, uint64_t tag)
{
	(void)epoch;
	(void)tag;
	late(shell, LATE_EPOCH, model);
}

/* What follows has nobody to tell, or cannot happen without tiers, ready words and resets. */
static void no_io(void *shell, const struct engine_io *io) { (void)shell; (void)io; abort(); }
static void no_cancel(void *shell, uint32_t device, uint32_t copy) { (void)shell; (void)device; (void)copy; }
static void no_watch(void *shell, uint32_t c, uint32_t s, uint32_t i, uint32_t v)
{
	(void)shell; (void)c; (void)s; (void)i; (void)v;
}
static void no_unwatch(void *shell, uint32_t c, uint32_t s) { (void)shell; (void)c; (void)s; }
static void no_gone(void *shell, uint32_t client) { (void)shell; (void)client; }
static void no_commit(void *shell, uint32_t record, const struct engine_place *p, const struct engine_object *o)
{
	(void)shell; (void)record; (void)p; (void)o;
}
static void no_uncommit(void *shell, uint32_t record) { (void)shell; (void)record; }
static void no_held(void *shell, uint32_t record, bool held) { (void)shell; (void)record; (void)held; }
static void no_slab(void *shell, const struct engine_place *p, const struct engine_object *o)
{
	(void)shell; (void)p; (void)o;
}
static void no_control(void *shell, engine_token token, enum stoker_status status, uint64_t value)
{
	(void)shell; (void)token; (void)status; (void)value;
}

static const struct engine_ports ports = {
	.read = no_io,
	.write = no_io,
	.seal = port_check,
	.verify = port_check,
	.copy = port_copy,
	.copy_cancel = no_cancel,
	.watch = no_watch,
	.unwatch = no_unwatch,
	.publish = port_publish,
	.expel = port_expel,
	.client_gone = no_gone,
	.commit = no_commit,
	.uncommit = no_uncommit,
	.held = no_held,
	.slab_add = no_slab,
	.slab_remove = no_slab,
	.persist_epoch = port_persist,
	.control = no_control,
};

/* ---- turning the engine ------------------------------------------------------------------------ */

static uint64_t next_random(struct solo *solo)
{
	solo->random ^= solo->random << 13;
	solo->random ^= solo->random >> 7;
	solo->random ^= solo->random << 17;
	return solo->random;
}

static void complete(struct solo *solo, struct late one)
{
	switch (one.type) {
	case LATE_COPY:
		engine_copy_done(solo->engine, one.number, ENGINE_OK);
		break;
	case LATE_CHECK:
		engine_check_done(solo->engine, one.number, ENGINE_OK, 1);
		break;
	case LATE_EPOCH:
		engine_epoch_persisted(solo->engine, one.number, true);
		break;
	}
}

static void feed_random(struct solo *solo)
{
	uint32_t wanted = engine_random_wanted(solo->engine);

	while (wanted > 0) {
		uint64_t words[64];
		const uint32_t n = wanted < 64 ? wanted : 64;

		for (uint32_t i = 0; i < n; i++)
			words[i] = next_random(solo);
		engine_random(solo->engine, words, n);
		wanted -= n;
	}
}

/* Until nothing is left to do: a background refill, were it on, would be over too. */
static void settle(struct solo *solo)
{
	bool more = true;

	while (more || solo->n_late) {
		more = engine_turn(solo->engine, solo->now += TURN_NS);
		for (uint32_t i = 0; i < solo->n_late; i++)
			complete(solo, solo->late[i]);
		more |= solo->n_late > 0;
		solo->n_late = 0;
	}
}

static void ask(struct solo *solo, uint32_t slot, struct engine_request *request)
{
	request->head.slot = (uint16_t)slot;
	request->head.generation = ++solo->generation[slot];
	request->head.model = solo->model;
	request->model = solo->model;
	request->keys_max = slot == SLOT ? STOKER_LARGE_KEYS : STOKER_SMALL_KEYS;
	request->scratch = solo->scratch[slot];
	request->scratch_bytes = solo->scratch_bytes;
	solo->done[slot] = false;
	engine_request(solo->engine, 0, request);
	settle(solo);
	if (!solo->done[slot]) {
		bench_say("the engine does not answer a request");
		abort();
	}
}

/* ---- requests ------------------------------------------------------------------------------------ */

struct solo_answer solo_lookup(struct solo *solo, const struct stoker_wire_key *keys, uint32_t n)
{
	struct engine_request request = {
		.head = { .op = STOKER_OP_LOOKUP, .flags = STOKER_F_PREFETCH | STOKER_F_PARTIAL, .n_keys = n },
		.keys = keys,
	};
	const struct engine_answer *answer = &solo->answer[SLOT];

	feed_random(solo);
	ask(solo, SLOT, &request);
	return (struct solo_answer){
		.status = answer->status,
		.n = answer->n,
		.lease = { answer->lease[0], answer->lease[1] },
	};
}

void solo_release(struct solo *solo, const struct solo_answer *answer)
{
	struct engine_request request = {
		.head = { .op = STOKER_OP_RELEASE, .lease = { answer->lease[0], answer->lease[1] } },
	};

	if (answer->lease[0] | answer->lease[1])
		ask(solo, 0, &request);
}

uint32_t solo_store(struct solo *solo, const struct stoker_wire_key *keys, uint32_t n,
		    const struct stoker_wire_key *parent, uint64_t first_token)
{
	struct engine_request request = {
		.head = {
			.op = STOKER_OP_STORE,
			.n_keys = n,
			.n_segments = solo->shards,
			.n_ids = n * solo->shards,
		},
		.line.store = { .parent = *parent, .first_token = first_token },
		.keys = keys,
		.segments = solo->segments,
		.ids = solo->ids,
	};
	uint32_t there = 0;

	for (uint32_t i = 0; i < solo->shards; i++) {
		solo->segments[i] = (struct stoker_segment){
			.pool = i, .shard = (uint8_t)i, .chunks = n, .n_ids = n,
		};
	}
	ask(solo, SLOT, &request);
	for (uint32_t i = 0; i < n && solo->answer[SLOT].status == STOKER_STATUS_OK; i++)
		there += solo->chunks[i] == STOKER_CHUNK_STORED || solo->chunks[i] == STOKER_CHUNK_PRESENT;
	return there;
}

const char *solo_audit(const struct solo *solo)
{
	return engine_audit(solo->engine);
}

/* ---- life ---------------------------------------------------------------------------------------- */

static void *reserve(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		return NULL;
	madvise(at, bytes, MADV_HUGEPAGE);
	return at;
}

static struct engine_config engine_config_of(const struct solo_config *config, struct control_block *counters)
{
	return (struct engine_config){
		.clients = 1,
		.slots = 2,
		.models = 1,
		.pools = STOKER_PARTS_MAX,
		.tenants = 1,
		.entries = config->entries,
		.records = config->entries * config->shards,
		.leases = 64,
		.holds = 1,
		.leased_chunks = 4 * STOKER_LARGE_KEYS,
		.ios = 256,
		.extent_bytes = config->extent_bytes,
		.extents = config->extents,
		.policy = config->policy,
		.deadline_default_ns = 10000000000ull,
		.deadline_max_ns = 60000000000ull,
		.lease_default_ns = 30000000000ull,
		.lease_max_ns = 60000000000ull,
		.recovered_hold_ns = 1,
		.held_bytes_permille = 250,
		.seed = 0x5eed,
		.counters = counters,
	};
}

static bool open_model(struct solo *solo, const struct solo_config *config)
{
	struct engine_model_config model = {
		.epoch = 1,
		.chunk_tokens = CHUNK,
		.n_groups = 1,
		.groups = { { .kind = MODEL_GROUP_FULL, .block_tokens = CHUNK, .blocks = 1 } },
		.n_parts = config->shards,
	};
	int64_t number;

	for (uint32_t i = 0; i < config->shards; i++) {
		model.parts[i] = (struct engine_part_config){
			.shard = (uint8_t)i,
			.layers = 1,
			.blocks = 1,
			.payload_bytes = config->payload_bytes,
			.image_bytes = (MODEL_IMAGE_HEADER + config->payload_bytes + 4095) & ~4095ull,
		};
	}
	number = engine_model_open(solo->engine, &model);
	if (number < 0) {
		bench_say("the engine refuses objects of %llu bytes in an arena of %llu",
			  (unsigned long long)config->payload_bytes,
			  (unsigned long long)config->extents * config->extent_bytes);
		return false;
	}
	solo->model = (uint32_t)number;
	for (uint32_t i = 0; i < config->shards; i++) {
		if (engine_pool_added(solo->engine, 0, i, solo->model, i, STOKER_LARGE_KEYS, 0) < 0)
			return false;
	}
	return true;
}

static bool start(struct solo *solo, const struct solo_config *config)
{
	const struct engine_client_config client = { .slots_small = 1, .slots = 2 };
	const struct engine_quota quota = { 0 };
	struct engine_config engine;
	struct engine_ports plugged = ports;

	solo->counters = reserve(sizeof(*solo->counters));
	solo->scratch_bytes = STOKER_SCRATCH_BYTES(STOKER_LARGE_KEYS, STOKER_LARGE_INPUT);
	solo->scratch[0] = reserve(solo->scratch_bytes);
	solo->scratch[1] = reserve(solo->scratch_bytes);
	solo->ids = calloc((size_t)STOKER_LARGE_KEYS * config->shards, sizeof(*solo->ids));
	engine = engine_config_of(config, solo->counters);
	solo->memory_bytes = engine_bytes(&engine);
	solo->memory = solo->memory_bytes ? reserve(solo->memory_bytes) : NULL;
	if (!solo->counters || !solo->scratch[0] || !solo->scratch[1] || !solo->ids || !solo->memory) {
		bench_say("no engine of %u entries and %u extents can be made", config->entries, config->extents);
		return false;
	}
	for (uint32_t i = 0; i < STOKER_LARGE_KEYS * config->shards; i++)
		solo->ids[i] = i % STOKER_LARGE_KEYS;
	plugged.shell = solo;
	solo->engine = engine_new(&engine, &plugged, solo->memory);
	engine_turn(solo->engine, solo->now += TURN_NS);
	feed_random(solo);
	engine_tenant(solo->engine, 0, &quota);
	for (uint32_t i = 0; i < config->extents; i++)
		engine_extent_added(solo->engine, i);
	engine_client_in(solo->engine, 0, &client);
	if (!open_model(solo, config))
		return false;
	engine_serve(solo->engine, solo->now);
	settle(solo);
	return true;
}

struct solo *solo_new(const struct solo_config *config)
{
	struct solo *solo = calloc(1, sizeof(*solo));

	if (!solo)
		return NULL;
	solo->shards = config->shards;
	solo->random = 0x9e3779b97f4a7c15ull;
	solo->now = 1000000000;
	if (start(solo, config))
		return solo;
	solo_free(solo);
	return NULL;
}

void solo_free(struct solo *solo)
{
	if (!solo)
		return;
	if (solo->memory)
		munmap(solo->memory, solo->memory_bytes);
	if (solo->counters)
		munmap(solo->counters, sizeof(*solo->counters));
	for (uint32_t i = 0; i < 2; i++) {
		if (solo->scratch[i])
			munmap(solo->scratch[i], solo->scratch_bytes);
	}
	free(solo->ids);
	free(solo);
}
