/* The core thread's own state: for core.c, core-orders.c, ports.c, watch.c and figures.c alone. */
#ifndef STOKER_BROKER_CORE_STATE_H
#define STOKER_BROKER_CORE_STATE_H

#include <pthread.h>

#include "shm/control.h"
#include "src/broker/arena.h"
#include "src/broker/channel.h"
#include "src/broker/clock.h"
#include "src/broker/core.h"
#include "src/broker/models.h"

#define CORE_CLIENTS	CONTROL_CLIENTS
#define CORE_BATCH	16u		/* entries of a client a round */
#define CORE_LOOK_NS	20000u		/* between two looks at epoll and orders */
#define CORE_FIGURES_NS	100000000u	/* between two refreshes of the control page */
#define CORE_QUIT_NS	5000000000u	/* longest wait for I/O that is under way at the end */
#define CORE_WATCH_NS	50000u		/* longest sleep while ready words are watched */

/** struct core_late - a completion that a port had to make up, handed to the engine later. */
struct core_late {
	enum { LATE_IO, LATE_CHECK, LATE_COPY } type;
	uint32_t number;
};

struct core {
	/* Looked at in every round: */
	alignas(64) struct engine *engine;
	uint32_t n_hot, n_attached;
	uint32_t io_out, copies_out;	/* asked of tiers and device, and not answered */
	uint32_t n_watched, n_wakes;
	uint32_t n_late;
	bool more;			/* the engine has work left */
	bool crowded;			/* helpers and this thread have fewer processors than they want */
	bool quit, dirty;		/* dirty: the control page is behind */
	uint64_t quit_deadline;		/* with quit: end even if I/O is still under way */
	uint64_t spin_ns, next_look, last_busy, deadline, next_figures;
	struct tick_clock clock;

	struct channel *hot[CORE_CLIENTS];
	struct channel *channels[CORE_CLIENTS];
	uint16_t wakes[CORE_CLIENTS];	/* clients to be woken at the end of this round */
	struct channel *watch_turn;	/* whose ready words are looked at next, or NULL: see watch.c */
	uint32_t watch_lap;		/* counts sleeps */
	uint32_t watch_left;		/* words that were not looked at since the last one */

	struct control_page *page;
	struct control_block *block;
	struct core_device { const struct device_backend *backend; struct device *device; } devices[DEVICES_MAX];
	uint32_t n_devices;		/* numbers below it are in use, or have been */
	struct arena *arena;
	uint32_t n_tiers;
	struct tier *tiers[ENGINE_TIERS_MAX];
	struct control_tier tier_rows[ENGINE_TIERS_MAX];
	struct order corrupt_orders[ENGINE_TIERS_MAX];	/* told at most once each */
	uint64_t *extents;		/* bit: it is populated */
	uint32_t n_extents;
	struct model *models[MODELS_MAX];	/* by the registry's number; NULL until it is open */
	struct model *by_engine[MODELS_MAX];	/* by the engine's */

	struct core_late *late;		/* room for every I/O, check and copy that can be under way */
	uint32_t late_max;

	enum { CORE_RECOVERING, CORE_SERVES } phase;
	struct order *resets;		/* RESETs that wait until all tables have been read */
	bool degraded, draining;

	struct link control, starter;
	struct bell bell;
	int epoll;
	void *memory;			/* of the engine */
	size_t memory_bytes;
	pthread_t thread;
	bool started;
};

/* core.c */
void core_detach(struct core *core, struct channel *channel);	/* poll it no more */
void core_heat(struct core *core, struct channel *channel, uint64_t now);
void core_expel(struct core *core, struct channel *channel, const char *why);
/* core-orders.c */
bool core_orders(struct core *core);	/* true: there were some */
/* ports.c */
extern const struct engine_ports core_ports;	/* but for `shell` */
bool core_reap(struct core *core);		/* completions of device and tiers, and late ones */
/* watch.c */
void watch_add(struct core *core, struct channel *channel, uint32_t slot, uint32_t index, uint32_t value);
void watch_remove(struct core *core, struct channel *channel, uint32_t slot);
void watch_remove_client(struct core *core, struct channel *channel);
bool watch_poll(struct core *core);		/* true: one was reached */
void watch_woken(struct core *core);		/* the core has slept */
/* figures.c */
void figures_refresh(struct core *core);
void figures_state(struct core *core);
void figures_tiers(struct core *core);
void figures_client(struct core *core, struct channel *channel, bool in);
void figures_model(struct core *core, const struct model *model, uint32_t epoch);
void figures_model_gone(struct core *core, uint32_t number);

static inline void core_count(struct core *core, enum stoker_counter counter)
{
	block_add(core->block, counter, 1);
}

#endif
