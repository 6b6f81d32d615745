/*
 * A disk tier: its life, recovery, and the side that the core thread calls. tier-open.c opens its files
 * and tier-io.c moves its bytes, both in the tier's own thread.
 */
#include "src/broker/tier.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/broker/files.h"
#include "src/broker/tier-inside.h"
#include "src/common/log.h"

/* --- parts --- */

static int tier_parts(struct tier *tier, const struct tier_config *config)
{
	/* Room for what waits in either queue: the whole stock. */
	tier->n_messages = config->ios + TIER_SPARE;
	tier->directory = strdup(config->path);
	tier->owner = config->owner ? strdup(config->owner) : NULL;
	tier->stock = calloc(tier->n_messages, sizeof(*tier->stock));
	tier->to_thread = queue_new(tier->n_messages + 1);
	tier->to_core = queue_new(tier->n_messages + 1);
	tier->superblock = superblock_new(config->extent_bytes);
	if (!tier->directory || (config->owner && !tier->owner) || !tier->stock || !tier->to_thread ||
	    !tier->to_core || !tier->superblock)
		return -ENOMEM;
	tier->config.path = tier->directory;
	tier->config.owner = tier->owner;
	for (uint32_t i = 0; i < tier->n_messages; i++) {
		tier->stock[i].next = tier->free;
		tier->free = &tier->stock[i];
	}
	return bell_init(&tier->bell);
}

static void life_init(struct tier *tier)
{
	pthread_condattr_t monotonic;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&tier->life_changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_mutex_init(&tier->life_lock, NULL);
}

static struct tier *tier_make(const struct tier_config *config)
{
	struct tier *tier = calloc(1, sizeof(*tier));

	if (!tier)
		return NULL;
	tier->config = *config;
	tier->dir = tier->lock = tier->file = tier->notes = tier->bell.fd = -1;
	tier->data = SUPERBLOCK_DATA;
	tier->units = config->bytes / config->extent_bytes * config->extent_bytes / 4096;
	tier_list_init(&tier->waiting);
	tier_list_init(&tier->writes);
	tier_list_init(&tier->extents);
	for (uint32_t i = 0; i < TIER_PRIORITIES; i++)
		tier_list_init(&tier->reads[i]);
	pthread_mutex_init(&tier->models, NULL);
	sem_init(&tier->up, 0, 0);
	life_init(tier);
	return tier;
}

static void tier_free(struct tier *tier)
{
	struct tier_message *message;

	if (!tier)
		return;
	slabs_close(tier->slabs);
	while ((message = tier_list_get(&tier->waiting)))
		free(message);
	for (size_t i = 0; i < 4; i++) {
		const int fd = (const int[]){ tier->notes, tier->file, tier->dir, tier->lock }[i];

		if (fd >= 0)
			close(fd);	/* the lock last */
	}
	bell_fini(&tier->bell);
	queue_free(tier->to_thread);
	queue_free(tier->to_core);
	pthread_mutex_destroy(&tier->models);
	pthread_mutex_destroy(&tier->life_lock);
	pthread_cond_destroy(&tier->life_changed);
	sem_destroy(&tier->up);
	free(tier->superblock);
	free(tier->stock);
	free(tier->directory);
	free(tier->owner);
	free(tier->path);
	free(tier->file_path);
	free(tier);
}

/* --- recovery --- */

struct recovery {
	struct tier *tier;
	bool (*each)(void *arg, const struct tier_found *found);
	void *arg;
};

static bool recover_one(void *arg, const struct slab_entry *entry)
{
	const struct recovery *recovery = arg;
	const struct superblock_model *model = &recovery->tier->superblock->models[entry->model];
	struct tier_found found = {
		.place = { .unit = entry->unit, .bytes = (uint64_t)entry->units * 4096 },
		.object = {
			.key = entry->key, .parent = entry->parent, .account = entry->account,
			.sequence = entry->sequence, .first_token = entry->first_token, .checksum = entry->checksum,
			.epoch = entry->epoch, .tokens = entry->tokens, .group = entry->group, .shard = entry->shard,
		},
	};

	/* A reset that this tier has heard of: the object was dead before the broker was. */
	if (!model->used || entry->epoch < model->epoch)
		return true;
	memcpy(found.model_digest, model->digest, sizeof(found.model_digest));
	return recovery->each(recovery->arg, &found);
}

int tier_recover(struct tier *tier, bool (*each)(void *arg, const struct tier_found *found), void *arg)
{
	struct recovery recovery = { tier, each, arg };

	return slabs_recover(tier->slabs, recover_one, &recovery);
}

uint32_t tier_epoch(const struct tier *tier, const uint8_t model_digest[MODEL_DIGEST_BYTES])
{
	struct tier *mine = (struct tier *)tier;	/* for the mutex */
	uint32_t epoch = 0;
	int row;

	pthread_mutex_lock(&mine->models);
	row = superblock_model(mine->superblock, model_digest, false);
	if (row >= 0)
		epoch = mine->superblock->models[row].epoch;
	pthread_mutex_unlock(&mine->models);
	return epoch;
}

/* --- life --- */

static void life_set(struct tier *tier, enum tier_life life)
{
	tier->life = life;
	pthread_cond_broadcast(&tier->life_changed);
}

/* The tier's thread: open, say so, wait for the word, work. */
static void *tier_main(void *arg)
{
	struct tier *tier = arg;
	char why[FILES_WHY] = "";
	enum tier_life life;
	int r;

	pthread_setname_np(pthread_self(), "stoker-tier");
	r = tier_files_open(tier, why);
	pthread_mutex_lock(&tier->life_lock);
	if (tier->life == TIER_LEFT) {		/* nobody else knows of it any more */
		pthread_mutex_unlock(&tier->life_lock);
		tier_free(tier);
		return NULL;
	}
	tier->open_result = r;
	memcpy(tier->why, why, sizeof(tier->why));
	life_set(tier, r < 0 ? TIER_REFUSED : TIER_OPEN);
	while (tier->life == TIER_OPEN && !tier->over)
		pthread_cond_wait(&tier->life_changed, &tier->life_lock);
	life = tier->life;
	pthread_mutex_unlock(&tier->life_lock);
	return life == TIER_WORKING ? tier_thread(tier) : NULL;
}

/* Still opening after @wait_ns? With life_lock held. */
static bool opening_lasts(struct tier *tier, uint64_t wait_ns)
{
	struct timespec until;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	wait_ns += (uint64_t)until.tv_nsec;
	until.tv_sec += (time_t)(wait_ns / 1000000000u);
	until.tv_nsec = (long)(wait_ns % 1000000000u);
	while (tier->life == TIER_OPENING && r != ETIMEDOUT)
		r = pthread_cond_timedwait(&tier->life_changed, &tier->life_lock, &until);
	return tier->life == TIER_OPENING;
}

int tier_new(const struct tier_config *config, struct tier **ret)
{
	struct tier *tier = tier_make(config);
	int r = tier ? tier_parts(tier, config) : -ENOMEM;
	sigset_t all, before;

	if (r == 0) {
		sigfillset(&all);	/* signals are the business of the thread that makes us */
		pthread_sigmask(SIG_SETMASK, &all, &before);
		r = -pthread_create(&tier->thread, NULL, tier_main, tier);
		pthread_sigmask(SIG_SETMASK, &before, NULL);
	}
	if (r < 0) {
		tier_free(tier);
		return r;
	}
	*ret = tier;
	return 0;
}

int tier_opened(struct tier *tier, uint64_t wait_ns, char *why)
{
	int r = -EINPROGRESS;

	pthread_mutex_lock(&tier->life_lock);
	if (!opening_lasts(tier, wait_ns)) {
		r = tier->open_result;
		memcpy(why, tier->why, sizeof(tier->why));
	}
	pthread_mutex_unlock(&tier->life_lock);
	return r;
}

int tier_start(struct tier *tier)
{
	pthread_mutex_lock(&tier->life_lock);
	assert(tier->life == TIER_OPEN);
	life_set(tier, TIER_WORKING);
	pthread_mutex_unlock(&tier->life_lock);
	while (sem_wait(&tier->up) < 0 && errno == EINTR)
		;
	tier->started = tier->start_error == 0;
	return tier->start_error;
}

/* True: its thread may hang in the disk, and the tier is left to it. */
static bool leave_if_opening(struct tier *tier)
{
	bool left;

	pthread_mutex_lock(&tier->life_lock);
	left = tier->life == TIER_OPENING;
	if (left) {
		tier->life = TIER_LEFT;
		pthread_detach(tier->thread);
	}
	tier->over = true;
	pthread_cond_broadcast(&tier->life_changed);
	pthread_mutex_unlock(&tier->life_lock);
	return left;
}

void tier_stop(struct tier *tier)
{
	struct tier_event none;

	if (!tier || leave_if_opening(tier))
		return;
	if (tier->started) {
		/* What waits for a free message must get one before the thread may end. */
		while (tier->waiting.first) {
			tier_reap(tier, &none, 1);
			nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
		}
		atomic_store_explicit(&tier->stop, true, memory_order_seq_cst);
		bell_ring(&tier->bell);
	}
	pthread_join(tier->thread, NULL);
	tier_free(tier);
}

/* --- the core thread's side --- */

static void message_send(struct tier *tier, struct tier_message *message)
{
	const bool put = queue_put(tier->to_thread, message);

	assert(put);	/* the queue has room for the whole stock */
	(void)put;
	bell_ring(&tier->bell);
}

/* Errands that waited go first, in order, as messages come free. */
static void waiting_send(struct tier *tier)
{
	while (tier->waiting.first && tier->free) {
		struct tier_message *waiting = tier_list_get(&tier->waiting), *message = tier->free;

		tier->free = message->next;
		*message = *waiting;
		free(waiting);
		message_send(tier, message);
	}
}

/* Send a copy of @errand, or keep it until a message is free. 0 or -ENOMEM. */
static int errand_send(struct tier *tier, const struct tier_message *errand)
{
	struct tier_message *message;

	waiting_send(tier);
	message = tier->waiting.first ? NULL : tier->free;
	if (message) {
		tier->free = message->next;
		*message = *errand;
		message_send(tier, message);
		return 0;
	}
	message = malloc(sizeof(*message));
	if (!message)
		return -ENOMEM;
	*message = *errand;
	tier_list_put(&tier->waiting, message);
	return 0;
}

void tier_extent_ready(struct tier *tier, uint32_t extent)
{
	/* Without memory for the errand that extent's transfers are plain ones: slower, not wrong. */
	errand_send(tier, &(struct tier_message){ .verb = TIER_EXTENT, .extent = extent });
}

int tier_submit(struct tier *tier, bool write, const struct engine_io *io, const struct image_identity *identity)
{
	(void)identity;		/* what it says is in the image's header, which the engine's verify reads */
	return errand_send(tier, &(struct tier_message){ .verb = write ? TIER_WRITE : TIER_READ, .move.io = *io });
}

int tier_slab(struct tier *tier, bool add, const struct engine_place *place, const struct engine_object *object,
	      const struct image_identity *identity)
{
	struct tier_message errand = {
		.verb = TIER_SLAB,
		.slab = {
			.key = object->key, .parent = object->parent, .account = object->account,
			.sequence = object->sequence, .first_token = object->first_token,
			.checksum = object->checksum, .unit = place->unit, .units = (uint32_t)(place->bytes / 4096),
			.epoch = object->epoch, .tokens = object->tokens, .group = object->group,
			.shard = object->shard, .op = add ? SLAB_ADD : SLAB_REMOVE,
		},
	};

	memcpy(errand.digest, identity->model_digest, sizeof(errand.digest));
	return errand_send(tier, &errand);
}

int tier_persist_epoch(struct tier *tier, const uint8_t model_digest[MODEL_DIGEST_BYTES], uint32_t epoch,
		       uint64_t tag, uint64_t token)
{
	struct tier_message errand = { .verb = TIER_EPOCH, .epoch = { epoch, tag, token } };

	memcpy(errand.digest, model_digest, sizeof(errand.digest));
	return errand_send(tier, &errand);
}

int tier_flush(struct tier *tier, uint64_t token)
{
	return errand_send(tier, &(struct tier_message){ .verb = TIER_FLUSH, .flush = token });
}

/* Is there an event in @message for the core? */
static bool event_of(const struct tier_message *message, struct tier_event *ret)
{
	*ret = (struct tier_event){ .result = message->result };
	if (message->verb == TIER_READ || message->verb == TIER_WRITE) {
		ret->type = TIER_IO_DONE;
		ret->io = message->move.io.io;
		return true;
	}
	if (message->verb == TIER_EPOCH) {
		ret->type = TIER_EPOCH_DONE;
		ret->token = message->epoch.token;
		return true;
	}
	if (message->verb == TIER_FLUSH) {
		ret->type = TIER_FLUSHED;
		ret->token = message->flush;
		return true;
	}
	return false;
}

uint32_t tier_reap(struct tier *tier, struct tier_event *ret, uint32_t n)
{
	uint32_t taken = 0;
	struct tier_message *message;

	if (n > 0 && !tier->failed_is_told && atomic_load_explicit(&tier->failed, memory_order_acquire)) {
		tier->failed_is_told = true;
		ret[taken++] = (struct tier_event){ .type = TIER_FAILED };
	}
	while (taken < n && (message = queue_get(tier->to_core))) {
		taken += event_of(message, &ret[taken]);
		message->next = tier->free;
		tier->free = message;
	}
	waiting_send(tier);
	return taken;
}

const char *tier_path(const struct tier *tier)
{
	return tier->path;
}

const char *tier_method(const struct tier *tier)
{
	return tier->started ? tier->way->name(tier->way_data) : "not started";
}
