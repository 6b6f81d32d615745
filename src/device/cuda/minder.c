/*
 * The life of the copier process of one GPU, on the control thread, which never waits for it.
 *
 * DOWN --something is to be opened--> STARTING --UP--> UP --> ENDING --reaped--> REAPED --lane released--> DOWN
 *
 * It ends by itself (a fault of the device; it says why if it can), by SIGKILL when it shows no sign of life
 * while it has something to do, or because its end of the pair is closed: it has had no region for a while, or
 * the broker stops. Only when it has been reaped is its lane retired: then its context is gone, and with it
 * every DMA, so its copies may end. After a fault the next one starts after a pause that grows.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/control.h"
#include "src/common/log.h"
#include "src/device/cuda/backend.h"
#include "src/device/spawner.h"

#define PAUSE_MIN_NS	100000000ull
#define PAUSE_MAX_NS	10000000000ull
#define HEALTHY_NS	10000000000ull	/* up for that long: the next fault is a new one */
#define START_NS	60000000000ull	/* to open the driver and the device */
#define GRACE_NS	2000000000ull	/* beyond hang_ms: the copier looks at its device itself, and can say more */
#define SAY_NS		1000000000ull	/* between two lines about copiers that were never up */
#define AGAIN_NS	10000000ull	/* before something is said again that could not be */
#define STOP_MS		5000		/* for an end of its own, when the broker stops */
#define LOOK_MS		10		/* between looks for its end, where no pidfd tells of it */
#define SEND_BUFFER	(1 << 20)
#define COPIER_FD	3

/* ---- starting -------------------------------------------------------------------------------- */

static int watch(struct minder *minder, int op, int fd, uint32_t events)
{
	struct epoll_event event = { .events = events };

	return epoll_ctl(minder->epoll, op, fd, &event) < 0 ? -errno : 0;
}

/* epoll forgets by itself only a file that nobody has open: a copier that is being started has all of ours. */
static void watched_close(const struct minder *minder, int *fd)
{
	if (*fd >= 0) {
		epoll_ctl(minder->epoll, EPOLL_CTL_DEL, *fd, NULL);
		close(*fd);
	}
	*fd = -1;
}

/* It has the pair and standard error, and nothing else. */
static int spawn(struct device *device, int fd)
{
	char number[12];
	char *const arguments[] = { (char *)"stokerd", (char *)"--copier", number, NULL };

	snprintf(number, sizeof(number), "%d", COPIER_FD);
	return spawner_run(device->program, arguments, fd, COPIER_FD, &device->minder.pid);
}

static int say_start(struct device *device)
{
	const struct device_gpu *gpu = &device->gpu;
	const struct lane *lane = device->minder.lane;
	const int fds[WIRE_START_FDS] = { device->host.arena_fd, lane->memory_fd, lane->bell_fd, device->host.bell->fd,
					  gpu->io_lock_fd };
	struct wire_start start = {
		.header = { WIRE_START, sizeof(start) },
		.arena_bytes = device->host.arena_bytes,
		.extent_bytes = gpu->extent_bytes,
		.segment_bytes = lane->bytes,
		.bounce_bytes = gpu->bounce_bytes,
		.slice_bytes = gpu->slice_bytes,
		.copies = device->host.copies,
		.streams_load = gpu->streams_load,
		.streams_store = gpu->streams_store,
		.hang_ms = gpu->hang_ms,
		.log_level = (uint32_t)log_level(),
	};

	memcpy(start.uuid, gpu->uuid, sizeof(start.uuid));
	snprintf(start.library, sizeof(start.library), "%s", gpu->library);
	return wire_send(device->minder.socket, false, &start, fds, WIRE_START_FDS);
}

/* Descriptors and process; what fails here is undone by whoever called. */
static int start_process(struct device *device)
{
	struct minder *minder = &device->minder;
	const int buffer = SEND_BUFFER;
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
	minder->socket = pair[0];
	r = say_start(device);
	if (r == 0)
		r = spawn(device, pair[1]);
	close(pair[1]);
	if (r < 0)
		return r;
	/* Sandboxes refuse it: then the end of the pair tells that it is near, and its end is looked for (next_due()). */
	minder->pidfd = (int)syscall(SYS_pidfd_open, minder->pid, 0);
	r = minder->pidfd < 0 ? 0 : watch(minder, EPOLL_CTL_ADD, minder->pidfd, EPOLLIN);
	return r < 0 ? r : watch(minder, EPOLL_CTL_ADD, minder->socket, EPOLLIN);
}

static void fds_drop(struct minder *minder)
{
	watched_close(minder, &minder->socket);
	watched_close(minder, &minder->pidfd);
	minder->blocked = false;
}

static void start_failed(struct device *device, int error, uint64_t now_ns)
{
	struct minder *minder = &device->minder;
	char why[MESSAGE_REASON];

	if (minder->pid > 0) {
		kill(minder->pid, SIGKILL);
		waitpid(minder->pid, NULL, 0);
	}
	minder->pid = 0;
	fds_drop(minder);
	lane_free(minder->lane);
	minder->lane = NULL;
	snprintf(why, sizeof(why), "the copier of %s could not be started: %s; look at the broker's limits of processes "
		 "and files, then try again", device->name, strerror(-error));
	log_error("%s", why);
	snprintf(minder->ended, sizeof(minder->ended), "%s", why);
	registry_down(device, true, -EIO, why);
	minder->pause_ns = PAUSE_MAX_NS;
	minder->start_ns = now_ns + minder->pause_ns;
}

static void start(struct device *device, uint64_t now_ns)
{
	struct minder *minder = &device->minder;
	int r = lane_make(&minder->lane);

	if (r == 0)
		r = start_process(device);
	if (r < 0) {
		start_failed(device, r, now_ns);
		return;
	}
	memset(minder->told, 0, (device->n_extents / 64 + 1) * sizeof(minder->told[0]));
	memset(&minder->figures, 0, sizeof(minder->figures));
	minder->state = MINDER_STARTING;
	minder->began_ns = minder->beat_ns = now_ns;
	minder->beats = 0;
	minder->idle_ns = 0;
	minder->again_ns = UINT64_MAX;
	minder->expected = minder->was_up = false;
	minder->why[0] = '\0';
	minder->restarts += minder->rebirth;
	if (minder->rebirth && device->gpu.control_block)
		block_add(device->gpu.control_block, STOKER_COUNTER_GPU_RESTARTS, 1);
}

/* ---- ending ---------------------------------------------------------------------------------- */

/* Its end of the pair is closed: it ends by itself, or is ended after a while. */
static void let_go(struct minder *minder, uint64_t now_ns)
{
	watched_close(minder, &minder->socket);
	minder->beat_ns = now_ns;
	minder->state = MINDER_ENDING;
}

static void put_down(struct device *device, const char *why, uint64_t now_ns)
{
	struct minder *minder = &device->minder;

	if (minder->why[0] == '\0')
		snprintf(minder->why, sizeof(minder->why), "%s", why);
	if (minder->pid > 0)
		kill(minder->pid, SIGKILL);
	let_go(minder, now_ns);
}

static void why_it_ended(const struct minder *minder, const siginfo_t *info, char why[MESSAGE_REASON])
{
	if (minder->why[0])
		snprintf(why, MESSAGE_REASON, "%s", minder->why);
	else if (info->si_code == CLD_EXITED)
		snprintf(why, MESSAGE_REASON, "the GPU's copier ended with status %d; try again", info->si_status);
	else
		snprintf(why, MESSAGE_REASON, "the GPU's copier was ended by signal %d; try again", info->si_status);
}

/* Anybody can name a GPU that is not there, as often as he likes: of what was never up a line a second is logged. */
static void say_end(const struct device *device, const char *why, uint64_t now_ns)
{
	static uint64_t said_ns;

	if (device->minder.was_up && device->regions) {
		log_error("%s: %s; what was under way fails, and what is registered is registered again", device->name, why);
		return;
	}
	if (said_ns && now_ns - said_ns < SAY_NS)
		return;
	said_ns = now_ns;
	log_error("%s: %s", device->name, why);
}

static void pause_grow(struct minder *minder, uint64_t now_ns)
{
	if (minder->was_up && now_ns - minder->began_ns >= HEALTHY_NS)
		minder->pause_ns = 0;
	minder->pause_ns = minder->pause_ns == 0 ? PAUSE_MIN_NS :
			   minder->pause_ns < PAUSE_MAX_NS / 2 ? minder->pause_ns * 2 : PAUSE_MAX_NS;
	minder->start_ns = now_ns + minder->pause_ns;
}

/* The process has been reaped: nothing of it touches memory any more. */
static void reaped(struct device *device, const siginfo_t *info, uint64_t now_ns)
{
	struct minder *minder = &device->minder;
	char why[MESSAGE_REASON];

	why_it_ended(minder, info, why);
	if (!minder->expected) {
		say_end(device, why, now_ns);
		snprintf(minder->ended, sizeof(minder->ended), "%s", why);
	}
	registry_down(device, !minder->was_up, -EIO, why);
	if (minder->expected)
		minder->pause_ns = minder->start_ns = 0;
	else
		pause_grow(minder, now_ns);
	minder->rebirth = !minder->expected && device->regions;
	fds_drop(minder);
	minder->state = MINDER_REAPED;
	atomic_store_explicit(&minder->lane->retired, true, memory_order_release);
	bell_ring(device->host.bell);
}

/* The core has let go of its lane, or never had it: then it gets it no more. */
static void look_for_release(struct device *device)
{
	struct minder *minder = &device->minder;
	uint32_t is = LANE_OFFERED;

	if (minder->state != MINDER_REAPED)
		return;
	if (!atomic_compare_exchange_strong_explicit(&device->lane_is, &is, LANE_NONE, memory_order_acquire,
						     memory_order_acquire) && is == LANE_TAKEN)
		return;
	atomic_store_explicit(&device->lane, NULL, memory_order_relaxed);
	lane_free(minder->lane);
	minder->lane = NULL;
	minder->state = MINDER_DOWN;
}

/* ---- listening ------------------------------------------------------------------------------- */

union incoming {
	struct wire_header header;
	struct wire_up up;
	struct wire_answer answer;
	struct wire_figures figures;
	struct wire_fatal fatal;
};

static void on_up(struct device *device, struct wire_up *up, uint64_t now_ns)
{
	struct minder *minder = &device->minder;

	up->device[sizeof(up->device) - 1] = up->how[sizeof(up->how) - 1] = up->why[sizeof(up->why) - 1] = '\0';
	if (up->result < 0) {
		snprintf(minder->why, sizeof(minder->why), "%s", up->why);
		registry_down(device, true, up->result, up->why);
		let_go(minder, now_ns);
		return;
	}
	minder->state = MINDER_UP;
	minder->was_up = true;
	log_info("%s (%s): its copier is process %d; %s", device->name, up->device, (int)minder->pid, up->how);
}

static void figure_add(struct device *device, enum stoker_counter counter, uint64_t now, uint64_t before, uint64_t *sum)
{
	if (now <= before)
		return;
	*sum += now - before;
	if (device->gpu.control_block)
		block_add(device->gpu.control_block, counter, now - before);
}

static void on_figures(struct device *device, const struct wire_figures *now)
{
	struct minder *minder = &device->minder;
	struct wire_figures *before = &minder->figures;

	figure_add(device, STOKER_COUNTER_GPU_LOAD_BYTES, now->load_bytes, before->load_bytes, &minder->load_bytes);
	figure_add(device, STOKER_COUNTER_GPU_STORE_BYTES, now->store_bytes, before->store_bytes, &minder->store_bytes);
	figure_add(device, STOKER_COUNTER_GPU_BOUNCED_BYTES, now->bounced_bytes, before->bounced_bytes,
		   &minder->bounced_bytes);
	if (device->gpu.control_block && now->refusals > before->refusals)
		block_add(device->gpu.control_block, STOKER_COUNTER_GPU_REFUSALS, now->refusals - before->refusals);
	*before = *now;
}

/* False: it is none of what a copier says. */
static bool message_take(struct device *device, union incoming *in, uint64_t now_ns)
{
	struct minder *minder = &device->minder;

	switch (in->header.type) {
	case WIRE_UP:
		if (in->header.bytes != sizeof(in->up) || minder->state != MINDER_STARTING)
			return false;
		on_up(device, &in->up, now_ns);
		return true;
	case WIRE_ANSWER:
		in->answer.why[sizeof(in->answer.why) - 1] = '\0';
		return in->header.bytes == sizeof(in->answer) &&
		       (minder->state != MINDER_UP || registry_take(device, &in->answer));
	case WIRE_FIGURES:
		if (in->header.bytes == sizeof(in->figures))
			on_figures(device, &in->figures);
		return in->header.bytes == sizeof(in->figures);
	case WIRE_FATAL:
		in->fatal.why[sizeof(in->fatal.why) - 1] = '\0';
		if (in->header.bytes == sizeof(in->fatal))
			snprintf(minder->why, sizeof(minder->why), "%s", in->fatal.why);
		return in->header.bytes == sizeof(in->fatal);
	default:
		return false;
	}
}

static void listen_to_it(struct device *device, uint64_t now_ns)
{
	struct minder *minder = &device->minder;
	int fds[WIRE_FDS_MAX], r;
	union incoming in;
	uint32_t n_fds;

	while (minder->socket >= 0) {
		n_fds = 0;
		r = wire_receive(minder->socket, &in, sizeof(in), fds, &n_fds);
		for (uint32_t i = 0; i < n_fds; i++)
			close(fds[i]);
		if (r == -EAGAIN)
			return;
		if (r >= 0 && message_take(device, &in, now_ns))
			continue;
		if (r == -EPIPE)	/* its own end is near, and is looked for */
			let_go(minder, now_ns);
		else
			put_down(device, "the copier said what makes no sense; it is replaced", now_ns);
	}
}

/* What it said last may have come after the last look. Its number is others' from here on. */
static void look_for_end(struct device *device, uint64_t now_ns)
{
	struct minder *minder = &device->minder;
	siginfo_t info = { 0 };

	if (minder->pid <= 0 || waitid(P_PID, (id_t)minder->pid, &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0)
		return;
	minder->pid = 0;
	listen_to_it(device, now_ns);
	reaped(device, &info, now_ns);
}

/* ---- what is due ----------------------------------------------------------------------------- */

static void blocked_set(struct minder *minder, bool blocked)
{
	if (minder->blocked == blocked || minder->socket < 0)
		return;
	minder->blocked = blocked;
	watch(minder, EPOLL_CTL_MOD, minder->socket, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static bool something_is_wanted(const struct device *device)
{
	for (const struct gpu_region *region = device->regions; region; region = region->next)
		if (region->state == GPU_WANTED && !region->closed)
			return true;
	return false;
}

/* Offer its lane once everything is back that copies may name. */
static void offer(struct device *device)
{
	struct minder *minder = &device->minder;

	if (atomic_load_explicit(&device->lane_is, memory_order_acquire) != LANE_NONE || !registry_is_back(device))
		return;
	atomic_store_explicit(&device->lane, minder->lane, memory_order_relaxed);
	atomic_store_explicit(&device->lane_is, LANE_OFFERED, memory_order_release);
	bell_ring(device->host.bell);
}

static uint64_t hang_ns(const struct device *device)
{
	return device->gpu.hang_ms * 1000000ull + GRACE_NS;
}

/* Has it something to do, and shows no sign of life? */
static void look_for_life(struct device *device, uint64_t now_ns)
{
	struct minder *minder = &device->minder;
	const uint64_t beats = atomic_load_explicit(&minder->lane->segment->beats, memory_order_relaxed);
	/* What finds no room in the socket is not asked yet: extents alone, which are not answered, can fill it. */
	const bool works = atomic_load_explicit(&minder->lane->under_way, memory_order_relaxed) > 0 ||
			   device->unanswered > 0 || minder->blocked;
	char why[MESSAGE_REASON];

	if (minder->state == MINDER_STARTING) {
		if (now_ns - minder->began_ns < START_NS)
			return;
		snprintf(why, sizeof(why), "the driver did not open the device within %llu s; look at it (nvidia-smi) and at "
			 "the kernel's log", START_NS / 1000000000ull);
		put_down(device, why, now_ns);
		return;
	}
	if (!works || beats != minder->beats) {
		minder->beats = beats;
		minder->beat_ns = now_ns;
	} else if (now_ns - minder->beat_ns >= hang_ns(device)) {
		snprintf(why, sizeof(why), "the GPU's copier shows no sign of life: it is replaced; look at the device "
			 "(nvidia-smi) and the kernel's log");
		put_down(device, why, now_ns);
	}
}

static void look_for_idleness(struct device *device, uint64_t now_ns)
{
	struct minder *minder = &device->minder;

	if (device->regions || device->pools) {
		minder->idle_ns = 0;
		return;
	}
	if (minder->idle_ns == 0)
		minder->idle_ns = now_ns;
	if (now_ns - minder->idle_ns >= device->gpu.idle_ns) {
		log_info("%s: nobody has memory of it registered; its copier ends", device->name);
		minder->expected = true;
		let_go(minder, now_ns);
	}
}

/* The kernel lacks memory, or too many descriptors are on their way: no fault of the copier's. */
static bool is_passing(int error)
{
	return error == -ENOBUFS || error == -ENOMEM || error == -ETOOMANYREFS;
}

static void while_up(struct device *device, uint64_t now_ns)
{
	const int r = registry_tell(device);

	blocked_set(&device->minder, r == -EAGAIN);
	device->minder.again_ns = is_passing(r) ? now_ns + AGAIN_NS : UINT64_MAX;
	if (r < 0 && r != -EAGAIN && r != -EPIPE && !is_passing(r))
		put_down(device, "the copier could not be spoken to; it is replaced", now_ns);
	offer(device);
	look_for_idleness(device, now_ns);
}

static uint64_t next_due(const struct device *device, uint64_t now_ns)
{
	const struct minder *minder = &device->minder;
	uint64_t next;

	switch (minder->state) {
	case MINDER_DOWN:
		return something_is_wanted(device) ? minder->start_ns : UINT64_MAX;
	case MINDER_STARTING:
		return minder->began_ns + START_NS;
	case MINDER_UP:
		/* Copies begin without a word to this thread: it looks now and then. */
		next = now_ns + hang_ns(device) / 4;
		next = minder->again_ns < next ? minder->again_ns : next;
		return minder->idle_ns && minder->idle_ns + device->gpu.idle_ns < next ?
		       minder->idle_ns + device->gpu.idle_ns : next;
	case MINDER_ENDING:
		next = minder->pidfd < 0 ? now_ns + LOOK_MS * 1000000ull : UINT64_MAX;
		return minder->beat_ns + hang_ns(device) < next ? minder->beat_ns + hang_ns(device) : next;
	default:
		return UINT64_MAX;
	}
}

/* It was told to end, or has closed its end of the pair, and does not. */
static void look_for_delay(struct device *device, uint64_t now_ns)
{
	struct minder *minder = &device->minder;

	if (minder->beat_ns + hang_ns(device) > now_ns)
		return;
	kill(minder->pid, SIGKILL);
	minder->beat_ns = now_ns;
}

uint64_t minder_tend(struct device *device, uint64_t now_ns)
{
	struct minder *minder = &device->minder;

	bell_disarm(&minder->bell);
	/* Armed at once: what the core does from here on is seen below, or rings. */
	bell_arm(&minder->bell);
	if (minder->socket >= 0)
		listen_to_it(device, now_ns);
	look_for_end(device, now_ns);
	look_for_release(device);
	if (minder->state == MINDER_DOWN && now_ns >= minder->start_ns && something_is_wanted(device))
		start(device, now_ns);
	if (minder->state == MINDER_UP)
		while_up(device, now_ns);
	if (minder->state == MINDER_UP || minder->state == MINDER_STARTING)
		look_for_life(device, now_ns);
	else if (minder->state == MINDER_ENDING)
		look_for_delay(device, now_ns);
	return next_due(device, now_ns);
}

/* ---- for the control page -------------------------------------------------------------------- */

void minder_figures(const struct device *device, struct control_gpu *ret)
{
	static const enum stoker_gpu_state states[] = {
		[MINDER_DOWN] = STOKER_GPU_DOWN, [MINDER_STARTING] = STOKER_GPU_STARTING, [MINDER_UP] = STOKER_GPU_UP,
		[MINDER_ENDING] = STOKER_GPU_ENDING, [MINDER_REAPED] = STOKER_GPU_ENDING,
	};
	const struct minder *minder = &device->minder;

	memset(ret, 0, sizeof(*ret));
	ret->state = states[minder->state];
	snprintf(ret->name, sizeof(ret->name), "%s", device->name);
	snprintf(ret->why, sizeof(ret->why), "%s", minder->ended);
	ret->restarts = minder->restarts;
	ret->regions = device->n_regions;
	ret->pools = device->n_pools;
	if (minder->pid > 0) {
		ret->registered_bytes = minder->figures.registered_bytes;
		ret->imported_bytes = minder->figures.imported_bytes;
	}
	ret->bounced_bytes = minder->bounced_bytes;
	ret->load_bytes = minder->load_bytes;
	ret->store_bytes = minder->store_bytes;
}

/* ---- life ------------------------------------------------------------------------------------ */

int minder_init(struct device *device)
{
	struct minder *minder = &device->minder;
	int r;

	spawner_start();
	minder->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (minder->epoll < 0)
		return -errno;
	r = bell_init(&minder->bell);
	if (r == 0)
		r = watch(minder, EPOLL_CTL_ADD, minder->bell.fd, EPOLLIN);
	bell_arm(&minder->bell);
	return r;
}

/* Wait for its end, for so long. */
static bool await_end(const struct minder *minder, int ms)
{
	struct pollfd pidfd = { .fd = minder->pidfd, .events = POLLIN };	/* -1: poll() just waits */
	const int step = minder->pidfd < 0 ? LOOK_MS : ms;
	siginfo_t info = { 0 };

	for (; ms > 0 && info.si_pid == 0; ms -= step) {
		while (poll(&pidfd, 1, step) < 0 && errno == EINTR)
			;
		if (waitid(P_PID, (id_t)minder->pid, &info, WEXITED | WNOHANG) != 0)
			return false;
	}
	return info.si_pid != 0;
}

void minder_fini(struct device *device)
{
	struct minder *minder = &device->minder;

	watched_close(minder, &minder->socket);
	if (minder->pid > 0 && !await_end(minder, STOP_MS)) {
		kill(minder->pid, SIGKILL);
		if (!await_end(minder, STOP_MS))
			log_warning("the copier of %s does not end: its driver hangs, and keeps the I/O lock", device->name);
	}
	fds_drop(minder);
	lane_free(minder->lane);
	free(minder->told);
	bell_fini(&minder->bell);
	if (minder->epoll >= 0)
		close(minder->epoll);
}
