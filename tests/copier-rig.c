/* A copier on the fake driver, and its workers. See copier-rig.h. */
#include "tests/copier-rig.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/device/cuda/copier.h"
#include "src/device/pool.h"
#include "src/device/region.h"
#include "tests/fake-cuda/rig.h"
#include "tests/suite.h"

#define COMMANDS	64u
#define EVENTS		64u
#define ITEM_BYTES	(64u << 10)
#define PATIENCE_MS	30000		/* then something is lost */
#define PART_BYTES	(2u << 20)	/* of a VMM allocation: its granularity */

static void *map_shared(size_t bytes, int *fd)
{
	void *memory;

	*fd = memfd_create("copier-rig", MFD_CLOEXEC);
	ck_assert_int_ge(*fd, 0);
	ck_assert_int_eq(ftruncate(*fd, (off_t)bytes), 0);
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	ck_assert_ptr_ne(memory, MAP_FAILED);
	return memory;
}

/*
 * In a child: nothing of the test's but one descriptor. The numbers stay in use, because Check goes on noting
 * assertions in a file of its own, which must not become a file of the fake's.
 */
static void keep_only(int fd)
{
	const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int i = 3; i < 256; i++)
		if (i != fd && fcntl(i, F_GETFD) >= 0)
			dup3(nothing, i, O_CLOEXEC);
}

/* ---- the copier ---------------------------------------------------------------------------------- */

void copier_make(struct copier_rig *rig)
{
	struct cuda_uuid uuid;

	memset(rig, 0, sizeof(*rig));
	rig->control = rig->lock_fd = -1;
	ck_assert_int_eq(bell_init(&rig->bell), 0);
	ck_assert_int_eq(bell_init(&rig->core_bell), 0);
	rig->arena = map_shared(RIG_ARENA_BYTES, &rig->arena_fd);
	fake_cuda_uuid(0, &uuid);
	rig->start = (struct wire_start){
		.header = { WIRE_START, sizeof(rig->start) }, .arena_bytes = RIG_ARENA_BYTES,
		.extent_bytes = RIG_EXTENT_BYTES, .segment_bytes = wire_segment_bytes(COMMANDS, EVENTS, ITEM_BYTES),
		.bounce_bytes = 256u << 10, .slice_bytes = 128u << 10, .copies = RIG_COPIES_MAX,
		.streams_load = 2, .streams_store = 2, .hang_ms = 0,
	};
	memcpy(rig->start.uuid, uuid.bytes, sizeof(uuid.bytes));
	snprintf(rig->start.library, sizeof(rig->start.library), "%s", rig_library());
}

static void send_start(struct copier_rig *rig)
{
	int segment_fd, lock[2];

	rig->segment = wire_segment_make(map_shared(rig->start.segment_bytes, &segment_fd), COMMANDS, EVENTS, ITEM_BYTES);
	ck_assert_int_eq(pipe2(lock, O_CLOEXEC), 0);
	rig->lock_fd = lock[0];

	const int fds[WIRE_START_FDS] = { rig->arena_fd, segment_fd, rig->bell.fd, rig->core_bell.fd, lock[1] };

	ck_assert_int_eq(wire_send(rig->control, true, &rig->start, fds, WIRE_START_FDS), 0);
	close(segment_fd);
	close(lock[1]);
}

void copier_start(struct copier_rig *rig)
{
	int pair[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	rig->control = pair[0];
	send_start(rig);
	if (rig->orphan) {
		close(rig->control);
		rig->control = -1;
		rig->gone = true;
	}
	rig->pid = fork();
	ck_assert_int_ge(rig->pid, 0);
	if (rig->pid == 0) {
		keep_only(pair[1]);
		_exit(copier_main(pair[1]));
	}
	close(pair[1]);
	while (!rig->up.header.bytes && !rig->gone)
		copier_hear(rig);
}

void copier_open(struct copier_rig *rig)
{
	copier_make(rig);
	copier_start(rig);
	ck_assert_msg(rig->up.result == 0, "%s", rig->up.why);
	copier_extents(rig, RIG_EXTENTS);
}

int copier_exit(struct copier_rig *rig)
{
	int status = 0;

	ck_assert_int_eq(waitpid(rig->pid, &status, 0), rig->pid);
	rig->pid = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

void copier_free(struct copier_rig *rig)
{
	if (rig->control >= 0)
		close(rig->control);
	if (rig->pid > 0) {
		kill(rig->pid, SIGKILL);
		copier_exit(rig);
	}
	if (rig->segment)
		munmap(rig->segment, rig->start.segment_bytes);
	if (rig->lock_fd >= 0)
		close(rig->lock_fd);
	munmap(rig->arena, RIG_ARENA_BYTES);
	close(rig->arena_fd);
	bell_fini(&rig->bell);
	bell_fini(&rig->core_bell);
}

/* ---- what it says -------------------------------------------------------------------------------- */

static struct wire_answer last_answer;		/* not yet asked for */
static bool answered;

static bool hear_message(struct copier_rig *rig)
{
	union { struct wire_header header; struct wire_up up; struct wire_answer answer; struct wire_figures figures;
		struct wire_fatal fatal; } m;
	int fds[WIRE_FDS_MAX];
	uint32_t n_fds;
	const int r = rig->gone ? -EAGAIN : wire_receive(rig->control, &m, sizeof(m), fds, &n_fds);

	if (r == -EAGAIN)
		return false;
	if (r == -EPIPE) {
		rig->gone = true;
		return true;
	}
	ck_assert_int_gt(r, 0);
	ck_assert_uint_eq(n_fds, 0);
	ck_assert_uint_eq(rig->fatal.header.bytes, 0);		/* FATAL is the last */
	switch (m.header.type) {
	case WIRE_UP:
		rig->up = m.up;
		break;
	case WIRE_ANSWER:
		ck_assert(!answered);
		last_answer = m.answer;
		answered = true;
		break;
	case WIRE_FIGURES:
		rig->figures = m.figures;
		break;
	case WIRE_FATAL:
		rig->fatal = m.fatal;
		break;
	default:
		ck_abort_msg("a message of type %u", m.header.type);
	}
	return true;
}

/* What every event must keep: progress only rises, nothing comes after DONE, DONE says what FAILED said. */
static bool hear_event(struct copier_rig *rig)
{
	struct wire_event event;

	if (!rig->segment || !shared_queue_get(wire_events(rig->segment), &event))
		return false;
	ck_assert_uint_lt(event.copy, RIG_COPIES_MAX);
	struct told *told = &rig->copies[event.copy];

	ck_assert(told->asked && !told->done);
	switch (event.type) {
	case WIRE_PROGRESS:
		ck_assert_uint_gt(event.value, told->layers);
		ck_assert_uint_eq(told->n_failed, 0);
		told->layers = event.value;
		told->progress++;
		break;
	case WIRE_FAILED:
		ck_assert_uint_lt(event.value, RIG_ITEMS_MAX);
		ck_assert_uint_eq(told->failed[event.value], 0);
		told->failed[event.value] = 1;
		told->n_failed++;
		break;
	case WIRE_DONE:
		ck_assert_uint_eq(event.value, told->n_failed ? ENGINE_FAILED : ENGINE_OK);
		told->done = true;
		told->result = event.value;
		rig->order[rig->n_order++ % RIG_COPIES_MAX] = event.copy;
		break;
	default:
		ck_abort_msg("an event of type %u", event.type);
	}
	return true;
}

void copier_hear(struct copier_rig *rig)
{
	struct pollfd wait[2] = { { .fd = rig->control, .events = POLLIN }, { .fd = rig->core_bell.fd, .events = POLLIN } };

	if (hear_event(rig) || hear_message(rig))
		return;
	if (rig->segment)
		shared_bell_arm(&rig->segment->core_bell);
	if (!hear_event(rig)) {
		ck_assert_msg(!rig->gone, "nothing more will come");
		ck_assert_msg(poll(wait, 2, PATIENCE_MS) > 0, "the copier says nothing");
	}
	if (rig->segment)
		shared_bell_disarm(&rig->segment->core_bell, rig->core_bell.fd);
}

struct wire_answer copier_answer(struct copier_rig *rig, uint32_t to, uint32_t number)
{
	while (!answered && !rig->gone)
		copier_hear(rig);
	if (!answered)
		return (struct wire_answer){ .result = -EPIPE };
	answered = false;
	ck_assert_uint_eq(last_answer.to, to);
	ck_assert_uint_eq(last_answer.number, number);
	return last_answer;
}

void copier_wait(struct copier_rig *rig, uint32_t copy)
{
	while (!rig->copies[copy].done && !rig->gone)
		copier_hear(rig);
}

/* ---- what it is told ----------------------------------------------------------------------------- */

static void say(struct copier_rig *rig, const void *message, const int *fds, uint32_t n_fds)
{
	const int r = wire_send(rig->control, true, message, fds, n_fds);

	ck_assert(r == 0 || r == -EPIPE);
}

void copier_extents(struct copier_rig *rig, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		say(rig, &(struct wire_number){ .header = { WIRE_EXTENT, sizeof(struct wire_number) }, .number = i }, NULL, 0);
	while (rig->figures.registered_bytes < (uint64_t)n * RIG_EXTENT_BYTES && !rig->gone)
		copier_hear(rig);
}

struct wire_region copier_region_message(const struct worker *worker, uint32_t region)
{
	struct wire_region message = {
		.header = { WIRE_REGION, sizeof(message) }, .region = region,
		.kind = worker->vmm ? WIRE_REGION_VMM : WIRE_REGION_IPC, .bytes = worker->bytes, .n_fds = worker->n_fds,
	};

	memcpy(message.handle, worker->handle, sizeof(message.handle));
	for (uint32_t i = 0; i < worker->n_fds; i++)
		message.fd_bytes[i] = worker->part_bytes;
	return message;
}

int copier_region(struct copier_rig *rig, const struct worker *worker, uint32_t region)
{
	const struct wire_region message = copier_region_message(worker, region);

	say(rig, &message, worker->fds, worker->n_fds);
	return copier_answer(rig, WIRE_REGION, region).result;
}

int copier_number(struct copier_rig *rig, uint32_t type, uint32_t number)
{
	say(rig, &(struct wire_number){ .header = { type, sizeof(struct wire_number) }, .number = number }, NULL, 0);
	return copier_answer(rig, type, number).result;
}

static struct wire_row wire_row_of(const struct device_pool *pool, uint32_t i, struct device_region *const *regions,
				   uint32_t n_regions)
{
	const struct pool_row *row = &pool->rows[i];
	struct wire_row ret = { .payload = row->payload, .block_bytes = row->block_bytes,
				.offset = (uint64_t)(row->base - row->region->base), .block_stride = row->block_stride,
				.run_stride = row->run_stride, .runs = row->runs, .run_bytes = row->run_bytes };

	while (ret.region < n_regions && regions[ret.region] != row->region)
		ret.region++;
	while (ret.layer + 1 < pool->n_layers && pool->layers[ret.layer + 1].row <= i)
		ret.layer++;
	return ret;
}

int copier_pool(struct copier_rig *rig, uint32_t number, const struct device_pool *pool, uint64_t payload_bytes,
		struct device_region *const *regions, uint32_t n_regions)
{
	const size_t bytes = sizeof(struct wire_pool) + pool->n_rows * sizeof(struct wire_row);
	struct wire_pool *message = calloc(1, bytes);

	ck_assert_ptr_nonnull(message);
	*message = (struct wire_pool){
		.header = { WIRE_POOL, (uint32_t)bytes }, .pool = number, .part = pool->part, .blocks = pool->blocks,
		.n_blocks = pool->n_blocks, .n_rows = pool->n_rows, .n_layers = pool->n_layers,
		.payload_bytes = payload_bytes,
	};
	for (uint32_t i = 0; i < pool->n_rows; i++)
		((struct wire_row *)(message + 1))[i] = wire_row_of(pool, i, regions, n_regions);
	say(rig, message, NULL, 0);
	free(message);
	return copier_answer(rig, WIRE_POOL, number).result;
}

static void command(struct copier_rig *rig, const struct wire_command *command)
{
	while (!shared_queue_put(wire_commands(rig->segment), command))
		ck_assert(!rig->gone);
	shared_bell_ring(&rig->segment->copier_bell, rig->bell.fd);
}

void copier_copy(struct copier_rig *rig, uint32_t copy, bool store, uint32_t layer_first, uint32_t layer_end,
		 const struct copier_item *items, uint32_t n)
{
	const uint64_t mask = rig->segment->item_bytes - 1;
	uint64_t bytes = 0, at;

	for (uint32_t i = 0; i < n; i++)
		bytes += (sizeof(struct wire_item) + items[i].n_ids * sizeof(uint32_t) + 7) & ~7ull;
	ck_assert_uint_le(bytes, rig->segment->item_bytes);
	if ((rig->bytes_put & mask) + bytes > rig->segment->item_bytes)
		rig->bytes_put = (rig->bytes_put | mask) + 1;
	at = rig->bytes_put;
	while (at + bytes - atomic_load(&rig->segment->bytes_taken) > rig->segment->item_bytes)
		ck_assert(!rig->gone);
	rig->bytes_put += bytes;
	uint8_t *to = wire_items(rig->segment) + (at & mask);

	for (uint32_t i = 0; i < n; i++) {
		struct wire_item *item = (struct wire_item *)(void *)to;

		*item = (struct wire_item){ .payload = items[i].payload, .pool = items[i].pool, .n_ids = items[i].n_ids };
		memcpy(item->ids, items[i].ids, items[i].n_ids * sizeof(uint32_t));
		to += (sizeof(*item) + items[i].n_ids * sizeof(uint32_t) + 7) & ~7ull;
	}
	rig->copies[copy] = (struct told){ .asked = true };
	command(rig, &(struct wire_command){ .type = WIRE_COPY, .copy = copy, .store = store, .n_items = n, .at = at,
					     .bytes = bytes, .layer_first = (uint16_t)layer_first,
					     .layer_end = (uint16_t)layer_end });
}

void copier_cancel(struct copier_rig *rig, uint32_t copy)
{
	command(rig, &(struct wire_command){ .type = WIRE_CANCEL, .copy = copy });
}

/* ---- workers ------------------------------------------------------------------------------------- */

struct export { uint8_t handle[64]; uint32_t n_fds; };

static void export_parts(const struct cuda_driver *cuda, cuda_address *address, uint64_t bytes, int *fds, uint32_t n)
{
	const struct cuda_allocation properties = {
		.type = CUDA_MEM_ALLOCATION_TYPE_PINNED, .handle_types = CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
		.location = { .type = CUDA_MEM_LOCATION_TYPE_DEVICE },
	};
	const struct cuda_access access = { .location = properties.location, .flags = CUDA_MEM_ACCESS_FLAGS_PROT_READWRITE };

	rig_must(cuda, cuda->mem_reserve(address, bytes, 0, 0, 0), "reserve");
	for (uint32_t i = 0; i < n; i++) {
		cuda_handle handle;

		rig_must(cuda, cuda->mem_create(&handle, bytes / n, &properties, 0), "create");
		rig_must(cuda, cuda->mem_map(*address + i * (bytes / n), bytes / n, 0, handle, 0), "map");
		rig_must(cuda, cuda->mem_export(&fds[i], handle, CUDA_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0), "export");
		rig_must(cuda, cuda->mem_release(handle), "release");
	}
	rig_must(cuda, cuda->mem_set_access(*address, bytes, &access, 1), "access");
}

struct hello { struct wire_header header; struct export export; };

static void serve(int socket, bool vmm, uint64_t bytes, uint32_t parts, uint8_t *window)
{
	const struct cuda_driver *cuda = rig_open();
	struct hello hello = { .header = { 0, sizeof(hello) } };
	int fds[WIRE_FDS_MAX];
	cuda_address address;
	char order;

	if (vmm) {
		export_parts(cuda, &address, bytes, fds, parts);
	} else {
		rig_must(cuda, cuda->mem_alloc(&address, bytes), "alloc");
		rig_must(cuda, cuda->ipc_get_handle((struct cuda_ipc_handle *)hello.export.handle, address), "handle");
	}
	wire_send(socket, true, &hello, fds, vmm ? parts : 0);
	for (uint32_t i = 0; vmm && i < parts; i++)
		close(fds[i]);
	while (read(socket, &order, 1) == 1 && order != 'q') {
		if (order == 'u')
			rig_must(cuda, cuda->copy_to_device(address, window, bytes), "upload");
		else
			rig_must(cuda, cuda->copy_to_host(window, address, bytes), "download");
		if (write(socket, &order, 1) != 1)
			_exit(1);
	}
	if (!vmm)
		rig_must(cuda, cuda->mem_free(address), "free");
	_exit(0);
}

struct worker worker_start(uint64_t bytes, bool vmm)
{
	struct worker w = { .vmm = vmm, .bytes = bytes, .part_bytes = PART_BYTES };
	const uint32_t parts = vmm ? (uint32_t)(bytes / PART_BYTES) : 0;
	struct pollfd wait;
	struct hello hello;
	int pair[2], fd;

	ck_assert(!vmm || bytes % PART_BYTES == 0);
	w.window = map_shared(bytes, &fd);
	close(fd);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	w.pid = fork();
	ck_assert_int_ge(w.pid, 0);
	if (w.pid == 0) {
		keep_only(pair[1]);
		serve(pair[1], vmm, bytes, parts, w.window);
	}
	close(pair[1]);
	w.socket = pair[0];
	wait = (struct pollfd){ .fd = w.socket, .events = POLLIN };
	ck_assert_int_eq(poll(&wait, 1, PATIENCE_MS), 1);
	ck_assert_int_eq(wire_receive(w.socket, &hello, sizeof(hello), w.fds, &w.n_fds), sizeof(hello));
	ck_assert_uint_eq(w.n_fds, parts);
	memcpy(w.handle, hello.export.handle, sizeof(w.handle));
	return w;
}

static void tell_worker(struct worker *w, char order)
{
	ck_assert_int_eq(write(w->socket, &order, 1), 1);
	ck_assert_int_eq(read(w->socket, &order, 1), 1);
}

void worker_upload(struct worker *worker)
{
	tell_worker(worker, 'u');
}

void worker_download(struct worker *worker)
{
	tell_worker(worker, 'd');
}

static void close_fds(struct worker *w)
{
	for (uint32_t i = 0; i < w->n_fds; i++)
		close(w->fds[i]);
	w->n_fds = 0;
}

void worker_kill(struct worker *w)
{
	kill(w->pid, SIGKILL);
	ck_assert_int_eq(waitpid(w->pid, NULL, 0), w->pid);
	w->pid = 0;
	close_fds(w);
}

void worker_free(struct worker *w)
{
	int status = 0;

	if (w->pid) {
		ck_assert_int_eq(write(w->socket, "q", 1), 1);
		ck_assert_int_eq(waitpid(w->pid, &status, 0), w->pid);
		ck_assert_int_eq(status, 0);
	}
	close_fds(w);
	close(w->socket);
	munmap(w->window, w->bytes);
}
