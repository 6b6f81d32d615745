/* See backend-rig.h. */
#include "tests/backend-rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "src/common/log.h"

struct gpu_world w;
struct job jobs[COPIES];

uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void close_it(uid_t uid, int fd)
{
	ck_assert_uint_eq(uid, 77);
	close(fd);
}

struct device *device_new(uint64_t idle_ns, uint32_t hang_ms)
{
	struct device_gpu gpu = {
		.uuid = { 1, 2, 3 }, .streams_load = 1, .streams_store = 1, .bounce_bytes = 65536, .slice_bytes = 65536,
		.hang_ms = hang_ms, .idle_ns = idle_ns, .program = "/proc/self/exe", .extent_bytes = w.extent_bytes,
		.io_lock_fd = w.lock,
	};
	const struct device_host host = { .arena = w.arena.bytes, .arena_bytes = w.arena.size, .arena_fd = w.arena.fd,
					  .bell = &w.bell, .copies = COPIES, .gpu = &gpu,
					  .close_fd = close_it };
	struct device *device;

	snprintf(gpu.library, sizeof(gpu.library), "%s", w.path);
	ck_assert_int_eq(GPU.start(&host, &device), 0);
	return device;
}

static void world_open(void)
{
	struct model_wire_row rows[LAYERS];
	int fd;

	memset(&w, 0, sizeof(w));
	log_init("test", LOG_LEVEL_ERROR);
	snprintf(w.path, sizeof(w.path), "/dev/shm/fake-copier-%d", (int)getpid());
	fd = open(w.path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_eq(ftruncate(fd, sizeof(*w.knobs)), 0);
	w.knobs = mmap(NULL, sizeof(*w.knobs), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	w.arena = rig_memory(ARENA, false);
	w.lock = memfd_create("lock", MFD_CLOEXEC);
	ck_assert_int_eq(bell_init(&w.bell), 0);
	for (uint32_t i = 0; i < LAYERS; i++)
		rows[i] = (struct model_wire_row){ .layer = (uint16_t)i, .bytes = ROW };
	w.layout = rig_layout(1, BLOCKS, rows, LAYERS);
	w.extent_bytes = EXTENT;
	w.device = device_new(60000000000ull, 10000);
}

void setup(void)
{
	world_open();
}

void teardown(void)
{
	GPU.stop(w.device);
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);	/* it left no child */
	unlink(w.path);
	while (w.n_names-- > 0) {
		char name[64];

		snprintf(name, sizeof(name), "/fake-gpu-%d-%u", (int)getpid(), w.n_names);
		shm_unlink(name);
	}
	model_layout_free(w.layout);
	rig_memory_free(&w.arena);
	close(w.lock);
	bell_fini(&w.bell);
}

/* ---- the control thread --------------------------------------------------------------------------- */

void tend(void)
{
	struct device_answer answer;

	GPU.tend(w.device, now_ns());
	while (GPU.answer(w.device, &answer)) {
		expect(answer.token > 0 && answer.token < TOKENS);
		w.answered[answer.token]++;
		w.result[answer.token] = answer.result;
		if (answer.result < 0) {
			expect(answer.why[0]);
			snprintf(w.why, sizeof(w.why), "%s", answer.why);
		}
	}
}

void core_once(void)
{
	struct device_event events[7];
	const uint32_t n = GPU.reap(w.device, events, 7);

	for (uint32_t i = 0; i < n; i++) {
		const struct device_event *event = &events[i];

		if (event->type == DEVICE_POOL_DEAD) {
			w.deaths++;
		} else if (event->type == DEVICE_PROGRESS) {
			expect(event->layers > w.layers[event->copy] && event->layers <= LAYERS);
			w.layers[event->copy] = event->layers;
		} else {
			expect(event->type == DEVICE_DONE);
			w.done[event->copy]++;
			w.ended[event->copy] = event->result;
			w.running--;
		}
	}
}

uint64_t token(void)
{
	static uint64_t last;

	return ++last;
}

static struct message_region_add_cuda message_of(enum message_cuda_kind kind, uint64_t offset, uint64_t bytes)
{
	return (struct message_region_add_cuda){ .kind = kind, .offset = offset, .bytes = bytes };
}

/* Ask for a region of memory that has a name; its answer is not awaited. */
void ask_ipc(struct piece *piece, uint64_t offset, uint64_t bytes, int fence)
{
	struct message_region_add_cuda message = message_of(MESSAGE_CUDA_IPC, offset, bytes);
	struct device_memory memory = { .uid = 77, .cuda = &message, .fence = fence };
	char why[MESSAGE_REASON] = "";
	int fd;

	snprintf(piece->name, sizeof(piece->name), "/fake-gpu-%d-%u", (int)getpid(), w.n_names++);
	fd = shm_open(piece->name, O_RDWR | O_CREAT | O_EXCL, 0600);
	ck_assert_int_eq(ftruncate(fd, (off_t)(offset + bytes)), 0);
	piece->bytes = (uint8_t *)mmap(NULL, offset + bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) + offset;
	close(fd);
	memcpy(message.handle, piece->name, sizeof(message.handle));
	memory.token = piece->token = token();
	ck_assert_msg(GPU.region_add(w.device, &memory, why, &piece->region) == DEVICE_LATER, "%s", why);
}

struct piece ipc(void)
{
	struct piece piece;

	ask_ipc(&piece, 4096, POOL_BYTES, -1);
	until(w.answered[piece.token]);
	ck_assert_msg(w.result[piece.token] == 0, "%s", w.why);
	return piece;
}

void ask_vmm(struct piece *piece, uint32_t n)
{
	struct message_region_add_cuda message = message_of(MESSAGE_CUDA_VMM, 8192, n * 4096ull - 8192);
	uint64_t sizes[512];
	int given[512];
	struct device_memory memory = { .uid = 77, .cuda = &message, .fence = -1, .n_fds = n, .fds = given,
					.fd_bytes = sizes };
	char why[MESSAGE_REASON] = "";

	*piece = (struct piece){ .n = n };
	piece->bytes = mmap(NULL, n * 4096ull, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (uint32_t i = 0; i < n; i++) {
		given[i] = memfd_create("allocation", MFD_CLOEXEC);
		sizes[i] = 4096;
		ck_assert_int_eq(ftruncate(given[i], 4096), 0);
		mmap(piece->bytes + i * 4096ull, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, given[i], 0);
	}
	piece->bytes += 8192;
	memory.token = piece->token = token();
	ck_assert_msg(GPU.region_add(w.device, &memory, why, &piece->region) == DEVICE_LATER, "%s", why);
}

struct piece vmm(uint32_t n)
{
	struct piece piece;

	ask_vmm(&piece, n);
	until(w.answered[piece.token]);
	ck_assert_msg(w.result[piece.token] == 0, "%s", w.why);
	ck_assert_uint_eq(GPU.region_bytes(piece.region), n * 4096ull - 8192);
	return piece;
}

struct device_pool *ask_pool(const struct piece *piece, uint32_t number, uint64_t *ret_token)
{
	struct message_plane planes[LAYERS];
	struct device_pool *pool = NULL;
	char why[MESSAGE_REASON] = "";
	const uint64_t of = token();

	for (uint32_t i = 0; i < LAYERS; i++)
		planes[i] = (struct message_plane){ .layer = (uint16_t)i, .offset = i * POOL_BLOCKS * ROW,
						    .block_stride = ROW, .bytes = ROW / 2, .rows = 2, .row_stride = ROW / 2 };
	ck_assert_msg(GPU.pool_add(w.device, of, 3, number, w.layout, 0, POOL_BLOCKS, planes, LAYERS, &piece->region, 1, why,
				   &pool) == DEVICE_LATER, "%s", why);
	*ret_token = of;
	return pool;
}

struct device_pool *pool_on(const struct piece *piece, uint32_t number)
{
	uint64_t of;
	struct device_pool *pool = ask_pool(piece, number, &of);

	until(w.answered[of]);
	ck_assert_msg(w.result[of] == 0, "%s", w.why);
	return pool;
}

void drop(struct piece *piece)
{
	const uint64_t of = token();

	ck_assert_int_eq(GPU.region_close(piece->region, of), DEVICE_LATER);
	until(w.answered[of] == 1);
	ck_assert_int_eq(w.result[of], 0);
}

/* ---- copies ------------------------------------------------------------------------------------ */

void copy(uint32_t number, bool store, struct device_pool *pool, uint32_t object, uint32_t first_block)
{
	struct job *job = &jobs[number];
	struct device_copy asked = { .layout = w.layout, .pools = job->pools };

	memset(job, 0, sizeof(*job));
	job->pools[1] = pool;
	for (uint32_t i = 0; i < BLOCKS; i++)
		job->ids[i] = (first_block + i) % POOL_BLOCKS;
	job->item = (struct engine_copy_item){ .payload = object * 65536ull + 4096, .pool = 1, .ids = job->ids };
	asked.request = (struct engine_copy){ .copy = number, .client = 3, .store = store, .layer_end = LAYERS, .n_items = 1,
					      .items = &job->item, .failed = &job->failed };
	w.done[number] = w.layers[number] = 0;
	w.running++;
	ck_assert_int_eq(GPU.copy(w.device, &asked), 0);
}

void fill(const struct piece *piece, uint32_t seed)
{
	for (uint32_t i = 0; i < POOL_BYTES; i++)
		piece->bytes[i] = (uint8_t)((i * 2654435761u + seed) >> 13);
}

/* Store four blocks, load them four blocks further, compare. */
void there_and_back(const struct piece *piece, struct device_pool *pool, uint32_t number)
{
	fill(piece, number);
	copy(number, true, pool, number % 64, 8);
	until(w.done[number]);
	ck_assert_int_eq(w.ended[number], ENGINE_OK);
	copy(number, false, pool, number % 64, 12);
	until(w.done[number]);
	ck_assert_int_eq(w.ended[number], ENGINE_OK);
	ck_assert_uint_eq(w.done[number], 1);
	ck_assert_uint_eq(w.layers[number], LAYERS);
	for (uint32_t i = 0; i < LAYERS; i++)
		ck_assert_int_eq(memcmp(piece->bytes + (i * POOL_BLOCKS + 8) * ROW,
					piece->bytes + (i * POOL_BLOCKS + 12) * ROW, BLOCKS * ROW), 0);
}

/* The next copier is there, and has said so: copies that come too early fail. */
void until_back(struct device_pool *pool)
{
	const uint32_t number = COPIES - 1;
	const uint64_t end = now_ns() + 30000000000ull;

	do {
		usleep(1000);
		copy(number, true, pool, 63, 0);
		until(w.done[number]);
		ck_assert_uint_lt(now_ns(), end);
	} while (w.ended[number] != ENGINE_OK);
}
