/*
 * The core thread's life and its loop; core.h says what it promises.
 *
 * A round: take a bounded batch from every polled channel, take completions, let the engine do a
 * turn, wake the clients that sleep. Every 20 us it also looks at orders, at parked clients' pipes and
 * at who has been quiet long enough to be parked. When nobody is polled and nothing has happened for
 * as long as a client stays polled, it sleeps in epoll until a bell, a doorbell or a deadline.
 */
#include "src/broker/core.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <unistd.h>

#include "src/broker/core-state.h"

#define WHY		512u
#define EPOLL_BELL	UINT64_MAX
#define EVENTS		64

/* ---- clients: polled, parked, out ------------------------------------------------------------- */

void core_heat(struct core *core, struct channel *channel, uint64_t now)
{
	channel->active = now;
	if (channel->hot || channel->out)
		return;
	channel_unpark(channel);
	channel->hot = true;
	channel->hot_at = core->n_hot;
	core->hot[core->n_hot++] = channel;
}

static void hot_remove(struct core *core, struct channel *channel)
{
	struct channel *last;

	if (!channel->hot)
		return;
	last = core->hot[--core->n_hot];
	core->hot[channel->hot_at] = last;
	last->hot_at = channel->hot_at;
	channel->hot = false;
}

void core_detach(struct core *core, struct channel *channel)
{
	if (channel->out)
		return;
	channel->out = true;
	channel->wake = false;
	hot_remove(core, channel);
	epoll_ctl(core->epoll, EPOLL_CTL_DEL, channel->doorbell, NULL);
}

void core_expel(struct core *core, struct channel *channel, const char *why)
{
	if (channel->expelled || channel->out)
		return;
	channel->expelled = true;
	core_detach(core, channel);
	core_count(core, STOKER_COUNTER_BAD_ENTRIES);
	channel->expelled_order = (struct order){ .type = ORDER_EXPELLED, .owner = channel, .why = why };
	link_tell(&core->control, &channel->expelled_order);
}

/* ---- a round ----------------------------------------------------------------------------------- */

/* An answer that needs no engine: what is asked for cannot be. */
static void answer_refused(struct core *core, struct channel *channel, const struct engine_request *request)
{
	const struct engine_answer answer = { .stage = STOKER_STAGE_DONE, .status = STOKER_STATUS_BAD_REQUEST };

	core_count(core, STOKER_COUNTER_JOBS_BAD);
	core_ports.publish(core, channel->number, request->head.slot, request->head.generation, &answer);
}

/* Operations that name a model; the others leave the field alone. */
static inline bool op_has_model(uint8_t op)
{
	return op == STOKER_OP_LOOKUP || op == STOKER_OP_LOOKUP_MORE || op == STOKER_OP_STORE ||
	       op == STOKER_OP_RETRIEVE;
}

static void request_hand_over(struct core *core, struct channel *channel, struct engine_request *request)
{
	const uint32_t number = request->head.model;

	request->model = ENGINE_NONE;
	if (op_has_model(request->head.op)) {
		const uint64_t opened = atomic_load_explicit(&channel->models, memory_order_acquire);

		if (number >= MODELS_MAX || !(opened & 1ull << number)) {
			channel->slot[request->head.slot].busy = false;
			answer_refused(core, channel, request);
			return;
		}
		if (core->models[number])
			request->model = core->models[number]->engine;
	}
	channel->slot[request->head.slot].taken_ns = channel->active;
	engine_request(core->engine, channel->number, request);
}

static void channel_batch(struct core *core, struct channel *channel)
{
	struct engine_request *request;

	for (uint32_t i = 0; i < CORE_BATCH; i++) {
		switch (channel_take(channel, &request)) {
		case CHANNEL_NOTHING:
			return;
		case CHANNEL_REQUEST:
			request_hand_over(core, channel, request);
			break;
		case CHANNEL_CANCEL:
			engine_cancel(core->engine, channel->number, request->head.slot, request->head.generation);
			break;
		case CHANNEL_REFUSED:
			answer_refused(core, channel, request);
			break;
		case CHANNEL_BROKEN:
			core_expel(core, channel, channel->why);
			return;
		}
		if (channel->out)	/* the engine found it impossible */
			return;
	}
}

/* Returns true if there was an entry. */
static inline bool channel_round(struct core *core, struct channel *channel, uint64_t now)
{
	if (!request_waiting(&channel->requests))
		return false;
	channel->active = now;
	channel_batch(core, channel);
	return true;
}

/* Every polled client once. One that is expelled leaves its place to the last, which is then next. */
static inline bool rings_round(struct core *core, uint64_t now)
{
	bool busy = false;

	for (uint32_t i = 0; i < core->n_hot;) {
		struct channel *channel = core->hot[i];

		busy |= channel_round(core, channel, now);
		i += channel->hot;
	}
	return busy;
}

static void wakes_send(struct core *core)
{
	for (uint32_t i = 0; i < core->n_wakes; i++) {
		struct channel *channel = core->channels[core->wakes[i]];

		if (!channel || !channel->wake)
			continue;
		channel->wake = false;
		channel_wake(channel);
		core_count(core, STOKER_COUNTER_WAKES_SENT);
	}
	core->n_wakes = 0;
}

/* A lease takes two words, and 64 words a look are some 1.5 million leases a second. */
static void random_feed(struct core *core)
{
	uint64_t words[64];
	const uint32_t wanted = 64;

	if (engine_random_wanted(core->engine) < wanted)
		return;
	/* Never blocks: the pool is initialized long before a broker starts. If it fails, no lease is granted. */
	if (getrandom(words, wanted * sizeof(words[0]), GRND_NONBLOCK) == (ssize_t)(wanted * sizeof(words[0])))
		engine_random(core->engine, words, wanted);
}

static void engine_do(struct core *core, uint64_t now)
{
	core->more = engine_turn(core->engine, now);
	core->deadline = engine_deadline(core->engine);
	core->dirty = true;
	if (core->n_wakes)
		wakes_send(core);
}

/* ---- every 20 us ------------------------------------------------------------------------------- */

static void doorbell_take(struct core *core, struct channel *channel, uint64_t now)
{
	const bool open = channel_doorbell_drain(channel);

	core_count(core, STOKER_COUNTER_WAKES_TAKEN);
	core_heat(core, channel, now);
	/* Taken here without a look whether one is due, because that would pass over an invented sequence. */
	channel_batch(core, channel);
	/* It leaves, as a rule, and the control thread will hear of it. A pipe without a writer is ready for
	 * ever: whoever closes it and stays is not listened to any more, and keeps nobody awake. */
	if (!open)
		core_detach(core, channel);
}

static bool events_take(struct core *core, const struct epoll_event *events, int n)
{
	const uint64_t now = clock_now(&core->clock);
	bool doorbell = false;

	for (int i = 0; i < n; i++) {
		if (events[i].data.u64 == EPOLL_BELL)
			continue;	/* disarming drains it */
		struct channel *channel = core->channels[events[i].data.u64];

		if (channel && !channel->out) {
			doorbell_take(core, channel, now);
			doorbell = true;
		}
	}
	return doorbell;
}

static void park_quiet(struct core *core, uint64_t now)
{
	for (uint32_t i = 0; i < core->n_hot;) {
		struct channel *channel = core->hot[i];

		if (now - channel->active > core->spin_ns && channel_park(channel))
			hot_remove(core, channel);
		i += channel->hot;
	}
}

static void figures_keep(struct core *core, uint64_t now)
{
	clock_anchor(&core->clock);
	figures_refresh(core);
	core->dirty = false;
	core->next_figures = now + CORE_FIGURES_NS;
}

/* Returns true if something came of it. */
static bool look_around(struct core *core, uint64_t now)
{
	struct epoll_event events[EVENTS];
	bool busy = core_orders(core);

	park_quiet(core, now);
	if (core->n_hot < core->n_attached)
		busy |= events_take(core, events, epoll_wait(core->epoll, events, EVENTS, 0));
	/* A tier that fails says so without having been asked. */
	busy |= core_reap(core);
	random_feed(core);
	if (now >= core->next_figures && core->dirty)
		figures_keep(core, now);
	core->next_look = now + CORE_LOOK_NS;
	return busy;
}

/* ---- sleep ------------------------------------------------------------------------------------- */

static uint64_t sleep_until(const struct core *core, uint64_t now)
{
	uint64_t until = core->deadline;

	if (core->dirty && core->next_figures < until)
		until = core->next_figures;
	if (core->quit && core->quit_deadline < until)
		until = core->quit_deadline;
	if (core->n_watched && now + CORE_WATCH_NS < until)
		until = now + CORE_WATCH_NS;
	return until;
}

/*
 * Kernels before 5.11 and some sandboxes have no epoll_pwait2(). The older call sleeps whole milliseconds: a little too
 * long then, never too short.
 */
static int events_await(const struct core *core, struct epoll_event *events, const struct timespec *time)
{
	const int n = epoll_pwait2(core->epoll, events, EVENTS, time, NULL);

	if (n >= 0 || (errno != ENOSYS && errno != EPERM))
		return n;
	if (!time)
		return epoll_wait(core->epoll, events, EVENTS, -1);
	return epoll_wait(core->epoll, events, EVENTS, time->tv_sec < 1000000 ?
			  (int)time->tv_sec * 1000 + (int)((time->tv_nsec + 999999) / 1000000) : 1000000000);
}

static void sleep_in_epoll(struct core *core)
{
	struct epoll_event events[EVENTS];
	uint64_t now = clock_now(&core->clock);

	if (core->dirty && now >= core->next_figures)
		figures_keep(core, now);
	bell_arm(&core->bell);
	for (uint32_t i = 0; i < core->n_devices; i++) {
		if (core->devices[i].device && core->devices[i].backend->arm)
			core->devices[i].backend->arm(core->devices[i].device);
	}
	/* What is taken here has to be turned over by the engine, and its wakes sent: the next round does. */
	core->more |= core_reap(core);
	if (!core->more && link_is_idle(&core->control) && link_is_idle(&core->starter)) {
		const uint64_t until = sleep_until(core, now);
		const uint64_t left = until > now ? until - now : 0;
		const struct timespec time = { .tv_sec = (time_t)(left / 1000000000u),
					       .tv_nsec = (long)(left % 1000000000u) };

		core_count(core, STOKER_COUNTER_CORE_SLEEPS);
		const int n = events_await(core, events, until == UINT64_MAX ? NULL : &time);
		bell_disarm(&core->bell);
		events_take(core, events, n);
		/* Whoever ended the sleep may have given the engine something to do; mere time has not. */
		core->more |= n > 0;
	} else {
		bell_disarm(&core->bell);
	}
	now = clock_now(&core->clock);
	core->next_look = now;
	core->last_busy = now;
	watch_woken(core);
}

/*
 * Who has work under way would find it done a little sooner by spinning; but where processors are few it
 * is the helpers' that it spins on. A helper rings when it has finished something.
 */
static inline bool spins_still(const struct core *core, uint64_t now)
{
	return now - core->last_busy <= core->spin_ns && !(core->crowded && core->copies_out);
}

static inline bool may_sleep(const struct core *core, uint64_t now)
{
	return core->n_hot == 0 && !core->more && now < core->deadline && core->n_late == 0 && core->watch_left == 0 &&
	       !spins_still(core, now);
}

static inline void core_round(struct core *core)
{
	const uint64_t now = clock_now(&core->clock);
	bool busy = rings_round(core, now);

	if (core->io_out | core->copies_out | core->n_late)
		busy |= core_reap(core);
	if (core->n_watched)
		busy |= watch_poll(core);
	if (now >= core->next_look)
		busy |= look_around(core, now);
	if (busy || core->more || now >= core->deadline)
		engine_do(core, now);
	if (busy)
		core->last_busy = now;
	else if (may_sleep(core, now))
		sleep_in_epoll(core);
	else if (core->n_hot == 0)
		cpu_relax();
}

/* Whoever stops device and tiers afterwards relies on nothing being under way. */
static bool is_over(struct core *core)
{
	if (!core->quit)
		return false;
	return (core->io_out | core->copies_out) == 0 || clock_now(&core->clock) >= core->quit_deadline;
}

static void *core_main(void *arg)
{
	struct core *core = arg;

	prctl(PR_SET_NAME, "stokerd-core");
	/* A sleep of 50 us must not become one of 100. */
	prctl(PR_SET_TIMERSLACK, 1000ul);
	clock_init(&core->clock);
	random_feed(core);
	engine_do(core, clock_now(&core->clock));
	while (!is_over(core))
		core_round(core);
	figures_refresh(core);
	return NULL;
}

/* ---- life -------------------------------------------------------------------------------------- */

static void *memory_reserve(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

static int engine_make(struct core *core, const struct core_config *config, char *why)
{
	struct engine_config engine = config->engine;
	struct engine_ports ports = core_ports;

	engine.counters = core->block;
	if (getrandom(&engine.seed, sizeof(engine.seed), 0) != sizeof(engine.seed))
		return -errno;
	core->memory_bytes = engine_bytes(&engine);
	if (core->memory_bytes == 0) {
		snprintf(why, WHY, "the configuration asks for more than the engine can be: lower arena.entries, "
			 "arena.records or a limit");
		return -EINVAL;
	}
	core->memory = memory_reserve(core->memory_bytes);
	core->late_max = 2 * (engine.ios + engine.clients * engine.slots);
	core->late = memory_reserve(core->late_max * sizeof(core->late[0]));
	core->extents = calloc((engine.extents + 63) / 64, sizeof(core->extents[0]));
	if (!core->memory || !core->late || !core->extents) {
		snprintf(why, WHY, "no memory for an index of %u chunks and %u objects (%zu bytes): lower arena.entries",
			 engine.entries, engine.records, core->memory_bytes);
		return -ENOMEM;
	}
	/* The index is touched all over: a page of 4K for each entry would cost a miss of its own. */
	madvise(core->memory, core->memory_bytes, MADV_HUGEPAGE);
	ports.shell = core;
	core->n_extents = engine.extents;
	core->engine = engine_new(&engine, &ports, core->memory);
	return core->engine ? 0 : -EINVAL;
}

static int epoll_make(struct core *core)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = EPOLL_BELL };

	core->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (core->epoll < 0 || epoll_ctl(core->epoll, EPOLL_CTL_ADD, core->bell.fd, &event) < 0)
		return -errno;
	return 0;
}

static void tiers_rows_fill(struct core *core, const struct config *config)
{
	core->n_tiers = config->n_tiers;
	for (uint32_t i = 0; i < config->n_tiers; i++) {
		struct control_tier *row = &core->tier_rows[i];

		row->state = STOKER_TIER_STARTING;
		row->bytes = config->tiers[i].bytes;
		snprintf(row->name, sizeof(row->name), "%s", config->tiers[i].name);
		snprintf(row->path, sizeof(row->path), "%.*s", (int)sizeof(row->path) - 1, config->tiers[i].path);
	}
}

/* A processor for each helper, for this thread, and for one client at least. */
static bool is_crowded(uint64_t helpers)
{
	cpu_set_t processors;

	return sched_getaffinity(0, sizeof(processors), &processors) == 0 &&
	       (uint64_t)CPU_COUNT(&processors) < helpers + 2;
}

int core_new(const struct core_config *config, char *why, struct core **ret)
{
	struct core *core;
	int r;

	if (posix_memalign((void **)&core, 64, sizeof(*core)) != 0)
		return -ENOMEM;
	memset(core, 0, sizeof(*core));
	core->epoll = core->bell.fd = core->control.bell.fd = core->starter.bell.fd = -1;
	core->page = config->page;
	core->block = &config->page->blocks[0];
	core->spin_ns = config->config->broker.spin_us * 1000;
	core->crowded = is_crowded(config->config->broker.threads);
	tiers_rows_fill(core, config->config);
	why[0] = '\0';
	r = bell_init(&core->bell);
	if (r == 0)
		r = link_init(&core->control, &core->bell);
	if (r == 0)
		r = link_init(&core->starter, &core->bell);
	if (r == 0)
		r = epoll_make(core);
	if (r == 0)
		r = engine_make(core, config, why);
	if (r < 0) {
		if (why[0] == '\0')
			snprintf(why, WHY, "the core could not be made: %s", strerror(-r));
		core_free(core);
		return r;
	}
	for (uint32_t i = 0; i < config->config->n_tenants; i++) {
		const struct config_tenant *tenant = &config->config->tenants[i];
		const struct engine_quota quota = core_quota(tenant);

		engine_tenant(core->engine, i, &quota);
	}
	figures_refresh(core);
	*ret = core;
	return 0;
}

int core_start(struct core *core)
{
	const int r = pthread_create(&core->thread, NULL, core_main, core);

	core->started = r == 0;
	return -r;
}

void core_free(struct core *core)
{
	if (!core)
		return;
	if (core->started)
		pthread_join(core->thread, NULL);
	if (core->epoll >= 0)
		close(core->epoll);
	link_fini(&core->control);
	link_fini(&core->starter);
	bell_fini(&core->bell);
	if (core->memory)
		munmap(core->memory, core->memory_bytes);
	if (core->late)
		munmap(core->late, core->late_max * sizeof(core->late[0]));
	free(core->extents);
	free(core);
}

bool core_end(struct core *core)
{
	if (core->started)
		pthread_join(core->thread, NULL);
	core->started = false;
	return (core->io_out | core->copies_out) == 0;
}

struct link *core_control(struct core *core)
{
	return &core->control;
}

struct link *core_starter(struct core *core)
{
	return &core->starter;
}

struct bell *core_bell(struct core *core)
{
	return &core->bell;
}
