/*
 * Admin verbs, answered through the port `control` when they are done, and the figures that operators
 * read. All of it is done in batches, a little a turn.
 */
#include "src/engine/internal.h"

#define EVICT_CHUNKS 32u

static void admin_add(struct engine *e, enum admin_kind kind, uint64_t bytes, engine_token token)
{
	if (e->n_admins == ADMINS) {
		e->ports.control(e->ports.shell, token, STOKER_STATUS_REFUSED, 0);
		return;
	}
	e->admins[e->n_admins++] = (struct admin){ .kind = kind, .bytes = bytes, .token = token };
}

bool admin_close(struct engine *e, uint32_t model, engine_token token)
{
	if (e->n_admins == ADMINS)
		return false;
	e->admins[e->n_admins++] = (struct admin){ .kind = ADMIN_CLOSE, .model = model, .token = token };
	return true;
}

void engine_evict(struct engine *e, uint64_t bytes, engine_token token)
{
	admin_add(e, ADMIN_EVICT, bytes, token);
}

void engine_clear(struct engine *e, engine_token token)
{
	admin_add(e, ADMIN_CLEAR, 0, token);
}

void engine_drain(struct engine *e, engine_token token)
{
	/* They would wait for recovery, and a drain for them. */
	for (uint32_t i = 0; !e->serving && i < e->n_jobs && e->jobs_live > 0; i++)
		if (e->jobs[i].phase == PHASE_SERVE)
			job_stop(e, &e->jobs[i], STOKER_STATUS_REFUSED);
	e->draining = true;
	e->room_changed = true;		/* stores that wait for room are refused */
	admin_add(e, ADMIN_DRAIN, 0, token);
}

/* Returns whether it is done; *more: there is more to do at once. */
static bool evict_step(struct engine *e, struct admin *admin, bool *more)
{
	uint64_t freed;

	if (admin->freed >= admin->bytes)
		return true;
	freed = room_evict(e, EVICT_CHUNKS);
	admin->freed += freed;
	*more = true;
	return freed == 0 || admin->freed >= admin->bytes;
}

static bool clear_step(struct engine *e, struct admin *admin, bool *more)
{
	if (!admin->begun) {
		if (e->clearing)
			return false;	/* another one is under way; this one is for what came since */
		admin->begun = e->clearing = true;
		e->cleared = 0;
		sweep_start(e);
		*more = true;
		return false;
	}
	admin->freed = e->cleared;
	return !e->clearing;
}

static bool drain_step(const struct engine *e)
{
	return e->stores == 0 && e->dirty_objects == 0 && e->seals.n == 0 && e->checks_used == 0;
}

static bool close_step(struct engine *e, const struct admin *admin)
{
	if (e->models[admin->model].objects > 0)
		return false;
	model_closed(e, admin->model);
	return true;
}

static bool admin_step(struct engine *e, struct admin *admin, bool *more)
{
	switch (admin->kind) {
	case ADMIN_EVICT:
		return evict_step(e, admin, more);
	case ADMIN_CLEAR:
		return clear_step(e, admin, more);
	case ADMIN_CLOSE:
		return close_step(e, admin);
	default:
		return drain_step(e);
	}
}

bool admin_some(struct engine *e)
{
	bool more = false;
	uint32_t kept = 0;

	for (uint32_t i = 0; i < e->n_admins; i++) {
		struct admin admin = e->admins[i];

		if (admin_step(e, &admin, &more))
			e->ports.control(e->ports.shell, admin.token, STOKER_STATUS_OK, admin.freed);
		else
			e->admins[kept++] = admin;
	}
	e->n_admins = kept;
	return more;
}

/* ---- figures --------------------------------------------------------------------------------------- */

void engine_gauges(const struct engine *e, uint64_t gauges[STOKER_GAUGE_END])
{
	uint64_t reads = 0;

	for (uint32_t i = 0; i < e->config.n_tiers; i++)
		reads += e->tiers[i].n_queued + e->tiers[i].reading;
	gauges[STOKER_GAUGE_ARENA_BYTES] = (uint64_t)e->config.extents * e->config.extent_bytes;
	gauges[STOKER_GAUGE_ARENA_POPULATED] = space_total(e->space);
	gauges[STOKER_GAUGE_ARENA_USED] = space_used(e->space);
	gauges[STOKER_GAUGE_ARENA_PINNED] = e->pinned_bytes;
	gauges[STOKER_GAUGE_ARENA_DIRTY] = e->dirty_bytes;
	gauges[STOKER_GAUGE_ARENA_OBJECTS] = e->arena_objects;
	gauges[STOKER_GAUGE_ENTRIES] = index_used(e->index) - index_ghosts(e->index);
	gauges[STOKER_GAUGE_ENTRIES_MAX] = index_max(e->index);
	gauges[STOKER_GAUGE_CLIENTS] = e->clients_live;
	gauges[STOKER_GAUGE_MODELS] = e->models_open;
	gauges[STOKER_GAUGE_POOLS] = e->pools_used;
	gauges[STOKER_GAUGE_JOBS] = e->jobs_live;
	gauges[STOKER_GAUGE_LEASES] = e->leases_used;
	gauges[STOKER_GAUGE_HOLDS] = e->holds_used;
	gauges[STOKER_GAUGE_WRITEBACK] = e->dirty_objects;
	gauges[STOKER_GAUGE_READS] = reads;
	gauges[STOKER_GAUGE_ACCOUNTS] = 0;
	for (uint32_t i = 0; i < e->config.tenants; i++)
		gauges[STOKER_GAUGE_ACCOUNTS] += e->tenants[i].accounts;
	gauges[STOKER_GAUGE_ACCOUNTS_OVER] = e->over[0].n;
	gauges[STOKER_GAUGE_CHECKS] = e->seals.n + e->checks_used;
}

void engine_client_figures(const struct engine *e, uint32_t client, struct engine_client_figures *ret)
{
	ENGINE_ASSERT(client < e->config.clients);
	*ret = e->clients[client].figures;
	ret->jobs = e->clients[client].jobs;
}

void engine_tier_figures(const struct engine *e, uint32_t tier, struct engine_tier_figures *ret)
{
	ENGINE_ASSERT(tier < e->config.n_tiers);
	*ret = e->tiers[tier].figures;
	ret->used_bytes = space_used(e->tiers[tier].space);
}
