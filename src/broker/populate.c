/* See populate.h. At most ORDERS orders are with the core at a time: each comes back and is used again. */
#include "src/broker/populate.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "src/broker/clock.h"
#include "src/broker/filler.h"
#include "src/common/log.h"

#define ORDERS	8u
#define AHEAD_BYTES	(128ull << 20)	/* that a cold arena has before it serves: some 80 ms */

#define FILL_LOOK_NS	5000000		/* between two looks at what the filler has done */
#define FILL_PACE_NS	100000000u	/* and between two at its pace: fewer bytes meanwhile */
#define FILL_PACE_BYTES	(8u << 20)	/* mean that it gets no processor (it makes 60M and more) */

struct starter {
	struct starter_config config;
	struct starter_model *models;
	pthread_t thread;
	_Atomic bool stop;
	struct order orders[ORDERS];
	struct order *free;
	struct order_found *batch;	/* being filled */
	uint64_t unknown;		/* objects of the table being read, whose models nobody remembers */
	uint32_t n_free;
	uint32_t extents_given, extents_failed;
};

/* ---- orders: taken, sent, waited for ----------------------------------------------------------- */

static void orders_return(struct starter *starter)
{
	struct order *order;

	while ((order = link_answer(starter->config.link))) {
		order->next = starter->free;
		starter->free = order;
		starter->n_free++;
	}
}

/* Sleep until @n orders are back, or until it is told to stop. */
static void orders_await(struct starter *starter, uint32_t n)
{
	struct bell *bell = &starter->config.link->bell;

	orders_return(starter);
	while (starter->n_free < n && !atomic_load(&starter->stop)) {
		struct pollfd fd = { .fd = bell->fd, .events = POLLIN };

		bell_arm(bell);
		orders_return(starter);
		if (starter->n_free < n)
			poll(&fd, 1, 100);	/* the limit is for `stop`, which rings no bell */
		bell_disarm(bell);
		orders_return(starter);
	}
}

static struct order *order_get(struct starter *starter, enum order_type type)
{
	struct order *order;

	orders_await(starter, 1);
	order = starter->free;
	if (!order || atomic_load(&starter->stop))
		return NULL;
	starter->free = order->next;
	starter->n_free--;
	*order = (struct order){ .type = type, .owner = order->owner };
	return order;
}

static bool order_send(struct starter *starter, struct order *order)
{
	link_order(starter->config.link, order);
	return true;
}

/* ---- tables ------------------------------------------------------------------------------------ */

static const struct starter_model *model_find(const struct starter *starter, const uint8_t *digest, size_t bytes)
{
	for (uint32_t i = 0; i < starter->config.n_models; i++) {
		if (memcmp(starter->models[i].identity, digest, bytes) == 0)
			return &starter->models[i];
	}
	return NULL;
}

static void batch_send(struct starter *starter)
{
	struct order *order;

	if (!starter->batch || starter->batch->n == 0)
		return;
	order = order_get(starter, ORDER_FOUND);
	if (!order) {
		starter->batch->n = 0;	/* told to stop: nobody will hear of these */
		return;
	}
	/* Each order has a batch of its own; the one being filled takes the place of the one it had. */
	struct order_found *empty = order->owner;
	order->owner = starter->batch;
	order->found = starter->batch;
	starter->batch = empty;
	starter->batch->n = 0;
	order_send(starter, order);
}

/* Returns false when the starter is to stop. */
static bool batch_add(struct starter *starter, const struct engine_place *place, const struct engine_object *object,
		      const struct starter_model *model, uint32_t record, bool was_held)
{
	struct order_found *batch = starter->batch;
	const int part = model ? model_part_find(model->layout, object->group, object->shard) : -1;
	struct engine_object known = *object;

	/* A model that nobody remembers is one the engine has no number for: it drops what bears none. */
	known.model = part >= 0 ? model->engine : ENGINE_NONE;
	known.part = part >= 0 ? (uint16_t)part : 0;
	starter->unknown += !model;
	batch->each[batch->n].place = *place;
	batch->each[batch->n].object = known;
	batch->each[batch->n].record = record;
	batch->each[batch->n].was_held = was_held;
	if (++batch->n == ORDER_FOUND_MAX)
		batch_send(starter);
	return !atomic_load_explicit(&starter->stop, memory_order_relaxed);
}

static bool arena_each(void *arg, const struct arena_found *found)
{
	struct starter *starter = arg;
	const struct starter_model *model = model_find(starter, (const uint8_t *)&found->model_digest64,
						       sizeof(found->model_digest64));

	return batch_add(starter, &found->place, &found->object, model, found->record, found->was_held);
}

struct tier_walk {
	struct starter *starter;
	uint32_t number;
	uint64_t n;
};

static bool tier_each(void *arg, const struct tier_found *found)
{
	struct tier_walk *walk = arg;
	const struct starter_model *model = model_find(walk->starter, found->model_digest, MODEL_DIGEST_BYTES);
	struct engine_place place = found->place;

	place.tier = walk->number;
	walk->n++;
	return batch_add(walk->starter, &place, &found->object, model, ENGINE_NONE, false);
}

/* The counter recovery_dropped alarms who deleted the state directory, or named another one: say that it is that. */
static void unknown_say(const struct starter *starter, const char *where, const char *remedy)
{
	if (starter->unknown > 0)
		log_warning("%s has %" PRIu64 " objects of models that the state directory does not remember (was it deleted, or "
			    "another broker.state_directory named?): they are not served%s", where, starter->unknown,
			    remedy);
}

static void arena_read(struct starter *starter)
{
	uint64_t dropped = 0;
	int r;

	starter->unknown = 0;
	r = arena_recover(starter->config.arena, arena_each, starter, &dropped);
	batch_send(starter);
	orders_await(starter, ORDERS);
	if (r < 0)
		log_warning("the arena's table could not be read: %s; the arena begins empty", strerror(-r));
	if (dropped)
		log_info("%" PRIu64 " objects of the arena were incomplete and are dropped", dropped);
	unknown_say(starter, "the arena", ", and dropped");
}

static void tier_read(struct starter *starter, uint32_t number)
{
	struct tier_walk walk = { .starter = starter, .number = number };
	struct tier *tier = starter->config.tiers[number];
	int r = -ENODEV;

	if (tier) {
		starter->unknown = 0;
		r = tier_recover(tier, tier_each, &walk);
		batch_send(starter);
		orders_await(starter, ORDERS);
		if (r < 0)
			log_warning("slab table of tier %s could not be read to its end: %s; the objects behind that are "
				    "lost", tier_path(tier), strerror(-r));
		unknown_say(starter, tier_path(tier), "; what is not overwritten comes back at the start after a worker has opened "
			    "its model again");
		r = tier_start(tier);
		if (r < 0)
			log_error("tier %s could not be started: %s; it is out of service", tier_path(tier), strerror(-r));
		else
			log_info("tier %s is up: %" PRIu64 " objects, %s", tier_path(tier), walk.n, tier_method(tier));
	}
	struct order *order = order_get(starter, ORDER_TIER_UP);
	if (!order)
		return;
	order->result = r;
	order->tier.number = number;
	order->tier.tier = tier;
	order_send(starter, order);
}

/* ---- extents ----------------------------------------------------------------------------------- */

/* Hand over an extent: populated, or with an error. Returns false when the starter is to stop. */
static bool extent_give(struct starter *starter, uint32_t extent, int r)
{
	struct order *order = order_get(starter, ORDER_EXTENT);

	if (!order)
		return false;
	if (r < 0 && starter->extents_failed++ == 0)
		log_warning("extent %u of the arena could not be populated: %s; the arena stays that much smaller", extent,
			    strerror(-r));
	order->result = r;
	order->extent = extent;
	starter->extents_given++;
	return order_send(starter, order);
}

/* Extents that are there before the broker serves: of a warm arena all, because they hold what is to be found. */
static uint32_t extents_ahead(const struct arena *arena)
{
	const uint64_t ahead = (AHEAD_BYTES + arena->extent_bytes - 1) / arena->extent_bytes;

	return arena->warm || ahead > arena->extents ? arena->extents : (uint32_t)ahead;
}

/* Extents that somebody waits for, or that take no time. */
static void extents_now(struct starter *starter, uint32_t end)
{
	struct arena *arena = starter->config.arena;
	bool go_on = true;

	for (uint32_t i = starter->extents_given; i < end && go_on; i++)
		go_on = extent_give(starter, i, starter->config.populate ? arena_populate(arena, i) : 0);
}

/*
 * The others, while everybody is served. A machine whose processors are all busy leaves next to nothing to
 * the filler: what it does not get done is done here, at the starter's priority, so that stores find
 * room in any case.
 */
static void extents_in_background(struct starter *starter)
{
	const struct timespec pause = { .tv_nsec = FILL_LOOK_NS };
	struct arena *arena = starter->config.arena;
	struct filler *filler = NULL;
	uint64_t since = clock_kernel_ns(), before = 0;
	bool go_on = filler_start(arena, starter->extents_given, starter->config.link->core_bell, &starter->stop,
				  &filler) == 0;

	if (!go_on)
		log_warning("no memory to populate the arena: it stays as large as it is");
	while (go_on && starter->extents_given < arena->extents && !atomic_load(&starter->stop)) {
		uint32_t extent;
		int r;

		nanosleep(&pause, NULL);
		while (go_on && filler_take(filler, &extent, &r))
			go_on = extent_give(starter, extent, r);
		if (clock_kernel_ns() - since < FILL_PACE_NS)
			continue;
		if (filler_bytes(filler) - before < FILL_PACE_BYTES)
			filler_help(filler);
		since = clock_kernel_ns();
		before = filler_bytes(filler);
	}
	filler_end(filler);
}

static void serve(struct starter *starter)
{
	struct order *order = order_get(starter, ORDER_SERVE);

	if (order)
		order_send(starter, order);
}

static void *starter_main(void *arg)
{
	struct starter *starter = arg;
	const struct arena *arena = starter->config.arena;

	prctl(PR_SET_NAME, "stokerd-start");
	extents_now(starter, extents_ahead(arena));
	if (arena->warm)
		arena_read(starter);
	for (uint32_t i = 0; i < starter->config.n_tiers; i++)
		tier_read(starter, i);
	serve(starter);
	/* On Linux this is the thread's own: whoever serves goes first. Not earlier, for a thread that is started
	 * inherits it. */
	setpriority(PRIO_PROCESS, 0, 5);
	if (starter->config.populate && starter->extents_given < arena->extents)
		extents_in_background(starter);
	else
		extents_now(starter, arena->extents);
	orders_await(starter, ORDERS);
	if (starter->extents_given == arena->extents)
		log_info("the arena is populated: %u of %u extents, %" PRIu64 " MiB of it in huge pages",
			 arena->extents - starter->extents_failed, arena->extents,
			 atomic_load(&arena->huge_bytes) >> 20);
	return NULL;
}

/* ---- life -------------------------------------------------------------------------------------- */

void starter_free(struct starter *starter)
{
	if (!starter)
		return;
	for (uint32_t i = 0; i < ORDERS; i++)
		free(starter->orders[i].owner);
	free(starter->batch);
	free(starter->models);
	free(starter);
}

int starter_start(const struct starter_config *config, struct starter **ret)
{
	struct starter *starter = calloc(1, sizeof(*starter));
	int r = -ENOMEM;

	if (!starter)
		return -ENOMEM;
	starter->config = *config;
	starter->models = calloc(config->n_models ? config->n_models : 1, sizeof(*starter->models));
	starter->batch = calloc(1, sizeof(*starter->batch));
	for (uint32_t i = 0; i < ORDERS; i++) {
		starter->orders[i].owner = calloc(1, sizeof(struct order_found));
		starter->orders[i].next = starter->free;
		starter->free = &starter->orders[i];
		starter->n_free += starter->orders[i].owner != NULL;
	}
	if (starter->models && starter->batch && starter->n_free == ORDERS) {
		if (config->n_models)
			memcpy(starter->models, config->models, config->n_models * sizeof(*starter->models));
		r = -pthread_create(&starter->thread, NULL, starter_main, starter);
	}
	if (r == 0) {
		*ret = starter;
		return 0;
	}
	starter_free(starter);
	return r;
}

void starter_stop(struct starter *starter)
{
	if (!starter)
		return;
	atomic_store(&starter->stop, true);
	pthread_join(starter->thread, NULL);
}
