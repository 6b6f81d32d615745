/* See channel.h. Decoding of requests is in decode.c. */
#include "src/broker/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- making and freeing ---------------------------------------------------------------------- */

static size_t scratch_bytes(const struct channel_plan *plan, uint32_t slot)
{
	const size_t bytes = STOKER_SCRATCH_BYTES(plan_slot_keys(plan, slot), plan_slot_input(plan, slot));

	return (bytes + 63) / 64 * 64;
}

/*
 * Private memory: all slots, then input and scratch of each. Reserved, not populated: what a client
 * never uses costs nothing, and what it uses once is bounded by its geometry.
 */
static int memory_make(struct channel *channel)
{
	const struct channel_plan *plan = &channel->plan;
	size_t bytes = plan->slots * sizeof(struct channel_slot);

	for (uint32_t i = 0; i < plan->slots; i++)
		bytes += plan_slot_input(plan, i) + scratch_bytes(plan, i);
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		return -errno;
	/* Huge pages would populate the payloads of slots that are never used. */
	madvise(at, bytes, MADV_NOHUGEPAGE);
	channel->memory = at;
	channel->memory_bytes = bytes;
	channel->slot = at;
	uint8_t *next = channel->memory + plan->slots * sizeof(struct channel_slot);
	for (uint32_t i = 0; i < plan->slots; i++) {
		struct engine_request *request = &channel->slot[i].request;

		request->keys_max = plan_slot_keys(plan, i);
		request->keys = (const struct stoker_wire_key *)next;
		next += plan_slot_input(plan, i);
		request->scratch = next;
		request->scratch_bytes = scratch_bytes(plan, i);
		next += scratch_bytes(plan, i);
	}
	return 0;
}

static void header_fill(struct channel *channel)
{
	struct channel_header *header = (struct channel_header *)channel->base;

	header->abi = STOKER_ABI;
	header->bytes_pages = (uint32_t)(channel->plan.bytes / STOKER_PAGE);
	header->geometry = channel->plan.geometry;
	/* It begins parked: the first request rings the doorbell. */
	atomic_store_explicit(&header->need_wake, 1, memory_order_seq_cst);
	header->magic = STOKER_CHANNEL_MAGIC;
}

/* Memory that nobody can shrink, and that no other user can open through /proc. */
static int shared_make(struct channel *channel, int *ret_fd)
{
	const int fd = memfd_create("stoker-channel", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r = 0;

	if (fd < 0)
		return -errno;
	if (fchmod(fd, 0600) < 0 || ftruncate(fd, (off_t)channel->plan.bytes) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		r = -errno;
	if (r == 0) {
		void *at = mmap(NULL, channel->plan.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

		if (at == MAP_FAILED)
			r = -errno;
		else
			channel->base = at;
	}
	if (r < 0) {
		close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

static int pipe_make(int *ret_read, int *ret_write, int own_flags_read, int own_flags_write)
{
	int fd[2];

	if (pipe2(fd, O_CLOEXEC) < 0)
		return -errno;
	*ret_read = fd[0];
	*ret_write = fd[1];
	/* One page is plenty, and pipes of an unprivileged user are counted in pages. */
	fcntl(fd[0], F_SETPIPE_SZ, 4096);
	if ((own_flags_read && fcntl(fd[0], F_SETFL, own_flags_read) < 0) ||
	    (own_flags_write && fcntl(fd[1], F_SETFL, own_flags_write) < 0))
		return -errno;
	return 0;
}

/* Both ends of the data pipes are non-blocking: ours must be, and a library expects it of its own. */
static int pipes_make(struct channel *channel, struct channel_ends *ends)
{
	int r = pipe_make(&channel->doorbell, &ends->doorbell, O_NONBLOCK, O_NONBLOCK);

	if (r == 0)
		r = pipe_make(&ends->completion, &channel->completion, O_NONBLOCK, O_NONBLOCK);
	if (r == 0)
		r = pipe_make(&ends->fence, &channel->fence, O_NONBLOCK, 0);
	return r;
}

static void rings_make(struct channel *channel)
{
	const struct channel_plan *plan = &channel->plan;

	channel->requests.entries = (const struct stoker_entry *)(channel->base + plan->request_offset);
	channel->requests.mask = plan->requests - 1;
	channel->responses.words = (_Atomic uint64_t *)(channel->base + plan->response_offset);
	channel->responses.mask = plan->responses - 1;
	channel->slots = (struct stoker_slot *)(channel->base + plan->slot_offset);
}

int channel_new(const struct channel_geometry *geometry, uint32_t number, struct channel_ends *ret_ends,
		struct channel **ret)
{
	struct channel_ends ends = { -1, -1, -1, -1 };
	struct channel_plan plan;
	struct channel *channel;

	if (channel_plan_make(geometry, &plan) < 0)
		return -EINVAL;
	if (posix_memalign((void **)&channel, 64, sizeof(*channel)) != 0)
		return -ENOMEM;
	memset(channel, 0, sizeof(*channel));
	channel->doorbell = channel->completion = channel->fence = -1;
	channel->plan = plan;
	channel->number = number;
	int r = shared_make(channel, &ends.memory);
	if (r == 0)
		r = memory_make(channel);
	if (r == 0)
		r = pipes_make(channel, &ends);
	if (r < 0) {
		channel_ends_close(&ends);
		channel_free(channel);
		return r;
	}
	header_fill(channel);
	rings_make(channel);
	*ret_ends = ends;
	*ret = channel;
	return 0;
}

static void close_if_open(int fd)
{
	if (fd >= 0)
		close(fd);
}

void channel_ends_close(struct channel_ends *ends)
{
	close_if_open(ends->memory);
	close_if_open(ends->doorbell);
	close_if_open(ends->completion);
	close_if_open(ends->fence);
	*ends = (struct channel_ends){ -1, -1, -1, -1 };
}

void channel_free(struct channel *channel)
{
	if (!channel)
		return;
	if (channel->base)
		munmap(channel->base, channel->plan.bytes);
	if (channel->memory)
		munmap(channel->memory, channel->memory_bytes);
	close_if_open(channel->doorbell);
	close_if_open(channel->completion);
	close_if_open(channel->fence);
	free(channel);
}

/* ---- answers --------------------------------------------------------------------------------- */

/*
 * A job that ended early has come to some of its keys, or to none: the rest must not be what the slot's job
 * before has left.
 */
static void results_write(struct channel *channel, uint32_t slot, const struct engine_answer *answer)
{
	uint8_t *output = channel->base + plan_output_offset(&channel->plan, slot);
	uint8_t *statuses = output + plan_status_offset(&channel->plan, slot);
	const uint32_t keys = plan_slot_keys(&channel->plan, slot);

	assert(answer->bitmap_words <= keys / 64);
	assert(answer->n_chunks <= keys);
	if (answer->status != STOKER_STATUS_OK) {
		memset(output + answer->bitmap_words * sizeof(uint64_t), 0,
		       (keys / 64 - answer->bitmap_words) * sizeof(uint64_t));
		memset(statuses + answer->n_chunks, STOKER_CHUNK_NONE, keys - answer->n_chunks);
	}
	if (answer->bitmap_words)
		memcpy(output, answer->bitmap, answer->bitmap_words * sizeof(uint64_t));
	if (answer->n_chunks)
		memcpy(statuses, answer->chunks, answer->n_chunks);
	if (answer->mapped)
		memcpy(output, answer->mapped, sizeof(*answer->mapped));
}

static inline void put32(_Atomic uint32_t *field, uint32_t value)
{
	atomic_store_explicit(field, value, memory_order_relaxed);
}

bool channel_publish(struct channel *channel, uint32_t slot, uint32_t generation,
		     const struct engine_answer *answer)
{
	struct stoker_slot *shared = &channel->slots[slot];
	struct stoker_slot_broker *line = &shared->broker;
	const bool done = answer->stage == STOKER_STAGE_DONE;

	put32(&line->found, answer->found);
	put32(&line->found_l1, answer->found_l1);
	put32(&line->expected_us, answer->expected_us);
	put32(&line->ready, answer->ready);
	put32(&line->layers, answer->layers);
	if (done) {
		put32(&line->n, answer->n);
		for (int i = 0; i < 3; i++)
			put32(&line->counts[i], answer->counts[i]);
		put32(&line->lease_ms, answer->lease_ms);
		for (int i = 0; i < 2; i++)
			atomic_store_explicit(&line->lease[i], answer->lease[i], memory_order_relaxed);
		results_write(channel, slot, answer);
		channel->slot[slot].busy = false;
	}
	atomic_store_explicit(&line->word, slot_word(generation, answer->status, answer->stage),
			      memory_order_seq_cst);
	if (!done)
		return false;
	response_put(&channel->responses, slot);
	/* As with want_wake: it stores its want and then loads the word. */
	if (atomic_load_explicit(&shared->client.want_done, memory_order_seq_cst) == generation)
		atomic_store_explicit(&shared->device.done, generation, memory_order_release);
	return atomic_load_explicit(&shared->client.want_wake, memory_order_seq_cst) == generation;
}

/* ---- asleep and awake ------------------------------------------------------------------------ */

bool channel_park(struct channel *channel)
{
	struct channel_header *header = (struct channel_header *)channel->base;

	/* Want first, then the load of what is waited for; the client does both in the other order. */
	atomic_store_explicit(&header->need_wake, 1, memory_order_seq_cst);
	if (!request_waiting(&channel->requests))
		return true;
	atomic_store_explicit(&header->need_wake, 0, memory_order_seq_cst);
	return false;
}

void channel_unpark(struct channel *channel)
{
	struct channel_header *header = (struct channel_header *)channel->base;

	atomic_store_explicit(&header->need_wake, 0, memory_order_seq_cst);
}

bool channel_doorbell_drain(struct channel *channel)
{
	char bytes[256];
	ssize_t n;

	/* What a client put there beyond this rings again: level triggered. */
	do
		n = read(channel->doorbell, bytes, sizeof(bytes));
	while (n < 0 && errno == EINTR);
	return n != 0;
}

void channel_wake(struct channel *channel)
{
	/* A full pipe wakes as well as one byte; a closed one is a client that left. */
	while (write(channel->completion, "", 1) < 0 && errno == EINTR)
		;
}

uint32_t channel_ready_word(const struct channel *channel, uint32_t index)
{
	const _Atomic uint32_t *words = (const _Atomic uint32_t *)(channel->base + channel->plan.ready_offset);

	return atomic_load_explicit(&words[index], memory_order_acquire);
}
