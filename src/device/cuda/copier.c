/*
 * The copier: one thread, one loop.
 *
 * A turn of the loop takes control messages and commands, gives slices of copies to streams, collects those
 * that have ended, tells events, and registers an extent of the arena; each of these a bounded number, so
 * that none waits long for another. The loop spins for SPIN_NS after the last thing that happened, because a
 * small copy ends within that, and the next one often comes; then, while copies are under way, it naps in poll(),
 * where a command wakes it at once and the end of a copy is seen some NAP_NS late; with nothing under way it
 * sleeps on its bell and on the control socket.
 *
 * Ways to end: the broker's end of the socket closes, because it stops or is dead (what is on streams is awaited,
 * then exit); the context dies or a slice takes longer than the broker allows (FATAL with the reason, then exit:
 * the broker starts another one); its parent is dead and it has not ended for so long, because the driver hangs
 * (SIGALRM). Signals that ask a terminal's processes or a service's to end are left to the broker. The I/O lock and
 * the workers' fences stay open until the driver's own descriptors are closed, so that who waits for them knows
 * that the device's copies are over (keep.h).
 */
#include "src/device/cuda/copier.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "src/common/addresses.h"
#include "src/common/log.h"
#include "src/device/cuda/keep.h"
#include "src/device/cuda/transfer.h"
#include "src/device/refuse.h"

#define SPIN_NS		100000ull
#define NAP_NS		20000l
#define LOOK_NS		1000000ull	/* how often errors, hangs and control messages are looked for while busy */
#define FIGURES_NS	250000000ull	/* at most that often */
#define COMMANDS_A_TURN	32u
#define MESSAGES_A_TURN	4u
#define RETRY_MS	1000	/* extents that were refused */
#define ORPHAN_S	12	/* before START has said how long a device may take */

struct copier {
	int control, bell_fd, core_bell_fd, lock_fd;
	bool broker_gone;
	struct wire_start start;
	struct wire_segment *segment;
	struct shared_queue *commands, *events;
	uint8_t *arena;
	const struct cuda_driver *cuda;
	cuda_device device;
	struct imports imports;
	struct views views;
	struct pin pin;
	struct streams streams;
	struct transfers transfers;
	struct wire_figures told;	/* the last ones */
	uint64_t told_ns, looked_ns, busy_ns;	/* when figures went, errors were looked for, anything happened */
	uint64_t register_ns;		/* when the next extent may be registered in spite of copies */
	uint32_t refused_told;		/* extents */
	uint8_t message[WIRE_MESSAGE_MAX] __attribute__((aligned(16)));
};

/* An end by SIGKILL would leave it to the driver to stop the device's copies: first it is waited for them. */
static volatile sig_atomic_t orphan_s = ORPHAN_S;
static void orphaned(int signal)
{
	(void)signal;
	alarm((unsigned)orphan_s);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

__attribute__((noreturn, format(printf, 2, 3)))
static void die(struct copier *c, const char *format, ...)
{
	struct wire_fatal fatal = { .header = { WIRE_FATAL, sizeof(fatal) } };
	va_list args;

	va_start(args, format);
	vsnprintf(fatal.why, sizeof(fatal.why), format, args);
	va_end(args);
	(void)wire_send(c->control, false, &fatal, NULL, 0);
	_exit(1);
}

/* Go on only if the context lives. */
static void must_live(struct copier *c, enum cuda_result result, const char *what)
{
	char text[CUDA_TEXT];

	if (result != CUDA_OK)
		die(c, "the device's context was lost %s: %s", what, cuda_error_text(c->cuda, result, text));
}

/* ---- opening ------------------------------------------------------------------------------------- */

static int map_shared(struct copier *c, const int *fds, char *why)
{
	void *at = addresses_reserve(c->start.arena_bytes, ADDRESSES_HUGE);
	void *arena = at ? mmap(at, c->start.arena_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fds[0], 0) :
		MAP_FAILED;
	void *segment = mmap(NULL, c->start.segment_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fds[1], 0);

	close(fds[0]);
	close(fds[1]);
	c->bell_fd = fds[2];
	c->core_bell_fd = fds[3];
	c->lock_fd = keep_put(fds[4]);
	if (arena == MAP_FAILED || segment == MAP_FAILED)
		return refuse(why, -ENOMEM, "could not map the arena's %llu bytes: %s; see the limit of address space",
			      (unsigned long long)c->start.arena_bytes, strerror(errno));
	c->arena = arena;
	c->segment = segment;
	c->commands = wire_commands(c->segment);
	c->events = wire_events(c->segment);
	return 0;
}

static int find_device(struct copier *c, char *why)
{
	struct cuda_uuid uuid;
	int n = 0;

	if (c->cuda->device_get_count(&n) != CUDA_OK)
		n = 0;
	for (int i = 0; i < n; i++) {
		if (c->cuda->device_get(&c->device, i) == CUDA_OK &&
		    c->cuda->device_get_uuid(&uuid, c->device) == CUDA_OK &&
		    memcmp(uuid.bytes, c->start.uuid, sizeof(uuid.bytes)) == 0)
			return 0;
	}
	return refuse(why, -ENODEV, "the worker's GPU is none of the %d that the broker may use; see CUDA_VISIBLE_DEVICES "
		      "and what the broker's container was given", n);
}

static int open_context(struct copier *c, char *why)
{
	struct cuda_context *context;
	enum cuda_result result = c->cuda->primary_retain(&context, c->device);
	char text[CUDA_TEXT];

	if (result == CUDA_OK)
		result = c->cuda->ctx_set_current(context);
	if (result == CUDA_OK)
		return 0;
	return refuse(why, result == CUDA_RESULT_OUT_OF_MEMORY ? -ENOMEM : -EIO, "could not make a context on the GPU: %s",
		      cuda_error_text(c->cuda, result, text));
}

static int open_device(struct copier *c, char *why)
{
	char reason[CUDA_WHY];
	int r = cuda_driver_open(c->start.library, reason, &c->cuda);

	if (r < 0)
		return refuse(why, r, "%s", reason);
	r = find_device(c, why);
	if (r == 0)
		r = open_context(c, why);
	if (r == 0)
		r = pin_open(&c->pin, c->cuda, c->arena, c->start.arena_bytes, c->start.extent_bytes,
			     c->start.bounce_bytes, why);
	if (r == 0)
		r = streams_open(&c->streams, c->cuda, c->arena, c->start.streams_load, c->start.streams_store, why);
	if (r < 0)
		return r;
	c->imports = (struct imports){ .cuda = c->cuda, .device = c->device };
	if (transfers_open(&c->transfers, &c->streams, &c->pin, &c->views, c->start.copies, c->start.slice_bytes) < 0)
		return refuse(why, -ENOMEM, "could not begin: the copier is out of memory");
	return 0;
}

/* The first message, and what comes of it. */
static int begin(struct copier *c)
{
	struct wire_up up = { .header = { WIRE_UP, sizeof(up) } };
	struct pollfd wait = { .fd = c->control, .events = POLLIN };
	int fds[WIRE_FDS_MAX];
	uint32_t n_fds = 0;
	int r;

	while (poll(&wait, 1, -1) < 0 && errno == EINTR)
		;
	/* A broker that died before PDEATHSIG was asked for: there is nobody to end us if the driver hangs. */
	if (wait.revents & POLLHUP)
		return -EPIPE;
	r = wire_receive(c->control, c->message, sizeof(c->message), fds, &n_fds);
	if (r != sizeof(c->start) || n_fds != WIRE_START_FDS)
		return -EPIPE;
	memcpy(&c->start, c->message, sizeof(c->start));
	if (c->start.header.type != WIRE_START)
		return -EPIPE;
	log_set_level((enum log_level)c->start.log_level);
	if (c->start.hang_ms)
		orphan_s = (sig_atomic_t)(c->start.hang_ms / 1000 + 2);
	r = map_shared(c, fds, up.why);
	if (r == 0)
		r = open_device(c, up.why);
	up.result = r;
	if (r == 0) {
		if (c->cuda->device_get_name(up.device, sizeof(up.device), c->device) != CUDA_OK)
			snprintf(up.device, sizeof(up.device), "unnamed");
		streams_how(&c->streams, up.how, sizeof(up.how));
	}
	(void)wire_send(c->control, true, &up, NULL, 0);
	return r;
}

/* ---- control ------------------------------------------------------------------------------------- */

static void answer(struct copier *c, uint32_t to, uint32_t number, int result, const char *why)
{
	struct wire_answer message = { .header = { WIRE_ANSWER, sizeof(message) }, .to = to, .number = number,
				       .result = result };

	if (result < 0)
		snprintf(message.why, sizeof(message.why), "%s", why);
	if (wire_send(c->control, true, &message, NULL, 0) < 0)
		c->broker_gone = true;
}

static void close_region(struct copier *c, uint32_t number)
{
	struct device_region *region = import_find(&c->imports, number);
	char why[MESSAGE_REASON] = "";
	int r;

	assert(region);
	r = import_close(&c->imports, region, why);
	must_live(c, c->imports.fatal, "when memory was given back");
	answer(c, WIRE_REGION_CLOSE, number, r, why);
}

static void take_message(struct copier *c, const int *fds, uint32_t n_fds)
{
	const struct wire_number *number = (const struct wire_number *)c->message;
	const struct wire_region *region = (const struct wire_region *)c->message;
	const struct wire_pool *pool = (const struct wire_pool *)c->message;
	char why[MESSAGE_REASON] = "";
	struct view *view;
	int r;

	assert(n_fds == 0 || number->header.type == WIRE_REGION);
	switch ((enum wire_type)number->header.type) {
	case WIRE_REGION:
		r = import_region(&c->imports, region, fds, n_fds, why);
		must_live(c, c->imports.fatal, "when memory was imported");
		if (r != -EAGAIN)
			answer(c, WIRE_REGION, region->region, r, why);
		return;
	case WIRE_REGION_CLOSE:
		close_region(c, number->number);
		return;
	case WIRE_POOL:
		r = view_open(&c->views, &c->imports, pool, why);
		answer(c, WIRE_POOL, pool->pool, r, why);
		return;
	case WIRE_POOL_CLOSE:
		view = view_find(&c->views, number->number);
		assert(view);
		view_close(&c->views, view);
		answer(c, WIRE_POOL_CLOSE, number->number, 0, "");
		return;
	case WIRE_EXTENT:
		pin_want(&c->pin, number->number);
		return;
	default:
		die(c, "the broker sent a message of type %u, which a copier does not know", number->header.type);
	}
}

static bool take_messages(struct copier *c)
{
	int fds[WIRE_FDS_MAX];
	uint32_t n_fds, i;

	for (i = 0; i < MESSAGES_A_TURN && !c->broker_gone; i++) {
		const int r = wire_receive(c->control, c->message, sizeof(c->message), fds, &n_fds);

		if (r == -EAGAIN)
			break;
		if (r == -EPIPE)
			c->broker_gone = true;
		else if (r < 0)
			die(c, "the broker sent what is no message: %s", strerror(-r));
		else
			take_message(c, fds, n_fds);
	}
	return i > 0;
}

static struct wire_figures figures(const struct copier *c)
{
	return (struct wire_figures){
		.header = { WIRE_FIGURES, sizeof(struct wire_figures) },
		.registered_bytes = c->pin.registered_bytes, .imported_bytes = c->imports.bytes,
		.bounced_bytes = c->pin.bounced_bytes,
		.load_bytes = c->transfers.load_bytes, .store_bytes = c->transfers.store_bytes,
		.refusals = c->pin.refusals,
	};
}

/* Say what has changed. Returns in how many milliseconds there will be something to say, or -1. */
static int tell_figures(struct copier *c, uint64_t now_ns)
{
	const struct wire_figures new = figures(c);

	if (memcmp(&new, &c->told, sizeof(new)) == 0)
		return -1;
	if (now_ns - c->told_ns < FIGURES_NS)
		return (int)((FIGURES_NS - (now_ns - c->told_ns)) / 1000000 + 1);
	c->told_ns = now_ns;
	if (wire_send(c->control, false, &new, NULL, 0) == 0)
		c->told = new;
	return -1;
}

/* ---- data ---------------------------------------------------------------------------------------- */

static void take_copy(struct copier *c, const struct wire_command *command)
{
	const uint64_t mask = c->segment->item_bytes - 1, at = command->at & mask;

	assert(command->bytes <= c->segment->item_bytes - at);
	if (transfer_begin(&c->transfers, command, wire_items(c->segment) + at) < 0)
		die(c, "could not take a copy: the copier is out of memory");
	atomic_store_explicit(&c->segment->bytes_taken, command->at + command->bytes, memory_order_release);
}

static bool take_commands(struct copier *c)
{
	struct wire_command command;
	uint32_t i;

	for (i = 0; i < COMMANDS_A_TURN && shared_queue_get(c->commands, &command); i++) {
		if (command.type == WIRE_COPY)
			take_copy(c, &command);
		else
			transfer_cancel(&c->transfers, command.copy);
	}
	return i > 0;
}

static bool move_copies(struct copier *c, uint64_t now_ns)
{
	enum cuda_result result;
	bool any;

	any = transfers_collect(&c->transfers, now_ns, &result);
	must_live(c, result, "while copies were under way");
	any |= transfers_issue(&c->transfers, now_ns, &result);
	must_live(c, result, "when a copy was begun");
	if (transfers_tell(&c->transfers, c->events)) {
		shared_bell_ring(&c->segment->core_bell, c->core_bell_fd);
		any = true;
	}
	return any;
}

/* Errors and hangs: neither ever writes a mark. */
static void look_for_trouble(struct copier *c, uint64_t now_ns)
{
	must_live(c, streams_look(&c->streams), "while copies were under way");
	for (uint32_t i = 0; i < c->streams.n_lanes; i++) {
		const struct lane *lane = &c->streams.lanes[i];

		if (lane->n && c->start.hang_ms && now_ns - lane->since_ns > c->start.hang_ms * 1000000ull)
			die(c, "the device hangs: a %s of %llu bytes has not ended after %u ms", lane->store ? "store" : "load",
			    (unsigned long long)lane->first->piece.task.bytes, c->start.hang_ms);
	}
}

/* Who has to do something about it is told once; and when nothing is left to be done. */
static void tell_refusals(struct copier *c)
{
	char text[CUDA_TEXT];

	if (c->pin.n_refused && !c->refused_told)
		log_warning("could not register an extent of the arena with the GPU: %s; what lies in it goes through the "
			    "bounce buffer, at half the speed or less; raise the limit of locked memory",
			    cuda_error_text(c->cuda, c->pin.refusal, text));
	if (!c->pin.n_refused && c->refused_told)
		log_info("all extents of the arena are registered with the GPU now");
	c->refused_told = c->pin.n_refused;
}

/* It blocks for as long as an extent takes: while copies are under way, half of the time at most. */
static bool register_extent(struct copier *c, uint64_t now_ns)
{
	uint64_t begin_ns, end_ns;

	if ((transfers_under_way(&c->transfers) && now_ns < c->register_ns) || !pin_is_due(&c->pin, now_ns))
		return false;
	begin_ns = now();
	must_live(c, pin_step(&c->pin, begin_ns), "when the arena was registered");
	end_ns = now();
	c->register_ns = end_ns + (end_ns - begin_ns);
	tell_refusals(c);
	return true;
}

/* ---- the loop ------------------------------------------------------------------------------------ */

static void sleep_on(struct copier *c, const struct timespec *timeout)
{
	struct pollfd wait[2] = { { .fd = c->bell_fd, .events = POLLIN }, { .fd = c->control, .events = POLLIN } };

	shared_bell_arm(&c->segment->copier_bell);
	if (shared_queue_is_empty(c->commands) && ppoll(wait, 2, timeout, NULL) > 0 && wait[1].revents)
		c->looked_ns = 0;
	shared_bell_disarm(&c->segment->copier_bell, c->bell_fd);
}

static void pause_shortly(void)
{
#ifdef __x86_64__
	for (int i = 0; i < 8; i++)
		__builtin_ia32_pause();
#endif
}

/* Nothing happened in this turn. */
static void rest(struct copier *c, uint64_t now_ns)
{
	if (now_ns - c->busy_ns < SPIN_NS) {
		pause_shortly();
		return;
	}
	if (transfers_under_way(&c->transfers)) {
		sleep_on(c, &(struct timespec){ .tv_nsec = NAP_NS });
		return;
	}
	int ms = tell_figures(c, now_ns);

	if (c->pin.n_refused && (ms < 0 || ms > RETRY_MS))
		ms = RETRY_MS;
	sleep_on(c, ms < 0 ? NULL : &(struct timespec){ ms / 1000, ms % 1000 * 1000000l });
	c->looked_ns = 0;
}

static void turn(struct copier *c)
{
	const uint64_t now_ns = now();
	bool any = take_commands(c);

	atomic_fetch_add_explicit(&c->segment->beats, 1, memory_order_relaxed);
	any |= move_copies(c, now_ns);
	if (now_ns - c->looked_ns > LOOK_NS) {
		c->looked_ns = now_ns;
		any |= take_messages(c);
		look_for_trouble(c, now_ns);
		(void)tell_figures(c, now_ns);
	}
	any |= register_extent(c, now_ns);
	if (any)
		c->busy_ns = now_ns;
	else if (!c->broker_gone)
		rest(c, now_ns);
}

/* The broker is gone: what is on streams still writes into the arena and workers' memory. */
static void drain(struct copier *c)
{
	const uint64_t begun_ns = now(), most_ns = (c->start.hang_ms ? c->start.hang_ms : 10000) * 1000000ull;
	enum cuda_result result = CUDA_OK;

	while (c->transfers.n_slices && result == CUDA_OK && now() - begun_ns < most_ns) {
		(void)transfers_collect(&c->transfers, now(), &result);
		if (result == CUDA_OK)
			result = streams_look(&c->streams);
	}
}

int copier_main(int fd)
{
	static struct copier copier;
	struct copier *c = &copier;

	keep_open();
	signal(SIGALRM, SIG_DFL);
	signal(SIGUSR1, orphaned);
	prctl(PR_SET_PDEATHSIG, SIGUSR1);
	prctl(PR_SET_TIMERSLACK, 1000ul);
	for (const int *s = (const int[]){ SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, 0 }; *s; s++)
		signal(*s, SIG_IGN);
	c->control = fd;
	if (begin(c) < 0)
		return 1;
	while (!c->broker_gone)
		turn(c);
	drain(c);
	_exit(0);
}
