/*
 * The host backend: helper threads that copy between shared memory and the arena, and that seal and
 * verify images. This file decides what they do next; everything here runs on the core thread, except
 * what is marked as the control thread's.
 *
 * What is urgent first: a retrieve (a worker waits for it), then a verify (somebody waits for that too,
 * but not yet with a free GPU), then a store, then a seal; within each by priority, and then in turn
 * (turns.h). The least urgent gets a piece now and then, because a store that never ends pins a worker's
 * blocks, and what is never sealed can never be written back.
 *
 * To touch a client's memory may take as long as that client likes, whatever is checked before: who punches
 * a hole into its file makes others who touch that memory wait for the end of it, and who punches at the lowest
 * priority on a busy processor never ends. So each uid has a crew of helpers of its own, which nobody else
 * waits for, and the broker's own uid, and root, share one with the checks, which touch the arena alone.
 *
 * Invariants: copy() and device_check() that returned 0 are answered by exactly one DONE or CHECKED,
 * from reap() alone; when DONE is told, no helper knows the copy any more; what is told of a copy never
 * falls; a pool's death is told once, before the DONE of the copy that met it. A call hands out a
 * bounded number of pieces and takes back a bounded number.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "src/device/copy.h"
#include "src/device/guard.h"
#include "src/device/image.h"
#include "src/device/refuse.h"
#include "src/device/region.h"
#include "src/device/turns.h"

#define PIECE_BYTES	(1ull << 20)	/* where the broker names no other */
#define AHEAD_BYTES	(2ull << 20)	/* a helper's work ahead, at least: 0.1 to 0.2 ms, in which a core that */
					/* slept is awake again */
#define CHECKS		1024u
#define HAND_OUT_MAX	64u	/* pieces that one call hands out */
#define TAKE_BACK_MAX	256u	/* and takes back */

/* In the order of their urgency; eight priorities each. */
enum job_class { JOB_RETRIEVE, JOB_VERIFY, JOB_STORE, JOB_SEAL };

/** struct job - a copy or a check: in a queue while it has something to hand out. */
struct job {
	struct turn turn;	/* first */
	struct crew *crew;	/* who does it */
	struct job *next;	/* of a free one: the next free */
	struct job *tell_next;
	bool is_check;
	bool to_tell;		/* it is in the list of those that reap() has to tell of */
};

struct copy_job {
	struct job job;		/* first */
	struct copy copy;
	uint8_t *arena;
	struct copy_job *hash_next;
};

struct check_job {
	struct image_task image;	/* first: it is aligned to a cache line */
	struct job job;
	struct worker_task task;
	uint64_t step_bytes;
	bool over;
	uint32_t number;
};

struct job_list {
	struct job *first, *last;
};

/** struct crew - helpers, and whose turn it is with them. Made by the control thread, then the core thread's. */
struct crew {
	uid_t uid;			/* the control thread's */
	struct workers *workers;
	struct copy_piece *pieces, *free_pieces;
	struct turns turns;
};

struct device {
	struct device_host host;
	struct region_rules rules;
	struct crew crews[DEVICE_CREWS];	/* the first: of our own uid, of root, and of the checks */
	_Atomic uint32_t n_crews;	/* those are whole */
	bool guarded;
	struct copy_job *copies;
	uint32_t copies_used;		/* of them: what comes behind has never been touched */
	struct check_job *checks;
	struct job *free_copies, *free_checks;
	struct copy_job **hash;		/* running copies by number */
	uint32_t hash_mask;
	struct job_list to_tell;
	struct device_pool *dead;	/* pools whose death has to be told */
};

/* ---- lists ----------------------------------------------------------------------------------- */

static struct check_job *check_of(struct job *job)
{
	return (struct check_job *)((uint8_t *)job - offsetof(struct check_job, job));
}

static void tell(struct device *device, struct job *job)
{
	if (job->to_tell)
		return;
	job->to_tell = true;
	job->tell_next = NULL;
	if (device->to_tell.first)
		device->to_tell.last->tell_next = job;
	else
		device->to_tell.first = job;
	device->to_tell.last = job;
}

static struct copy_job **hash_place(struct device *device, uint32_t number)
{
	struct copy_job **place = &device->hash[(number * 2654435761u >> 8) & device->hash_mask];

	while (*place && (*place)->copy.request.copy != number)
		place = &(*place)->hash_next;
	return place;
}

/* The most layers that any part of the model has: the walk need not go beyond. */
static uint32_t most_layers(const struct model_layout *layout)
{
	uint32_t most = 0;

	for (uint32_t i = 0; i < layout->n_parts; i++)
		most = layout->parts[i].layers > most ? layout->parts[i].layers : most;
	return most;
}

/* ---- handing out and taking back --------------------------------------------------------------- */

/* After any change of a copy: is there something to tell? */
static void look_at_copy(struct device *device, struct copy_job *job)
{
	if (copy_is_over(&job->copy) || copy_layers(&job->copy) > job->copy.layers_told)
		tell(device, &job->job);
}

static struct copy_job *copy_job_of(const struct copy_piece *piece)
{
	return (struct copy_job *)((uint8_t *)piece->copy - offsetof(struct copy_job, copy));
}

static bool copy_bytes(void *arena, const struct device_pool *pool, bool store, const struct engine_copy_item *item,
		       uint32_t layer, uint64_t from, uint64_t bytes)
{
	return pool_copy(pool, store, (uint8_t *)arena + item->payload, item->ids, layer, from, bytes);
}

static void piece_run(struct worker_task *task)
{
	struct copy_piece *piece = (struct copy_piece *)task;

	copy_piece_steps(piece, copy_bytes, copy_job_of(piece)->arena);
}

static void hand_out_copy(struct device *device, struct copy_job *job)
{
	struct crew *crew = job->job.crew;
	struct copy_piece *piece = crew->free_pieces;
	struct copy_piece *next_free = piece->next;	/* there is one: as many as all helpers can have */

	if (copy_cut(&job->copy, device->host.piece_bytes, piece)) {
		crew->free_pieces = next_free;
		piece->task.run = piece_run;
		workers_put(crew->workers, &piece->task);
	} else {
		piece->next = next_free;
	}
	if (!copy_is_cut(&job->copy))
		turns_put(&crew->turns, &job->job.turn);
	look_at_copy(device, job);
}

static void check_run(struct worker_task *task)
{
	struct check_job *job = (struct check_job *)((uint8_t *)task - offsetof(struct check_job, task));

	job->over = image_task_step(&job->image, job->step_bytes);
}

static void hand_out(struct device *device, struct crew *crew)
{
	for (uint32_t i = 0; i < HAND_OUT_MAX && crew->turns.waiting && workers_have_room(crew->workers); i++) {
		struct job *job = (struct job *)turns_take(&crew->turns);

		if (job->is_check)
			workers_put(crew->workers, &check_of(job)->task);
		else
			hand_out_copy(device, (struct copy_job *)job);
	}
	/* No helper will ring for what is left if none has anything to do. */
	if (crew->turns.waiting && workers_busy(crew->workers) == 0)
		bell_ring(device->host.bell);
}

static void piece_back(struct device *device, struct copy_piece *piece)
{
	struct copy_job *job = copy_job_of(piece);

	copy_piece_over(piece, &device->dead);
	piece->next = job->job.crew->free_pieces;
	job->job.crew->free_pieces = piece;
	look_at_copy(device, job);
}

static void take_back(struct device *device, struct crew *crew)
{
	struct worker_task *task;
	uint32_t i;

	for (i = 0; i < TAKE_BACK_MAX && (task = workers_take(crew->workers)); i++) {
		if (task->run != check_run) {
			piece_back(device, (struct copy_piece *)task);
			continue;
		}
		struct check_job *check = (struct check_job *)((uint8_t *)task - offsetof(struct check_job, task));

		if (check->over)
			tell(device, &check->job);
		else
			turns_put(&crew->turns, &check->job.turn);
	}
	/* Who finished what is left has rung already, and will not again. */
	if (i == TAKE_BACK_MAX)
		bell_ring(device->host.bell);
}

/* ---- telling --------------------------------------------------------------------------------- */

static void free_copy(struct device *device, struct copy_job *job)
{
	struct copy_job **place = hash_place(device, job->copy.request.copy);

	assert(*place == job);
	*place = job->hash_next;
	job->job.next = device->free_copies;
	device->free_copies = &job->job;
}

static struct device_event tell_check(struct device *device, struct job *job)
{
	const struct check_job *check = check_of(job);
	const struct device_event event = { .type = DEVICE_CHECKED, .copy = check->number,
					    .result = check->image.result, .checksum = check->image.checksum };

	job->next = device->free_checks;
	device->free_checks = job;
	return event;
}

/* One event of the job at the head of to_tell, which leaves the list with its last. False: none. */
static bool tell_job(struct device *device, struct device_event *ret)
{
	struct job *job = device->to_tell.first;
	struct copy_job *copy = (struct copy_job *)job;

	if (!job->is_check && copy_layers(&copy->copy) > copy->copy.layers_told) {
		copy->copy.layers_told = copy_layers(&copy->copy);
		*ret = (struct device_event){ .type = DEVICE_PROGRESS, .copy = copy->copy.request.copy,
					      .layers = copy->copy.layers_told };
		return true;
	}
	device->to_tell.first = job->tell_next;
	job->to_tell = false;
	if (job->is_check) {
		*ret = tell_check(device, job);
		return true;
	}
	if (!copy_is_over(&copy->copy))
		return false;
	*ret = (struct device_event){ .type = DEVICE_DONE, .copy = copy->copy.request.copy,
				      .result = copy->copy.failed ? ENGINE_FAILED : ENGINE_OK };
	free_copy(device, copy);
	return true;
}

static uint32_t host_reap(struct device *device, struct device_event *ret, uint32_t n)
{
	const uint32_t n_crews = atomic_load_explicit(&device->n_crews, memory_order_acquire);
	uint32_t told = 0;

	for (uint32_t i = 0; i < n_crews; i++) {
		take_back(device, &device->crews[i]);
		hand_out(device, &device->crews[i]);
	}
	for (; told < n && device->dead; told++) {
		ret[told] = (struct device_event){ .type = DEVICE_POOL_DEAD, .client = device->dead->client,
						   .pool = device->dead->number };
		device->dead = device->dead->next_dead;
	}
	while (told < n && device->to_tell.first)
		if (tell_job(device, &ret[told]))
			told++;
	return told;
}

/* ---- asking ---------------------------------------------------------------------------------- */

/* A broker is ready for many more copies than it ever has: their memory is touched as they come. */
static struct copy_job *new_copy(struct device *device)
{
	struct job *job = device->free_copies;

	if (job) {
		device->free_copies = job->next;
		return (struct copy_job *)job;
	}
	return device->copies_used < device->host.copies ? &device->copies[device->copies_used++] : NULL;
}

/* Whose memory it is; of one that has none, which fails, anybody's. */
static struct crew *crew_of_copy(struct device *device, const struct device_copy *copy)
{
	for (uint32_t i = 0; i < copy->request.n_items; i++) {
		const struct device_pool *pool = copy->pools[copy->request.items[i].pool];

		if (pool && pool->n_rows)
			return pool->rows[0].region->crew;
	}
	return &device->crews[0];
}

static int host_copy(struct device *device, const struct device_copy *copy)
{
	struct copy_job *job = new_copy(device);
	const enum job_class class = copy->request.store ? JOB_STORE : JOB_RETRIEVE;
	const uint8_t priority = copy->request.priority < 8 ? copy->request.priority : 7;

	if (!job)
		return -EAGAIN;
	assert(*hash_place(device, copy->request.copy) == NULL);
	copy_begin(&job->copy, &copy->request, copy->pools, most_layers(copy->layout));
	job->arena = device->host.arena;
	job->job.crew = crew_of_copy(device, copy);
	job->job.turn.queue = (uint8_t)(class * 8 + priority);
	job->hash_next = NULL;
	*hash_place(device, copy->request.copy) = job;
	if (copy_is_cut(&job->copy)) {		/* nothing to copy: told by the next reap */
		look_at_copy(device, job);
		bell_ring(device->host.bell);
		return 0;
	}
	turns_put(&job->job.crew->turns, &job->job.turn);
	hand_out(device, job->job.crew);
	return 0;
}

static void host_cancel(struct device *device, uint32_t number)
{
	struct copy_job *job = *hash_place(device, number);

	if (!job)
		return;		/* its DONE is on its way, or has been told */
	turns_remove(&job->job.crew->turns, &job->job.turn);
	copy_cancel(&job->copy);
	look_at_copy(device, job);
	bell_ring(device->host.bell);
}

int device_check(struct device *device, bool seal, const struct engine_check *check,
		 const struct image_identity *identity)
{
	const uint64_t at = (uint64_t)check->arena.unit * STOKER_PAGE;
	struct check_job *job;

	if (!device->free_checks)
		return -EAGAIN;
	assert(identity->payload_bytes <= check->arena.bytes - MODEL_IMAGE_HEADER);
	assert(check->arena.bytes <= device->host.arena_bytes && at <= device->host.arena_bytes - check->arena.bytes);
	job = check_of(device->free_checks);
	device->free_checks = job->job.next;
	image_task_begin(&job->image, seal, device->host.arena + at, &check->object, identity);
	job->over = false;
	job->number = check->io;
	job->job.turn.queue = (seal ? JOB_SEAL : JOB_VERIFY) * 8;
	turns_put(&job->job.crew->turns, &job->job.turn);
	hand_out(device, job->job.crew);
	return 0;
}

/* ---- regions and pools: the control thread's --------------------------------------------------- */

static int crew_open(const struct device *device, uid_t uid, struct crew *crew)
{
	const uint64_t two = device->host.piece_bytes * 2;
	const uint32_t pieces = device->host.threads * WORKERS_DEPTH;

	crew->uid = uid;
	crew->pieces = calloc(pieces, sizeof(*crew->pieces));
	if (!crew->pieces)
		return -ENOMEM;
	for (uint32_t i = 0; i < pieces; i++) {
		crew->pieces[i].next = crew->free_pieces;
		crew->free_pieces = &crew->pieces[i];
	}
	return workers_start(device->host.threads, two > AHEAD_BYTES ? two : AHEAD_BYTES, device->host.bell,
			     &crew->workers);
}

static void crew_close(struct crew *crew)
{
	workers_stop(crew->workers);
	free(crew->pieces);
	*crew = (struct crew){ 0 };
}

/* The crew of @uid's memory, made when it first has some; it stays. NULL: no threads can be had. */
static struct crew *crew_of(struct device *device, uid_t uid)
{
	const uint32_t n = atomic_load_explicit(&device->n_crews, memory_order_relaxed);
	struct crew *crew = &device->crews[n];

	if (uid == 0 || uid == geteuid())
		return &device->crews[0];
	for (uint32_t i = 1; i < n; i++)
		if (device->crews[i].uid == uid)
			return &device->crews[i];
	if (n == DEVICE_CREWS)
		return &device->crews[1 + uid % (DEVICE_CREWS - 1)];
	if (crew_open(device, uid, crew) < 0) {
		crew_close(crew);
		return NULL;
	}
	atomic_store_explicit(&device->n_crews, n + 1, memory_order_release);
	return crew;
}

static int host_region_add(struct device *device, const struct device_memory *memory, char *why,
			   struct device_region **ret)
{
	struct crew *crew = crew_of(device, memory->uid);
	int r;

	if (crew)
		r = region_open(&device->rules, memory->host, memory->fds, why, ret);
	else
		r = refuse(why, -ENOMEM, "could not register region: the broker cannot have helper threads for uid %u; raise "
			   "its limit of processes (LimitNPROC, TasksMax)", (unsigned)memory->uid);
	if (r == 0)
		(*ret)->crew = crew;
	/* Of a region that is refused they may be the last that hold its memory: to close them frees all of it. */
	for (uint32_t i = 0; i < memory->n_fds; i++) {
		if (r < 0 && device->host.close_fd)
			device->host.close_fd(memory->uid, memory->fds[i]);
		else
			close(memory->fds[i]);
	}
	return r;
}

static int host_region_close(struct device_region *region, uint64_t token)
{
	(void)token;
	region_close(region);
	return 0;
}

static uint64_t host_region_bytes(const struct device_region *region)
{
	return region->bytes;
}

static int host_pool_add(struct device *device, uint64_t token, uint32_t client, uint32_t number,
			 const struct model_layout *layout, uint32_t part, uint32_t n_blocks,
			 const struct message_plane *planes, uint32_t n_planes,
			 struct device_region *const *regions, uint32_t n_regions, char *why,
			 struct device_pool **ret)
{
	(void)device;
	(void)token;
	return pool_open(client, number, layout, part, n_blocks, planes, n_planes, regions, n_regions, why, ret);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void host_stop(struct device *device)
{
	if (!device)
		return;
	for (uint32_t i = 0; i < DEVICE_CREWS; i++)
		crew_close(&device->crews[i]);
	if (device->guarded)
		guard_stop();
	free(device->rules.own);
	free(device->copies);
	free(device->checks);
	free(device->hash);
	free(device);
}

static int own_file(struct device *device, int fd)
{
	struct stat stat;

	if (fd < 0)
		return 0;
	if (fstat(fd, &stat) < 0)
		return -errno;
	device->rules.own[device->rules.n_own++] = (struct region_file){ stat.st_dev, stat.st_ino };
	return 0;
}

static int make_rules(struct device *device)
{
	struct sysinfo info;
	int r;

	device->rules.bytes_max = device->host.region_bytes_max;
	if (!device->rules.bytes_max && sysinfo(&info) == 0)
		device->rules.bytes_max = ((uint64_t)info.totalram + info.totalswap) * info.mem_unit;
	device->rules.own = calloc((size_t)device->host.n_own + 1, sizeof(*device->rules.own));
	if (!device->rules.own)
		return -ENOMEM;
	r = own_file(device, device->host.arena_fd);
	for (uint32_t i = 0; i < device->host.n_own && r == 0; i++)
		r = own_file(device, device->host.own_fds[i]);
	return r;
}

static int make_jobs(struct device *device)
{
	uint32_t hash = 16;

	while (hash < device->host.copies * 2)
		hash *= 2;
	device->hash_mask = hash - 1;
	device->hash = calloc(hash, sizeof(struct copy_job *));
	device->copies = calloc(device->host.copies, sizeof(*device->copies));
	device->checks = aligned_alloc(64, device->host.checks * sizeof(*device->checks));
	if (!device->hash || !device->copies || !device->checks)
		return -ENOMEM;
	memset(device->checks, 0, device->host.checks * sizeof(*device->checks));
	for (uint32_t i = 0; i < device->host.checks; i++) {
		struct check_job *check = &device->checks[i];

		check->step_bytes = check->task.bytes = 2 * device->host.piece_bytes;
		check->task.run = check_run;
		check->job.is_check = true;
		check->job.crew = &device->crews[0];
		check->job.next = device->free_checks;
		device->free_checks = &check->job;
	}
	return 0;
}

static int host_start(const struct device_host *host, struct device **ret)
{
	struct device *device;
	int r;

	if (host->threads < 1 || host->threads > WORKERS_MAX || host->copies < 1 || host->copies > 1u << 24)
		return -EINVAL;
	device = calloc(1, sizeof(*device));
	if (!device)
		return -ENOMEM;
	device->host = *host;
	device->host.checks = host->checks ? host->checks : CHECKS;
	/* Whole pages, so that cuts fall where a block of a power of two ends. */
	device->host.piece_bytes = ((host->piece_bytes ? host->piece_bytes : PIECE_BYTES) + STOKER_PAGE - 1) &
				   ~(uint64_t)(STOKER_PAGE - 1);
	r = make_rules(device);
	if (r == 0)
		r = make_jobs(device);
	if (r == 0)
		r = guard_start();
	device->guarded = r == 0;
	if (r == 0)
		r = crew_open(device, geteuid(), &device->crews[0]);
	device->n_crews = 1;
	if (r < 0) {
		host_stop(device);
		return r;
	}
	*ret = device;
	return 0;
}

const struct device_backend device_host_backend = {
	.name = "host",
	.kind = MESSAGE_REGION_HOST,
	.start = host_start,
	.stop = host_stop,
	.region_add = host_region_add,
	.region_close = host_region_close,
	.region_bytes = host_region_bytes,
	.pool_add = host_pool_add,
	.pool_close = pool_close,
	.copy = host_copy,
	.cancel = host_cancel,
	.reap = host_reap,
};
