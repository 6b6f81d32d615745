/*
 * The calls of <stoker/cuda.h>: a part of libstoker that lies here because it names CUDA.
 *
 * A handle that has used one of them has a side for its device: the driver, how things are done here, and the
 * words of the attachments whose streams may still have work on them. The region of a GPU is a region as any
 * other, but that it is sent by address: at each attachment the range is looked at and exported anew, and
 * of its descriptors no more than a message's worth are ever open.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <stoker/cuda.h>

#include "src/client/client.h"
#include "src/device/cuda/export.h"
#include "src/device/cuda/words.h"

struct side {
	struct client_device device;
	const struct cuda_driver *cuda;
	struct words_ways ways;
	struct words *words;		/* the present attachment's first */
	char how[3 * CUDA_TEXT];
};

struct gpu_region {
	struct stoker_region region;
	uint64_t address, bytes;
	struct cuda_context *context;	/* that was current: at another attachment the thread may have none */
};

/*
 * Words on which a stream has work still when their handle is closed. They stay where they are, and are
 * tried again whenever another handle begins or ends. In a forked child they are not there.
 */
static pthread_mutex_t left_lock = PTHREAD_MUTEX_INITIALIZER;
static struct words *left;
static pid_t left_by;

static void left_tidy(struct words *more)
{
	struct words **link = &left;

	pthread_mutex_lock(&left_lock);
	if (left_by != getpid())
		left = NULL;
	left_by = getpid();
	if (more) {
		more->next = left;
		left = more;
	}
	while (*link) {
		struct words *words = *link, *next = words->next;

		if (words_free(words, false))
			*link = next;
		else
			link = &words->next;
	}
	pthread_mutex_unlock(&left_lock);
}

/* Streams are let through. */
static void side_close(struct client_device *device, bool forked)
{
	struct side *side = (struct side *)device;

	while (side->words) {
		struct words *words = side->words;

		side->words = words->next;
		if (!forked)
			gate_open(&words->gate);
		gate_stop(&words->gate, forked);
		if (forked)
			words_free(words, true);
		else
			left_tidy(words);
	}
	free(side);
}

static int side_of(struct stoker *c, struct side **ret)
{
	const struct cuda_driver *cuda;
	struct side *side = (struct side *)c->device;
	char why[CUDA_WHY];
	int r;

	if (side) {
		*ret = side;
		return 0;
	}
	r = cuda_driver_open(secure_getenv("STOKER_CUDA_LIBRARY"), why, &cuda);
	if (r < 0)
		return client_fail(c, r, "%s", why);
	side = calloc(1, sizeof(*side));
	if (!side)
		return client_fail(c, -ENOMEM, "could not begin to use the device: out of memory");
	left_tidy(NULL);
	side->device.close = side_close;
	side->cuda = cuda;
	c->device = &side->device;
	*ret = side;
	return 0;
}

/* ---- regions ------------------------------------------------------------------------------------- */

static int send_handle(struct stoker_region *region, const struct cuda_memory *memory,
		       struct message_region_add_cuda *add, int sock, uint64_t deadline_ns)
{
	add->kind = MESSAGE_CUDA_IPC;
	memcpy(add->handle, memory->handle.reserved, sizeof(add->handle));
	return object_send(&region->object, QUESTION_OPEN, sock, add, sizeof(*add), NULL, 0, deadline_ns);
}

static int send_batch(struct stoker_region *region, struct message_region_add_cuda *add, int sock, const int *fds,
		      uint64_t deadline_ns)
{
	int r;

	if (add->more)
		r = object_send_part(&region->object, sock, add, sizeof(*add), fds, add->n_fds, deadline_ns);
	else
		r = object_send(&region->object, QUESTION_OPEN, sock, add, sizeof(*add), fds, add->n_fds, deadline_ns);
	for (uint32_t i = 0; i < add->n_fds; i++)
		close(fds[i]);
	return r;
}

/* When memory changes between the look and the export, the broker cannot be left with half a question. */
static int send_descriptors(struct stoker_region *region, const struct cuda_driver *cuda, const struct cuda_memory *memory,
			    struct message_region_add_cuda *add, int sock, uint64_t deadline_ns)
{
	uint64_t at = memory->base;
	bool begun = false;
	char why[CUDA_WHY];
	int r = 0;

	add->kind = MESSAGE_CUDA_VMM;
	do {
		int fds[MESSAGE_CUDA_FDS_MAX];

		memset(add->fd_bytes, 0, sizeof(add->fd_bytes));
		r = cuda_memory_export(cuda, memory, &at, fds, add->fd_bytes, MESSAGE_CUDA_FDS_MAX, why);
		if (r < 0) {
			client_fail(region->object.c, r, "%s", why);
			return begun ? -EPIPE : r;
		}
		add->n_fds = (uint32_t)r;
		add->more = at < memory->address + memory->bytes;
		begun = begun || add->more;
		r = send_batch(region, add, sock, fds, deadline_ns);
	} while (r == 0 && add->more);
	return begun && r < 0 ? -EPIPE : r;
}

static int send_memory(const struct gpu_region *gpu, const struct cuda_driver *cuda, int sock, uint64_t deadline_ns)
{
	struct stoker_region *region = (struct stoker_region *)&gpu->region;
	struct stoker *c = region->object.c;
	struct message_region_add_cuda *add = (struct message_region_add_cuda *)c->message;
	struct cuda_memory memory;
	char why[CUDA_WHY];
	const int r = cuda_memory_look(cuda, gpu->address, gpu->bytes, why, &memory);

	if (r < 0)
		return client_fail(c, r, "%s", why);
	memset(add, 0, sizeof(*add));
	add->header.type = MESSAGE_REGION_ADD_CUDA;
	memcpy(add->uuid, memory.uuid, sizeof(add->uuid));
	add->offset = memory.address - memory.base;
	add->bytes = memory.bytes;
	return memory.vmm ? send_descriptors(region, cuda, &memory, add, sock, deadline_ns) :
			    send_handle(region, &memory, add, sock, deadline_ns);
}

static int gpu_region_send(struct stoker_region *region, int sock, uint64_t deadline_ns)
{
	const struct gpu_region *gpu = (const struct gpu_region *)region;
	const struct cuda_driver *cuda = ((const struct side *)region->object.c->device)->cuda;
	struct cuda_context *context;
	char text[CUDA_TEXT];
	const enum cuda_result result = cuda->ctx_push_current(gpu->context);
	int r;

	if (result != CUDA_OK)
		return client_fail(region->object.c, cuda_errno(result), "could not register device memory: its context is of "
				   "no use any more: %s", cuda_error_text(cuda, result, text));
	r = send_memory(gpu, cuda, sock, deadline_ns);
	cuda->ctx_pop_current(&context);
	return r;
}

static int region_add(struct stoker *c, uint64_t device_pointer, uint64_t bytes, struct stoker_region **ret)
{
	struct cuda_context *context = NULL;
	struct gpu_region *gpu;
	struct side *side;
	int r;

	if (!ret)
		return client_fail(c, -EINVAL, "there is no place for the region");
	r = side_of(c, &side);
	if (r < 0)
		return r;
	r = client_need_broker(c);
	if (r < 0)
		return client_fail(c, r, "there is no broker \"%s\" to register memory with", c->name);
	if (side->cuda->ctx_get_current(&context) != CUDA_OK || !context)
		return client_fail(c, -EINVAL, "cannot register device memory: no context is current in this thread; make the "
				   "memory's device current first (cudaSetDevice)");
	gpu = calloc(1, sizeof(*gpu));
	if (!gpu)
		return client_fail(c, -ENOMEM, "could not register memory: out of memory");
	gpu->context = context;
	gpu->address = device_pointer;
	gpu->bytes = bytes;
	gpu->region.send = gpu_region_send;
	r = region_register(c, &gpu->region);
	if (r == 0)
		*ret = &gpu->region;
	return r;
}

int stoker_cuda_region_add(struct stoker *c, uint64_t device_pointer, uint64_t bytes, struct stoker_region **ret)
{
	const int r = client_enter(c);

	return r < 0 ? r : client_leave(c, region_add(c, device_pointer, bytes, ret));
}

/* ---- words --------------------------------------------------------------------------------------- */

/* Those of attachments that are over, once their streams have passed. */
static void words_tidy(struct stoker *c, struct side *side, uint32_t wanted)
{
	struct words **link = &side->words;

	while (*link) {
		struct words *words = *link, *next = words->next;

		if (words->ordinal == wanted || (c->at && words->ordinal == c->at->ordinal) || !words_free(words, false))
			link = &words->next;
		else
			*link = next;
	}
}

static int words_of(struct stoker *c, struct side *side, const struct attachment *at, struct words **ret)
{
	struct words *words = side->words;
	char why[CUDA_WHY];
	int r;

	if (words && (words->ordinal != at->ordinal || words->next))
		words_tidy(c, side, at->ordinal);
	for (words = side->words; words; words = words->next) {
		if (words->ordinal == at->ordinal) {
			*ret = words;
			return 0;
		}
	}
	r = words_new(side->cuda, &side->ways, at->channel, &at->plan, at->ordinal, why, &words);
	if (r < 0)
		return client_fail(c, r, "%s", why);
	words->next = side->words;
	side->words = words;
	*ret = words;
	return 0;
}

static int ready(struct stoker *c, uint32_t index, uint32_t value, void *stream)
{
	struct words *words;
	struct side *side;
	char why[CUDA_WHY];
	int r = side_of(c, &side);

	if (r < 0)
		return r;
	r = client_need_broker(c);
	if (r < 0)
		return client_fail(c, r, "there is no broker \"%s\" whose ready word could be raised", c->name);
	if (index >= c->n_ready)
		return client_fail(c, -EINVAL, "there is no ready word %u: this attachment has %u", index, c->n_ready);
	r = words_of(c, side, c->at, &words);
	if (r < 0)
		return r;
	r = words_raise(words, index, value, stream, why);
	return r < 0 ? client_fail(c, r, "%s", why) : 0;
}

int stoker_cuda_ready(struct stoker *c, uint32_t index, uint32_t value, void *stream)
{
	const int r = client_enter(c);

	return r < 0 ? r : client_leave(c, ready(c, index, value, stream));
}

/*
 * Ask for the word of a job that is not DONE, with the protocol of want_wake: store the want, load the
 * word. What the slot did before is DONE, so a gate that was passed long ago is first brought near.
 * Returns whether the stream has to wait.
 */
static bool want_done(const struct job *job, uint32_t slot)
{
	struct stoker_slot *shared = attachment_slot(job->at, slot);
	uint64_t word;

	if (atomic_load_explicit(&shared->client.want_done, memory_order_relaxed) != job->generation) {
		atomic_store_explicit(&shared->device.done, job->generation - 1, memory_order_relaxed);
		atomic_store_explicit(&shared->client.want_done, job->generation, memory_order_seq_cst);
	}
	word = atomic_load_explicit(&shared->broker.word, memory_order_seq_cst);
	return slot_word_generation(word) != job->generation || slot_word_stage(word) != STOKER_STAGE_DONE;
}

static int wait_for_slot(struct stoker *c, struct side *side, uint32_t slot, void *stream)
{
	struct job *job = &c->jobs[slot];
	struct words *words;
	char why[CUDA_WHY];
	int r;

	if (job->state == JOB_FREE || job->state == JOB_GONE || !want_done(job, slot))
		return 0;
	r = words_of(c, side, job->at, &words);
	if (r < 0)
		return r;
	r = gate_start(&words->gate, job->at->fence);
	if (r < 0)
		return client_fail(c, r, "could not start the thread that looks after waiting streams: %s", strerror(-r));
	r = words_wait(words, slot, job->generation, stream, why);
	return r < 0 ? client_fail(c, r, "%s", why) : 0;
}

static int wait_for(struct stoker *c, struct stoker_job id, void *stream)
{
	const struct batch *batch = batch_find(c, id);
	struct side *side;
	int r = side_of(c, &side);

	if (r < 0)
		return r;
	if (!batch && !job_find(c, id))
		return client_fail(c, -ENOENT, "there is no such job, or it is finished: a stream cannot wait for it");
	if (!batch)
		return wait_for_slot(c, side, id.slot, stream);
	for (uint32_t i = 0; r == 0 && i < batch->n_parts; i++)
		r = wait_for_slot(c, side, batch->slot[i], stream);
	return r;
}

int stoker_cuda_wait(struct stoker *c, struct stoker_job job, void *stream)
{
	const int r = client_enter(c);

	return r < 0 ? r : client_leave(c, wait_for(c, job, stream));
}

const char *stoker_cuda_how(struct stoker *c)
{
	struct side *side = c ? (struct side *)c->device : NULL;
	const struct words_ways *ways = side ? &side->ways : NULL;
	const char *no_write = "", *no_wait = "";

	if (!side || c->forked || !side->words)
		return "ready words and waits have not been used yet";
	if (ways->no_register || ways->no_write)
		no_write = ways->no_register ? ways->why_register : ways->why_write;
	if (ways->no_register || ways->no_wait)
		no_wait = ways->no_register ? ways->why_register : ways->why_wait;
	snprintf(side->how, sizeof(side->how), "ready words by %s%s; waits %s%s",
		 *no_write ? "host callbacks, because the device does not write them: " : "the device", no_write,
		 *no_wait ? "not possible: " : "by the device", no_wait);
	return side->how;
}
