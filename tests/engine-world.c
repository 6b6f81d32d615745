#include "tests/engine-world.h"

#include <stdlib.h>
#include <string.h>

#include "shm/model.h"

/* ---- ports ------------------------------------------------------------------------------------- */

static struct pending *pend(struct world *w, enum pending_kind kind)
{
	struct pending *p = &w->pending[w->n_pending++];

	ck_assert_uint_le(w->n_pending, 4096);
	memset(p, 0, sizeof(*p));
	p->kind = kind;
	w->asked[kind]++;
	return p;
}

static void port_read(void *shell, const struct engine_io *io)
{
	pend(shell, PENDING_READ)->io = *io;
}

static void port_write(void *shell, const struct engine_io *io)
{
	pend(shell, PENDING_WRITE)->io = *io;
}

static void port_seal(void *shell, const struct engine_check *check)
{
	pend(shell, PENDING_SEAL)->check = *check;
}

static void port_verify(void *shell, const struct engine_check *check)
{
	pend(shell, PENDING_VERIFY)->check = *check;
}

static void port_copy(void *shell, const struct engine_copy *copy)
{
	pend(shell, PENDING_COPY)->copy = *copy;
}

static void port_copy_cancel(void *shell, uint32_t device, uint32_t copy)
{
	(void)device;
	((struct world *)shell)->cancelled_copy = copy + 1;
}

static void port_watch(void *shell, uint32_t client, uint32_t slot, uint32_t index, uint32_t value)
{
	struct world *w = shell;

	(void)index;
	(void)value;
	ck_assert(!w->watched[client][slot]);
	w->watched[client][slot] = true;
}

static void port_unwatch(void *shell, uint32_t client, uint32_t slot)
{
	struct world *w = shell;

	ck_assert(w->watched[client][slot]);
	w->watched[client][slot] = false;
}

static void port_publish(void *shell, uint32_t client, uint32_t slot, uint32_t generation,
			 const struct engine_answer *answer)
{
	struct world *w = shell;
	struct seen *seen = &w->seen[client][slot];

	ck_assert_uint_eq(generation, seen->generation);
	ck_assert(!seen->done);
	if (seen->n > 0) {
		ck_assert_uint_ge(answer->stage, seen->stages[seen->n < 64 ? seen->n - 1 : 63]);
		ck_assert_uint_ge(answer->ready, seen->answer.ready);
		ck_assert_uint_ge(answer->layers, seen->answer.layers);
	}
	seen->stages[seen->n < 64 ? seen->n : 63] = answer->stage;
	seen->n++;
	seen->answer = *answer;
	seen->done = answer->stage == STOKER_STAGE_DONE;
	ck_assert(answer->bitmap_words <= 64 && answer->n_chunks <= 4096);
	if (answer->bitmap_words)
		memcpy(seen->bitmap, answer->bitmap, answer->bitmap_words * 8);
	if (answer->n_chunks)
		memcpy(seen->chunks, answer->chunks, answer->n_chunks);
	if (answer->mapped)
		seen->mapped = *answer->mapped;
}

static void port_expel(void *shell, uint32_t client, const char *why)
{
	ck_assert_ptr_nonnull(why);
	((struct world *)shell)->expelled[client] = true;
}

static void port_client_gone(void *shell, uint32_t client)
{
	struct world *w = shell;

	ck_assert(!w->gone[client]);
	w->gone[client] = true;
}

static void port_commit(void *shell, uint32_t record, const struct engine_place *place,
			const struct engine_object *object)
{
	struct world *w = shell;

	ck_assert(!w->committed[record]);
	ck_assert_uint_ne(object->checksum, 0);
	w->committed[record] = true;
	w->committed_object[record] = *object;
	w->committed_place[record] = *place;
}

static void port_uncommit(void *shell, uint32_t record)
{
	struct world *w = shell;

	ck_assert(w->committed[record]);
	w->committed[record] = w->held[record] = false;
}

static void port_held(void *shell, uint32_t record, bool held)
{
	struct world *w = shell;

	ck_assert(w->committed[record]);
	ck_assert(w->held[record] != held);	/* told once each way, however many map it */
	w->held[record] = held;
}

static void port_slab_add(void *shell, const struct engine_place *disk, const struct engine_object *object)
{
	struct world *w = shell;

	ck_assert(memcmp(&w->disk[disk->tier][disk->unit].key, &object->key, sizeof(object->key)) == 0);
	w->slab_adds++;
}

static void port_slab_remove(void *shell, const struct engine_place *disk, const struct engine_object *object)
{
	(void)disk;
	(void)object;
	((struct world *)shell)->slab_removes++;
}

static void port_persist_epoch(void *shell, uint32_t model, uint32_t epoch, uint64_t tag)
{
	struct world *w = shell;

	(void)tag;
	w->persisting[w->n_persisting].model = model;
	w->persisting[w->n_persisting++].epoch = epoch;
}

static void port_control(void *shell, engine_token token, enum stoker_status status, uint64_t value)
{
	struct world *w = shell;

	w->controls[w->n_controls].token = token;
	w->controls[w->n_controls].status = status;
	w->controls[w->n_controls++].value = value;
}

/* ---- answers -------------------------------------------------------------------------------------- */

static bool take_failure(struct world *w, enum pending_kind kind)
{
	if (w->fail[kind] == 0)
		return false;
	w->fail[kind]--;
	return true;
}

static void copy_item(struct world *w, const struct engine_copy *copy, uint32_t i)
{
	const struct engine_copy_item *item = &copy->items[i];
	struct image *image = &w->arena[(item->payload - MODEL_IMAGE_HEADER) / 4096];
	uint64_t *blocks = w->blocks[copy->client][item->pool];

	for (uint32_t b = 0; b < WORLD_BLOCKS; b++) {
		if (copy->store)
			image->block[b] = item->ids[b] == STOKER_NO_BLOCK ? 0 : blocks[item->ids[b]];
		else if (item->ids[b] != STOKER_NO_BLOCK)
			blocks[item->ids[b]] = image->block[b];
	}
}

static enum engine_result copy_do(struct world *w, const struct engine_copy *copy, bool fail)
{
	enum engine_result result = ENGINE_OK;

	for (uint32_t i = 0; i < copy->n_items; i++) {
		const bool cancelled = w->cancelled_copy == copy->copy + 1;

		if (cancelled || (fail && (w->fail_item == 0 || w->fail_item == i + 1))) {
			copy->failed[i] = 1;
			result = ENGINE_FAILED;
		} else {
			copy_item(w, copy, i);
		}
	}
	if (w->cancelled_copy == copy->copy + 1)
		w->cancelled_copy = 0;
	return result;
}

static enum engine_result read_do(struct world *w, const struct engine_io *io)
{
	const struct image *image = &w->disk[io->tier][io->disk.unit];

	if (memcmp(&image->key, &io->object.key, sizeof(image->key)) != 0 || image->sequence != io->object.sequence)
		return ENGINE_CORRUPT;
	w->arena[io->arena.unit] = *image;
	return ENGINE_OK;
}

static enum engine_result check_do(struct world *w, const struct engine_check *check, bool seal)
{
	struct image *image = &w->arena[check->arena.unit];

	if (seal) {
		image->key = check->object.key;
		image->sequence = check->object.sequence;
		image->epoch = check->object.epoch;
		return ENGINE_OK;
	}
	return image->rotten || memcmp(&image->key, &check->object.key, sizeof(image->key)) ||
	       image->sequence != check->object.sequence || image->epoch != check->object.epoch ? ENGINE_CORRUPT : ENGINE_OK;
}

void world_answer(struct world *w, uint32_t i)
{
	const struct pending p = w->pending[i];
	const bool fail = take_failure(w, p.kind);
	enum engine_result result = !fail ? ENGINE_OK : w->corrupt ? ENGINE_CORRUPT : ENGINE_FAILED;

	memmove(&w->pending[i], &w->pending[i + 1], (w->n_pending - i - 1) * sizeof(p));
	w->n_pending--;
	switch (p.kind) {
	case PENDING_READ:
		engine_io_done(w->engine, p.io.io, fail ? result : read_do(w, &p.io));
		break;
	case PENDING_WRITE:
		if (!fail)
			w->disk[p.io.tier][p.io.disk.unit] = w->arena[p.io.arena.unit];
		engine_io_done(w->engine, p.io.io, result);
		break;
	case PENDING_SEAL:
	case PENDING_VERIFY:
		if (!fail)
			result = check_do(w, &p.check, p.kind == PENDING_SEAL);
		engine_check_done(w->engine, p.check.io, result, 1 + p.check.object.sequence);
		break;
	default:
		engine_copy_done(w->engine, p.copy.copy, copy_do(w, &p.copy, fail));
	}
	world_audit(w);
}

/* ---- time -------------------------------------------------------------------------------------------- */

void world_audit(struct world *w)
{
	const char *broken = engine_audit(w->engine);

	ck_assert_msg(broken == NULL, "%s", broken);
}

static void random_feed(struct world *w)
{
	for (uint32_t n = engine_random_wanted(w->engine); n > 0; n--) {
		w->random = w->random * 6364136223846793005ull + 1442695040888963407ull;
		const uint64_t word = w->random ^ w->random >> 31;

		engine_random(w->engine, &word, 1);
	}
}

void world_turn(struct world *w)
{
	engine_turn(w->engine, w->now);
	world_audit(w);
}

void world_run(struct world *w)
{
	bool moved = true;

	while (moved) {
		moved = engine_turn(w->engine, w->now);
		world_audit(w);
		for (uint32_t i = 0; i < w->n_pending;)
			if (w->hold[w->pending[i].kind]) {
				i++;
			} else {
				world_answer(w, i);
				moved = true;
			}
	}
}

void world_pass(struct world *w, uint64_t ms)
{
	w->now += ms * 1000000;
	world_run(w);
	ck_assert_uint_ge(engine_deadline(w->engine), w->now);
}

void world_out(struct world *w, uint32_t client)
{
	w->out[client] = true;
	engine_client_out(w->engine, client);
	world_audit(w);
}

uint64_t world_counter(const struct world *w, enum stoker_counter counter)
{
	return w->counters.counters[counter];
}

uint64_t world_gauge(const struct world *w, enum stoker_gauge gauge)
{
	uint64_t gauges[STOKER_GAUGE_END];

	engine_gauges(w->engine, gauges);
	return gauges[gauge];
}

/* ---- models and clients ------------------------------------------------------------------------------- */

static void part(struct engine_model_config *m, uint32_t group, uint32_t shard, uint64_t payload)
{
	m->parts[m->n_parts++] = (struct engine_part_config){
		.group = (uint8_t)group, .shard = (uint8_t)shard, .layers = 2, .blocks = WORLD_BLOCKS,
		.payload_bytes = payload, .image_bytes = payload + 4096,
	};
}

static void models_open(struct world *w)
{
	for (uint32_t i = 0; i < WORLD_MODELS + (w->config.tenants > 1); i++) {
		struct engine_model_config m = { .tenant = i == OTHER, .epoch = 1, .chunk_tokens = 64, .n_groups = 1 };

		for (uint32_t g = 0; g < 3; g++) {
			m.groups[g].kind = g;
			m.groups[g].window = g == 1 ? 2 : 0;
			m.groups[g].block_tokens = 16;
			m.groups[g].blocks = WORLD_BLOCKS;
		}
		part(&m, 0, 0, i == BIG ? 28672 : 4096);
		if (i == SHARDED)
			part(&m, 0, 1, 4096);
		if (i == MIXED) {
			m.n_groups = 3;
			part(&m, 1, 0, 4096);
			part(&m, 2, 0, 4096);
		}
		ck_assert_int_eq(engine_model_open(w->engine, &m), i);
	}
}

static void client_make(struct world *w, uint32_t client)
{
	const bool other = w->config.tenants > 1 && client >= WORLD_CLIENTS / 2;
	const struct engine_client_config config = {
		.tenant = other, .user = 1000 + client, .slots_small = WORLD_SMALL, .slots = WORLD_SLOTS,
	};

	engine_client_in(w->engine, client, &config);
	for (uint32_t i = 0; i < WORLD_SLOTS; i++) {
		const bool small = i < WORLD_SMALL;
		struct slot_memory *slot = calloc(1, sizeof(*slot));

		slot->scratch_bytes = small ? STOKER_SCRATCH_BYTES(STOKER_SMALL_KEYS, STOKER_SMALL_INPUT)
					    : STOKER_SCRATCH_BYTES(STOKER_LARGE_KEYS, STOKER_LARGE_INPUT);
		slot->scratch = aligned_alloc(64, (slot->scratch_bytes + 63) & ~(size_t)63);
		memset(slot->scratch, 0xa5, slot->scratch_bytes);
		w->slots[client][i] = slot;
	}
	/* Pool 0: PLAIN; 1 and 2: the shards of SHARDED. MIXED's and BIG's: tests add them. */
	ck_assert_int_eq(engine_pool_added(w->engine, client, 0, other ? OTHER : PLAIN, 0, WORLD_POOL, 0), 0);
	if (other)
		return;
	ck_assert_int_eq(engine_pool_added(w->engine, client, 1, SHARDED, 0, WORLD_POOL, 0), 0);
	ck_assert_int_eq(engine_pool_added(w->engine, client, 2, SHARDED, 1, WORLD_POOL, 0), 0);
}

static void config_make(struct world *w, const struct world_options *o)
{
	w->config = (struct engine_config){
		.clients = WORLD_CLIENTS, .slots = WORLD_SLOTS, .models = 8, .pools = 64,
		.tenants = o->tenants ? o->tenants : 1, .accounts = o->accounts,
		.entries = o->entries ? o->entries : 2048, .records = o->records ? o->records : 2048,
		.leases = o->leases ? o->leases : 256, .holds = o->holds ? o->holds : 16,
		.leased_chunks = o->leased_chunks ? o->leased_chunks : 16384, .ios = 64,
		.extent_bytes = WORLD_EXTENT, .extents = o->extents ? o->extents : WORLD_EXTENTS,
		.n_tiers = o->tiers, .policy = o->policy, .refill_permille = o->refill_permille,
		.write_back = !o->no_write_back, .deadline_default_ns = 10000000000ull,
		.deadline_max_ns = 60000000000ull, .lease_default_ns = 30000000000ull,
		.lease_max_ns = 120000000000ull, .recovered_hold_ns = 30000000000ull,
		.held_bytes_permille = 100, .seed = 42, .counters = &w->counters,
	};
	for (uint32_t i = 0; i < o->tiers; i++)
		w->config.tiers[i] = (struct engine_tier_config){
			.extents = o->tier_extents ? o->tier_extents : WORLD_TIER_EXTENTS,
			.depth_bytes = 65536,
		};
}

struct world *world_new(const struct world_options *options)
{
	static const struct world_options defaults;
	const struct world_options *o = options ? options : &defaults;
	struct world *w = calloc(1, sizeof(*w));
	const struct engine_ports ports = {
		.shell = w, .read = port_read, .write = port_write, .seal = port_seal, .verify = port_verify,
		.copy = port_copy, .copy_cancel = port_copy_cancel, .watch = port_watch, .unwatch = port_unwatch,
		.publish = port_publish, .expel = port_expel, .client_gone = port_client_gone,
		.commit = port_commit, .uncommit = port_uncommit, .held = port_held, .slab_add = port_slab_add,
		.slab_remove = port_slab_remove, .persist_epoch = port_persist_epoch, .control = port_control,
	};

	config_make(w, o);
	w->now = 1000000000000ull;
	w->random = 7;
	const size_t bytes = engine_bytes(&w->config);
	ck_assert_uint_gt(bytes, 0);
	w->memory = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
	memset(w->memory, 0, bytes);
	w->engine = engine_new(&w->config, &ports, w->memory);
	models_open(w);
	for (uint32_t i = 0; i < w->config.extents - o->later_extents; i++)
		engine_extent_added(w->engine, i);
	for (uint32_t i = 0; i < WORLD_CLIENTS; i++)
		client_make(w, i);
	if (!o->no_random)
		random_feed(w);
	for (uint32_t i = 0; i < o->tiers && !o->tiers_later; i++)
		engine_tier_up(w->engine, i);
	if (!o->not_serving)
		engine_serve(w->engine, w->now);
	world_audit(w);
	return w;
}

void world_free(struct world *w)
{
	memset(w->hold, 0, sizeof(w->hold));
	for (uint32_t i = 0; i < WORLD_CLIENTS; i++)
		if (!w->out[i])
			world_out(w, i);
	world_run(w);
	for (uint32_t i = 0; i < WORLD_CLIENTS; i++) {
		ck_assert(w->gone[i]);
		for (uint32_t s = 0; s < WORLD_SLOTS; s++) {
			free(w->slots[i][s]->scratch);
			free(w->slots[i][s]);
		}
	}
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_JOBS), 0);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_LEASES), 0);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_HOLDS), 0);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_POOLS), 0);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_ARENA_PINNED), 0);
	ck_assert_uint_eq(world_gauge(w, STOKER_GAUGE_READS), 0);
	free(w->memory);
	free(w);
}

/* ---- requests --------------------------------------------------------------------------------------------- */

struct stoker_wire_key key_of(uint64_t chain, uint32_t chunk)
{
	return (struct stoker_wire_key){ { chain, chunk, chain * 31 + chunk, 1 } };
}

uint64_t block_value(uint64_t chain, uint32_t chunk, uint32_t block)
{
	return chain << 32 | chunk << 8 | (block + 1);
}

struct engine_request ask(struct world *w, uint32_t client, uint32_t slot, enum stoker_op op, uint32_t model)
{
	struct slot_memory *memory = w->slots[client][slot];
	struct engine_request request;

	memset(&request, 0, sizeof(request));
	request.head.op = (uint8_t)op;
	request.head.slot = (uint16_t)slot;
	request.model = model;
	request.keys_max = slot < WORLD_SMALL ? STOKER_SMALL_KEYS : STOKER_LARGE_KEYS;
	request.keys = memory->keys;
	request.segments = memory->segments;
	request.ids = memory->ids;
	request.scratch = memory->scratch;
	request.scratch_bytes = memory->scratch_bytes;
	return request;
}

static void keys_put(struct world *w, uint32_t client, uint32_t slot, uint64_t chain, uint32_t first, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		w->slots[client][slot]->keys[i] = key_of(chain, first + i);
}

struct engine_request ask_lookup(struct world *w, uint32_t client, uint32_t slot, uint32_t model, uint64_t chain,
				 uint32_t n, uint32_t flags)
{
	struct engine_request request = ask(w, client, slot, STOKER_OP_LOOKUP, model);

	keys_put(w, client, slot, chain, 0, n);
	request.head.n_keys = n;
	request.head.flags = flags;
	return request;
}

void add_segment(struct world *w, struct engine_request *request, uint32_t client, uint32_t pool, uint32_t group,
		 uint32_t shard, uint32_t first, uint32_t chunks, uint32_t base)
{
	struct slot_memory *memory = w->slots[client][request->head.slot];

	memory->segments[request->head.n_segments++] = (struct stoker_segment){
		.pool = pool, .group = (uint8_t)group, .shard = (uint8_t)shard, .first = first,
		.chunks = chunks, .n_ids = chunks * WORLD_BLOCKS,
	};
	for (uint32_t i = 0; i < chunks * WORLD_BLOCKS; i++)
		memory->ids[request->head.n_ids++] = base + i;
}

static void segments_of_model(struct world *w, struct engine_request *request, uint32_t client, uint32_t model,
			      uint32_t first, uint32_t n)
{
	add_segment(w, request, client, model == SHARDED ? 1 : 0, 0, 0, first, n, 0);
	if (model == SHARDED)
		add_segment(w, request, client, 2, 0, 1, first, n, 0);
}

struct engine_request ask_store(struct world *w, uint32_t client, uint32_t slot, uint32_t model, uint64_t chain,
				uint32_t first, uint32_t n)
{
	struct engine_request request = ask(w, client, slot, STOKER_OP_STORE, model);

	keys_put(w, client, slot, chain, first, n);
	request.head.n_keys = n;
	request.line.store.first_token = (uint64_t)first * 64;
	if (first)
		request.line.store.parent = key_of(chain, first - 1);
	segments_of_model(w, &request, client, model, 0, n);
	return request;
}

struct engine_request ask_retrieve(struct world *w, uint32_t client, uint32_t slot, uint32_t model,
				   const uint64_t lease[2], uint32_t first, uint32_t n)
{
	struct engine_request request = ask(w, client, slot, STOKER_OP_RETRIEVE, model);

	request.head.lease[0] = lease[0];
	request.head.lease[1] = lease[1];
	segments_of_model(w, &request, client, model, first, n);
	return request;
}

const struct seen *submit(struct world *w, uint32_t client, struct engine_request *request)
{
	struct seen *seen = &w->seen[client][request->head.slot];
	const uint32_t generation = seen->generation + 1;

	memset(seen, 0, sizeof(*seen));
	seen->generation = request->head.generation = generation;
	engine_request(w->engine, client, request);
	world_audit(w);
	return seen;
}

const struct seen *do_store(struct world *w, uint64_t chain, uint32_t n)
{
	const uint32_t slot = n <= STOKER_SMALL_KEYS ? 0 : WORLD_SMALL;
	struct engine_request request = ask_store(w, 0, slot, PLAIN, chain, 0, n);
	const struct seen *seen;

	for (uint32_t c = 0; c < n; c++)
		for (uint32_t b = 0; b < WORLD_BLOCKS; b++)
			w->blocks[0][0][c * WORLD_BLOCKS + b] = block_value(chain, c, b);
	seen = submit(w, 0, &request);
	world_run(w);
	ck_assert(seen->done);
	return seen;
}

const struct seen *do_lookup(struct world *w, uint64_t chain, uint32_t n, uint32_t flags)
{
	struct engine_request request = ask_lookup(w, 0, n <= STOKER_SMALL_KEYS ? 1 : WORLD_SMALL + 1, PLAIN, chain, n,
						   flags);
	const struct seen *seen = submit(w, 0, &request);

	world_run(w);
	return seen;
}

const struct seen *do_retrieve(struct world *w, const uint64_t lease[2], uint32_t n)
{
	struct engine_request request = ask_retrieve(w, 0, 2, PLAIN, lease, 0, n);
	const struct seen *seen;

	memset(w->blocks[0][0], 0xee, sizeof(w->blocks[0][0]));
	seen = submit(w, 0, &request);
	world_run(w);
	return seen;
}

void do_release(struct world *w, const uint64_t lease[2])
{
	struct engine_request request = ask(w, 0, 3, STOKER_OP_RELEASE, ENGINE_NONE);

	request.head.lease[0] = lease[0];
	request.head.lease[1] = lease[1];
	ck_assert(submit(w, 0, &request)->done);
}
