/*
 * A copier process on the fake driver, with a test in the broker's place and worker processes that export
 * memory: what a test says to them in a few lines, and what must hold of every answer.
 *
 * The test's own process never opens the driver. A worker's memory is seen through its window: shared memory
 * that the worker uploads to its device memory or fills from it when told.
 */
#ifndef TESTS_COPIER_RIG_H
#define TESTS_COPIER_RIG_H

#include <sys/types.h>

#include "src/device/cuda/wire.h"
#include "src/device/device.h"
#include "tests/fake-cuda/fake-cuda.h"

#define RIG_EXTENT_BYTES	(256u << 10)
#define RIG_EXTENTS		16u
#define RIG_ARENA_BYTES		(RIG_EXTENTS * RIG_EXTENT_BYTES)
#define RIG_COPIES_MAX		64u
#define RIG_ITEMS_MAX		64u

/** struct worker - a process with one allocation (IPC), or one range of several VMM allocations. */
struct worker {
	pid_t pid;
	int socket;
	bool vmm;
	uint64_t bytes;
	uint8_t *window;
	uint8_t handle[64];		/* IPC */
	int fds[WIRE_FDS_MAX];		/* VMM: the test's own, of part_bytes each */
	uint32_t n_fds;
	uint64_t part_bytes;
};

/** struct told - what has been heard of a copy since it was asked for. */
struct told {
	bool asked, done;
	uint32_t layers, progress, result, n_failed;
	uint8_t failed[RIG_ITEMS_MAX];
	uint8_t expected[RIG_ITEMS_MAX];	/* the test's own */
};

struct copier_rig {
	pid_t pid;
	int control;
	struct bell bell, core_bell;
	int lock_fd;			/* read end of a pipe whose write end is the copier's lock */
	uint8_t *arena;
	int arena_fd;
	struct wire_segment *segment;
	uint64_t bytes_put;
	struct wire_start start;	/* as it will be sent: tests change it before copier_start() */
	bool orphan;			/* likewise: the broker is gone when its process is there */
	struct wire_up up;
	struct wire_figures figures;
	struct wire_fatal fatal;
	bool gone;			/* the socket has ended */
	struct told copies[RIG_COPIES_MAX];
	uint32_t order[RIG_COPIES_MAX], n_order;	/* of DONE */
};

/* Made with defaults and not started; its process killed if need be, all freed. */
void copier_make(struct copier_rig *rig);
void copier_free(struct copier_rig *rig);
void copier_start(struct copier_rig *rig);		/* returns when UP has come */
void copier_open(struct copier_rig *rig);		/* make, start, expect it to be up, register all extents */
int copier_exit(struct copier_rig *rig);		/* wait for its end: exit status, or -signal */

/* Take one message or event, or wait for one; fails the test when none comes for long. */
void copier_hear(struct copier_rig *rig);
struct wire_answer copier_answer(struct copier_rig *rig, uint32_t to, uint32_t number);	/* hear until it comes */
void copier_extents(struct copier_rig *rig, uint32_t n);	/* the first @n, and wait until they are registered */
void copier_wait(struct copier_rig *rig, uint32_t copy);	/* until DONE, or the copier is gone */

struct wire_region copier_region_message(const struct worker *worker, uint32_t region);
int copier_region(struct copier_rig *rig, const struct worker *worker, uint32_t region);	/* all of it; result */
int copier_number(struct copier_rig *rig, uint32_t type, uint32_t number);	/* *_CLOSE; result */
/* A pool as pool_open() made it over the workers' windows; @first: number of the first worker's region. */
int copier_pool(struct copier_rig *rig, uint32_t number, const struct device_pool *pool, uint64_t payload_bytes,
		struct device_region *const *regions, uint32_t n_regions);

struct copier_item {
	uint64_t payload;
	uint32_t pool, n_ids;
	const uint32_t *ids;
};
void copier_copy(struct copier_rig *rig, uint32_t copy, bool store, uint32_t layer_first, uint32_t layer_end,
		 const struct copier_item *items, uint32_t n);
void copier_cancel(struct copier_rig *rig, uint32_t copy);

struct worker worker_start(uint64_t bytes, bool vmm);
void worker_upload(struct worker *worker);
void worker_download(struct worker *worker);
void worker_kill(struct worker *worker);		/* at once, and reap it; the window stays */
void worker_free(struct worker *worker);		/* frees its memory and ends, unless it was killed */

#endif
