/*
 * Two GPUs in the simulated world, as engine and broker see them.
 *
 * Real: the broker's half of a GPU, all of it (src/device/cuda/cuda.c, registry.c, minder.c, lane.c, src/device/pool.c,
 * the layout of wire.h, queues and bells). Every system call that it makes is led here by the linker (--wrap) and answered by the
 * simulation: there is no process, no descriptor, no socket, no thread.
 *
 * Simulated:
 * - kernel.c: descriptors (each must be closed in the end), the pair of sockets, processes that are started, killed
 *   and reaped, and calls that fail;
 * - copier.c, runs.c: the copier process at the other end of the wire. It imports, keeps views, takes copies from the
 *   ring and moves words, loads and stores in any order. It is killed, loses its context, hangs, refuses; what the
 *   device has of a dead process may write until that has been reaped;
 * - devices.c, gpu.c: what core and control thread do with a device (src/broker/devices.c, register.c, ports.c), one
 *   step at a time: a core that looks before, between and after all that the control thread does.
 *
 * Not simulated: the copier's own program and the driver (tests/test-cuda-*.c run those, over a fake driver), two
 * threads within one call of the backend (ThreadSanitizer and tests/test-cuda-minder.c), clients' sockets.
 *
 * What must hold, whatever happens to one GPU (looked at in gpu.c unless another room is named):
 * - each copy that a device was given ends in one DONE; it fails only if it was cancelled, or something happened to it
 *   or to its own GPU;
 * - nothing is moved for a copy that is DONE, nor for a pool or region that was said to be closed (copier.c, runs.c);
 * - who registers something is answered once (devices.c); a region that is gone is imported by nobody and has no
 *   descriptor open; a copier that is up knows every extent of the arena, once;
 * - a job whose deadline has passed is ENDING, though its device hangs, and DONE when that has let go;
 * - a GPU without regions has no copier after a while, and a broker that stops leaves no process and no descriptor.
 */
#ifndef STOKER_TESTS_SIMULATION_GPU_H
#define STOKER_TESTS_SIMULATION_GPU_H

#include <sys/types.h>

#include "src/device/cuda/backend.h"
#include "tests/simulation/sim.h"

#define SIM_IMPORTS	512u
#define SIM_RUNS	64u		/* copies of a copier, at most */
#define SIM_FDS		4096u
#define SIM_FD_FIRST	1000000		/* no real one */
#define SIM_ASKS	1024u
#define SIM_VMM_FDS	2u		/* of a region that is handed over as descriptors */

/* ---- the copier process ----------------------------------------------------------------------- */

/*
 * NONE -> STARTING -> UP -> DYING -> ZOMBIE -> NONE (reaped). DYING: no program runs any more, but the device may
 * still write; nothing of it does in ZOMBIE.
 */
enum copier_state { COPIER_NONE, COPIER_STARTING, COPIER_UP, COPIER_DYING, COPIER_ZOMBIE };

struct sim_message {
	struct sim_message *next;
	uint32_t bytes;
	alignas(16) uint8_t data[];
};
struct sim_mail { struct sim_message *first, *last; uint32_t n; };

struct sim_import {			/* memory of a pool of a client, as long as it was that client's */
	bool used;
	uint32_t number, client, pool;
	uint64_t birth;
};

struct sim_view {
	bool used;
	uint32_t number, blocks, n_rows;
	struct wire_row rows[SIM_LAYERS];
};

struct sim_run {			/* a copy that it has taken */
	bool used, cancelled, over;	/* over: all is moved that will be, and is to be told */
	struct wire_command command;
	uint64_t serial;		/* of the copy at the broker's: must be under way there still */
	uint64_t begun;			/* counts up: which one began first */
	uint8_t *items;			/* as they came */
	uint64_t *at;			/* of each item there */
	uint8_t *failed;		/* 1: to be told, 2: told */
	uint32_t item, layer, layers_done, layers_told;
	bool any_failed;
};

struct sim_copier {
	enum copier_state state;
	pid_t pid;
	int status;			/* of its end: a signal, or an exit status and 256 */
	struct wire_start start;
	bool closed;			/* its end of the pair is */
	bool alone;			/* the broker's end is */
	bool hangs;			/* in the driver: nothing is heard of it any more */
	uint64_t stuck_ns;		/* its device hangs since; 0: it does not */
	bool asleep;
	struct sim_mail in, out;
	struct sim_import imports[SIM_IMPORTS];
	struct sim_view views[SIM_IMPORTS];
	struct sim_run runs[SIM_RUNS];
	uint64_t begun;
	uint32_t extents;		/* that it was told of */
};

/* ---- a GPU ------------------------------------------------------------------------------------ */

/* What is drawn for a GPU of a world; permille of its steps, or of what is asked. */
struct sim_mood {
	uint32_t kill, fatal, hang, stick, item, import, view, start, call;
	uint32_t pace;			/* of 8: how many of its steps it takes */
};

struct sim_gpu {
	struct sim *sim;
	uint32_t number;		/* of the device: 1 and up */
	struct device *device;		/* the real backend's; NULL: it was not named yet */
	struct sim_copier copier;
	struct sim_mood mood;
	uint64_t next_ns;		/* when the control thread looks next at the latest */
	bool stirred;			/* something has come for the control thread */
	uint64_t ends;			/* of copiers: raised when one dies and when it is reaped */
	uint64_t refusals;		/* of imports and views, and copiers that died over one */
};

/* What a client has on a GPU, by its pool numbers. */
enum sim_place_state { PLACE_NONE, PLACE_REGION, PLACE_POOL, PLACE_KNOWN, PLACE_CLOSING };
struct sim_place {
	enum sim_place_state state;
	struct sim_gpu *gpu;
	struct device_region *region;
	struct device_pool *view;
	uint64_t birth;			/* of this registration; what is older is not it */
	int fence;
	uint64_t ends;			/* of copiers of its GPU when it was made known */
};

struct sim_ask {			/* somebody waits for an answer of a device */
	bool used;
	uint32_t client, pool;
	uint64_t birth;
	enum { ASK_REGION, ASK_POOL, ASK_CLOSE } what;
};

enum sim_fd_kind { FD_CLOSED, FD_EVENT, FD_EPOLL, FD_SOCKET, FD_MEMORY, FD_PROCESS, FD_FENCE, FD_ALLOCATION, FD_OTHER };

struct sim_gpus {
	struct sim_gpu gpu[SIM_GPUS];
	struct sim_place places[SIM_CLIENTS][SIM_MODELS * SIM_PARTS];
	struct device_pool *pools[SIM_CLIENTS][SIM_MODELS * SIM_PARTS];	/* as the core has them */
	struct model_layout layouts[SIM_MODELS];
	struct model_wire_row rows[SIM_MODELS][SIM_PARTS * SIM_LAYERS];
	uint64_t offsets[SIM_MODELS][SIM_PARTS * SIM_LAYERS];
	struct sim_ask asks[SIM_ASKS];
	uint32_t n_asks;
	uint64_t births;
	struct bell core;
	bool core_rung;
	struct { enum sim_fd_kind kind; struct sim_gpu *gpu; } fds[SIM_FDS];
	uint32_t n_fds;			/* that are open */
	pid_t last_pid;
};

/* ---- kernel.c --------------------------------------------------------------------------------- */

/* From now on calls are those that the backend of @gpu makes; NULL: there should be none. */
void kernel_enter(struct sim_gpu *gpu);
int kernel_open(struct sim *sim, enum sim_fd_kind kind);	/* a descriptor of the simulation's own */
void kernel_close(struct sim *sim, int fd);
bool kernel_is_open(const struct sim *sim, int fd);

/* ---- copier.c --------------------------------------------------------------------------------- */

void copier_spawn(struct sim_gpu *gpu);
void copier_take(struct sim_gpu *gpu, const void *message);	/* the broker has sent it */
int copier_say(struct sim_gpu *gpu, void *message, size_t room);	/* what it has said: as wire_receive() */
void copier_die(struct sim_gpu *gpu, int status);
void copier_reap(struct sim_gpu *gpu);
void copier_free(struct sim_gpu *gpu);	/* whatever it has */
bool copier_can_step(const struct sim_gpu *gpu);	/* it will do something, if it is given steps enough */
void copier_step(struct sim_gpu *gpu);
uint64_t copier_due(const struct sim_gpu *gpu);		/* when it does something by itself; UINT64_MAX: not by time */
bool copier_has_runs(const struct sim_gpu *gpu);
bool copier_imports(const struct sim_gpu *gpu, uint32_t client, uint32_t pool, uint64_t birth);
uint32_t copier_import_count(const struct sim_gpu *gpu);

struct sim_import *copier_import_find(struct sim_copier *copier, uint32_t number);
struct sim_view *copier_view_find(struct sim_copier *copier, uint32_t number);

/* ---- runs.c: its copies ----------------------------------------------------------------------- */

bool runs_take_command(struct sim_gpu *gpu);	/* a copy, or the cancel of one; false: there is none */
bool runs_go_on(struct sim_gpu *gpu);		/* any of them, by some items; false: none can */
bool runs_tell(struct sim_gpu *gpu);		/* what has happened to them, as far as there is room; false: nothing */
bool run_has_news(const struct sim_run *run);
void run_free(struct sim_run *run);
/* The words of one item in one layer; @spoil: what a device that goes down leaves there. */
void run_move(struct sim_gpu *gpu, const struct sim_run *run, uint32_t i, uint32_t layer, bool spoil);
static inline struct lane *lane_of(const struct sim_gpu *gpu)
{
	return gpu->device->minder.lane;
}

/* Copies can be given to a copier, as far as the broker knows. */
static inline bool gpu_is_up(const struct sim_gpu *gpu)
{
	return atomic_load(&gpu->device->lane_is) != LANE_NONE && !atomic_load(&gpu->device->lane->retired);
}

/* ---- devices.c, gpu.c: what these need -------------------------------------------------------- */

static inline struct sim_gpu *gpu_of(const struct sim *sim, uint32_t device)
{
	return device >= 1 && device <= SIM_GPUS ? &sim->gpus->gpu[device - 1] : NULL;
}
#define GPU device_cuda_backend
void gpu_take_answer(struct sim *sim, const struct device_answer *answer);	/* somebody has waited for it */
bool gpu_draws(struct sim_gpu *gpu, uint32_t permille);	/* a fault, in worlds that have some */
/* The memory that a region names: NULL if it is nobody's any more. */
struct sim_pool *gpu_memory(struct sim *sim, const struct sim_import *import);

#endif
