/*
 * The engine's life, its turn, and the events of space: extents that come, tiers that go up and down.
 *
 * All memory is one block, laid out by lay(), which serves engine_bytes() and engine_new() alike so
 * that the two cannot differ. At start only free lists, buckets and lists' heads are written; jobs,
 * entries, records and what goes with them are touched as they are used.
 *
 * A turn is bounded: some timers, TURN_STEPS steps of jobs (retrieves, lookups, stores, in turns
 * over the clients), then what the steps left behind (fills, checks, writes), then one batch each
 * of what is done in the background.
 */
#include "src/engine/internal.h"

static uint32_t power_above(uint32_t n)
{
	uint32_t power = 1;

	while (power < n)
		power <<= 1;
	return power;
}

static bool config_is_sane(const struct engine_config *c)
{
	const uint64_t units = c->extent_bytes / UNIT;

	if (c->clients == 0 || c->clients > 65536 || c->slots == 0 || c->slots > 65536 || c->models == 0 ||
	    c->models > 65536 || c->pools == 0 || c->tenants == 0 || c->tenants > 256 ||
	    c->accounts > 65000)
		return false;
	if (c->entries == 0 || c->entries >= 1u << 31 || c->records == 0 || c->records >= 1u << 31 ||
	    c->leases == 0 || c->leases >= 1u << 30 || c->holds == 0 || c->holds >= 1u << 30 ||
	    c->pools >= 1u << 30 || c->leased_chunks == 0 || c->leased_chunks >= 1u << 31)
		return false;
	if (c->ios < 8 || c->ios >= 1u << 24 || c->n_tiers > ENGINE_TIERS_MAX)
		return false;
	if (c->extent_bytes == 0 || c->extent_bytes % UNIT || c->extents == 0 || c->extents * units >= NONE)
		return false;
	for (uint32_t i = 0; i < c->n_tiers; i++)
		if (c->tiers[i].extents == 0 || c->tiers[i].extents * units >= NONE ||
		    c->tiers[i].depth_bytes == 0)
			return false;
	return (uint64_t)c->clients * c->slots + c->leases < 1u << 30 && c->refill_permille <= 1000 &&
	       c->held_bytes_permille <= 1000;
}

/* The next @bytes of the block; with no block (@base NULL) only the sum grows. */
static void *cut(uint8_t *base, size_t *at, size_t bytes)
{
	void *part = base ? base + *at : NULL;

	*at += (bytes + 63) & ~(size_t)63;
	return part;
}

static void lay_tables(const struct engine_config *c, struct engine *e, uint8_t *base, size_t *at)
{
	const size_t nodes = (size_t)PRIORITIES * c->clients * sizeof(struct run_node);

	e->sides = cut(base, at, (size_t)c->records * sizeof(struct side));
	e->waiters = cut(base, at, (size_t)c->entries * sizeof(uint32_t));
	e->parents = cut(base, at, (size_t)c->entries * sizeof(struct stoker_wire_key));
	e->last_tiers = cut(base, at, c->entries);
	e->owners = cut(base, at, (size_t)c->entries * sizeof(uint16_t));
	e->rings[0] = cut(base, at, (size_t)c->entries * sizeof(struct link));
	e->rings[1] = cut(base, at, c->n_tiers ? (size_t)c->entries * sizeof(struct link) : 0);
	e->extents = cut(base, at, (size_t)c->extents * sizeof(uint32_t));
	for (uint32_t i = 0; i < c->n_tiers; i++)
		e->tiers[i].extents = cut(base, at, (size_t)c->tiers[i].extents * sizeof(uint32_t));
	e->ios = cut(base, at, (size_t)c->ios * sizeof(struct io));
	e->models = cut(base, at, (size_t)power_above(c->models) * sizeof(struct model));
	e->tenants = cut(base, at, (size_t)c->tenants * sizeof(struct tenant));
	e->accounts = cut(base, at, (size_t)(c->tenants + c->accounts) * sizeof(struct account));
	e->account_buckets = cut(base, at, (size_t)power_above(c->accounts) * sizeof(uint32_t));
	e->clients = cut(base, at, (size_t)c->clients * sizeof(struct client));
	e->users = cut(base, at, (size_t)c->clients * sizeof(struct user));
	e->pools = cut(base, at, (size_t)c->pools * sizeof(struct pool));
	e->pool_buckets = cut(base, at, (size_t)power_above(c->pools) * sizeof(uint32_t));
	e->jobs = cut(base, at, (size_t)c->clients * c->slots * sizeof(struct job));
	for (uint32_t i = 0; i < RUN_ISSUE + 1 + c->n_tiers; i++)
		e->runs[i].nodes = cut(base, at, nodes);
	e->leases = cut(base, at, (size_t)c->leases * sizeof(struct lease));
	e->session_buckets = cut(base, at, (size_t)power_above(c->leases) * sizeof(uint32_t));
	e->pieces = cut(base, at, (size_t)e->pieces_max * sizeof(struct piece));
	e->holds = cut(base, at, (size_t)c->holds * sizeof(struct hold));
}

/* @e: where the pointers go; on the stack for engine_bytes(). */
static size_t lay(const struct engine_config *c, struct engine *e, uint8_t *base)
{
	const uint32_t timers = c->clients * c->slots + c->leases + 1;
	size_t at = 0;
	void *part;

	cut(base, &at, sizeof(struct engine));
	/* A lease's last piece may be nearly empty, and so may that of recovered objects, and that of what is dropped. */
	e->pieces_max = c->leased_chunks / PIECE_CHUNKS + c->leases + 3;
	lay_tables(c, e, base, &at);
	part = cut(base, &at, index_bytes(c->entries, c->records));
	if (base)
		e->index = index_init(part, c->entries, c->records, c->seed);
	part = cut(base, &at, space_bytes(c->extents, c->extent_bytes));
	if (base)
		e->space = space_init(part, c->extents, c->extent_bytes);
	for (uint32_t i = 0; i < c->n_tiers; i++) {
		part = cut(base, &at, space_bytes(c->tiers[i].extents, c->extent_bytes));
		if (base)
			e->tiers[i].space = space_init(part, c->tiers[i].extents, c->extent_bytes);
	}
	part = cut(base, &at, timers_bytes(timers));
	if (base)
		e->timers = part;	/* made when the clock is known */
	return at;
}

size_t engine_bytes(const struct engine_config *config)
{
	struct engine scratch;

	return config_is_sane(config) ? lay(config, &scratch, NULL) : 0;
}

static uint64_t bytes_in_arena(void *engine, uint32_t entry)
{
	const struct entry *e = entry_of(engine, entry);

	return mask_bytes(entry_model(engine, e), e->l1);
}

static uint64_t bytes_on_disk(void *engine, uint32_t entry)
{
	const struct entry *e = entry_of(engine, entry);

	return mask_bytes(entry_model(engine, e), e->disk);
}

static void queue_init(struct queued *queue)
{
	*queue = (struct queued){ .first = NONE, .last = NONE };
}

static void tier_init(struct engine *e, uint32_t number)
{
	struct tier *tier = &e->tiers[number];
	const struct engine_tier_config *c = &e->config.tiers[number];

	tier->state = TIER_STARTING;
	tier->rate = 1000000000;	/* until one has been seen */
	for (uint32_t p = 0; p < PRIORITIES; p++)
		queue_init(&tier->reads[p]);
	queue_init(&tier->writes);
	for (uint32_t i = 0; i < c->extents; i++) {
		tier->extents[i] = NONE;
		space_extent_add(tier->space, i);
	}
	evict_init(&tier->evict, e->index, e->config.policy, true, (uint64_t)c->extents * e->config.extent_bytes,
		   bytes_on_disk, e);
}

/* Free lists; a table's rows are chained once, from the first up. */
static void chain_tables(struct engine *e)
{
	const struct engine_config *c = &e->config;

	for (uint32_t i = 0; i < c->ios; i++)
		e->ios[i].next = i + 1 < c->ios ? i + 1 : NONE;
	for (uint32_t i = 0; i < c->pools; i++)
		e->pools[i].next = i + 1 < c->pools ? i + 1 : NONE;
	for (uint32_t i = 0; i <= e->pool_mask; i++)
		e->pool_buckets[i] = NONE;
	for (uint32_t i = 0; i < c->leases; i++)
		e->leases[i].next = i + 1 < c->leases ? i + 1 : NONE;
	for (uint32_t i = 0; i <= e->session_mask; i++)
		e->session_buckets[i] = NONE;
	for (uint32_t i = 0; i < e->pieces_max; i++)
		e->pieces[i].before = i + 1 < e->pieces_max ? i + 1 : NONE;
	for (uint32_t i = 0; i < c->holds; i++)
		e->holds[i].next = i + 1 < c->holds ? i + 1 : NONE;
	for (uint32_t i = 0; i < c->extents; i++)
		e->extents[i] = NONE;
	for (uint32_t i = 0; i < e->models_max; i++)
		e->models[i] = (struct model){ .incarnation = i, .jobs = NONE };
}

struct engine *engine_new(const struct engine_config *config, const struct engine_ports *ports, void *memory)
{
	struct engine *e = memory;

	ENGINE_ASSERT(config_is_sane(config));
	e->config = *config;
	e->ports = *ports;
	lay(config, e, memory);
	e->n_jobs = config->clients * config->slots;
	e->models_max = power_above(config->models);
	e->model_mask = e->models_max - 1;
	e->pool_mask = power_above(config->pools) - 1;
	e->session_mask = power_above(config->leases) - 1;
	e->account_mask = power_above(config->accounts) - 1;
	chain_tables(e);
	accounts_init(e);
	bounds_init(e);
	e->recovered = (struct chunks){ .last = NONE, .owner = NONE };
	e->drop_piece = NONE;
	e->fresh_jobs = e->fresh_leases = NONE;
	e->room_waiters = (struct list){ NONE, NONE, 0 };
	e->room_loads = (struct list){ NONE, NONE, 0 };
	e->random_waiters = (struct list){ NONE, NONE, 0 };
	for (uint32_t p = 0; p < PRIORITIES; p++)
		queue_init(&e->verifies[p]);
	queue_init(&e->seals);
	evict_init(&e->evict, e->index, config->policy, false, 0, bytes_in_arena, e);
	for (uint32_t i = 0; i < config->n_tiers; i++)
		tier_init(e, i);
	return e;
}

/* ---- the turn ---------------------------------------------------------------------------------- */

/* Steps of jobs: each round gives each class of jobs one, so that none starves another. */
static void steps_run(struct engine *e)
{
	static const uint8_t share[] = { [RUN_RETRIEVE] = 2, [RUN_LOOKUP] = 4, [RUN_STORE] = 1 };
	uint32_t left = TURN_STEPS;

	while (left > 0) {
		uint32_t done = 0;

		for (uint32_t run = 0; run < RUN_ISSUE; run++)
			for (uint32_t i = 0; i < share[run] && left > done; i++) {
				struct job *job = run_pop(e, run);

				if (!job)
					break;
				job_step(e, job);
				done++;
			}
		if (done == 0)
			return;
		left -= done;
	}
}

/* Loads ask for their next places, client after client, while the queue they go to has room. */
static void issues_run(struct engine *e, uint32_t *left)
{
	for (uint32_t bit = 0; bit <= e->config.n_tiers; bit++)
		while (*left > 0) {
			struct job *job;

			if (bit == 0 ? e->n_verifies >= e->config.ios : !tier_has_room(e, bit - 1))
				break;
			job = run_pop(e, RUN_ISSUE + bit);
			if (!job)
				break;
			(*left)--;
			load_issue(e, job, bit);
		}
}

static bool steps_are_left(const struct engine *e)
{
	for (uint32_t run = 0; run < RUN_ISSUE; run++)
		if (!run_is_empty(e, run))
			return true;
	if (!run_is_empty(e, RUN_ISSUE) && e->n_verifies < e->config.ios)
		return true;
	for (uint32_t tier = 0; tier < e->config.n_tiers; tier++)
		if (!run_is_empty(e, RUN_ISSUE + 1 + tier) && tier_has_room(e, tier))
			return true;
	return false;
}

bool engine_turn(struct engine *e, uint64_t now_ns)
{
	uint32_t issues = TURN_STEPS;
	bool more;

	clock_set(e, now_ns);
	e->in_turn = true;
	more = clock_run(e);
	if (e->room_changed)
		room_wake(e);
	steps_run(e);
	issues_run(e, &issues);
	check_pump(e);
	for (uint32_t i = 0; i < e->config.n_tiers; i++)
		tier_pump(e, i);
	for (uint32_t i = 0; i < e->config.n_tiers; i++)
		more |= tier_has_work(e, i);
	/* Leases come from lookups: who gives back as much as these take is never behind by more than it was. */
	chunks_drop_some(e, DROP_CHUNKS + e->turn_pins);
	e->turn_pins = 0;
	more |= clients_leave_some(e);
	more |= e->drop_piece != NONE;
	more |= sweep_some(e);
	more |= admin_some(e);
	more |= room_refill(e);
	e->in_turn = false;
	return more || steps_are_left(e) || (e->room_changed && e->room_waiters.n + e->room_loads.n > 0);
}

/* ---- random bits --------------------------------------------------------------------------------- */

uint32_t engine_random_wanted(const struct engine *engine)
{
	return RANDOM_WORDS - engine->n_random;
}

void engine_random(struct engine *engine, const uint64_t *words, uint32_t n)
{
	for (uint32_t i = 0; i < n && engine->n_random < RANDOM_WORDS; i++)
		engine->random[engine->n_random++] = words[i];
	random_wake(engine);
}

/* ---- space and tiers --------------------------------------------------------------------------- */

void engine_extent_added(struct engine *engine, uint32_t extent)
{
	ENGINE_ASSERT(extent < engine->config.extents);
	space_extent_add(engine->space, extent);
	engine->evict.capacity = space_total(engine->space);
	engine->room_changed = true;
}

void engine_extent_failed(struct engine *engine, uint32_t extent)
{
	ENGINE_ASSERT(extent < engine->config.extents);
	engine->extents_failed++;
	space_extent_lost(engine->space, extent);
	engine->room_changed = true;	/* who waits finds out that it waits in vain */
}

void engine_tier_up(struct engine *engine, uint32_t tier)
{
	ENGINE_ASSERT(tier < engine->config.n_tiers);
	engine->tiers[tier].state = TIER_UP;
	engine->tiers_up |= 1u << tier;
}

void engine_tier_down(struct engine *e, uint32_t tier)
{
	struct tier *t = &e->tiers[tier];

	ENGINE_ASSERT(tier < e->config.n_tiers);
	t->state = TIER_DOWN;
	e->tiers_up &= ~(1u << tier);
	for (uint32_t p = 0; p < PRIORITIES; p++)
		while (t->reads[p].first != NONE) {
			const uint32_t record = t->reads[p].first;

			record_unqueue(e, record);
			entry_io(e, record_of(e, record)->entry);
			read_landed(e, record, ENGINE_FAILED);
		}
	while (t->writes.first != NONE) {
		const uint32_t record = t->writes.first;

		record_unqueue(e, record);
		tier_write(e, record);	/* to another one, or it is given up */
	}
	e->room_changed = true;
	/* Loads that stand in line for its reads go on, and find out. */
	for (struct job *job; (job = run_pop(e, RUN_ISSUE + 1 + tier)) != NULL;)
		load_issue(e, job, tier + 1);
}

void engine_serve(struct engine *e, uint64_t now_ns)
{
	clock_set(e, now_ns);
	if (e->serving)
		return;
	e->serving = true;
	recover_end(e);
	for (uint32_t i = 0; i < e->n_jobs && e->jobs_live > 0; i++)
		if (e->jobs[i].phase == PHASE_SERVE) {
			e->jobs[i].phase = PHASE_CHECK;
			run_push(e, &e->jobs[i], RUN_STORE);
		}
}
