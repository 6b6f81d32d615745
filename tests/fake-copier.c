/* See fake-copier.h. One thread, one loop; what has been held back goes on in the order in which it came. */
#include "tests/fake-copier.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "src/device/cuda/wire.h"
#include "src/engine/engine.h"

#define THINGS 512u

struct fake_region {
	bool used, open;
	uint32_t number;
	uint64_t offset, bytes, mapped;	/* mapped: bytes of the whole */
	uint8_t *base;
	int fence;
	uint32_t n_parts;
	struct { int fd; uint64_t bytes; } parts[1024];
};

struct fake_pool {
	struct wire_pool head;
	struct wire_row *rows;		/* NULL: not in use */
};

struct fake_copy {
	struct fake_copy *next;
	struct wire_command command;
	bool cancelled;
	uint64_t items[];
};

static struct wire_start begun;
static struct fake_knobs *knobs;
static int control, bell, core;
static uint8_t *arena;
static struct wire_segment *segment;
static struct shared_queue *commands, *events;
static struct fake_region regions[THINGS];
static struct fake_pool pools[THINGS];
static struct fake_copy *copies, **copies_end = &copies;

/* A place where it may be killed. */
static void step(void)
{
	atomic_fetch_add(&segment->beats, 1);
	if (atomic_load(&knobs->dies_in) && atomic_fetch_sub(&knobs->dies_in, 1) == 1)
		raise(SIGKILL);
}

__attribute__((noreturn)) static void fail(const char *what)
{
	fprintf(stderr, "fake copier: %s\n", what);
	_exit(9);
}

static void *map(int fd, uint64_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (at == MAP_FAILED)
		fail("mmap");
	return at;
}

static void say(const void *message)
{
	if (wire_send(control, true, message, NULL, 0) < 0)
		_exit(0);
}

static void answer(enum wire_type to, uint32_t number, int result, const char *why)
{
	struct wire_answer message = { .header = { WIRE_ANSWER, sizeof(message) }, .to = to, .number = number,
				       .result = result };

	step();
	usleep(atomic_load(&knobs->slow_us));
	snprintf(message.why, sizeof(message.why), "%s", why);
	say(&message);
}

static void event(uint32_t type, uint32_t copy, uint32_t value)
{
	const struct wire_event entry = { .type = type, .copy = copy, .value = value };

	step();
	while (!shared_queue_put(events, &entry)) {
		atomic_fetch_add(&segment->beats, 1);
		usleep(100);
	}
	shared_bell_ring(&segment->core_bell, core);
}

/* ---- regions and pools ------------------------------------------------------------------------- */

static struct fake_region *region_of(uint32_t number)
{
	for (uint32_t i = 0; i < THINGS; i++)
		if (regions[i].used && regions[i].number == number)
			return &regions[i];
	return NULL;
}

static struct fake_pool *pool_of(uint32_t number)
{
	for (uint32_t i = 0; i < THINGS; i++)
		if (pools[i].rows && pools[i].head.pool == number)
			return &pools[i];
	return NULL;
}

static struct fake_region *region_new(const struct wire_region *message)
{
	for (uint32_t i = 0; i < THINGS; i++) {
		if (regions[i].used)
			continue;
		regions[i] = (struct fake_region){ .used = true, .number = message->region, .fence = -1,
						   .offset = message->offset, .bytes = message->bytes };
		return &regions[i];
	}
	fail("too many regions");
}

static void region_forget(struct fake_region *region)
{
	if (region->base)
		munmap(region->base, region->mapped);
	for (uint32_t i = 0; i < region->n_parts; i++)
		close(region->parts[i].fd);
	if (region->fence >= 0) {
		close(region->fence);
		atomic_fetch_sub(&knobs->fences, 1);
	}
	if (region->open)
		atomic_fetch_sub(&knobs->regions, 1);
	region->used = false;
}

static int region_map(struct fake_region *region)
{
	for (uint32_t i = 0; i < region->n_parts; i++)
		region->mapped += region->parts[i].bytes;
	if (region->offset > region->mapped || region->bytes > region->mapped - region->offset)
		return -ERANGE;
	region->base = mmap(NULL, region->mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (uint64_t i = 0, at = 0; i < region->n_parts; at += region->parts[i++].bytes)
		if (mmap(region->base + at, region->parts[i].bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			 region->parts[i].fd, 0) == MAP_FAILED)
			return -errno;
	return 0;
}

static void on_region(const struct wire_region *message, const int *fds, uint32_t n_fds)
{
	struct fake_region *region = region_of(message->region);
	int r = 0;

	if (n_fds != message->n_fds + message->fence)
		fail("a region with another number of descriptors than it says");
	region = region ? region : region_new(message);
	for (uint32_t i = 0; i < message->n_fds; i++) {
		region->parts[region->n_parts].fd = fds[i];
		region->parts[region->n_parts++].bytes = message->fd_bytes[i];
	}
	if (message->fence) {
		region->fence = fds[n_fds - 1];
		atomic_fetch_add(&knobs->fences, 1);
	}
	if (message->more)
		return;
	if (message->kind == WIRE_REGION_IPC) {
		region->parts[0].fd = shm_open((const char *)message->handle, O_RDWR | O_CLOEXEC, 0);
		region->parts[0].bytes = message->offset + message->bytes;
		region->n_parts = region->parts[0].fd >= 0;
		r = region->n_parts ? 0 : -errno;
	}
	if (message->offset && message->offset == atomic_load(&knobs->poison))
		raise(SIGSEGV);
	r = r == 0 ? region_map(region) : r;
	region->open = r == 0;
	if (r == 0)
		atomic_fetch_add(&knobs->regions, 1);
	else
		region_forget(region);
	answer(WIRE_REGION, message->region, r, r < 0 ? "that memory is not there" : "");
}

static void on_pool(const struct wire_pool *message)
{
	struct fake_pool *pool = pools;

	while (pool < pools + THINGS && pool->rows)
		pool++;
	if (pool == pools + THINGS || pool_of(message->pool))
		fail("too many pools");
	pool->head = *message;
	pool->rows = malloc(message->n_rows * sizeof(*pool->rows));
	memcpy(pool->rows, message + 1, message->n_rows * sizeof(*pool->rows));
	for (uint32_t i = 0; i < message->n_rows; i++) {
		const struct fake_region *region = region_of(pool->rows[i].region);

		if (!region || !region->open)
			fail("a pool of a region that is not open");
	}
	atomic_fetch_add(&knobs->pools, 1);
	answer(WIRE_POOL, message->pool, 0, "");
}

static void on_close(const struct wire_number *message)
{
	struct fake_region *region;
	struct fake_pool *pool;

	if (message->header.type == WIRE_POOL_CLOSE) {
		pool = pool_of(message->number);
		if (!pool)
			fail("close of a pool that there is not");
		free(pool->rows);
		pool->rows = NULL;
		atomic_fetch_sub(&knobs->pools, 1);
	} else {
		region = region_of(message->number);
		if (!region)
			fail("close of a region that there is not");
		for (uint32_t i = 0; i < THINGS; i++)
			for (uint32_t row = 0; pools[i].rows && row < pools[i].head.n_rows; row++)
				if (pools[i].rows[row].region == message->number)
					fail("close of a region that a pool looks at");
		region_forget(region);
	}
	answer((enum wire_type)message->header.type, message->number, 0, "");
}

static void on_message(const struct wire_header *header, const int *fds, uint32_t n_fds)
{
	switch (header->type) {
	case WIRE_REGION:
		on_region((const void *)header, fds, n_fds);
		break;
	case WIRE_POOL:
		on_pool((const void *)header);
		break;
	case WIRE_POOL_CLOSE:
	case WIRE_REGION_CLOSE:
		on_close((const void *)header);
		break;
	case WIRE_EXTENT:
		atomic_fetch_add(&knobs->extents, 1);
		break;
	default:
		fail("a message that no broker sends");
	}
}

/* ---- copies ------------------------------------------------------------------------------------ */

static void copy_row(const struct fake_pool *pool, const struct wire_row *row, const struct wire_item *item, bool store)
{
	const struct fake_region *region = region_of(row->region);

	for (uint32_t b = 0; b < item->n_ids; b++)
		for (uint32_t r = 0; r < row->runs && (item->ids[b] != STOKER_NO_BLOCK || store); r++) {
			uint8_t *there = arena + item->payload + row->payload + b * row->block_bytes +
					 (uint64_t)r * row->run_bytes;
			const uint64_t at = row->offset + item->ids[b] * row->block_stride + r * row->run_stride;

			if (item->ids[b] == STOKER_NO_BLOCK) {
				memset(there, 0, row->run_bytes);
				continue;
			}
			if (item->ids[b] >= pool->head.n_blocks || at + row->run_bytes > region->bytes)
				fail("a copy beyond its region");
			if (store)
				memcpy(there, region->base + region->offset + at, row->run_bytes);
			else
				memcpy(region->base + region->offset + at, there, row->run_bytes);
		}
}

static const struct wire_item *next_item(const struct wire_item *item)
{
	return (const struct wire_item *)((const uint8_t *)item +
					  ((sizeof(*item) + item->n_ids * sizeof(uint32_t) + 7) & ~7ull));
}

static void copy_layer(const struct fake_copy *copy, uint32_t layer)
{
	const struct wire_item *item = (const struct wire_item *)copy->items;

	for (uint32_t i = 0; i < copy->command.n_items; i++, item = next_item(item)) {
		const struct fake_pool *pool = item->pool == WIRE_NO_POOL ? NULL : pool_of(item->pool);

		if (item->pool != WIRE_NO_POOL && (!pool || item->n_ids != pool->head.blocks))
			fail("an item of a pool that there is not");
		for (uint32_t row = 0; pool && row < pool->head.n_rows; row++)
			if (pool->rows[row].layer == layer)
				copy_row(pool, &pool->rows[row], item, copy->command.store);
	}
}

static void copy_run(struct fake_copy *copy)
{
	const struct wire_item *item = (const struct wire_item *)copy->items;
	bool failed = copy->cancelled;

	for (uint32_t i = 0; i < copy->command.n_items; i++, item = next_item(item)) {
		if (item->pool != WIRE_NO_POOL && !copy->cancelled)
			continue;
		failed = true;
		event(WIRE_FAILED, copy->command.copy, i);
	}
	for (uint32_t layer = copy->command.layer_first; layer < copy->command.layer_end && !copy->cancelled; layer++) {
		copy_layer(copy, layer);
		if (!failed && layer < 64)
			event(WIRE_PROGRESS, copy->command.copy, layer - copy->command.layer_first + 1);
		if (layer >= 64)
			break;
	}
	event(WIRE_DONE, copy->command.copy, failed ? ENGINE_FAILED : ENGINE_OK);
}

static void on_copy(const struct wire_command *command)
{
	struct fake_copy *copy = malloc(sizeof(*copy) + command->bytes);

	*copy = (struct fake_copy){ .command = *command };
	if ((command->at & (segment->item_bytes - 1)) + command->bytes > segment->item_bytes)
		fail("items that wrap");
	memcpy(copy->items, wire_items(segment) + (command->at & (segment->item_bytes - 1)), command->bytes);
	atomic_store(&segment->bytes_taken, command->at + command->bytes);
	atomic_fetch_add(&knobs->taken, 1);
	*copies_end = copy;
	copies_end = &copy->next;
	atomic_fetch_add(&knobs->held, 1);
}

static void copies_go_on(void)
{
	while (copies && (!atomic_load(&knobs->hold) || copies->cancelled)) {
		struct fake_copy *copy = copies;

		copies = copy->next;
		if (!copies)
			copies_end = &copies;
		atomic_fetch_sub(&knobs->held, 1);
		copy_run(copy);
		free(copy);
	}
}

static void commands_take(void)
{
	struct wire_command command;

	while (shared_queue_get(commands, &command)) {
		step();
		if (command.type == WIRE_COPY)
			on_copy(&command);
		for (struct fake_copy *copy = copies; copy && command.type == WIRE_CANCEL; copy = copy->next)
			copy->cancelled |= copy->command.copy == command.copy;
	}
}

/* ---- life -------------------------------------------------------------------------------------- */

static void begin(void)
{
	struct wire_up up = { .header = { WIRE_UP, sizeof(up) }, .device = "none", .how = "copies by memcpy" };
	int fds[WIRE_FDS_MAX], file;
	uint32_t n_fds = 0;
	struct pollfd wait = { .fd = control, .events = POLLIN };

	poll(&wait, 1, 10000);
	if (wire_receive(control, &begun, sizeof(begun), fds, &n_fds) != sizeof(begun) || n_fds != WIRE_START_FDS)
		fail("it does not begin with a start");
	file = open(begun.library, O_RDWR | O_CLOEXEC);
	if (file < 0)
		fail("it has no knobs");
	knobs = map(file, sizeof(*knobs));
	arena = map(fds[0], begun.arena_bytes);
	segment = map(fds[1], begun.segment_bytes);
	bell = fds[2];
	core = fds[3];
	commands = wire_commands(segment);
	events = wire_events(segment);
	atomic_store(&knobs->pid, (uint32_t)getpid());
	atomic_fetch_add(&knobs->starts, 1);
	atomic_store(&knobs->regions, 0);
	atomic_store(&knobs->pools, 0);
	atomic_store(&knobs->fences, 0);
	atomic_store(&knobs->extents, 0);
	atomic_store(&knobs->held, 0);
	atomic_store(&knobs->hanging, 0);
	if (atomic_load(&knobs->dies_early))
		_exit(3);
	if (atomic_load(&knobs->absent)) {
		up.result = -ENODEV;
		snprintf(up.why, sizeof(up.why), "there is no such device");
	}
	say(&up);
	if (up.result < 0)
		_exit(0);
}

int fake_copier_main(int fd)
{
	static uint8_t message[WIRE_MESSAGE_MAX];
	int fds[WIRE_FDS_MAX], r;
	uint32_t n_fds;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	control = fd;
	begin();
	for (;;) {
		struct pollfd wait[2] = { { .fd = control, .events = POLLIN }, { .fd = bell, .events = POLLIN } };

		while (atomic_load(&knobs->hangs)) {
			atomic_store(&knobs->hanging, 1);
			usleep(1000);
		}
		atomic_store(&knobs->hanging, 0);
		shared_bell_arm(&segment->copier_bell);
		poll(wait, 2, shared_queue_is_empty(commands) ? 1 : 0);
		shared_bell_disarm(&segment->copier_bell, bell);
		step();
		if (atomic_exchange(&knobs->nonsense, 0))
			say(&(struct wire_header){ WIRE_START, sizeof(struct wire_header) });
		n_fds = 0;
		r = wire_receive(control, message, sizeof(message), fds, &n_fds);
		if (r == -EPIPE)
			return 0;
		if (r >= 0)
			on_message((const void *)message, fds, n_fds);
		commands_take();
		copies_go_on();
	}
}
