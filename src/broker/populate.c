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
#include <unistd.h>

#include "src/common/log.h"

#define ORDERS	8u
#define AHEAD	2u	/* extents that a cold arena has before it serves */

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

/* Populate one extent and hand it over. Returns false when the starter is to stop. */
static bool extent_give(struct starter *starter, uint32_t extent, uint32_t *failed)
{
	const int r = starter->config.populate ? arena_populate(starter->config.arena, extent) : 0;
	struct order *order = order_get(starter, ORDER_EXTENT);

	if (!order)
		return false;
	if (r < 0 && (*failed)++ == 0)
		log_warning("extent %u of the arena could not be populated: %s; the arena stays that much smaller", extent,
			    strerror(-r));
	order->result = r;
	order->extent = extent;
	return order_send(starter, order);
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
	const uint32_t ahead = arena->warm || arena->extents < AHEAD ? arena->extents : AHEAD;
	uint32_t failed = 0, extent = 0;

	prctl(PR_SET_NAME, "stokerd-start");
	while (extent < ahead && extent_give(starter, extent, &failed))
		extent++;
	if (arena->warm)
		arena_read(starter);
	for (uint32_t i = 0; i < starter->config.n_tiers; i++)
		tier_read(starter, i);
	serve(starter);
	/* On Linux this is the thread's own: whoever serves goes first. Not earlier, for a thread that is started inherits it. */
	setpriority(PRIO_PROCESS, 0, 5);
	while (extent < arena->extents && extent_give(starter, extent, &failed))
		extent++;
	orders_await(starter, ORDERS);
	if (extent == arena->extents)
		log_info("the arena is populated: %u of %u extents", extent - failed, arena->extents);
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
