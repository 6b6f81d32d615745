/*
 * Device backends: who moves blocks between pools and the arena.
 *
 * A backend is a row of functions; host (threads that copy shared memory) is the first, a copier
 * process per GPU the next. The core knows no more of a device than this file. A region belongs to
 * one backend, by its kind; all pools of one copy belong to one backend.
 *
 * Threads: region_* and pool_* are called by the control thread and may block (never for a peer);
 * copy, cancel and reap by the core thread and never block. Pools reach the core thread only after
 * pool_add() has returned, and pool_drop() is called only after the core has drained them.
 */
#ifndef STOKER_DEVICE_DEVICE_H
#define STOKER_DEVICE_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/message.h"
#include "shm/model.h"
#include "src/common/queue.h"
#include "src/engine/engine.h"

struct device;			/* a started backend */
struct device_region;		/* memory of a client, opened */
struct device_pool;		/* a view of regions for one part */

/** struct device_host - what the broker gives to every backend at its start. */
struct device_host {
	uint8_t *arena;			/* mapped read-write for the broker's life */
	uint64_t arena_bytes;
	int arena_fd;
	struct bell *bell;		/* ring it when there is something to reap */
	uint32_t threads;		/* helper threads, 1 to 64 */
	uint32_t copies;		/* copies under way at once, at most */
	uint64_t piece_bytes;		/* cut copies into pieces of about this many bytes */
	/* The fence's write end is inherited by whoever else writes into clients' memory. */
	uint32_t checks;		/* seals and verifies under way at once, at most; 0: 1,024 */
	uint64_t region_bytes_max;	/* of one region; 0: as much as the machine has, swap included */
	const int *own_fds;		/* files that are no client's memory, the arena apart (table, control */
	uint32_t n_own;			/* page, ...): read by start() alone */
};

/** struct device_copy - an engine_copy with its numbers resolved by the core. */
struct device_copy {
	struct engine_copy request;
	const struct model_layout *layout;
	/* By the client's pool numbers; NULL where dropped. The array stays where it is until DONE, and */
	/* so do the entries that the items name; helper threads read those. */
	struct device_pool *const *pools;
};

enum device_event_type { DEVICE_PROGRESS, DEVICE_DONE, DEVICE_POOL_DEAD, DEVICE_CHECKED };
struct device_event {
	enum device_event_type type;
	uint32_t copy;			/* PROGRESS, DONE: number of the copy; CHECKED: of the check */
	uint32_t layers;		/* PROGRESS: layers of the range wholly copied */
	enum engine_result result;	/* DONE, CHECKED */
	uint64_t checksum;		/* CHECKED */
	uint32_t client, pool;		/* POOL_DEAD */
};

struct image_identity;
struct device_backend {
	const char *name;
	enum message_region_kind kind;
	int (*start)(const struct device_host *host, struct device **ret);	/* 0 or -errno */
	void (*stop)(struct device *device);	/* after all copies have ended */

	/*
	 * Check and open memory. @fds are the backend's from now on, also on failure. Returns 0 or
	 * -errno with the reason in @why (MESSAGE_REASON bytes): what, why, remedy.
	 */
	int (*region_add)(struct device *device, const struct message_region_add *message, const int *fds,
			  char *why, struct device_region **ret);
	void (*region_close)(struct device_region *region);	/* no pool uses it any more */
	uint64_t (*region_bytes)(const struct device_region *region);

	/*
	 * A view: @planes in the order of the part's rows, checked against the layout and against
	 * @regions (by the client's region numbers; NULL = none). Every range is computed in 128 bits.
	 */
	int (*pool_add)(struct device *device, uint32_t client, uint32_t number,
			const struct model_layout *layout, uint32_t part, uint32_t n_blocks,
			const struct message_plane *planes, uint32_t n_planes,
			struct device_region *const *regions, uint32_t n_regions,
			char *why, struct device_pool **ret);
	void (*pool_close)(struct device_pool *pool);

	int (*copy)(struct device *device, const struct device_copy *copy);	/* 0 or -EAGAIN: full */
	void (*cancel)(struct device *device, uint32_t copy);
	uint32_t (*reap)(struct device *device, struct device_event *ret, uint32_t n);
	/* A seal or verify, answered by DEVICE_CHECKED; NULL: the host backend's helpers do it (device_check). */
	int (*check)(struct device *device, bool seal, const struct engine_check *check,
		     const struct image_identity *identity);
};

extern const struct device_backend device_host_backend;

/*
 * Images: the header in front of every payload, the same bytes in the arena and on disk, and the
 * checks of it, which the host backend's helper threads run for the broker (device_check).
 */
struct image_identity {			/* what the engine's numbers mean outside this boot */
	uint8_t model_digest[MODEL_DIGEST_BYTES];	/* of description and tenant */
	uint64_t payload_bytes;
};
/* On disk an image also bears its tier: written in front of a write, looked at after a read. */
void image_stamp(void *image, const uint8_t tier_uuid[16]);
bool image_is_of(const void *image, const uint8_t tier_uuid[16]);

/* Hand a seal or verify to the host backend's helpers; answered by DEVICE_CHECKED. 0 or -EAGAIN. */
int device_check(struct device *host, bool seal, const struct engine_check *check,
		 const struct image_identity *identity);

#endif
