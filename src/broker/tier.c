/*
 * A disk tier: open, recover, life, and the side that the core thread calls. tier-io.c is the
 * tier's own thread.
 *
 * Who may have it: the directory belongs to this uid and nobody else can write there; a lock file of
 * its own inside, never unlinked, is held by one broker and by its ring (uring.c), so two brokers
 * never share a tier, and a successor waits until the last transfer of a killed one has landed.
 * What is refused: see superblock.h and slabs.h. Everything foreign is looked at before anything
 * is written.
 */
#include "src/broker/tier.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "src/broker/files.h"
#include "src/broker/tier-inside.h"
#include "src/common/log.h"
#include "src/common/size.h"

#define FILE_NAME	"stoker-tier"
#define FILE_NEW	"stoker-tier.new"
#define LOCK_NAME	"stoker-lock"
#define LOCK_TRIES	100	/* of 10 ms: what a killed broker's ring takes to end */

/* --- open --- */

/* The lock, or -errno. The holder's pid is in the file for people to read. */
static int lock_take(struct tier *tier, char *why)
{
	char pid[24] = "";
	int n;

	tier->lock = files_open(tier->dir, tier->path, LOCK_NAME, O_RDWR | O_CREAT, why);
	if (tier->lock < 0)
		return tier->lock;
	for (int i = 0; flock(tier->lock, LOCK_EX | LOCK_NB) < 0; i++) {
		if (errno == EWOULDBLOCK && i < LOCK_TRIES) {
			nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
			continue;
		}
		if (errno != EWOULDBLOCK)
			return files_why(errno, why, "cannot lock %.120s/" LOCK_NAME ": %m", tier->path);
		if (pread(tier->lock, pid, sizeof(pid) - 1, 0) < 0)
			pid[0] = '\0';
		pid[strspn(pid, "0123456789")] = '\0';
		return files_why(EBUSY, why, "the tier %.120s is in use by another broker (pid %s); stop it or name another "
				 "directory", tier->path, pid[0] ? pid : "unknown");
	}
	n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
	/* Only a courtesy: a full disk must not keep a broker from serving what is there. */
	if (ftruncate(tier->lock, 0) == 0 && files_write(tier->lock, pid, (size_t)n, 0) < 0)
		log_debug("tier %s: could not write its pid into %s/" LOCK_NAME, tier->config.name, tier->path);
	return 0;
}

/* A new file with a superblock, under its final name once that is durable. */
static int file_make(struct tier *tier, char *why)
{
	int r = -EIO, fd;

	unlinkat(tier->dir, FILE_NEW, 0);	/* of a broker that was killed right here */
	fd = openat(tier->dir, FILE_NEW, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd >= 0) {
		r = superblock_write(fd, tier->superblock);
		close(fd);
	}
	if (r == 0)
		r = files_rename(tier->dir, FILE_NEW, FILE_NAME);
	if (r == 0)
		return 0;
	if (fd < 0)
		r = -errno;
	errno = -r;
	return files_why(-r, why, "cannot make %.140s: %m", tier->file_path);
}

/* Look at what is there, or make it. tier->file is a plain descriptor then. */
static int file_open(struct tier *tier, char *why)
{
	struct stat st;
	int r;

	tier->file = files_open(tier->dir, tier->path, FILE_NAME, O_RDWR, why);
	if (tier->file == -ENOENT) {
		tier->fresh = true;
		r = file_make(tier, why);
		if (r < 0)
			return r;
		tier->file = files_open(tier->dir, tier->path, FILE_NAME, O_RDWR, why);
	}
	if (tier->file < 0)
		return tier->file;
	if (fstat(tier->file, &st) < 0 || st.st_size < (off_t)SUPERBLOCK_BYTES)
		return files_why(EBADMSG, why, "%.140s is no tier of stoker's (it is too short); move it away or name another "
				 "directory", tier->file_path);
	return superblock_read(tier->file, tier->file_path, tier->config.extent_bytes, why, tier->superblock);
}

/* Is there room for all of it? Asked before anything else is made. */
static int file_room(struct tier *tier, char *why)
{
	const uint64_t bytes = SUPERBLOCK_DATA + tier->units * 4096;
	char wanted[16], given[16];
	struct statvfs vfs;
	struct stat st;
	uint64_t room;

	if (fstatvfs(tier->file, &vfs) < 0 || fstat(tier->file, &st) < 0)
		return files_why(errno, why, "cannot look at the file system of %.140s: %m", tier->file_path);
	room = (uint64_t)vfs.f_bavail * vfs.f_frsize + (uint64_t)st.st_blocks * 512;
	if (bytes <= room)
		return 0;
	return files_why(ENOSPC, why, "no room for the tier %.100s: %s are wanted and its file system has %s; make it smaller "
			 "or free some", tier->path, size_text(bytes, wanted), size_text(room, given));
}

static int file_size(struct tier *tier, char *why)
{
	if (ftruncate(tier->file, (off_t)(SUPERBLOCK_DATA + tier->units * 4096)) < 0)
		return files_why(errno, why, "cannot give %.140s its size: %m", tier->file_path);
	return 0;
}

/*
 * Where the file system keeps blocks reserved without writing them, reserve all now; elsewhere the
 * file stays sparse, and a disk that fills up later is a write error. Seconds for a new terabyte, so
 * it is done at the start, which may take its time, and not at the open, which may not.
 */
static void file_reserve(struct tier *tier)
{
	struct statfs fs;

	if (fstatfs(tier->file, &fs) == 0 &&
	    (fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == XFS_SUPER_MAGIC || fs.f_type == BTRFS_SUPER_MAGIC) &&
	    fallocate(tier->file, 0, 0, (off_t)(SUPERBLOCK_DATA + tier->units * 4096)) < 0)
		log_info("tier %s: could not reserve %s beforehand: %m; blocks are found as they are written",
			 tier->config.name, tier->file_path);
}

/* Open the file once more past the page cache, and try it: some file systems say no at the read only. */
static void file_go_direct(struct tier *tier)
{
	void *page = aligned_alloc(4096, 4096);
	int fd = tier->config.no_direct ? -1 : files_open(tier->dir, tier->path, FILE_NAME, O_RDWR | O_DIRECT,
							  (char[FILES_WHY]){ "" });

	if (fd >= 0 && page && files_read(fd, page, 4096, 0) == 0) {
		close(tier->file);
		tier->file = fd;
		tier->direct = true;
	} else {
		if (fd >= 0)
			close(fd);
		if (!tier->config.no_direct)
			log_warning("tier %s: the file system of %s has no O_DIRECT, so its bytes pass through the page cache, "
				    "slower and in memory twice; use ext4 or xfs", tier->config.name, tier->path);
	}
	free(page);
}

static int tier_parts(struct tier *tier, const struct tier_config *config)
{
	/* Room for what waits in either queue: the whole stock. */
	tier->n_messages = config->ios + TIER_SPARE;
	tier->path = strdup(config->path);
	tier->stock = calloc(tier->n_messages, sizeof(*tier->stock));
	tier->to_thread = queue_new(tier->n_messages + 1);
	tier->to_core = queue_new(tier->n_messages + 1);
	tier->superblock = superblock_new(config->extent_bytes);
	if (!tier->path || asprintf(&tier->file_path, "%s/" FILE_NAME, tier->path) < 0 || !tier->stock ||
	    !tier->to_thread || !tier->to_core || !tier->superblock)
		return -ENOMEM;
	for (uint32_t i = 0; i < tier->n_messages; i++) {
		tier->stock[i].next = tier->free;
		tier->free = &tier->stock[i];
	}
	return bell_init(&tier->bell);
}

static struct tier *tier_new(const struct tier_config *config)
{
	struct tier *tier = calloc(1, sizeof(*tier));

	if (!tier)
		return NULL;
	tier->config = *config;
	tier->dir = tier->lock = tier->file = tier->bell.fd = -1;
	tier->units = config->bytes / config->extent_bytes * config->extent_bytes / 4096;
	tier_list_init(&tier->waiting);
	tier_list_init(&tier->writes);
	tier_list_init(&tier->extents);
	for (uint32_t i = 0; i < TIER_PRIORITIES; i++)
		tier_list_init(&tier->reads[i]);
	pthread_mutex_init(&tier->models, NULL);
	sem_init(&tier->up, 0, 0);
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
	for (size_t i = 0; i < 3; i++) {
		const int fd = (const int[]){ tier->file, tier->dir, tier->lock }[i];

		if (fd >= 0)
			close(fd);	/* the lock last */
	}
	bell_fini(&tier->bell);
	queue_free(tier->to_thread);
	queue_free(tier->to_core);
	pthread_mutex_destroy(&tier->models);
	sem_destroy(&tier->up);
	free(tier->superblock);
	free(tier->stock);
	free(tier->path);
	free(tier->file_path);
	free(tier);
}

static int tier_open_files(struct tier *tier, char *why)
{
	int r;

	if (tier->units == 0)
		return files_why(EINVAL, why, "the tier %.120s is smaller than one extent of %" PRIu64 " bytes; make it larger",
				 tier->path, tier->config.extent_bytes);
	tier->dir = files_directory(tier->path, why);
	if (tier->dir < 0)
		return tier->dir;
	r = lock_take(tier, why);
	if (r == 0)
		r = file_open(tier, why);
	if (r == 0)
		r = file_room(tier, why);
	/* The log is looked at before the file grows: a foreign one refuses the whole directory. */
	if (r == 0)
		r = slabs_open(tier->dir, tier->path, tier->superblock->uuid, tier->units, tier->fresh, why, &tier->slabs);
	if (r == 0)
		r = file_size(tier, why);
	if (r == 0)
		file_go_direct(tier);
	else if (tier->fresh)
		unlinkat(tier->dir, FILE_NAME, 0);	/* made a moment ago, holds nothing */
	return r;
}

int tier_open(const struct tier_config *config, char *why, struct tier **ret)
{
	struct tier *tier = tier_new(config);
	int r = tier ? tier_parts(tier, config) : -ENOMEM;

	if (r < 0)
		files_why(-r, why, "no memory for the tier %.120s", config->path);
	else
		r = tier_open_files(tier, why);
	if (r < 0) {
		tier_free(tier);
		return r;
	}
	*ret = tier;
	return 0;
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

int tier_start(struct tier *tier)
{
	sigset_t all, before;
	int r;

	file_reserve(tier);
	sigfillset(&all);	/* signals are the business of the thread that started us */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&tier->thread, NULL, tier_thread, tier);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r != 0)
		return -r;
	tier->started = true;
	while (sem_wait(&tier->up) < 0 && errno == EINTR)
		;
	if (tier->start_error == 0)
		return 0;
	pthread_join(tier->thread, NULL);
	tier->started = false;
	return tier->start_error;
}

void tier_stop(struct tier *tier)
{
	struct tier_event none;

	if (!tier)
		return;
	if (tier->started) {
		/* What waits for a free message must get one before the thread may end. */
		while (tier->waiting.first) {
			tier_reap(tier, &none, 1);
			nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
		}
		atomic_store_explicit(&tier->stop, true, memory_order_seq_cst);
		bell_ring(&tier->bell);
		pthread_join(tier->thread, NULL);
	}
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
