/*
 * A tier through io_uring: the one file of the broker that names it.
 *
 * The ring belongs to the tier's thread (SINGLE_ISSUER, DEFER_TASKRUN and TASKRUN_FLAG where the
 * kernel has them: completions are then worked off in that thread when it asks, not by
 * interrupting it). The tier's file is a registered file; so are the broker's NAME.io lock and the
 * tier directory's lock, which no operation names: the kernel keeps them until the last transfer of
 * a dead broker has landed, and with them the successor's patience.
 *
 * Extents of the arena become registered buffers as they are populated; a transfer lies within one
 * of them, or is a plain one if that extent could not be registered (memlock). The thread sleeps in
 * the ring: its bell is a multishot poll there.
 */
#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "src/broker/tier-way.h"
#include "src/common/log.h"

#define RING_ENTRIES	128u
#define BELL_TOKEN	TIER_TOKENS
#define BUFFERS_MAX	16384u	/* the kernel's limit for one ring */

struct uring {
	struct io_uring ring;
	struct tier_way_config config;
	char name[64];
	bool bell_is_polled;
	bool no_buffers;	/* registering was refused: said once, not tried again */
	uint32_t extents;	/* places in the table of registered buffers */
	uint8_t *registered;	/* by extent */
};

/* The newest flags that this kernel takes. */
static int ring_make(struct uring *uring, const char **flavour)
{
	static const struct { unsigned flags; const char *name; } kinds[] = {
		{ IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG, "io_uring" },
		{ IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, "io_uring without DEFER_TASKRUN" },
		{ 0, "io_uring without TASKRUN" },
	};
	int r = -EINVAL;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && r == -EINVAL; i++) {
		struct io_uring_params params = { .flags = kinds[i].flags };

		r = io_uring_queue_init_params(RING_ENTRIES, &uring->ring, &params);
		*flavour = kinds[i].name;
		if (r == 0 && !(params.features & IORING_FEAT_EXT_ARG)) {
			io_uring_queue_exit(&uring->ring);	/* cannot wait with a time limit */
			r = -ENOSYS;
		}
	}
	return r;
}

static void buffers_refused(struct uring *uring, int error)
{
	struct rlimit limit = { 0 };

	getrlimit(RLIMIT_MEMLOCK, &limit);
	uring->no_buffers = true;
	if (error == ENOMEM)
		log_warning("tier %s: could not register the arena with io_uring: the memlock limit of %llu KiB is too small for "
			    "%llu MiB, so its reads and writes cost more CPU; raise it (LimitMEMLOCK=infinity, ulimit -l)",
			    uring->config.name, (unsigned long long)limit.rlim_cur / 1024,
			    (unsigned long long)uring->config.arena_bytes >> 20);
	else
		log_warning("tier %s: could not register the arena with io_uring: %s, so its reads and writes cost more CPU",
			    uring->config.name, strerror(error));
}

static void buffers_prepare(struct uring *uring)
{
	const uint64_t extents = uring->config.arena_bytes / uring->config.extent_bytes;
	int r;

	uring->extents = extents < BUFFERS_MAX ? (uint32_t)extents : BUFFERS_MAX;
	uring->registered = calloc(uring->extents + 1, 1);
	r = uring->registered ? io_uring_register_buffers_sparse(&uring->ring, uring->extents) : -ENOMEM;
	if (r < 0)
		buffers_refused(uring, -r);
}

static void uring_close(void *way)
{
	struct uring *uring = way;

	/* Here rather than whenever the kernel takes the ring down, which is later: who opens this tier
	 * next should find its lock free. */
	io_uring_unregister_files(&uring->ring);
	io_uring_queue_exit(&uring->ring);
	free(uring->registered);
	free(uring);
}

static int uring_open(const struct tier_way_config *config, void **ret)
{
	struct uring *uring = calloc(1, sizeof(*uring));
	const int files[] = { config->file, config->io_lock, config->dir_lock };
	const char *flavour = NULL;
	int r;

	if (!uring)
		return -ENOMEM;
	uring->config = *config;
	r = ring_make(uring, &flavour);
	if (r < 0) {
		free(uring);
		return r;
	}
	r = io_uring_register_files(&uring->ring, files, 3);
	if (r < 0) {
		uring_close(uring);
		return r;
	}
	io_uring_register_ring_fd(&uring->ring);	/* a little faster; refused is fine */
	buffers_prepare(uring);
	snprintf(uring->name, sizeof(uring->name), "%s, %s", flavour, config->direct ? "O_DIRECT" : "buffered");
	*ret = uring;
	return 0;
}

static const char *uring_name(const void *way)
{
	return ((const struct uring *)way)->name;
}

static uint32_t uring_transfers(const void *way)
{
	(void)way;
	return TIER_TRANSFERS;
}

static void uring_extent_ready(void *way, uint32_t extent)
{
	struct uring *uring = way;
	const struct iovec buffer = { uring->config.arena + extent * uring->config.extent_bytes,
				      uring->config.extent_bytes };
	const __u64 tag = 0;	/* nobody waits for its end: the ring keeps it for its life */
	int r;

	if (uring->no_buffers || extent >= uring->extents || uring->registered[extent])
		return;
	r = io_uring_register_buffers_update_tag(&uring->ring, extent, &buffer, &tag, 1);
	if (r < 0)
		buffers_refused(uring, -r);
	else
		uring->registered[extent] = 1;
}

/* Never NULL: the ring has more entries than can be under way, and hands over what waits. */
static struct io_uring_sqe *sqe_take(struct uring *uring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);

	while (!sqe) {
		io_uring_submit(&uring->ring);
		sqe = io_uring_get_sqe(&uring->ring);
	}
	return sqe;
}

static void uring_start(void *way, const struct transfer *t)
{
	struct uring *uring = way;
	struct io_uring_sqe *sqe = sqe_take(uring);
	const bool fixed = t->extent < uring->extents && uring->registered && uring->registered[t->extent];
	const int buffer = (int)t->extent;

	/* The file is number 0 of the registered ones. */
	if (fixed && t->write)
		io_uring_prep_write_fixed(sqe, 0, t->memory, t->bytes, t->offset, buffer);
	else if (fixed)
		io_uring_prep_read_fixed(sqe, 0, t->memory, t->bytes, t->offset, buffer);
	else if (t->write)
		io_uring_prep_write(sqe, 0, t->memory, t->bytes, t->offset);
	else
		io_uring_prep_read(sqe, 0, t->memory, t->bytes, t->offset);
	io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data64(sqe, t->token);
}

static void uring_sync(void *way, int fd, uint32_t token)
{
	struct io_uring_sqe *sqe = sqe_take(way);

	io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	io_uring_sqe_set_data64(sqe, token);
}

static void uring_turn(void *way, uint64_t wait_ns)
{
	struct uring *uring = way;
	struct __kernel_timespec wait = { (long long)(wait_ns / 1000000000u), (long long)(wait_ns % 1000000000u) };
	struct io_uring_cqe *cqe;

	if (!uring->bell_is_polled) {
		struct io_uring_sqe *sqe = sqe_take(uring);

		io_uring_prep_poll_multishot(sqe, uring->config.bell, POLLIN);
		io_uring_sqe_set_data64(sqe, BELL_TOKEN);
		uring->bell_is_polled = true;
	}
	/* Errors (EINTR, EAGAIN, EBUSY, ETIME) all mean: look at what has ended and come again. */
	if (wait_ns == 0)
		io_uring_submit(&uring->ring);
	else
		io_uring_submit_and_wait_timeout(&uring->ring, &cqe, 1, wait_ns == UINT64_MAX ? NULL : &wait, NULL);
}

static uint32_t uring_ends(void *way, struct transfer_end *ret, uint32_t n)
{
	struct uring *uring = way;
	struct io_uring_cqe *cqe;
	uint32_t taken = 0;

	/* peek enters the kernel when the ring says that deferred work is due. */
	while (taken < n && io_uring_peek_cqe(&uring->ring, &cqe) == 0 && cqe) {
		const uint64_t token = io_uring_cqe_get_data64(cqe);

		if (token == BELL_TOKEN)
			uring->bell_is_polled = cqe->flags & IORING_CQE_F_MORE;
		else
			ret[taken++] = (struct transfer_end){ (uint32_t)token, cqe->res };
		io_uring_cqe_seen(&uring->ring, cqe);
	}
	return taken;
}

const struct tier_way tier_way_uring = {
	.open = uring_open, .close = uring_close, .name = uring_name, .transfers = uring_transfers,
	.extent_ready = uring_extent_ready, .start = uring_start, .sync = uring_sync, .turn = uring_turn,
	.ends = uring_ends,
};
