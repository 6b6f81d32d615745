/*
 * Bounds: what each tenant, and each user, may have of what there is a fixed number of.
 *
 * Leases, leased chunks, holds and the index are tables that all clients share, and the arena is no use
 * to anybody while all of it is pinned. A tenant has its bound in each, as configured or else an equal
 * share, so that none can keep the others out; one tenant alone has everything. Bounds that are configured may
 * exceed what there is together: then it is the operator who lets tenants be in each other's way.
 *
 * What is stored cannot go before a tier has it, so a tenant's stores wait for their write-back while what is in use
 * and what is to be written yet are its share of the arena together: what is in use and to be written counts twice,
 * which lasts no longer than a write. Its users take turns there, as everywhere (run.c), and need no shares.
 *
 * Within a tenant, a user (all clients of one uid) may take one more as long as it has less than what is
 * left to the tenant: alone it gets half, n greedy ones get 1/(n + 1) each, and whoever comes next always
 * finds some. That needs no number of users and nothing to be configured, and costs one comparison.
 *
 * Who is over a bound is refused (or gets a shorter prefix, if pins are what lacks) and counted; it
 * costs nobody else anything. In the index it makes room at its own cost (make-room.c). A lowered bound
 * takes nothing away from who has more already.
 */
#include "src/engine/internal.h"

static uint32_t share_of(const struct engine *e, uint32_t set, uint32_t all)
{
	const uint32_t share = set ? set : all / e->config.tenants;

	return share == 0 ? 1 : share < all ? share : all;
}

/* Several tenants have equal shares of the bytes that can be pinned, or each what its quota says. */
static uint64_t pinned_max(const struct engine *e, const struct engine_quota *quota)
{
	if (e->config.tenants == 1 || quota->arena_bytes)
		return UINT64_MAX;
	return (uint64_t)e->config.extents * e->config.extent_bytes / e->config.tenants;
}

void engine_tenant(struct engine *e, uint32_t number, const struct engine_quota *quota)
{
	struct tenant *tenant = &e->tenants[number];

	ENGINE_ASSERT(number < e->config.tenants);
	tenant->quota = *quota;
	tenant->leases.max = share_of(e, quota->leases, e->config.leases);
	tenant->chunks.max = share_of(e, quota->leased_chunks, e->config.leased_chunks);
	tenant->holds.max = share_of(e, quota->holds, e->config.holds);
	tenant->pinned_max = pinned_max(e, quota);
	accounts_review(e, number);
}

void bounds_init(struct engine *e)
{
	for (uint32_t i = 0; i < e->config.tenants; i++) {
		engine_tenant(e, i, &(struct engine_quota){ 0 });
		e->tenants[i].entries.max = share_of(e, 0, e->config.entries);
		e->tenants[i].records.max = share_of(e, 0, e->config.records);
	}
}

/* ---- users ------------------------------------------------------------------------------------- */

void bound_client_in(struct engine *e, struct client *client, uint32_t number)
{
	uint32_t row = NONE;

	for (uint32_t i = 0; i < e->config.clients; i++) {
		const struct user *user = &e->users[i];

		if (user->clients > 0 && user->number == number && user->tenant == client->tenant) {
			row = i;
			break;
		}
		if (user->clients == 0 && row == NONE)
			row = i;
	}
	ENGINE_ASSERT(row != NONE);
	if (e->users[row].clients++ == 0)
		e->users[row] = (struct user){ .number = number, .tenant = client->tenant, .clients = 1 };
	client->user = row;
}

void bound_client_gone(struct engine *e, const struct client *client)
{
	ENGINE_ASSERT(e->users[client->user].clients > 0);
	e->users[client->user].clients--;
}

/* ---- how many more -------------------------------------------------------------------------------- */

/* @free: in the table. */
static uint32_t left(const struct bound *bound, uint32_t user_has, uint32_t free)
{
	const uint32_t left = bound->used < bound->max ? bound->max - bound->used : 0;
	const uint32_t most = user_has < left ? (left - user_has + 1) / 2 : 0;

	return most < free ? most : free;
}

uint32_t bound_leases(const struct engine *e, uint32_t client)
{
	return left(&tenant_of_client(e, client)->leases, e->users[e->clients[client].user].leases,
		    e->config.leases - e->leases_used);
}

uint32_t bound_chunks(const struct engine *e, uint32_t client)
{
	return left(&tenant_of_client(e, client)->chunks, e->users[e->clients[client].user].chunks,
		    e->config.leased_chunks - e->chunks_taken);
}

uint32_t bound_holds(const struct engine *e, uint32_t client)
{
	return left(&tenant_of_client(e, client)->holds, e->users[e->clients[client].user].holds,
		    e->config.holds - e->holds_used);
}
