/*
 * What tier.c (life, recovery, the core thread's side), tier-open.c (its files) and tier-io.c (the
 * tier's own thread once it works) share of a tier.
 *
 * Messages go to the thread and come back over two queues that have room for all of them, so a put
 * never fails. They come from a fixed stock; when that is used up (a burst of slab_add and slab_remove),
 * the core's side keeps what is new in a list of its own and puts it when messages come back.
 */
#ifndef STOKER_BROKER_TIER_INSIDE_H
#define STOKER_BROKER_TIER_INSIDE_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "src/broker/files.h"
#include "src/broker/slabs.h"
#include "src/broker/superblock.h"
#include "src/broker/tier-way.h"
#include "src/broker/tier.h"

#define TIER_PRIORITIES	8u
#define TIER_SPARE	4096u	/* messages that are no reads or writes */

enum tier_verb { TIER_READ, TIER_WRITE, TIER_SLAB, TIER_EPOCH, TIER_EXTENT, TIER_FLUSH };

/** struct tier_message - one errand; it belongs to whoever took it from a queue last. */
struct tier_message {
	struct tier_message *next;	/* in a list of its owner */
	enum tier_verb verb;
	enum engine_result result;
	uint8_t digest[MODEL_DIGEST_BYTES];	/* SLAB, EPOCH */
	union {
		struct {			/* READ, WRITE */
			struct engine_io io;
			uint64_t total;		/* bytes to move: of the image, less after an error */
			uint64_t started, ended;
			uint64_t needs;		/* WRITE: of the slab table, durable before it begins */
			int error;		/* errno of the first transfer that failed; -1 = short */
		} move;
		struct slab_entry slab;		/* but for `model`, which the thread finds */
		struct {
			uint32_t epoch;
			uint64_t tag, token;
		} epoch;
		uint32_t extent;
		uint64_t flush;			/* its token */
	};
};

/** struct tier_list - messages in order. */
struct tier_list {
	struct tier_message *first, **end;
};

/** struct tier_transfer - what a token of the way stands for. */
struct tier_transfer {
	struct tier_message *message;	/* NULL: the token is free */
	uint32_t bytes;
};

/*
 * OPENING -> OPEN (its files are ours) -> WORKING -> over, or OPENING -> REFUSED -> over. A tier that is stopped
 * while a hanging disk keeps it OPENING is LEFT to its thread, which frees it if that ever ends.
 */
enum tier_life { TIER_OPENING, TIER_OPEN, TIER_REFUSED, TIER_WORKING, TIER_LEFT };

struct tier {
	struct tier_config config;
	char *directory, *owner;	/* what config.path and config.owner point to */
	char *path, *file_path;		/* of the seat in it that this broker has; see tier-open.c */
	uint32_t seat;
	uint32_t n_messages;
	int dir, lock, file;
	int notes;			/* block device: superblock and slab table go through it; -1: in a directory */
	uint64_t data;			/* where images begin in `file` */
	bool direct;			/* the file is open with O_DIRECT */
	bool fresh;			/* the file was made by this open */
	uint64_t units;			/* places for images, of 4,096 bytes */
	struct superblock *superblock;	/* rows change under `models`, by the thread alone */
	pthread_mutex_t models;
	struct slabs *slabs;

	pthread_mutex_t life_lock;	/* of the next four; life_changed tells of them */
	pthread_cond_t life_changed;
	enum tier_life life;
	bool over;			/* OPEN, and told to stop before it was told to start */
	int open_result;
	char why[FILES_WHY];		/* REFUSED */

	struct bell bell;		/* of the thread */
	struct queue *to_thread, *to_core;
	_Atomic bool stop, failed;

	/* The core thread's side. */
	struct tier_message *stock, *free;
	struct tier_list waiting;	/* for a free message */
	bool failed_is_told;

	/* The thread's side. */
	pthread_t thread;
	bool started;
	sem_t up;			/* its way is open, or start_error says why not */
	int start_error;
	const struct tier_way *way;
	void *way_data;
	struct tier_list reads[TIER_PRIORITIES], writes, extents;
	struct tier_transfer transfers[TIER_TRANSFERS];
	uint32_t n_transfers, n_writes;	/* under way; writes among them */
	uint64_t bytes_under_way;
	uint32_t errors;		/* in a row */
	uint64_t next_warning_ns;
	uint64_t synced;		/* slab table durable up to here */
	uint64_t syncing;		/* position that the sync under way will make durable */
	uint64_t sync_due_ns;		/* what was appended last is to be durable by then; 0 = nothing is */
	uint32_t n_syncs;		/* under way */
	uint32_t reads_since_write;	/* transfers, while a write could have begun */
	bool log_is_broken;		/* these four: said, so that it is not said again */
	bool disk_is_full, table_is_full, no_compaction;
	bool moved;			/* the core's bell is to be rung */
	uint32_t kept[SUPERBLOCK_MODELS];	/* by row, of the compaction under way */
};

static inline void tier_list_init(struct tier_list *list)
{
	list->first = NULL;
	list->end = &list->first;
}

static inline void tier_list_put(struct tier_list *list, struct tier_message *message)
{
	message->next = NULL;
	*list->end = message;
	list->end = &message->next;
}

static inline struct tier_message *tier_list_get(struct tier_list *list)
{
	struct tier_message *message = list->first;

	if (message) {
		list->first = message->next;
		if (!list->first)
			list->end = &list->first;
	}
	return message;
}

/* tier-open.c. 0, or -errno with the reason in @why: then nothing that was there has changed. */
int tier_files_open(struct tier *tier, char *why);
void tier_files_reserve(struct tier *tier);
/* tier-device.c: the same on a block device. */
int tier_device_open(struct tier *tier, char *why);

/* tier-io.c: the thread, when the tier has been told to start. @arg: the tier. Opens its way, posts `up`, works until `stop` and all is done. */
void *tier_thread(void *arg);

#endif
