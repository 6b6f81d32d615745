/*
 * Shares of what all clients have together, so that no tenant and no uid can take all of a table:
 *
 * - several tenants have equal parts;
 * - within a part that several uids may draw on, a uid may have as much as it leaves to others: the
 *   first one half, the next one half of the rest, and so on. Whoever has nothing yet gets its first.
 */
#ifndef STOKER_BROKER_SHARE_H
#define STOKER_BROKER_SHARE_H

#include "src/broker/session.h"

/** struct share - a table, and how much of it a session has. */
struct share {
	uint64_t total;
	uint64_t (*of)(const struct session *session);
	bool by_tenant;		/* tenants have equal parts */
};

/* May @session have @n more? */
bool share_allows(const struct session *session, const struct share *share, uint64_t n);

#endif
