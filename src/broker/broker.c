/*
 * Bringing a broker up and taking it down. Up to "ready" nothing takes longer than a few system
 * calls, whatever the sizes are: locks, control page, socket, core thread, an arena that is reserved
 * but not populated. Models, tiers' tables and extents come afterwards, while clients attach.
 *
 * Down, in this order: drained, page marked dead, clients detached, starter, core thread, device,
 * tiers, arena (which stays for the next broker), page and socket removed, locks last.
 */
#include "src/broker/broker.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <unistd.h>

#include "src/broker/devices.h"
#include "src/broker/notify.h"
#include "src/broker/session.h"
#include "src/broker/state.h"
#include "src/common/log.h"
#include "src/common/size.h"
#include "src/device/spawner.h"
#include "src/engine/engine.h"

#define FILES_MIN	64u	/* files of a broker without clients, and a few more for what it opens in passing */
#define FILES_MAX	16384u	/* descriptors of clients that are kept open */

/* ---- sizes ------------------------------------------------------------------------------------- */

/* What an object of that name holds already: it is not asked of the machine again. */
static uint64_t present(const char *name, const char *suffix)
{
	char path[160];
	struct stat is;

	snprintf(path, sizeof(path), "/dev/shm%.80s%s", name, suffix);
	return lstat(path, &is) == 0 && S_ISREG(is.st_mode) ? (uint64_t)is.st_blocks * 512 : 0;
}

/*
 * What of /dev/shm goes to the control page, of which there are two until the old one has been replaced, and to
 * the table of an arena of @bytes, which grows with the tiers too.
 */
static uint64_t shm_besides(const struct broker *broker, uint64_t bytes)
{
	uint32_t entries, records;

	config_index(&broker->config, bytes, &entries, &records);
	return 2 * (sizeof(struct control_page) + STOKER_PAGE) + 2 * STOKER_PAGE + (uint64_t)records * sizeof(struct arena_entry);
}

/* @bytes, or as many as fit into /dev/shm with all that goes along. */
static uint64_t shm_fit(const struct broker *broker, uint64_t bytes)
{
	const char *name = broker->config.broker.name;
	struct statvfs vfs;
	uint64_t room;

	if (statvfs("/dev/shm", &vfs) < 0 || vfs.f_blocks == 0)
		return bytes;
	room = (uint64_t)vfs.f_bavail * vfs.f_frsize + present(name, ".arena") + present(name, ".table") + present(name, "");
	while (bytes > 0 && bytes + shm_besides(broker, bytes) > room)
		bytes -= broker->config.arena.extent;
	return bytes;
}

/* Cut the arena to what the machine can give now. 0 or -ENOMEM. */
static int arena_size(struct broker *broker, char *why)
{
	const struct config_arena *arena = &broker->config.arena;
	const char *bound = "";
	uint64_t room = arena_limit(&bound) + present(broker->config.broker.name, ".arena");
	uint64_t bytes = arena->size < room ? arena->size : room;
	char wished[16], given[16];

	bytes = bytes / arena->extent * arena->extent;
	if (broker->options->null_arena) {
		bytes = arena->size / arena->extent * arena->extent;
	} else if (shm_fit(broker, bytes) < bytes) {
		bound = "the size of /dev/shm (remount it larger)";
		room = bytes = shm_fit(broker, bytes);
	}
	size_text(arena->size, wished);
	size_text(room, given);
	if (bytes == 0) {
		snprintf(why, BROKER_WHY, "an arena of %s does not fit: %s leaves %s, and one extent is the least; free "
			 "memory, or lower arena.extent", wished, bound, given);
		return -ENOMEM;
	}
	if (bytes < arena->size / arena->extent * arena->extent) {
		log_warning("an arena of %s does not fit: %s leaves %s; it is made that much smaller", wished, bound,
			    given);
		broker->degraded = true;
	}
	broker->arena_bytes = bytes;
	return 0;
}

static struct engine_config engine_config(const struct broker *broker)
{
	const struct config *config = &broker->config;
	const struct config_limits *limits = &config->limits;
	struct engine_config engine = {
		.clients = broker->seats,
		.slots = CHANNEL_SMALL_MAX + CHANNEL_LARGE_MAX,
		.models = (uint32_t)limits->models,
		.pools = (uint32_t)limits->pools,
		.tenants = config->n_tenants,
		.accounts = (uint32_t)limits->accounts,
		.entries = broker->entries,
		.records = broker->records,
		.leases = (uint32_t)limits->leases,
		.holds = (uint32_t)limits->holds,
		.leased_chunks = (uint32_t)limits->leased_chunks,
		.ios = (uint32_t)config->disk.ios,
		.extent_bytes = config->arena.extent,
		.extents = (uint32_t)(broker->arena_bytes / config->arena.extent),
		.n_tiers = config->n_tiers,
		.policy = (enum engine_policy)config->arena.policy,
		.refill_permille = (uint32_t)config->arena.refill_permille,
		.write_back = config->disk.write_back,
		.deadline_default_ns = limits->deadline_ms * 1000000,
		.deadline_max_ns = limits->deadline_max_ms * 1000000,
		.lease_default_ns = limits->lease_ms * 1000000,
		.lease_max_ns = limits->lease_max_ms * 1000000,
		.recovered_hold_ns = config->arena.recovered_hold_ms * 1000000,
		.held_bytes_permille = (uint32_t)config->arena.held_permille,
	};

	for (uint32_t i = 0; i < config->n_tiers; i++) {
		engine.tiers[i].extents = (uint32_t)(config->tiers[i].bytes / config->arena.extent);
		/* The tier's thread has the next reads at hand: the device does not wait for the core in between. */
		engine.tiers[i].depth_bytes = 2 * config->disk.depth;
	}
	return engine;
}

/* ---- up to ready ------------------------------------------------------------------------------- */

/* Every client costs a handful of descriptors: take what the system lets us have. */
static void limits_raise(void)
{
	static const int which[] = { RLIMIT_NOFILE, RLIMIT_MEMLOCK };
	struct rlimit limit;

	for (size_t i = 0; i < sizeof(which) / sizeof(which[0]); i++) {
		if (getrlimit(which[i], &limit) < 0 || limit.rlim_cur == limit.rlim_max)
			continue;
		limit.rlim_cur = limit.rlim_max;
		setrlimit(which[i], &limit);
	}
}

/*
 * What is open at most: of each client its socket, pidfd and three pipe ends; of connections that are being
 * greeted two each, and what one message can carry; and what is ours. Where that is more than the system
 * allows there are fewer seats, so that attaching cannot take the descriptors that others need.
 */
static void seats_fit_descriptors(struct broker *broker)
{
	const uint64_t wished = broker->config.limits.clients;
	const uint64_t ours = 2 * SESSIONS_NEW_MAX + FDS_OF_A_MESSAGE + 64 + 16 * broker->config.n_tiers +
			      DEVICE_CREWS * broker->config.broker.threads + 8 * 8;	/* the last: GPUs */
	struct rlimit limit;
	uint64_t seats;

	broker->seats = (uint32_t)wished;
	broker->files = FILES_MAX;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
		return;
	/* What seats and GPUs leave, memory of GPUs may have: it is kept open to be imported again. */
	if (limit.rlim_cur < ours + wished * SESSION_FDS + FILES_MAX)
		broker->files = limit.rlim_cur > ours + wished * SESSION_FDS ?
				(uint32_t)(limit.rlim_cur - ours - wished * SESSION_FDS) : 0;
	seats = limit.rlim_cur > ours ? (limit.rlim_cur - ours) / SESSION_FDS : 0;
	if (seats >= wished)
		return;
	broker->seats = seats ? (uint32_t)seats : 1;
	log_warning("%" PRIu64 " open files are enough for %u clients, not for the %" PRIu64 " of limits.clients: raise the "
		    "limit (ulimit -n, LimitNOFILE=)", (uint64_t)limit.rlim_cur, broker->seats, wished);
}

static int socket_path(struct broker *broker, char *why)
{
	const struct config_broker *config = &broker->config.broker;

	if ((size_t)snprintf(broker->socket, sizeof(broker->socket), "%s/%s.sock", config->runtime_directory,
			     config->name + 1) < sizeof(broker->socket))
		return 0;
	snprintf(why, BROKER_WHY, "the socket's path would be longer than %zu bytes: name a shorter "
		 "broker.runtime_directory than %.200s", sizeof(broker->socket) - 1, config->runtime_directory);
	return -ENAMETOOLONG;
}

static int core_make(struct broker *broker, char *why)
{
	const struct core_config core = {
		.config = &broker->config,
		.page = broker->page.control,
		.engine = engine_config(broker),
	};
	int r = core_new(&core, why, &broker->core);

	if (r < 0)
		return r;
	broker->link = core_control(broker->core);
	return 0;
}

/*
 * With fewer it would come up and find one thing after the other missing: the models that it should remember, or
 * io_uring.
 */
static int files_are_enough(const struct broker *broker, char *why)
{
	const uint64_t least = FILES_MIN + 8 * broker->config.n_tiers;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= least)
		return 0;
	snprintf(why, BROKER_WHY, "%" PRIu64 " open files are too few for a broker: raise the limit to %" PRIu64 " at least "
		 "(ulimit -n, LimitNOFILE=)", (uint64_t)limit.rlim_cur, least);
	return -EMFILE;
}

static int come_up(struct broker *broker, char *why)
{
	const struct config_broker *config = &broker->config.broker;
	int r = socket_path(broker, why);

	if (r == 0)
		r = files_are_enough(broker, why);
	if (r == 0)
		r = arena_size(broker, why);
	if (r < 0)
		return r;
	config_index(&broker->config, broker->arena_bytes, &broker->entries, &broker->records);
	r = locks_open(config->runtime_directory, config->name, why, &broker->locks);
	if (r == 0)
		r = state_open(config->state_directory, why);
	if (r == 0)
		r = arena_check(config->name, why);	/* who hears "ready" is not to hear of that afterwards */
	if (r == 0)
		r = page_open(config->name, broker->socket, why, &broker->page);
	if (r < 0)
		return r;
	broker->block = &broker->page.control->blocks[1];
	r = core_make(broker, why);
	if (r == 0)
		r = control_open(broker, why);
	if (r == 0) {
		r = core_start(broker->core);
		if (r < 0)
			snprintf(why, BROKER_WHY, "the core thread could not be started: %s", strerror(-r));
	}
	return r;
}

static void say_ready(const struct broker *broker)
{
	char line[80];
	const int n = snprintf(line, sizeof(line), "ready %s\n", broker->config.broker.name);

	if (broker->options->ready_fd >= 0 && write(broker->options->ready_fd, line, (size_t)n) != n)
		log_warning("\"ready\" could not be said on standard output: %m");
	notify_ready();
}

/* The index's memory is taken as it fills, the table's with the arena. */
static void say_sizes(const struct broker *broker)
{
	const struct engine_config engine = engine_config(broker);
	char arena[16], index[16], table[16];

	log_info("broker %s: arena of %s, socket %s", broker->config.broker.name, size_text(broker->arena_bytes, arena),
		 broker->socket);
	log_info("the index is for %u chunks and %u objects: up to %s of memory, and %s for the arena's table",
		 broker->entries, broker->records, size_text(engine_bytes(&engine), index),
		 size_text((uint64_t)broker->records * sizeof(struct arena_entry), table));
}

/* ---- arena, device, tiers ---------------------------------------------------------------------- */

void broker_degraded(struct broker *broker)
{
	broker->degraded = true;
	if (broker->degraded_sent || !broker->link)
		return;
	broker->degraded_sent = true;
	broker->degraded_order = (struct order){ .type = ORDER_DEGRADED };
	link_order(broker->link, &broker->degraded_order);
}

static int arena_make(struct broker *broker, bool fresh)
{
	const struct config *config = &broker->config;
	char why[BROKER_WHY], path[64];
	int r;

	if (broker->options->null_arena)
		r = arena_open_null(config->broker.name, broker->arena_bytes, config->arena.extent, broker->records, why,
				    &broker->arena);
	else
		r = arena_open(config->broker.name, broker->arena_bytes, config->arena.extent, broker->records, fresh, why,
			       &broker->arena);

	if (r < 0) {
		log_error("%s", why);
		return r;
	}
	/* A description of its own, which can only read: what entitled clients are given. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", broker->arena->fd);
	broker->arena_reader_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (broker->arena_reader_fd < 0)
		log_warning("the arena could not be opened for readers: %m; nobody can map objects");
	return 0;
}

static void tier_refused(struct broker *broker, uint32_t number, const char *why)
{
	log_error("tier %s is out of service: %s", broker->config.tiers[number].name, why);
	tier_stop(broker->tiers[number]);
	broker->tiers[number] = NULL;
	broker_degraded(broker);
}

/* Its thread opens it: a slow disk holds up nobody who attaches. */
static void tier_begin(struct broker *broker, uint32_t number)
{
	const struct config_tier *tier = &broker->config.tiers[number];
	char owner[sizeof(broker->locks.directory) + sizeof(broker->locks.name)];
	struct tier_config config = {
		.path = tier->path,
		.owner = owner,
		.io_is_held = broker->locks.io_fresh,
		.bytes = tier->bytes,
		.extent_bytes = broker->config.arena.extent,
		.depth_bytes = broker->config.disk.depth,
		.arena = broker->arena->base,
		.arena_bytes = broker->arena->bytes,
		.io_lock_fd = broker->locks.io_fd,
		.bell = core_bell(broker->core),
		.ios = (uint32_t)broker->config.disk.ios,
	};

	snprintf(owner, sizeof(owner), "%s/%s", broker->locks.directory, broker->locks.name);
	snprintf(config.name, sizeof(config.name), "%s", tier->name);
	const int r = tier_new(&config, &broker->tiers[number]);
	if (r < 0)
		tier_refused(broker, number, strerror(-r));
	else
		broker->tiers_awaited |= 1u << number;
}

bool broker_tiers_take(struct broker *broker, bool give_up)
{
	char why[BROKER_WHY];

	for (uint32_t i = 0; i < broker->config.n_tiers; i++) {
		struct order *order = &broker->tier_orders[i];

		if (!(broker->tiers_awaited & 1u << i))
			continue;
		const int r = tier_opened(broker->tiers[i], 0, why);
		if (r == -EINPROGRESS && !give_up)
			continue;
		broker->tiers_awaited &= ~(1u << i);
		if (r == -EINPROGRESS)
			snprintf(why, sizeof(why), "%.200s could not be opened for a long time: its disk hangs or is very slow; "
				 "look at the disk, then start the broker again", broker->config.tiers[i].path);
		if (r < 0) {
			tier_refused(broker, i, why);
			continue;
		}
		*order = (struct order){ .type = ORDER_TIER_OPEN, .tier = { broker->tiers[i], i } };
		link_order(broker->link, order);
	}
	return broker->tiers_awaited == 0;
}

int broker_machine(struct broker *broker)
{
	/* A dead broker's I/O may still land in the arena that is there. */
	int r = arena_make(broker, broker->locks.io_fresh);

	if (r == 0)
		r = devices_start(broker);
	if (r < 0)
		return r;
	broker->machine_order = (struct order){ .type = ORDER_MACHINE,
						.machine = { broker->arena, broker->devices[0].backend,
							     broker->devices[0].device } };
	link_order(broker->link, &broker->machine_order);
	for (uint32_t i = 0; i < broker->config.n_tiers; i++)
		tier_begin(broker, i);
	if (broker->degraded || broker->locks.io_fresh)
		broker_degraded(broker);
	broker->phase = PHASE_TIERS;
	return 0;
}

int broker_start_recovery(struct broker *broker)
{
	struct starter_model known[MODELS_MAX];
	struct starter_config starter = {
		.link = core_starter(broker->core),
		.arena = broker->arena,
		.populate = !broker->options->null_arena,
		.n_tiers = broker->config.n_tiers,
		.models = known,
	};

	memcpy(starter.tiers, broker->tiers, sizeof(starter.tiers));
	for (uint32_t i = 0; i < MODELS_MAX; i++) {
		const struct model *model = broker->models.model[i];

		if (!model || model->state != MODEL_OPEN)
			continue;
		struct starter_model *to = &known[starter.n_models++];
		memcpy(to->identity, model->identity, sizeof(to->identity));
		to->layout = model->layout;
		to->engine = model->engine;
		to->epoch = model->epoch;
	}
	const int r = starter_start(&starter, &broker->starter);
	if (r < 0) {
		log_error("the starting thread could not be made: %s", strerror(-r));
		return r;
	}
	broker->phase = PHASE_RUNNING;
	return 0;
}

/* ---- down -------------------------------------------------------------------------------------- */

/* Returns false if I/O is still under way: then memory must stay mapped until the kernel takes it. */
static bool core_stop(struct broker *broker)
{
	if (!broker->core)
		return true;
	broker->quit_order = (struct order){ .type = ORDER_QUIT };
	link_order(broker->link, &broker->quit_order);
	return core_end(broker->core);
}

static void machine_stop(struct broker *broker)
{
	devices_stop(broker);
	for (uint32_t i = 0; i < ENGINE_TIERS_MAX; i++) {
		if (broker->tiers[i])
			tier_stop(broker->tiers[i]);
	}
	if (broker->arena_reader_fd >= 0)
		close(broker->arena_reader_fd);
	if (broker->arena)
		arena_close(broker->arena);
	if (broker->options->null_arena)
		arena_unlink(broker->config.broker.name);
}

static void go_down(struct broker *broker)
{
	if (broker->page.control)
		page_mark_dead(&broker->page);
	control_close(broker);
	starter_stop(broker->starter);
	if (core_stop(broker) && !broker->sessions) {
		machine_stop(broker);
		core_free(broker->core);
		starter_free(broker->starter);
		models_fini(&broker->models);
	} else {
		log_warning("I/O or copies did not end in time: they are left to the kernel, which keeps the I/O lock "
			    "until they have");
	}
	if (broker->page.control)
		page_close(&broker->page);
	locks_close(&broker->locks);
}

/* ---- a broker's life --------------------------------------------------------------------------- */

static enum broker_exit exit_of(int error)
{
	return error == -EBUSY ? BROKER_IN_USE : error == -ENAMETOOLONG ? BROKER_USAGE : BROKER_FAILED;
}

static struct broker *broker_new(const struct broker_options *options)
{
	struct broker *broker = calloc(1, sizeof(*broker));

	if (!broker)
		return NULL;
	broker->options = options;
	broker->config = options->config;
	broker->locks.name_fd = broker->locks.io_fd = -1;
	broker->page.reader_fd = broker->arena_reader_fd = -1;
	broker->listen_fd = broker->signal_fd = broker->epoll = -1;
	models_init(&broker->models, (uint32_t)options->config.limits.models);
	return broker;
}

enum broker_exit broker_run(const struct broker_options *options)
{
	struct broker *broker = broker_new(options);
	char why[BROKER_WHY] = "";
	int r;

	if (!broker)
		return BROKER_FAILED;
	signal(SIGXFSZ, SIG_IGN);	/* a limit of file sizes is an error with a text, not our end */
	limits_raise();
	seats_fit_descriptors(broker);
	if (strcmp(broker->config.gpu.enabled, "no") != 0)
		spawner_start();	/* while nothing is open that a client has handed over */
	r = come_up(broker, why);
	if (r < 0) {
		log_error("%s", why);
		broker->exit = exit_of(r);
	} else {
		say_ready(broker);
		say_sizes(broker);
		control_run(broker);
	}
	go_down(broker);
	const enum broker_exit code = broker->exit;
	free(broker);
	return code;
}
