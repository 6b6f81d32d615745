/*
 * The broker's half of a GPU, against a copier of the tests' own (fake-copier.h): what is answered later, copiers
 * that die at any instant, rings that wrap, cancels, hangs. Control thread and core thread are one here, except
 * where a test says so.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "src/common/log.h"
#include "tests/device-rig.h"
#include "tests/fake-copier.h"
#include "tests/suite.h"

#define GPU		device_cuda_backend
#define COPIES		64u
#define EXTENT		(1u << 20)
#define ARENA		(8u << 20)
#define LAYERS		3u
#define ROW		1024u		/* bytes of a block in a plane */
#define BLOCKS		4u		/* of an object */
#define POOL_BLOCKS	64u
#define POOL_BYTES	(LAYERS * POOL_BLOCKS * ROW)
#define PAYLOAD		(LAYERS * BLOCKS * ROW)
#define TOKENS		4096u

/* One world a test; Check runs each in a process of its own. */
static struct {
	struct device *device;
	struct bell bell;
	struct rig_memory arena;
	struct fake_knobs *knobs;
	char path[64];
	int lock;
	struct model_layout *layout;
	uint32_t n_names;		/* objects in /dev/shm that stand for device memory */
	/* Answers, by token; how often, and how. */
	uint32_t answered[TOKENS];
	int result[TOKENS];
	char why[MESSAGE_REASON];	/* of the last failure */
	uint64_t due;
	/* Copies, by number. */
	uint32_t done[COPIES], layers[COPIES], running;
	enum engine_result ended[COPIES];
	uint32_t deaths;
} w;

static uint64_t now_ns(void)
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

static struct device *device_new(uint64_t idle_ns, uint32_t hang_ms)
{
	struct device_gpu gpu = {
		.uuid = { 1, 2, 3 }, .streams_load = 1, .streams_store = 1, .bounce_bytes = 65536, .slice_bytes = 65536,
		.hang_ms = hang_ms, .idle_ns = idle_ns, .program = "/proc/self/exe", .extent_bytes = EXTENT,
		.io_lock_fd = w.lock, .close_fd = close_it,
	};
	const struct device_host host = { .arena = w.arena.bytes, .arena_bytes = w.arena.size, .arena_fd = w.arena.fd,
					  .bell = &w.bell, .copies = COPIES, .gpu = &gpu };
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
	w.device = device_new(60000000000ull, 10000);
}

static void setup(void)
{
	world_open();
}

static void teardown(void)
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

static void tend(void)
{
	struct device_answer answer;

	w.due = GPU.tend(w.device, now_ns());
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

static void core_once(void)
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

/* Both threads' turns, until @what holds; asleep in between on what they are to sleep on. */
#define until(what) \
	do { \
		const uint64_t end_ = now_ns() + 30000000000ull; \
		tend(); \
		core_once(); \
		while (!(what)) { \
			struct pollfd wait_[2] = { { GPU.watch(w.device), POLLIN, 0 }, { w.bell.fd, POLLIN, 0 } }; \
			bell_arm(&w.bell); \
			GPU.arm(w.device); \
			core_once(); \
			poll(wait_, 2, 5); \
			bell_disarm(&w.bell); \
			tend(); \
			core_once(); \
			ck_assert_msg(now_ns() < end_, "waited in vain for: %s", #what); \
		} \
	} while (0)

static uint64_t token(void)
{
	static uint64_t last;

	return ++last;
}

/** struct piece - device memory of a test. */
struct piece {
	uint8_t *bytes;
	char name[64];			/* IPC: in /dev/shm */
	int fds[512];
	uint32_t n;
	struct device_region *region;
	uint64_t token;
};

static struct message_region_add_cuda message_of(enum message_cuda_kind kind, uint64_t offset, uint64_t bytes)
{
	return (struct message_region_add_cuda){ .kind = kind, .offset = offset, .bytes = bytes };
}

/* Ask for a region of memory that has a name; its answer is not awaited. */
static void ask_ipc(struct piece *piece, uint64_t offset, uint64_t bytes, int fence)
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

static struct piece ipc(void)
{
	struct piece piece;

	ask_ipc(&piece, 4096, POOL_BYTES, -1);
	until(w.answered[piece.token]);
	ck_assert_msg(w.result[piece.token] == 0, "%s", w.why);
	return piece;
}

/* A region in @n allocations of one page each, from the third one on. */
static struct piece vmm(uint32_t n)
{
	struct message_region_add_cuda message = message_of(MESSAGE_CUDA_VMM, 8192, n * 4096ull - 8192);
	struct piece piece = { .n = n };
	uint64_t sizes[512];
	int given[512];
	struct device_memory memory = { .uid = 77, .cuda = &message, .fence = -1, .n_fds = n, .fds = given,
					.fd_bytes = sizes };
	char why[MESSAGE_REASON] = "";

	piece.bytes = mmap(NULL, n * 4096ull, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (uint32_t i = 0; i < n; i++) {
		given[i] = memfd_create("allocation", MFD_CLOEXEC);
		sizes[i] = 4096;
		ck_assert_int_eq(ftruncate(given[i], 4096), 0);
		mmap(piece.bytes + i * 4096ull, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, given[i], 0);
	}
	piece.bytes += 8192;
	memory.token = piece.token = token();
	ck_assert_msg(GPU.region_add(w.device, &memory, why, &piece.region) == DEVICE_LATER, "%s", why);
	until(w.answered[piece.token]);
	ck_assert_msg(w.result[piece.token] == 0, "%s", w.why);
	ck_assert_uint_eq(GPU.region_bytes(piece.region), n * 4096ull - 8192);
	return piece;
}

static struct device_pool *ask_pool(const struct piece *piece, uint32_t number, uint64_t *ret_token)
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

static struct device_pool *pool_on(const struct piece *piece, uint32_t number)
{
	uint64_t of;
	struct device_pool *pool = ask_pool(piece, number, &of);

	until(w.answered[of]);
	ck_assert_msg(w.result[of] == 0, "%s", w.why);
	return pool;
}

static void drop(struct piece *piece)
{
	const uint64_t of = token();

	ck_assert_int_eq(GPU.region_close(piece->region, of), DEVICE_LATER);
	until(w.answered[of] == 1);
	ck_assert_int_eq(w.result[of], 0);
}

/* ---- copies ------------------------------------------------------------------------------------ */

/** struct job - one copy of one object, and all that has to stay while it runs. */
struct job {
	struct engine_copy_item item;
	uint32_t ids[BLOCKS];
	uint8_t failed;
	struct device_pool *pools[8];
};
static struct job jobs[COPIES];

static void copy(uint32_t number, bool store, struct device_pool *pool, uint32_t object, uint32_t first_block)
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

static void fill(const struct piece *piece, uint32_t seed)
{
	for (uint32_t i = 0; i < POOL_BYTES; i++)
		piece->bytes[i] = (uint8_t)((i * 2654435761u + seed) >> 13);
}

/* Store four blocks, load them four blocks further, compare. */
static void there_and_back(const struct piece *piece, struct device_pool *pool, uint32_t number)
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
static void until_back(struct device_pool *pool)
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

/* ---- what is answered later -------------------------------------------------------------------- */

START_TEST(regions_and_pools_are_answered_later_and_copied_to_and_from)
{
	struct piece named = ipc(), pieces = vmm(300);
	struct device_pool *a = pool_on(&named, 1), *b = pool_on(&pieces, 2);

	there_and_back(&named, a, 5);
	there_and_back(&pieces, b, 6);
	GPU.pool_close(a);
	GPU.pool_close(b);
	drop(&named);
	drop(&pieces);
	ck_assert_uint_eq(atomic_load(&w.knobs->regions), 0);
	ck_assert_uint_eq(atomic_load(&w.knobs->pools), 0);
	ck_assert_uint_eq(atomic_load(&w.knobs->starts), 1);
}
END_TEST

START_TEST(a_pool_that_does_not_fit_its_region_is_refused_at_once)
{
	struct piece piece = ipc();
	struct message_plane plane = { .block_stride = ROW, .bytes = ROW, .rows = 1 };
	struct device_pool *pool;
	char why[MESSAGE_REASON] = "";

	ck_assert_int_eq(GPU.pool_add(w.device, token(), 3, 1, w.layout, 0, POOL_BLOCKS, &plane, 1, &piece.region, 1, why,
				      &pool), -EINVAL);
	ck_assert_int_ne(why[0], '\0');
	drop(&piece);
}
END_TEST

START_TEST(a_device_that_is_absent_is_said_to_be)
{
	struct piece piece;

	atomic_store(&w.knobs->absent, 1);
	ask_ipc(&piece, 0, 4096, -1);
	until(w.answered[piece.token]);
	ck_assert_int_eq(w.result[piece.token], -ENODEV);
	ck_assert_str_eq(w.why, "there is no such device");
	ck_assert_int_eq(GPU.region_close(piece.region, 0), 0);
	until(GPU.is_idle(w.device));
}
END_TEST

START_TEST(a_copier_that_dies_at_its_start_is_said_to)
{
	struct piece piece;

	atomic_store(&w.knobs->dies_early, 1);
	ask_ipc(&piece, 0, 4096, -1);
	until(w.answered[piece.token]);
	ck_assert_int_eq(w.result[piece.token], -EIO);
	ck_assert_ptr_nonnull(strstr(w.why, "status 3"));
	ck_assert_int_eq(GPU.region_close(piece.region, 0), 0);
	until(GPU.is_idle(w.device));
}
END_TEST

/* A session that leaves while it waits: each token is answered once, the fence ends with the region. */
START_TEST(what_is_closed_before_it_is_open_is_answered_once_and_drained)
{
	int fence[2];
	struct piece pieces[10];
	struct device_pool *pools[2];
	uint64_t of[2], last;
	char byte;

	ck_assert_int_eq(pipe2(fence, O_CLOEXEC | O_NONBLOCK), 0);
	atomic_store(&w.knobs->slow_us, (uint32_t)_i * 3000);
	for (uint32_t i = 0; i < 2; i++) {
		ask_ipc(&pieces[i], 4096, POOL_BYTES, fence[1]);
		until(w.answered[pieces[i].token]);
		pools[i] = ask_pool(&pieces[i], i, &of[i]);
	}
	for (uint32_t i = 2; i < 10; i++) {
		ask_ipc(&pieces[i], 4096, POOL_BYTES, fence[1]);
		if (i % 3 == 0)
			tend();		/* some have been sent, some not */
	}
	last = now_ns() + (uint64_t)_i * 1000000;
	until(now_ns() > last);
	GPU.pool_close(pools[0]);
	GPU.pool_close(pools[1]);
	for (uint32_t i = 0; i < 10; i++)
		GPU.region_close(pieces[i].region, 0);
	close(fence[1]);
	until(atomic_load(&w.knobs->regions) == 0 && w.answered[pieces[9].token] && w.answered[of[1]]);
	until(read(fence[0], &byte, 1) == 0);
	for (uint32_t i = 0; i < 10; i++)
		ck_assert_uint_eq(w.answered[pieces[i].token], 1);
	ck_assert_uint_eq(w.answered[of[0]] + w.answered[of[1]], 2);
	ck_assert_uint_eq(atomic_load(&w.knobs->pools), 0);
	close(fence[0]);
}
END_TEST

START_TEST(a_fence_is_kept_until_its_region_is_closed)
{
	int fence[2];
	struct piece piece;
	char byte;

	ck_assert_int_eq(pipe2(fence, O_CLOEXEC | O_NONBLOCK), 0);
	ask_ipc(&piece, 4096, POOL_BYTES, fence[1]);
	close(fence[1]);
	until(w.answered[piece.token]);
	ck_assert_uint_eq(atomic_load(&w.knobs->fences), 1);
	ck_assert_int_eq(read(fence[0], &byte, 1), -1);
	drop(&piece);
	ck_assert_int_eq(read(fence[0], &byte, 1), 0);
	close(fence[0]);
}
END_TEST

/* ---- copiers that end -------------------------------------------------------------------------- */

START_TEST(copies_of_a_copier_that_is_killed_fail_and_the_next_one_knows_all_again)
{
	struct piece piece = ipc();
	struct device_pool *pool = pool_on(&piece, 1);

	atomic_store(&w.knobs->hold, 1);
	for (uint32_t i = 0; i < 10; i++)
		copy(i, i % 2, pool, i, 0);
	until(atomic_load(&w.knobs->held) == 10);
	ck_assert_uint_eq(w.running, 10);
	kill((pid_t)atomic_load(&w.knobs->pid), SIGKILL);
	until(w.running == 0);
	for (uint32_t i = 0; i < 10; i++) {
		ck_assert_uint_eq(w.done[i], 1);
		ck_assert_int_eq(w.ended[i], ENGINE_FAILED);
		ck_assert_uint_eq(jobs[i].failed, 1);
	}
	atomic_store(&w.knobs->hold, 0);
	until(atomic_load(&w.knobs->starts) == 2 && atomic_load(&w.knobs->pools) == 1);
	until_back(pool);
	there_and_back(&piece, pool, 20);
	ck_assert_uint_eq(w.deaths, 0);
	GPU.pool_close(pool);
	drop(&piece);
}
END_TEST

/* The core thread, for the test below: it asks for copies as fast as they end. */
static struct { _Atomic bool stop; struct device_pool *pools[2]; uint64_t ok, failed; } busy;

static void *core_main(void *arg)
{
	uint32_t n = 0;

	(void)arg;
	while (!atomic_load(&busy.stop) || w.running) {
		const uint32_t number = n % COPIES;

		if (!atomic_load(&busy.stop) && w.running < COPIES / 2 && w.done[number] == (n >= COPIES)) {
			if (n >= COPIES) {
				busy.ok += w.ended[number] == ENGINE_OK;
				busy.failed += w.ended[number] != ENGINE_OK;
			}
			copy(number, n % 2, busy.pools[n % 3 == 0], number, number);
			if (n % 7 == 0)
				GPU.cancel(w.device, number);
			n++;
		}
		core_once();
		for (uint32_t i = 0; i < COPIES; i++)
			expect(w.done[i] <= 1);
	}
	return NULL;
}

START_TEST(a_copier_may_die_at_any_instant)
{
	struct piece a = ipc(), b = vmm(200);
	pthread_t core;

	srand((unsigned)_i);
	busy.pools[0] = pool_on(&a, 1);
	busy.pools[1] = pool_on(&b, 2);
	ck_assert_int_eq(pthread_create(&core, NULL, core_main, NULL), 0);
	for (uint32_t death = 0; death < 4; death++) {
		const uint32_t starts = atomic_load(&w.knobs->starts);
		const uint64_t end = now_ns() + 30000000000ull;

		atomic_store(&w.knobs->dies_in, 1 + (uint32_t)rand() % 3000);
		while (atomic_load(&w.knobs->starts) == starts || atomic_load(&w.knobs->pools) < 2) {
			struct pollfd wait = { GPU.watch(w.device), POLLIN, 0 };

			poll(&wait, 1, 2);
			tend();
			ck_assert_uint_lt(now_ns(), end);
		}
	}
	atomic_store(&busy.stop, true);
	while (pthread_tryjoin_np(core, NULL) != 0) {
		tend();
		usleep(100);
	}
	ck_assert_uint_gt(busy.ok, 0);
	ck_assert_uint_gt(busy.failed, 0);
	ck_assert_uint_eq(w.deaths, 0);
	until_back(busy.pools[1]);
	there_and_back(&b, busy.pools[1], 9);
	GPU.pool_close(busy.pools[0]);
	GPU.pool_close(busy.pools[1]);
	drop(&a);
	drop(&b);
}
END_TEST

START_TEST(what_cannot_be_opened_again_is_a_dead_pool_and_the_rest_lives)
{
	struct piece gone = ipc(), stays = ipc();
	struct device_pool *dead = pool_on(&gone, 1), *alive = pool_on(&stays, 2);

	shm_unlink(gone.name);
	kill((pid_t)atomic_load(&w.knobs->pid), SIGKILL);
	until(atomic_load(&w.knobs->starts) == 2 && atomic_load(&w.knobs->pools) == 1);
	until_back(alive);
	there_and_back(&stays, alive, 3);
	for (uint32_t i = 10; i < 12; i++) {
		copy(i, true, dead, 1, 0);
		until(w.done[i]);
		ck_assert_int_eq(w.ended[i], ENGINE_FAILED);
		ck_assert_uint_eq(jobs[i].failed, 1);
	}
	ck_assert_uint_eq(w.deaths, 1);
	GPU.pool_close(dead);
	GPU.pool_close(alive);
	GPU.region_close(gone.region, 0);
	drop(&stays);
}
END_TEST

START_TEST(a_region_that_copiers_die_of_is_refused_and_costs_nobody_else_his)
{
	struct piece good = ipc(), bad;
	struct device_pool *pool = pool_on(&good, 1);

	atomic_store(&w.knobs->poison, 8192);
	ask_ipc(&bad, 8192, 4096, -1);
	until(w.answered[bad.token]);
	ck_assert_int_eq(w.result[bad.token], -EIO);
	ck_assert_int_eq(GPU.region_close(bad.region, 0), 0);
	until(atomic_load(&w.knobs->starts) == 2 && atomic_load(&w.knobs->pools) == 1);
	until_back(pool);
	there_and_back(&good, pool, 1);
	ck_assert_uint_eq(atomic_load(&w.knobs->starts), 2);
	GPU.pool_close(pool);
	drop(&good);
}
END_TEST

START_TEST(a_copier_that_becomes_poisoned_by_what_it_had_gives_that_up_in_the_end)
{
	struct piece good = ipc(), bad;
	struct device_pool *pool = pool_on(&good, 1);

	ask_ipc(&bad, 8192, 4096, -1);
	until(w.answered[bad.token]);
	ck_assert_int_eq(w.result[bad.token], 0);
	atomic_store(&w.knobs->poison, 8192);
	kill((pid_t)atomic_load(&w.knobs->pid), SIGKILL);
	until(atomic_load(&w.knobs->starts) == 5 && atomic_load(&w.knobs->pools) == 1);
	until_back(pool);
	there_and_back(&good, pool, 1);
	GPU.pool_close(pool);
	GPU.region_close(bad.region, 0);
	drop(&good);
}
END_TEST

START_TEST(a_copier_that_talks_nonsense_is_replaced)
{
	struct piece piece = ipc();
	struct device_pool *pool = pool_on(&piece, 1);

	atomic_store(&w.knobs->nonsense, 1);
	until(atomic_load(&w.knobs->starts) == 2 && atomic_load(&w.knobs->pools) == 1);
	until_back(pool);
	there_and_back(&piece, pool, 1);
	GPU.pool_close(pool);
	drop(&piece);
}
END_TEST

START_TEST(a_copier_that_hangs_is_replaced_and_its_copies_end)
{
	struct piece piece;
	struct device_pool *pool;

	GPU.stop(w.device);
	w.device = device_new(60000000000ull, 100);
	piece = ipc();
	pool = pool_on(&piece, 1);
	atomic_store(&w.knobs->hangs, 1);
	usleep(20000);
	copy(1, true, pool, 1, 0);
	until(w.done[1]);
	ck_assert_int_eq(w.ended[1], ENGINE_FAILED);
	atomic_store(&w.knobs->hangs, 0);
	until(atomic_load(&w.knobs->starts) == 2 && atomic_load(&w.knobs->pools) == 1);
	until_back(pool);
	there_and_back(&piece, pool, 2);
	GPU.pool_close(pool);
	drop(&piece);
}
END_TEST

START_TEST(a_copier_without_regions_ends_and_the_next_region_starts_one)
{
	struct piece piece;

	GPU.stop(w.device);
	w.device = device_new(1000000, 10000);
	piece = ipc();
	drop(&piece);
	until(GPU.is_idle(w.device));
	ck_assert_int_eq(kill((pid_t)atomic_load(&w.knobs->pid), 0), -1);
	piece = ipc();
	ck_assert_uint_eq(atomic_load(&w.knobs->starts), 2);
	there_and_back(&piece, pool_on(&piece, 1), 1);
}
END_TEST

START_TEST(extents_are_told_as_they_come_and_told_again)
{
	struct piece piece;

	GPU.extent(w.device, 0);
	GPU.extent(w.device, 5);
	piece = ipc();
	until(atomic_load(&w.knobs->extents) == 2);
	GPU.extent(w.device, 7);
	GPU.extent(w.device, 5);
	GPU.extent(w.device, 1000);	/* there is none */
	until(atomic_load(&w.knobs->extents) == 3);
	kill((pid_t)atomic_load(&w.knobs->pid), SIGKILL);
	until(atomic_load(&w.knobs->starts) == 2 && atomic_load(&w.knobs->extents) == 3);
	drop(&piece);
}
END_TEST

/* ---- rings and cancels ------------------------------------------------------------------------- */

/* Copies of very many ids: the byte space is full after a few, wraps, and all of them come through. */
START_TEST(items_wait_for_room_and_the_byte_space_wraps)
{
	enum { OBJECT_BLOCKS = 1 << 20, BIG = 30 };
	const struct model_wire_row row = { .bytes = 1 };
	struct piece piece = ipc();
	struct model_layout *layout = rig_layout(1, OBJECT_BLOCKS, &row, 1);
	struct message_plane plane = { .block_stride = 1, .bytes = 1, .rows = 1 };
	uint32_t *ids = malloc(OBJECT_BLOCKS * sizeof(*ids));
	struct device_pool *pool, *pools[1];
	struct engine_copy_item item = { .payload = 4096, .ids = ids };
	uint8_t failed[BIG] = { 0 };
	char why[MESSAGE_REASON] = "";
	const uint64_t of = token();

	for (uint32_t i = 0; i < OBJECT_BLOCKS; i++)
		ids[i] = i % 1000;
	for (uint32_t i = 0; i < 1000; i++)
		piece.bytes[i] = (uint8_t)(i * 7);
	ck_assert_msg(GPU.pool_add(w.device, of, 3, 0, layout, 0, 1000, &plane, 1, &piece.region, 1, why, &pool) ==
		      DEVICE_LATER, "%s", why);
	until(w.answered[of]);
	pools[0] = pool;
	atomic_store(&w.knobs->hold, 1);
	for (uint32_t i = 0; i < BIG; i++) {
		struct device_copy asked = { .layout = layout, .pools = pools };

		asked.request = (struct engine_copy){ .copy = i, .client = 3, .store = true, .layer_end = 1, .n_items = 1,
						      .items = &item, .failed = &failed[i] };
		w.running++;
		ck_assert_int_eq(GPU.copy(w.device, &asked), 0);
	}
	until(atomic_load(&w.knobs->taken) > 2);
	memset(w.arena.bytes, 0, OBJECT_BLOCKS + 4096);
	atomic_store(&w.knobs->hold, 0);
	until(w.running == 0);
	for (uint32_t i = 0; i < BIG; i++)
		ck_assert_int_eq(w.ended[i], ENGINE_OK);
	for (uint32_t i = 0; i < OBJECT_BLOCKS; i++)
		expect(w.arena.bytes[4096 + i] == (uint8_t)(i % 1000 * 7));
	GPU.pool_close(pool);
	drop(&piece);
	free(ids);
	model_layout_free(layout);
}
END_TEST

START_TEST(a_cancelled_copy_ends_once_and_a_cancel_that_comes_late_hits_nobody)
{
	struct piece piece = ipc();
	struct device_pool *pool = pool_on(&piece, 1);

	atomic_store(&w.knobs->hold, 1);
	for (uint32_t i = 0; i < 4; i++)
		copy(i, i % 2, pool, i, 0);
	GPU.cancel(w.device, 2);
	GPU.cancel(w.device, 2);
	GPU.cancel(w.device, 0);
	until(w.done[0]);
	atomic_store(&w.knobs->hold, 0);
	until(w.running == 0);
	ck_assert_int_eq(w.ended[0], ENGINE_FAILED);
	ck_assert_int_eq(w.ended[1], ENGINE_OK);
	ck_assert_int_eq(w.ended[2], ENGINE_FAILED);
	ck_assert_int_eq(w.ended[3], ENGINE_OK);
	GPU.cancel(w.device, 1);	/* over already */
	there_and_back(&piece, pool, 1);
	GPU.pool_close(pool);
	drop(&piece);
}
END_TEST

START_TEST(copies_while_there_is_no_copier_fail_at_once)
{
	struct piece piece = ipc();
	struct device_pool *pool = pool_on(&piece, 1);

	atomic_store(&w.knobs->dies_early, 1);
	kill((pid_t)atomic_load(&w.knobs->pid), SIGKILL);
	until(atomic_load(&w.knobs->starts) >= 2);
	copy(1, true, pool, 1, 0);
	until(w.done[1]);
	ck_assert_int_eq(w.ended[1], ENGINE_FAILED);
	atomic_store(&w.knobs->dies_early, 0);
	until(atomic_load(&w.knobs->pools) == 1);
	until_back(pool);
	there_and_back(&piece, pool, 1);
	GPU.pool_close(pool);
	drop(&piece);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("cuda-backend");
	TCase *tests = tcase_create("cuda-backend");

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, regions_and_pools_are_answered_later_and_copied_to_and_from);
	tcase_add_test(tests, a_pool_that_does_not_fit_its_region_is_refused_at_once);
	tcase_add_test(tests, a_device_that_is_absent_is_said_to_be);
	tcase_add_test(tests, a_copier_that_dies_at_its_start_is_said_to);
	tcase_add_loop_test(tests, what_is_closed_before_it_is_open_is_answered_once_and_drained, 0, 5);
	tcase_add_test(tests, a_fence_is_kept_until_its_region_is_closed);
	tcase_add_test(tests, copies_of_a_copier_that_is_killed_fail_and_the_next_one_knows_all_again);
	tcase_add_loop_test(tests, a_copier_may_die_at_any_instant, 0, 6);
	tcase_add_test(tests, what_cannot_be_opened_again_is_a_dead_pool_and_the_rest_lives);
	tcase_add_test(tests, a_region_that_copiers_die_of_is_refused_and_costs_nobody_else_his);
	tcase_add_test(tests, a_copier_that_becomes_poisoned_by_what_it_had_gives_that_up_in_the_end);
	tcase_add_test(tests, a_copier_that_talks_nonsense_is_replaced);
	tcase_add_test(tests, a_copier_that_hangs_is_replaced_and_its_copies_end);
	tcase_add_test(tests, a_copier_without_regions_ends_and_the_next_region_starts_one);
	tcase_add_test(tests, extents_are_told_as_they_come_and_told_again);
	tcase_add_test(tests, items_wait_for_room_and_the_byte_space_wraps);
	tcase_add_test(tests, a_cancelled_copy_ends_once_and_a_cancel_that_comes_late_hits_nobody);
	tcase_add_test(tests, copies_while_there_is_no_copier_fail_at_once);
	suite_add_tcase(s, tests);
	return s;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "--copier") == 0)
		return fake_copier_main(atoi(argv[2]));
	return suite_run(suite());
}
