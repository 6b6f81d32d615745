/*
 * The core thread: the one that owns the engine. It polls the request rings of clients that are
 * awake, hands what it takes to the engine, carries the engine's wishes to device and tiers and their
 * completions back, and publishes answers.
 *
 * - It never waits for a client, a device or a disk, and allocates nothing.
 * - While it is awake and clients are too, it makes no system call but, every 20 us while some clients
 *   are parked, one look at epoll.
 * - Everything else reaches it by orders (order.h), and it tells others by orders.
 */
#ifndef STOKER_BROKER_CORE_H
#define STOKER_BROKER_CORE_H

#include "shm/control.h"
#include "src/broker/config.h"
#include "src/broker/order.h"
#include "src/engine/engine.h"

struct core;

/* What the engine is told of a tenant. */
static inline struct engine_quota core_quota(const struct config_tenant *tenant)
{
	return (struct engine_quota){
		.arena_bytes = tenant->arena_quota,
		.disk_bytes = tenant->disk_quota,
		.account_arena_bytes = tenant->account_arena_quota,
		.account_disk_bytes = tenant->account_disk_quota,
		.leases = (uint32_t)tenant->leases,
		.leased_chunks = (uint32_t)tenant->leased_chunks,
		.holds = (uint32_t)tenant->holds,
	};
}

struct core_config {
	const struct config *config;	/* read at core_new() alone */
	struct control_page *page;
	struct engine_config engine;	/* but for `counters` and `seed`, which are filled in */
	uint64_t arena_bytes;		/* as configured, for the gauge until the engine tells */
};

/* 0, or -errno with one line in @why (512 bytes). The thread runs from core_start() on. */
int core_new(const struct core_config *config, char *why, struct core **ret);
int core_start(struct core *core);
/* Join the thread, to which QUIT was sent. False: I/O or copies are still under way after all. */
bool core_end(struct core *core);
void core_free(struct core *core);

struct link *core_control(struct core *core);	/* the control thread's link */
struct link *core_starter(struct core *core);	/* the starter's */
struct bell *core_bell(struct core *core);	/* rung by device and tiers */

#endif
