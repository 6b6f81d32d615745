/* See share.h. Everything is counted when it is asked: that is rare, and no count can drift. */
#include "src/broker/share.h"

static bool has_several_uids(const struct config_tenant *tenant)
{
	return tenant->uids.n > 1 || tenant->uids.any || tenant->gids.n || tenant->gids.any;
}

static bool several_draw_on(const struct session *session, bool by_tenant)
{
	const struct config *config = &session->broker->config;

	if (!by_tenant && config->n_tenants > 1)
		return true;
	return has_several_uids(&config->tenants[session->tenant]);
}

bool share_allows(const struct session *session, const struct share *share, uint64_t n)
{
	const struct broker *broker = session->broker;
	const uint64_t part = share->by_tenant ? share->total / broker->config.n_tenants : share->total;
	const uint64_t whole = part ? part : 1;
	uint64_t mine = n, all = n;

	for (uint32_t i = 0; i < CONTROL_CLIENTS; i++) {
		const struct session *other = broker->clients[i];

		if (!other || (share->by_tenant && other->tenant != session->tenant))
			continue;
		const uint64_t has = share->of(other);
		all += has;
		mine += other->peer.uid == session->peer.uid ? has : 0;
	}
	if (all > whole)
		return false;
	return mine == n || mine <= whole - all || !several_draw_on(session, share->by_tenant);
}
