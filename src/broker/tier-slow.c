/*
 * A tier without io_uring: one pread or pwrite at a time, in the tier's own thread. What is started
 * is done in the next turn, so that the thread can see a more urgent read in between. A read that a
 * dead broker left in the kernel ends before the process is gone, so the locks hold without more.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "src/broker/tier-way.h"

struct slow {
	int file, bell;
	bool direct;
	uint32_t n_waiting, n_ends;
	struct job {
		struct transfer transfer;
		int sync_fd;		/* -1: a transfer */
	} waiting[TIER_TOKENS];
	struct transfer_end ends[TIER_TOKENS];
};

static int slow_open(const struct tier_way_config *config, void **ret)
{
	struct slow *slow = calloc(1, sizeof(*slow));

	if (!slow)
		return -ENOMEM;
	slow->file = config->file;
	slow->bell = config->bell;
	slow->direct = config->direct;
	*ret = slow;
	return 0;
}

static void slow_close(void *way)
{
	free(way);
}

static const char *slow_name(const void *way)
{
	const struct slow *slow = way;

	return slow->direct ? "pread and pwrite, O_DIRECT" : "pread and pwrite, buffered";
}

static uint32_t slow_transfers(const void *way)
{
	(void)way;
	return 1;
}

static void slow_extent_ready(void *way, uint32_t extent)
{
	(void)way;	/* nothing is registered */
	(void)extent;
}

static void slow_start(void *way, const struct transfer *transfer)
{
	struct slow *slow = way;

	assert(slow->n_waiting < TIER_TOKENS);
	slow->waiting[slow->n_waiting++] = (struct job){ *transfer, -1 };
}

static void slow_sync(void *way, int fd, uint32_t token)
{
	struct slow *slow = way;

	assert(slow->n_waiting < TIER_TOKENS);
	slow->waiting[slow->n_waiting++] = (struct job){ { .token = token }, fd };
}

static int32_t job_do(const struct slow *slow, const struct job *job)
{
	const struct transfer *t = &job->transfer;
	ssize_t done;

	do {
		if (job->sync_fd >= 0)
			done = fdatasync(job->sync_fd);
		else if (t->write)
			done = pwrite(slow->file, t->memory, t->bytes, (off_t)t->offset);
		else
			done = pread(slow->file, t->memory, t->bytes, (off_t)t->offset);
	} while (done < 0 && errno == EINTR);
	return done < 0 ? -errno : (int32_t)done;
}

static void slow_turn(void *way, uint64_t wait_ns)
{
	struct slow *slow = way;
	struct pollfd bell = { .fd = slow->bell, .events = POLLIN };
	const struct timespec wait = { (time_t)(wait_ns / 1000000000u), (long)(wait_ns % 1000000000u) };

	if (slow->n_waiting == 0 && wait_ns > 0)
		ppoll(&bell, 1, wait_ns == UINT64_MAX ? NULL : &wait, NULL);
	for (uint32_t i = 0; i < slow->n_waiting; i++)
		slow->ends[slow->n_ends++] = (struct transfer_end){ slow->waiting[i].transfer.token,
								    job_do(slow, &slow->waiting[i]) };
	slow->n_waiting = 0;
}

static uint32_t slow_ends(void *way, struct transfer_end *ret, uint32_t n)
{
	struct slow *slow = way;
	uint32_t taken = 0;

	while (taken < n && slow->n_ends > 0)
		ret[taken++] = slow->ends[--slow->n_ends];
	return taken;
}

const struct tier_way tier_way_slow = {
	.open = slow_open, .close = slow_close, .name = slow_name, .transfers = slow_transfers,
	.extent_ready = slow_extent_ready, .start = slow_start, .sync = slow_sync, .turn = slow_turn,
	.ends = slow_ends,
};
