/*
 * Device backends: who moves blocks between pools and the arena.
 *
 * A backend is a row of functions; host (threads that copy shared memory) is the first, cuda (a copier
 * process per GPU) the second. The core knows no more of a device than this file. A region belongs to
 * one device, and so do all pools of one copy.
 *
 * Threads: region_*, pool_*, watch, tend, answer and figures are called by the control thread; those of the host
 * backend may block (never for a peer). A backend that would have to wait for another process says
 * DEVICE_LATER instead and answers when tend() has taken what came: exactly one answer for each LATER, also
 * if the region or pool is closed meanwhile. copy, cancel, reap, arm and extent are called by the core thread
 * and never block. Pools reach the core thread only after they have been opened (and answered for), and
 * pool_close() is called only after the core has drained them.
 */
#ifndef STOKER_DEVICE_DEVICE_H
#define STOKER_DEVICE_DEVICE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "shm/message.h"
#include "shm/model.h"
#include "src/common/queue.h"
#include "src/engine/engine.h"

struct device;			/* a started backend */
struct device_region;		/* memory of a client, opened */
struct device_pool;		/* a view of regions for one part */
struct control_block;
struct control_gpu;

#define DEVICE_LATER	1	/* it is asked for; its answer comes by answer() */
#define DEVICE_CREWS	16u	/* of helpers of the host backend: one a uid; further uids share one with others */
#define DEVICE_UUID	16u
#define DEVICE_LIBRARY	192u

/** struct device_gpu - what a backend for GPUs is told besides. */
struct device_gpu {
	uint8_t uuid[DEVICE_UUID];
	char library[DEVICE_LIBRARY];	/* of the driver, opened by the copier alone */
	uint32_t streams_load, streams_store;
	uint64_t bounce_bytes, slice_bytes;
	uint32_t hang_ms;		/* without a sign of life: the device hangs, or its driver */
	uint64_t idle_ns;		/* without a region: the copier is stopped */
	const char *program;		/* that is run as PROGRAM --copier FD */
	uint64_t extent_bytes;		/* of the arena */
	int io_lock_fd;			/* inherited by the copier: see locks.h */
	struct control_block *core_block, *control_block;	/* counters of the two threads; NULL: none */
};

/** struct device_host - what the broker gives to every backend at its start. */
struct device_host {
	uint8_t *arena;			/* mapped read-write for the broker's life */
	uint64_t arena_bytes;
	int arena_fd;
	struct bell *bell;		/* ring it when there is something to reap */
	uint32_t threads;		/* helper threads, 1 to 64; the host's: as many for each uid */
	uint32_t copies;		/* copies under way at once, at most; a GPU's have lower numbers than this */
	uint64_t piece_bytes;		/* cut copies into pieces of about this many bytes */
	uint32_t checks;		/* seals and verifies under way at once, at most; 0: 1,024 */
	uint64_t region_bytes_max;	/* of one region; 0: as much as the machine has, swap included */
	const int *own_fds;		/* files that are no client's memory, the arena apart (table, control */
	uint32_t n_own;			/* page, ...): read by start() alone */
	const struct device_gpu *gpu;	/* read by start() alone; NULL: the host's */
	void (*close_fd)(uid_t uid, int fd);	/* close what @uid handed over, which may take long; NULL: the host's close() */
};

/** struct device_memory - memory that a client hands over, as its messages say. */
struct device_memory {
	uint64_t token;			/* of the answer, if it comes later */
	uid_t uid;			/* whose it is */
	uint32_t n_fds;
	const int *fds;			/* the backend's from the call on, also on failure */
	const struct message_region_add *host;		/* the host's; else NULL */
	const struct message_region_add_cuda *cuda;	/* a GPU's: the first message; else NULL */
	const uint64_t *fd_bytes;	/* a GPU's: of each descriptor's memory */
	int fence;			/* write end of the client's fence; stays the caller's */
};

/** struct device_answer - how something ended that was to be answered later. */
struct device_answer {
	uint64_t token;
	int result;			/* 0 or -errno */
	char why[MESSAGE_REASON];	/* on failure: what, why, remedy */
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
	 * Check and open memory. Returns 0, DEVICE_LATER, or -errno with the reason in @why (MESSAGE_REASON
	 * bytes): what, why, remedy. With LATER *@ret is there at once and the caller's to close, however it
	 * ends, and no pool is made of it before the answer.
	 */
	int (*region_add)(struct device *device, const struct device_memory *memory, char *why,
			  struct device_region **ret);
	/* No pool uses it any more. 0, or DEVICE_LATER: @token is answered when nobody has it open; 0: nobody waits. */
	int (*region_close)(struct device_region *region, uint64_t token);
	uint64_t (*region_bytes)(const struct device_region *region);

	/*
	 * A view: @planes in the order of the part's rows, checked against the layout and against
	 * @regions (by the client's region numbers; NULL = none). Every range is computed in 128 bits.
	 * Returns as region_add.
	 */
	int (*pool_add)(struct device *device, uint64_t token, uint32_t client, uint32_t number,
			const struct model_layout *layout, uint32_t part, uint32_t n_blocks,
			const struct message_plane *planes, uint32_t n_planes,
			struct device_region *const *regions, uint32_t n_regions,
			char *why, struct device_pool **ret);
	void (*pool_close)(struct device_pool *pool);

	/* NULL where nothing is answered later. watch(): a descriptor that is readable when tend() is due. */
	int (*watch)(const struct device *device);
	uint64_t (*tend)(struct device *device, uint64_t now_ns);	/* when at the latest again; UINT64_MAX: never */
	bool (*answer)(struct device *device, struct device_answer *ret);	/* the next one; false: none */
	bool (*is_idle)(const struct device *device);	/* it has nothing and runs nothing: it may be stopped */

	void (*figures)(const struct device *device, struct control_gpu *ret);	/* for the control page; or NULL */

	int (*copy)(struct device *device, const struct device_copy *copy);	/* 0 or -EAGAIN: full */
	void (*cancel)(struct device *device, uint32_t copy);
	uint32_t (*reap)(struct device *device, struct device_event *ret, uint32_t n);
	void (*arm)(struct device *device);	/* the core's bell is armed, and it will look once more; or NULL */
	void (*extent)(struct device *device, uint32_t extent);	/* it is populated; or NULL */
	/* A seal or verify, answered by DEVICE_CHECKED; NULL: the host backend's helpers do it (device_check). */
	int (*check)(struct device *device, bool seal, const struct engine_check *check,
		     const struct image_identity *identity);
};

extern const struct device_backend device_host_backend;
extern const struct device_backend device_cuda_backend;

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
