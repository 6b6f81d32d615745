/*
 * A disk tier: images in one large file or on a block device of its own, private to one broker.
 *
 * In the tier's directory: `stoker-tier` (superblock with magic, format, machine and tier uuid,
 * epochs; then the images, in extents as the engine hands them out) and `stoker-slabs` (the slab
 * table: an append-only, checksummed log of slab_add and slab_remove, read sequentially at start,
 * rewritten compactly when it has grown to twice what lives). A file of another format, machine or
 * broker is refused with its reason and never written. On a block device all that is in the device
 * itself; tier-device.c says how.
 *
 * One thread and one io_uring a tier: O_DIRECT, arena extents as registered buffers, the tier's file
 * and the broker's NAME.io lock as registered files. Without io_uring: pread/pwrite in that
 * thread; without O_DIRECT: buffered; each with one log line that names the remedy. I/O that crosses an extent is cut
 * there. Reads go before writes; an I/O error is answered, never retried in silence.
 *
 * Threads: the tier's own thread opens its files, which may take as long as the disk likes, and
 * works from tier_start() on; new and opened are called by the control thread, recover and start by the
 * starter, submit and reap by the core thread; none of them but recover waits for the disk.
 */
#ifndef STOKER_BROKER_TIER_H
#define STOKER_BROKER_TIER_H

#include "shm/model.h"
#include "src/common/queue.h"
#include "src/device/device.h"
#include "src/engine/engine.h"

struct tier;

/* Failed reads and writes in a row, or wrong checksums, that take a tier out of service. */
#define TIER_ERRORS_MAX	16u

struct tier_config {
	char name[32];			/* "disk0" */
	const char *path;		/* directory or block device */
	const char *owner;		/* whose it is, for the lock file: runtime directory and name of the broker */
	bool io_is_held;		/* a dead broker of that name may still have I/O under way; see tier-open.c */
	uint64_t bytes;			/* of images, rounded down to extents */
	uint64_t extent_bytes;
	uint64_t depth_bytes;		/* of I/O under way */
	uint8_t *arena;			/* mapped; extents are registered as they are populated */
	uint64_t arena_bytes;
	int io_lock_fd;			/* registered in the ring, so that the kernel holds it to the last DMA */
	struct bell *bell;		/* rung when there is something to reap */
	uint32_t ios;			/* under way at most, as in engine_config */
	bool no_uring, no_direct;	/* for tests: take the slower way */
	bool as_device;			/* for tests: @path is a file that stands for a block device */
};

/* Bytes for images on a block device of @bytes: what the broker notes there is taken off. */
uint64_t tier_device_room(uint64_t bytes);

/* Make a tier, whose thread then opens it. Returns 0 or -errno. The texts of @config are copied. */
int tier_new(const struct tier_config *config, struct tier **ret);
/*
 * Is it open? Waits @wait_ns at most. Returns 0 (yes: what follows may be called), -EINPROGRESS (not yet), or
 * another -errno: it never will, reason and remedy are in @why (256 bytes), and nothing foreign was touched.
 */
int tier_opened(struct tier *tier, uint64_t wait_ns, char *why);

/* What the slab table knows, each live object once; model by (tenant) digest. Stops if @each returns false. */
struct tier_found {
	struct engine_place place;	/* tier number is filled in by the caller */
	struct engine_object object;	/* `model`, `part` are not set: they are looked up by digest */
	uint8_t model_digest[MODEL_DIGEST_BYTES];
};
int tier_recover(struct tier *tier, bool (*each)(void *arg, const struct tier_found *found), void *arg);

int tier_start(struct tier *tier);	/* its thread begins to move bytes */
/* All I/O has ended: flushes the slab table, joins, frees. One that is still opening is left to its thread. */
void tier_stop(struct tier *tier);

/* The next highest epoch known to this tier for a model, or 0. */
uint32_t tier_epoch(const struct tier *tier, const uint8_t model_digest[MODEL_DIGEST_BYTES]);

/* --- from the core thread; 0 or -EAGAIN (its queue is full, which ios bounds) --- */
void tier_extent_ready(struct tier *tier, uint32_t extent);
int tier_submit(struct tier *tier, bool write, const struct engine_io *io,
		const struct image_identity *identity);
int tier_slab(struct tier *tier, bool add, const struct engine_place *place,
	      const struct engine_object *object, const struct image_identity *identity);
int tier_persist_epoch(struct tier *tier, const uint8_t model_digest[MODEL_DIGEST_BYTES], uint32_t epoch,
		       uint64_t tag, uint64_t token);
int tier_flush(struct tier *tier, uint64_t token);	/* all that was asked before is to be durable; answered when it is */

enum tier_event_type { TIER_IO_DONE, TIER_EPOCH_DONE, TIER_FLUSHED, TIER_FAILED };
struct tier_event {
	enum tier_event_type type;
	uint32_t io;
	enum engine_result result;
	uint64_t token;			/* EPOCH_DONE, FLUSHED */
};
uint32_t tier_reap(struct tier *tier, struct tier_event *ret, uint32_t n);

const char *tier_path(const struct tier *tier);
const char *tier_method(const struct tier *tier);	/* "io_uring, O_DIRECT" etc., for the log */

#endif
