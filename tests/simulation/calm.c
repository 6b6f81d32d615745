/*
 * The shell that sleeps. In between, steps turn the engine whether it has work or not; here it is turned as
 * the broker does: after an event, while it says that there is more to do, and at its deadline. A wake
 * that was forgotten, a deadline that is not told, or a job that waits for nothing shows as a world
 * that is asleep although somebody waits.
 *
 * Meanwhile what is owed is delivered: pieces of chained lookups, ready words, tiers, extents, random bits. Jobs may
 * wait for their deadline only if the simulation meant it so (pieces that never come).
 */
#include "tests/simulation/sim.h"

#define ROUNDS_MAX	400000u

static struct sim_slot *waiting(struct sim *sim, uint32_t *ret_client)
{
	for (uint32_t c = 0; c < SIM_CLIENTS; c++)
		for (uint32_t s = 0; s < SIM_SLOTS && sim->clients[c].attached; s++)
			if (sim->clients[c].slots[s].state == SIM_ASKED) {
				*ret_client = c;
				return &sim->clients[c].slots[s];
			}
	return NULL;
}

/* Let one thing happen that the engine is told of; false: there is none. */
static bool event(struct sim *sim)
{
	uint32_t client;

	if (sim->n_pending > 0 && sim_chance(&sim->random, 900)) {
		ports_progress(sim);
		return true;
	}
	for (uint32_t c = 0; c < SIM_CLIENTS; c++) {
		if (!sim->clients[c].attached || sim->clients[c].leaving)
			continue;
		if (chain_send(sim, c, true))
			return true;
		for (uint32_t s = 0; s < SIM_SLOTS; s++)
			if (sim->clients[c].slots[s].watched) {
				request_reach(sim, c, s);
				return true;
			}
	}
	if (sim->n_pending == 0)	/* who waits for room waits for extents as well */
		return waiting(sim, &client) && world_extent(sim);
	ports_progress(sim);
	return true;
}

/* Nothing is under way and the engine wants no turn: whoever waits now waits for a time, or for ever. */
static bool asleep(struct sim *sim)
{
	const uint64_t deadline = engine_deadline(sim->engine);
	uint32_t client = 0;
	const struct sim_slot *slot = waiting(sim, &client);

	if (slot == NULL && sim->tokens_answered == sim->tokens_given)
		return true;
	if (slot == NULL)
		sim_fail(sim, "asleep, but %llu of %llu controls are answered",
			 (unsigned long long)sim->tokens_answered, (unsigned long long)sim->tokens_given);
	if (slot->pieces == 0 || slot->request.head.deadline_us == 0 || deadline == UINT64_MAX)
		sim_fail(sim, "asleep, but client %u waits in slot %u for its operation %u (stage %u)", client,
			 slot->request.head.slot, slot->request.head.op, slot->stage);
	sim->now_ns = deadline > sim->now_ns ? deadline : sim->now_ns;
	return false;
}

/* The tiers' tables and the engine agree, and no tenant has more than it may. */
static void check_tables(struct sim *sim)
{
	uint64_t arena[SIM_TENANTS] = { 0 }, disk[SIM_TENANTS] = { 0 };

	for (uint32_t r = 0; r < sim->config.records; r++)
		if (sim->table[r].used)
			arena[model_tenant(sim, sim->table[r].model)] += sim->table[r].place.bytes;
	for (uint32_t t = 0; t < sim->config.n_tiers; t++) {
		struct engine_tier_figures figures;
		uint64_t bytes = 0, objects = 0;

		for (uint32_t u = 0; u < sim->tiers[t].units; u++) {
			const struct sim_table_entry *entry = &sim->tiers[t].slabs[u];

			if (!entry->used)
				continue;
			objects++;
			bytes += entry->place.bytes;
			disk[model_tenant(sim, entry->model)] += entry->place.bytes;
		}
		engine_tier_figures(sim->engine, t, &figures);
		if (figures.objects != objects || figures.used_bytes != bytes)
			sim_fail(sim, "tier %u has %llu objects by its table, %llu by the engine", t,
				 (unsigned long long)objects, (unsigned long long)figures.objects);
	}
	for (uint32_t t = 0; t < sim->n_tenants && !sim->resurrected; t++)
		if ((sim->quotas[t].arena_bytes && arena[t] > sim->quotas[t].arena_bytes) ||
		    (sim->quotas[t].disk_bytes && disk[t] > sim->quotas[t].disk_bytes))
			sim_fail(sim, "tenant %u has more than its quota", t);
}

#define ACCOUNTS 4u	/* as stores name them */

/*
 * What the tables say that each account has, and what the engine's book of accounts says. In the arena
 * there may be more than the table knows: what could not be sealed. What came back after it had been removed
 * may have been another account's than the rest of its chunk.
 */
static void check_accounts(struct sim *sim)
{
	struct sum { uint64_t arena, disk; } is[SIM_TENANTS][ACCOUNTS] = { { { 0 } } }, all[SIM_TENANTS] = { { 0 } };
	struct engine_account_figures figures;

	for (uint32_t r = 0; r < sim->config.records; r++)
		if (sim->table[r].used)
			is[model_tenant(sim, sim->table[r].model)][sim->table[r].object.account].arena +=
				sim->table[r].place.bytes;
	for (uint32_t t = 0; t < sim->config.n_tiers; t++)
		for (uint32_t u = 0; u < sim->tiers[t].units; u++)
			if (sim->tiers[t].slabs[u].used)
				is[model_tenant(sim, sim->tiers[t].slabs[u].model)][sim->tiers[t].slabs[u].object.account]
					.disk += sim->tiers[t].slabs[u].place.bytes;
	for (uint32_t row = 0; row < engine_account_rows(sim->engine); row++) {
		if (!engine_account_at(sim->engine, row, &figures))
			continue;
		/* What an account had before it found a row of its own is with the others' still. */
		if (!figures.others && (figures.account >= ACCOUNTS ||
					(figures.disk_bytes > is[figures.tenant][figures.account].disk &&
					 !sim->resurrected)))
			sim_fail(sim, "account %llu of tenant %u is said to have more than it has",
				 (unsigned long long)figures.account, figures.tenant);
		all[figures.tenant].arena += figures.arena_bytes;
		all[figures.tenant].disk += figures.disk_bytes;
	}
	for (uint32_t t = 0; t < sim->n_tenants; t++) {
		struct sum sum = { 0 };

		for (uint32_t a = 0; a < ACCOUNTS; a++) {
			sum.arena += is[t][a].arena;
			sum.disk += is[t][a].disk;
		}
		if (all[t].arena < sum.arena || all[t].disk != sum.disk)
			sim_fail(sim, "what tenant %u's accounts have does not add up", t);
	}
}

/* Nobody has more than its share. A user has less than what is left when it is given one more, so half at most. */
void calm_bounds(struct sim *sim)
{
	struct { uint64_t leases, holds; } all[SIM_TENANTS] = { { 0 } }, users[SIM_TENANTS][SIM_CLIENTS] = { { { 0 } } };

	for (uint32_t c = 0; c < SIM_CLIENTS; c++) {
		const uint32_t t = client_tenant(sim, c), user = client_user(c) - client_user(0);
		struct engine_client_figures figures;

		if (!sim->clients[c].attached)
			continue;
		engine_client_figures(sim->engine, c, &figures);
		all[t].leases += figures.leases;
		all[t].holds += figures.holds;
		users[t][user].leases += figures.leases;
		users[t][user].holds += figures.holds;
	}
	for (uint32_t t = 0; t < sim->n_tenants; t++) {
		const uint32_t leases = world_share(sim, sim->quotas[t].leases, sim->config.leases);
		const uint32_t holds = world_share(sim, sim->quotas[t].holds, sim->config.holds);

		if (all[t].leases > leases || all[t].holds > holds)
			sim_fail(sim, "tenant %u has more than its share: %llu leases, %llu holds", t,
				 (unsigned long long)all[t].leases, (unsigned long long)all[t].holds);
		for (uint32_t u = 0; u < SIM_CLIENTS; u++)
			if (users[t][u].leases > (leases + 1) / 2 || users[t][u].holds > (holds + 1) / 2)
				sim_fail(sim, "user %u has more than half of its tenant's share: %llu leases, %llu holds",
					 u, (unsigned long long)users[t][u].leases, (unsigned long long)users[t][u].holds);
	}
}

static void check_clients(struct sim *sim)
{
	for (uint32_t c = 0; c < SIM_CLIENTS; c++) {
		struct engine_client_figures figures;
		uint32_t holds = 0;

		if (!sim->clients[c].attached)
			continue;
		for (uint32_t i = 0; i < SIM_HOLDS; i++)
			holds += sim->clients[c].holds[i].used;
		engine_client_figures(sim->engine, c, &figures);
		if (figures.jobs != 0 || figures.holds != holds)
			sim_fail(sim, "client %u has %llu jobs and %llu holds in a calm, and knows of %u holds", c,
				 (unsigned long long)figures.jobs, (unsigned long long)figures.holds, holds);
	}
}

/* Books of an engine that has nothing to do. */
static void check_idle(struct sim *sim)
{
	uint64_t gauges[STOKER_GAUGE_END];
	const char *broken = engine_audit(sim->engine);

	if (broken)
		sim_fail(sim, "audit in a calm: %s", broken);
	engine_gauges(sim->engine, gauges);
	if (gauges[STOKER_GAUGE_JOBS] || gauges[STOKER_GAUGE_READS] || gauges[STOKER_GAUGE_WRITEBACK] ||
	    gauges[STOKER_GAUGE_CHECKS])
		sim_fail(sim, "left over in a calm: %llu jobs, %llu reads, %llu objects to be written, %llu checksums",
			 (unsigned long long)gauges[STOKER_GAUGE_JOBS], (unsigned long long)gauges[STOKER_GAUGE_READS],
			 (unsigned long long)gauges[STOKER_GAUGE_WRITEBACK], (unsigned long long)gauges[STOKER_GAUGE_CHECKS]);
}

void calm(struct sim *sim)
{
	bool more = true, stirred = false;

	gpus_calm(sim);
	if (!sim->serving)
		world_serve(sim);
	for (uint32_t t = 0; t < sim->config.n_tiers; t++)
		world_tier(sim);
	for (uint32_t i = 0; i < ROUNDS_MAX; i++) {
		if (engine_random_wanted(sim->engine) > 2000) {
			sim_feed_random(sim);
			stirred = true;
		}
		if (stirred || more || sim->now_ns >= engine_deadline(sim->engine)) {
			more = sim_turn(sim);
			stirred = false;
			gpus_calm(sim);
		}
		sim->now_ns += 1000;
		if (sim_chance(&sim->random, 500))
			stirred |= event(sim);
		stirred |= gpus_work(sim);
		if (!more && gpus_stuck(sim))
			gpus_wait(sim);
		if (!more && !stirred && sim->n_pending == 0 && !gpus_awake(sim) && !(stirred = event(sim)) &&
		    sim->now_ns < engine_deadline(sim->engine) && !gpus_stuck(sim) && asleep(sim)) {
			check_idle(sim);
			check_tables(sim);
			check_clients(sim);
			check_accounts(sim);
			calm_bounds(sim);
			gpus_check(sim);
			return;
		}
	}
	sim_fail(sim, "no calm in %u rounds: %u things are under way", ROUNDS_MAX, sim->n_pending);
}

/* ---- the end ------------------------------------------------------------------------------------ */

static bool anybody(const struct sim *sim)
{
	for (uint32_t c = 0; c < SIM_CLIENTS; c++)
		if (sim->clients[c].attached)
			return true;
	return false;
}

/* Leases end at their time, and what was held at a crash is let go, by the engine's own deadlines. */
static void let_expire(struct sim *sim)
{
	for (uint32_t i = 0; i < 100000 && engine_deadline(sim->engine) != UINT64_MAX; i++) {
		if (engine_deadline(sim->engine) > sim->now_ns)
			sim->now_ns = engine_deadline(sim->engine);
		calm(sim);
	}
	if (engine_deadline(sim->engine) != UINT64_MAX)
		sim_fail(sim, "there is always one more deadline");
}

void world_end(struct sim *sim)
{
	uint64_t gauges[STOKER_GAUGE_END];

	if (!sim_chance(&sim->random, 300))
		calm(sim);
	for (uint32_t c = 0; c < SIM_CLIENTS; c++)
		if (sim->clients[c].attached && !sim->clients[c].leaving)
			client_leave(sim, c);
	if (sim_chance(&sim->random, 500))
		engine_drain(sim->engine, ++sim->tokens_given << 16);
	calm(sim);
	let_expire(sim);
	if (anybody(sim))
		sim_fail(sim, "a client that has left is never gone");
	gpus_end(sim);
	engine_gauges(sim->engine, gauges);
	if (gauges[STOKER_GAUGE_LEASES] || gauges[STOKER_GAUGE_HOLDS] || gauges[STOKER_GAUGE_ARENA_PINNED])
		sim_fail(sim, "left over when all are gone: %llu leases, %llu holds, %llu bytes pinned",
			 (unsigned long long)gauges[STOKER_GAUGE_LEASES], (unsigned long long)gauges[STOKER_GAUGE_HOLDS],
			 (unsigned long long)gauges[STOKER_GAUGE_ARENA_PINNED]);
}
