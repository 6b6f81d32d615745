/*
 * A tier's own thread: which bytes move when, the slab table, and what went wrong.
 *
 * Images are cut into transfers at the arena's extents and at about TRANSFER_BYTES. Reads go before
 * writes, in the order of their priority; while reads wait, writes get one transfer of WRITE_SHARE,
 * so that write-back is slow then but not dead. At most TIER_TRANSFERS transfers, WRITES_MAX of
 * them writes, and depth_bytes are under way.
 *
 * Invariants:
 * - An image is written after the REMOVEs of the slab table that came before it are durable (slabs.h
 *   says what that spares), and bears this tier's uuid.
 * - A message goes back to the core when nothing of it is under way, never before.
 * - Errors are answered, never retried: the core makes a miss of them. TIER_ERRORS_MAX in a row (a full
 *   disk aside, which can still be read) take the tier out of service: all that waits is answered as
 *   failed, and the core is told once.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/broker/clock.h"
#include "src/broker/tier-inside.h"
#include "src/common/log.h"
#include "src/device/image.h"

/*
 * And up to half as much again, so that no small rest is left over. Not more: the arena's pages are small where the
 * kernel gave no huge ones, block devices take 127 to 254 segments a request, and what has more is cut by the
 * kernel into a full request and a crumb: fio's reads into such memory were half as fast at 1,028 KiB as at 512.
 */
#define TRANSFER_BYTES	524288u
#define WRITES_MAX	16u
#define WRITE_SHARE	16u
#define TAKE_MAX	256u		/* messages a turn */
#define SYNC_NS		1000000000ull	/* the newest that a crash of the machine may cost */
#define WARNING_NS	(60 * 1000000000ull)	/* between lines about single errors, which are counted anyway */

static void send_back(struct tier *tier, struct tier_message *message)
{
	const bool put = queue_put(tier->to_core, message);

	assert(put);	/* the queue has room for the whole stock */
	(void)put;
	tier->moved = true;
}

/* --- errors --- */

static bool tier_is_failed(const struct tier *tier)
{
	return atomic_load_explicit(&tier->failed, memory_order_relaxed);
}

/* @error: errno, or -1 of a transfer that came short. */
static void error_note(struct tier *tier, int error, const char *what)
{
	const char *text = error < 0 ? "it came short (is the file truncated?)" : strerror(error);

	if (error == ENOSPC || error == EDQUOT) {
		if (!tier->disk_is_full)
			log_warning("tier %s: could not %s %s: %s; what does not fit is not kept, free some space", tier->config.name,
				    what, tier->file_path, text);
		tier->disk_is_full = true;
		return;
	}
	if (tier->errors++ == 0 && clock_kernel_ns() >= tier->next_warning_ns) {
		tier->next_warning_ns = clock_kernel_ns() + WARNING_NS;
		log_warning("tier %s: could not %s %s: %s; a read becomes a miss, a write is not kept", tier->config.name, what,
			    tier->file_path, text);
	}
	if (tier->errors == TIER_ERRORS_MAX && !tier_is_failed(tier)) {
		log_error("tier %s: out of service after %u errors in a row, the last: could not %s %s: %s; look at the disk, "
			  "then start the broker again", tier->config.name, tier->errors, what, tier->file_path, text);
		atomic_store_explicit(&tier->failed, true, memory_order_release);
		tier->moved = true;
	}
}

/* --- models and the slab table --- */

static void log_lost(struct tier *tier, int error, const char *what)
{
	if (!tier->log_is_broken)
		log_warning("tier %s: could not %s its slab table in %s: %s; what is stored now may be forgotten when the broker "
			    "ends", tier->config.name, what, tier->path, strerror(error));
	tier->log_is_broken = true;
}

/*
 * What was appended goes to the page cache, in order. An entry that cannot be written is lost at
 * once: to wait for better days would hold up the writes behind it, and slabs.h says why it is harmless.
 */
static void log_write(struct tier *tier)
{
	const int r = slabs_write(tier->slabs);

	if (r < 0) {
		log_lost(tier, -r, "append to");
		slabs_drop_batch(tier->slabs);
	}
}

/* Make room in the table of models: rows that no live entry names. Rare, so it may take its time. */
static void models_reclaim(struct tier *tier)
{
	int r;

	log_write(tier);
	do
		r = slabs_compact_step(tier->slabs, true, tier->kept);
	while (r > 0);
	if (r < 0)
		return;
	pthread_mutex_lock(&tier->models);
	for (uint32_t i = 0; i < SUPERBLOCK_MODELS; i++)
		if (tier->kept[i] == 0)
			tier->superblock->models[i] = (struct superblock_model){ 0 };
	pthread_mutex_unlock(&tier->models);
}

/*
 * The row of a model, durable, with at least @epoch if it is new or @raise. Returns it or -errno.
 * The other threads read the table under the mutex; this one alone changes it.
 */
static int model_row(struct tier *tier, const uint8_t *digest, uint32_t epoch, uint64_t tag, bool raise)
{
	int r, row = superblock_model(tier->superblock, digest, false);
	struct superblock_model before;

	if (row >= 0 && !(raise && tier->superblock->models[row].epoch < epoch))
		return row;
	before = row < 0 ? (struct superblock_model){ 0 } : tier->superblock->models[row];
	pthread_mutex_lock(&tier->models);
	row = superblock_model(tier->superblock, digest, true);
	if (row >= 0) {
		tier->superblock->models[row].epoch = epoch;
		tier->superblock->models[row].tag = tag;
	}
	pthread_mutex_unlock(&tier->models);
	if (row < 0)
		return -ENOSPC;
	r = superblock_write(tier->file, tier->superblock);
	if (r == 0)
		return row;
	error_note(tier, -r, "write the superblock of");
	pthread_mutex_lock(&tier->models);
	tier->superblock->models[row] = before;
	pthread_mutex_unlock(&tier->models);
	return r;
}

static int model_row_for_sure(struct tier *tier, const uint8_t *digest, uint32_t epoch, uint64_t tag, bool raise)
{
	int row = model_row(tier, digest, epoch, tag, raise);

	if (row == -ENOSPC && !tier->table_is_full) {
		models_reclaim(tier);
		row = model_row(tier, digest, epoch, tag, raise);
		if (row == -ENOSPC) {
			log_warning("tier %s: %u models have objects on it, so those of further models will not outlive the "
				    "broker; clear the tier", tier->config.name, SUPERBLOCK_MODELS);
			tier->table_is_full = true;
		}
	}
	return row;
}

static void log_append(struct tier *tier, struct tier_message *message)
{
	const bool add = message->slab.op == SLAB_ADD;
	int row;

	if (add)
		row = model_row_for_sure(tier, message->digest, message->slab.epoch, 0, false);
	else	/* a REMOVE is about its place only */
		row = superblock_model(tier->superblock, message->digest, false);
	if (row >= 0 || !add) {
		message->slab.model = row >= 0 ? (uint16_t)row : 0;
		if (slabs_is_full(tier->slabs))
			log_write(tier);
		slabs_append(tier->slabs, &message->slab);
		if (tier->sync_due_ns == 0)
			tier->sync_due_ns = clock_kernel_ns() + SYNC_NS;
	}
	send_back(tier, message);
}

/* Write and make durable what is due; go on with a compaction. True: come again at once. */
static bool log_keep(struct tier *tier)
{
	const bool gated = tier->writes.first && tier->writes.first->move.needs > tier->synced;
	const bool due = tier->sync_due_ns != 0 && clock_kernel_ns() >= tier->sync_due_ns;
	int r = 0;

	log_write(tier);
	/* Its end closes the log's old file, which a sync that is under way, or waits in the ring, would miss. */
	if (tier->n_syncs == 0 && slabs_compact_wanted(tier->slabs) && !tier->no_compaction) {
		r = slabs_compact_step(tier->slabs, false, tier->kept);
		if (r < 0) {
			log_lost(tier, -r, "compact");
			tier->no_compaction = true;
		}
	}
	if (tier->n_syncs == 0 && (gated || due)) {
		tier->syncing = slabs_position(tier->slabs);
		tier->sync_due_ns = 0;
		tier->way->sync(tier->way_data, slabs_fd(tier->slabs), TIER_SYNC_LOG);
		tier->n_syncs++;
		if (due) {	/* and where the images lie: the file system's own notes of it */
			tier->way->sync(tier->way_data, tier->file, TIER_SYNC_FILE);
			tier->n_syncs++;
		}
	}
	return r > 0;
}

static void sync_end(struct tier *tier, uint32_t token, int32_t result)
{
	tier->n_syncs--;
	if (result < 0)
		log_lost(tier, -result, "make durable");
	/* Also after an error: who waits for it is spared a wrong wait, not a wrong byte. */
	if (token == TIER_SYNC_LOG)
		tier->synced = tier->syncing;
}

/* --- images --- */

static uint8_t *image_of(const struct tier *tier, const struct tier_message *message)
{
	return tier->config.arena + (uint64_t)message->move.io.arena.unit * 4096;
}

/* Of what was read: ours, and the object that was asked for? Its payload is verified by helpers. */
static bool image_is_asked_for(const struct tier *tier, const struct tier_message *message)
{
	const struct image_header *header = (const struct image_header *)image_of(tier, message);
	const struct engine_object *object = &message->move.io.object;

	return image_is_of(header, tier->superblock->uuid) && header->sequence == object->sequence &&
	       memcmp(&header->key, &object->key, sizeof(header->key)) == 0;
}

static void move_end(struct tier *tier, struct tier_message *message)
{
	const bool read = message->verb == TIER_READ;

	if (message->move.error != 0) {
		message->result = ENGINE_FAILED;
		if (message->move.error != ECANCELED)
			error_note(tier, message->move.error, read ? "read from" : "write to");
	} else {
		message->result = read && !image_is_asked_for(tier, message) ? ENGINE_CORRUPT : ENGINE_OK;
		tier->errors = 0;
		if (!read)
			tier->disk_is_full = false;
	}
	send_back(tier, message);
}

static void transfer_end(struct tier *tier, const struct transfer_end *end)
{
	struct tier_transfer *transfer = &tier->transfers[end->token];
	struct tier_message *message = transfer->message;

	assert(message);
	if (end->result != (int32_t)transfer->bytes && message->move.error == 0)
		message->move.error = end->result < 0 ? -end->result : -1;
	message->move.ended += transfer->bytes;
	tier->bytes_under_way -= transfer->bytes;
	tier->n_transfers--;
	tier->n_writes -= message->verb == TIER_WRITE;
	transfer->message = NULL;
	if (message->move.ended == message->move.total)
		move_end(tier, message);
}

static bool ends_take(struct tier *tier)
{
	struct transfer_end ends[TIER_TOKENS];
	const uint32_t n = tier->way->ends(tier->way_data, ends, TIER_TOKENS);

	for (uint32_t i = 0; i < n; i++) {
		if (ends[i].token < TIER_TRANSFERS)
			transfer_end(tier, &ends[i]);
		else
			sync_end(tier, ends[i].token, ends[i].result);
	}
	return n > 0;
}

/* The list whose first message is to move next; NULL: nothing may. */
static struct tier_list *list_next(struct tier *tier)
{
	struct tier_list *reads = NULL;
	const struct tier_message *write = tier->writes.first;

	for (uint32_t i = 0; i < TIER_PRIORITIES && !reads; i++)
		if (tier->reads[i].first)
			reads = &tier->reads[i];
	if (write && write->move.error == 0 && !tier_is_failed(tier) &&
	    (write->move.needs > tier->synced || tier->n_writes == WRITES_MAX))
		write = NULL;
	if (!reads)
		return write ? &tier->writes : NULL;
	if (write && tier->n_writes == 0 && ++tier->reads_since_write > WRITE_SHARE) {
		tier->reads_since_write = 0;
		return &tier->writes;
	}
	return reads;
}

/* The next transfer of an image: within an extent, of about TRANSFER_BYTES. */
static void transfer_cut(const struct tier *tier, const struct tier_message *message, struct transfer *ret)
{
	const struct engine_io *io = &message->move.io;
	const uint64_t at = (uint64_t)io->arena.unit * 4096 + message->move.started;
	const uint64_t extent_left = tier->config.extent_bytes - at % tier->config.extent_bytes;
	uint64_t bytes = message->move.total - message->move.started;

	if (bytes > extent_left)
		bytes = extent_left;
	if (bytes > TRANSFER_BYTES + TRANSFER_BYTES / 2)
		bytes = TRANSFER_BYTES;
	*ret = (struct transfer){
		.write = message->verb == TIER_WRITE,
		.extent = (uint32_t)(at / tier->config.extent_bytes),
		.bytes = (uint32_t)bytes,
		.memory = tier->config.arena + at,
		.offset = tier->data + (uint64_t)io->disk.unit * 4096 + message->move.started,
	};
}

static void transfer_start(struct tier *tier, struct tier_message *message, struct transfer *transfer)
{
	while (tier->transfers[transfer->token].message)
		transfer->token++;
	tier->transfers[transfer->token] = (struct tier_transfer){ message, transfer->bytes };
	if (transfer->write && message->move.started == 0)
		image_stamp(image_of(tier, message), tier->superblock->uuid);
	message->move.started += transfer->bytes;
	tier->bytes_under_way += transfer->bytes;
	tier->n_transfers++;
	tier->n_writes += transfer->write;
	tier->way->start(tier->way_data, transfer);
}

/* Start what may be started. True if anything was, or an image ended without more. */
static bool transfers_start(struct tier *tier)
{
	const uint32_t most = tier->way->transfers(tier->way_data);
	struct tier_list *list;
	bool any = false;

	while (tier->n_transfers < most && (list = list_next(tier))) {
		struct tier_message *message = list->first;
		struct transfer transfer;

		if (message->move.error == 0 && tier_is_failed(tier))
			message->move.error = ECANCELED;
		if (message->move.error != 0) {		/* no more of it; the rest is not waited for */
			tier_list_get(list);
			message->move.total = message->move.started;
			if (message->move.ended == message->move.total)
				move_end(tier, message);
			any = true;
			continue;
		}
		transfer_cut(tier, message, &transfer);
		if (tier->bytes_under_way > 0 && tier->bytes_under_way + transfer.bytes > tier->config.depth_bytes)
			break;
		transfer_start(tier, message, &transfer);
		if (message->move.started == message->move.total)
			tier_list_get(list);
		any = true;
	}
	return any;
}

/* --- the loop --- */

static void move_take(struct tier *tier, struct tier_message *message)
{
	const struct engine_io *io = &message->move.io;
	const uint32_t priority = io->priority < TIER_PRIORITIES ? io->priority : TIER_PRIORITIES - 1;

	assert((uint64_t)io->arena.unit * 4096 + io->arena.bytes <= tier->config.arena_bytes);
	assert(io->disk.unit + io->disk.bytes / 4096 <= tier->units && io->disk.bytes == io->arena.bytes);
	message->move.total = io->disk.bytes;
	message->move.started = message->move.ended = 0;
	message->move.error = 0;
	message->move.needs = slabs_needs(tier->slabs);
	tier_list_put(message->verb == TIER_WRITE ? &tier->writes : &tier->reads[priority], message);
}

static void epoch_take(struct tier *tier, struct tier_message *message)
{
	const int row = model_row_for_sure(tier, message->digest, message->epoch.epoch, message->epoch.tag, true);

	message->result = row >= 0 ? ENGINE_OK : ENGINE_FAILED;
	send_back(tier, message);
}

/* For people who drain: rare, so it may hold up the reads behind it. Writes before it have ended, or it would not be asked. */
static void flush_take(struct tier *tier, struct tier_message *message)
{
	int r = 0;

	log_write(tier);
	if (fdatasync(slabs_fd(tier->slabs)) < 0 || fdatasync(tier->file) < 0)
		r = errno;
	if (r != 0)
		log_lost(tier, r, "make durable");
	message->result = r == 0 ? ENGINE_OK : ENGINE_FAILED;
	send_back(tier, message);
}

static bool messages_take(struct tier *tier)
{
	struct tier_message *message;
	uint32_t n = 0;

	while (n < TAKE_MAX && (message = queue_get(tier->to_thread))) {
		n++;
		switch (message->verb) {
		case TIER_READ:
		case TIER_WRITE:
			move_take(tier, message);
			break;
		case TIER_SLAB:
			log_append(tier, message);
			break;
		case TIER_EPOCH:
			epoch_take(tier, message);
			break;
		case TIER_FLUSH:
			flush_take(tier, message);
			break;
		case TIER_EXTENT:
			tier_list_put(&tier->extents, message);
			break;
		}
	}
	return n > 0;
}

/* One extent a turn: to register it takes a millisecond, and reads wait meanwhile. */
static bool extent_take(struct tier *tier)
{
	struct tier_message *message = tier_list_get(&tier->extents);

	if (!message)
		return false;
	tier->way->extent_ready(tier->way_data, message->extent);
	send_back(tier, message);
	return true;
}

/* How long nothing needs to be done: until the next sync, or for ever. */
static uint64_t wait_ns(const struct tier *tier)
{
	uint64_t now;

	if (tier->sync_due_ns == 0)
		return UINT64_MAX;
	now = clock_kernel_ns();
	return now < tier->sync_due_ns ? tier->sync_due_ns - now : tier->n_syncs > 0 ? SYNC_NS : 0;
}

/* Until something ends, the bell rings, or it is time. Whoever rings after the arming is heard. */
static void thread_sleep(struct tier *tier)
{
	bool wait;

	bell_arm(&tier->bell);
	wait = queue_is_empty(tier->to_thread) && (!atomic_load_explicit(&tier->stop, memory_order_seq_cst) ||
						   tier->n_transfers > 0 || tier->n_syncs > 0);
	tier->way->turn(tier->way_data, wait ? wait_ns(tier) : 0);
	bell_disarm(&tier->bell);
}

/* False: told to stop, and nothing is left to be done. */
static bool thread_turn(struct tier *tier)
{
	bool busy = messages_take(tier);

	busy |= ends_take(tier);
	busy |= log_keep(tier);
	busy |= extent_take(tier);
	busy |= transfers_start(tier);
	if (tier->moved) {
		tier->moved = false;
		bell_ring(tier->config.bell);
	}
	if (busy) {
		tier->way->turn(tier->way_data, 0);
		return true;
	}
	/* Loads `stop` before the queue is looked at: what was put before it was set is seen. */
	if (atomic_load_explicit(&tier->stop, memory_order_seq_cst) && queue_is_empty(tier->to_thread) &&
	    tier->n_transfers == 0 && tier->n_syncs == 0 && !tier->writes.first)
		return false;
	thread_sleep(tier);
	return true;
}

/* Since Linux 6.12 what a ring takes counts as locked memory, and a limit on that says ENOMEM. */
static const char *uring_remedy(int error)
{
	return error == -ENOMEM ? "raise the limit of locked memory (LimitMEMLOCK=infinity, ulimit -l)"
				: "allow io_uring (sysctl kernel.io_uring_disabled=0, seccomp), Linux 6.1 or later";
}

static int way_open(struct tier *tier)
{
	const struct tier_way_config config = {
		.name = tier->config.name, .file = tier->file, .io_lock = tier->config.io_lock_fd,
		.dir_lock = tier->lock, .bell = tier->bell.fd, .arena = tier->config.arena,
		.arena_bytes = tier->config.arena_bytes, .extent_bytes = tier->config.extent_bytes,
		.direct = tier->direct,
	};
	int r;

	tier->way = &tier_way_uring;
	r = tier->config.no_uring ? -ECANCELED : tier->way->open(&config, &tier->way_data);
	if (r == 0)
		return 0;
	if (!tier->config.no_uring)
		log_warning("tier %s: cannot use io_uring: %s, so it moves one piece at a time; %s", tier->config.name,
			    strerror(-r), uring_remedy(r));
	tier->way = &tier_way_slow;
	return tier->way->open(&config, &tier->way_data);
}

void *tier_thread(void *arg)
{
	struct tier *tier = arg;

	tier->start_error = way_open(tier);
	sem_post(&tier->up);
	if (tier->start_error < 0)
		return NULL;
	tier_files_reserve(tier);
	while (thread_turn(tier))
		;
	log_write(tier);
	if (fdatasync(slabs_fd(tier->slabs)) < 0)
		log_lost(tier, errno, "make durable");
	fdatasync(tier->file);
	tier->way->close(tier->way_data);
	return NULL;
}
