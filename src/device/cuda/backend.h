/*
 * The broker's half of a GPU: one `struct device` of the cuda backend. For cuda.c, registry.c and minder.c
 * alone; what it says to the copier is in wire.h.
 *
 *	cuda.c		the core thread's part: copies into the rings and out of them
 *	registry.c	regions and pools, and what the copier has been told of them
 *	minder.c	the copier process: started, listened to, replaced, stopped
 *	lane.c		the memory that it shares with the core
 *
 * The last two run on the control thread. What crosses to the core thread are lanes: a lane is the shared
 * segment of one copier process. The control thread makes it and offers it when the copier knows all that
 * it has to know; retires it when that process has been reaped (so that no DMA of it runs any more) or has
 * nothing left to do; and frees it when the core has released it, or has never taken it (a core is told of a GPU
 * when something of it is open, and a lane is offered before). One lane at a time.
 *
 * Invariants: a copy that was taken ends in one DONE; those of a lane that is retired end as failed, after
 * what its copier had finished; a region or pool that is known to the core is known to the copier of the lane
 * that is offered, or marked lost. Nothing here waits for the copier, except stop().
 */
#ifndef STOKER_DEVICE_CUDA_BACKEND_H
#define STOKER_DEVICE_CUDA_BACKEND_H

#include "src/device/cuda/wire.h"
#include "src/device/pool.h"
#include "src/device/region.h"

#define LANE_ENTRIES	8192u		/* of commands, and of events */
#define LANE_ITEMS	(16ull << 20)	/* bytes of items: at least twice the largest copy that a slot can ask for */

struct lane {
	_Atomic bool retired;
	_Atomic uint32_t under_way;	/* copies that were put and not DONE; written by the core */
	struct wire_segment *segment;
	size_t bytes;
	struct shared_queue *commands, *events;
	uint8_t *items;
	uint64_t item_bytes;
	uint64_t items_at;		/* the core's: next free place, free-running */
	int memory_fd, bell_fd;		/* bell_fd: of the copier */
};

/*
 * NONE --control thread--> OFFERED --core--> TAKEN --core--> NONE; what was offered and not taken is withdrawn by
 * the control thread.
 */
enum lane_is { LANE_NONE, LANE_OFFERED, LANE_TAKEN };

/** struct gpu_copy - a copy, by the engine's number. The core thread's. */
enum gpu_copy_state { COPY_NONE, COPY_WAITS, COPY_SENT, COPY_OVER };
struct gpu_copy {
	struct engine_copy request;
	struct device_pool *const *pools;
	struct gpu_copy *prev, *next;	/* in the list of its state */
	uint64_t bytes;			/* of its items in the byte ring */
	uint32_t layers_told;
	uint8_t state;			/* enum gpu_copy_state */
	bool failed;
	bool cancel;			/* a CANCEL has to be put, which found no room */
};
struct gpu_copies {
	struct gpu_copy *first, *last;
};

/** struct reply - room for an answer, made when it was promised. */
struct reply {
	struct reply *next;
	struct device_answer answer;
};

/*
 * WANTED --told to the copier--> ASKED --answered--> KNOWN; a copier that ends makes all of them WANTED again.
 * LOST: it cannot be opened (any more). `closed` by its owner it goes: at once where the copier does not
 * have it, else CLOSING until that is answered.
 */
enum gpu_state { GPU_WANTED, GPU_ASKED, GPU_KNOWN, GPU_CLOSING, GPU_LOST };

struct gpu_region {
	struct device_region seen;	/* first: what pool_open() looks at; without addresses */
	struct device *device;
	struct gpu_region *next, **link;
	uint32_t number;
	enum gpu_state state;
	bool closed, again;		/* again: a copier before had it */
	uint32_t deaths;		/* of copiers that were opening it, since it was open last */
	uint64_t asked;			/* when, as a count of questions */
	struct reply *opening, *closing;	/* who waits */
	struct reply *spare;		/* room for `closing`: to close must not need memory */
	uid_t uid;
	int fence;			/* the client's, a duplicate; -1: none */
	enum message_cuda_kind kind;
	uint64_t offset;
	uint8_t handle[64];
	uint32_t n_fds, sent_fds;
	int *fds;
	uint64_t *fd_bytes;
};

struct gpu_pool {
	struct device_pool *view;	/* view->of is this; it stays until the copier has closed the pool */
	struct device *device;
	struct gpu_pool *next, **link;
	uint32_t number;
	enum gpu_state state;
	bool closed, again;
	uint32_t deaths;
	uint64_t asked;
	struct reply *opening;
	_Atomic bool lost;		/* told to the core by its next copy */
};

enum minder_state { MINDER_DOWN, MINDER_STARTING, MINDER_UP, MINDER_ENDING, MINDER_REAPED };
struct minder {
	enum minder_state state;
	pid_t pid;
	int socket, pidfd, epoll;
	bool blocked;			/* the socket takes no more: watched for room */
	struct bell bell;		/* rung by the core */
	struct lane *lane;		/* of the process; offered or not */
	uint64_t began_ns;		/* STARTING, UP: since when */
	uint64_t start_ns;		/* DOWN: not before */
	uint64_t pause_ns;		/* before the next start after a fault */
	uint64_t idle_ns;		/* UP without a region since then; 0: it has some */
	uint64_t again_ns;		/* UP: something is to be said again; UINT64_MAX: nothing is */
	uint64_t beats, beat_ns;	/* the last sign of life */
	bool was_up;			/* it has said so */
	bool expected;			/* its end is: no fault */
	char why[MESSAGE_REASON];	/* of its end, as it said */
	struct wire_figures figures;	/* as it said last */
	uint64_t bounced_bytes, load_bytes, store_bytes;	/* of all copiers */
	uint64_t restarts;
	char ended[MESSAGE_REASON];	/* why one ended last that was not asked to; "": none did */
	uint64_t *told;			/* extents that it knows: a bit each */
	bool rebirth;			/* the next start is a restart */
};

struct device {
	struct device_host host;
	struct device_gpu gpu;
	char name[48];			/* GPU-..., for the log */
	char program[64];

	/* The control thread's: */
	struct minder minder;
	struct gpu_region *regions, **regions_end;
	struct gpu_pool *pools, **pools_end;
	uint32_t next_number;
	uint32_t n_regions, n_pools;	/* in the lists */
	uint64_t questions;		/* asked, ever */
	uint32_t unanswered;
	struct reply *replies, **replies_end;
	uint32_t n_extents;
	uint8_t *message;		/* room for a pool's */

	/* Both threads': */
	_Atomic uint32_t lane_is;	/* enum lane_is */
	_Atomic(struct lane *) lane;	/* that is offered or taken; NULL: none is */
	_Atomic uint64_t *extents;	/* populated: a bit each; written by the core */

	/* The core thread's: */
	alignas(64) struct lane *core_lane;
	struct gpu_copy *copies;	/* by number */
	struct gpu_copies waiting[2];	/* loads, stores */
	struct gpu_copies sent, over;
	uint32_t cancels;		/* that have to be put */
	struct device_pool *dead;	/* pools whose death has to be told */
};

static inline struct gpu_region *gpu_region_of(struct device_region *region)
{
	return (struct gpu_region *)region;
}

/* registry.c */
int registry_region_add(struct device *device, const struct device_memory *memory, char *why,
			struct device_region **ret);
int registry_region_close(struct device_region *region, uint64_t token);
uint64_t registry_region_bytes(const struct device_region *region);
int registry_pool_add(struct device *device, uint64_t token, uint32_t client, uint32_t number,
		      const struct model_layout *layout, uint32_t part, uint32_t n_blocks,
		      const struct message_plane *planes, uint32_t n_planes, struct device_region *const *regions,
		      uint32_t n_regions, char *why, struct device_pool **ret);
void registry_pool_close(struct device_pool *pool);
bool registry_answer(struct device *device, struct device_answer *ret);
/* Tell the copier what it does not know yet. 0: all of it, -EAGAIN: its socket is full, or -errno. */
int registry_tell(struct device *device);
bool registry_take(struct device *device, const struct wire_answer *answer);	/* false: nobody asked that */
bool registry_is_back(const struct device *device);	/* all that a copier before had is known again, or lost */
/* The copier has ended, for @why. With @never_up it could not even begin: who waits for an opening is told so. */
void registry_down(struct device *device, bool never_up, int error, const char *why);
void registry_free(struct device *device);	/* whatever there is: the broker stops */

/* lane.c */
int lane_make(struct lane **ret);	/* 0 or -errno */
void lane_free(struct lane *lane);	/* NULL is fine */

/* minder.c */
int minder_init(struct device *device);
void minder_fini(struct device *device);	/* ends the copier, and waits for that */
uint64_t minder_tend(struct device *device, uint64_t now_ns);
void minder_figures(const struct device *device, struct control_gpu *ret);

static inline bool bit_is_set(const uint64_t *bits, uint32_t i)
{
	return bits[i / 64] >> i % 64 & 1;
}

#endif
