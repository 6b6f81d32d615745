#include "config.h"

#include "src/bench/mover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/bench/bench.h"
#include "src/bench/footprint.h"
#include "src/bench/machine.h"
#include "src/bench/payload.h"
#include "src/bench/stride.h"

#define CHUNK_TOKENS	512u	/* as in Mooncake's traces */
#define SPIN_NS		30000u	/* before a wait sleeps: the other processes want the core too */
#define WAIT_US		60000000u
#define LAYERS_MAX	8u
#define PLANES_MAX	8u
#define OBJECT_MAX	((1ull << 30) - 4096)	/* a broker takes 1 GiB with the header */

/* Four layers of K and V where the size allows it, else one plane. */
static uint32_t planes_of(uint64_t object_bytes, uint64_t blocks)
{
	return object_bytes % (blocks * 8 * 64) == 0 ? 8 : 1;
}

int mover_check(uint64_t object_bytes, uint64_t blocks)
{
	if (blocks == 0 || blocks > CHUNK_TOKENS || CHUNK_TOKENS % blocks) {
		bench_say("an object of a chunk of %u tokens has 1, 2, 4 ... %u blocks, not %llu", CHUNK_TOKENS,
			  CHUNK_TOKENS, (unsigned long long)blocks);
		return -EINVAL;
	}
	if (object_bytes == 0 || object_bytes % (blocks * 64) || object_bytes > OBJECT_MAX) {
		bench_say("an object of %llu blocks has a multiple of %llu bytes, and with its header up to 1 GiB, not %llu",
			  (unsigned long long)blocks, (unsigned long long)blocks * 64,
			  (unsigned long long)object_bytes);
		return -EINVAL;
	}
	return 0;
}

int mover_fail(struct mover *mover, int r, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(mover->why, sizeof(mover->why), format, arguments);
	va_end(arguments);
	return r;
}

static uint64_t plane_offset(const struct mover *mover, uint32_t plane)
{
	return (uint64_t)plane * mover->pool_blocks * mover->block_bytes;
}

static uint8_t *block_at(const struct mover *mover, uint32_t plane, uint32_t id)
{
	return mover->memory + plane_offset(mover, plane) + (uint64_t)id * mover->block_bytes;
}

/* Shared memory that nobody can shrink, all of it there: what the broker asks of a pool. */
static int make_memory(struct mover *mover, int *ret_fd)
{
	const uint64_t bytes = plane_offset(mover, mover->layers * mover->planes);
	char name[64];
	int fd;

	snprintf(name, sizeof(name), FOOTPRINT_POOL "%d", (int)getpid());
	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	mover->memory_bytes = (bytes + 4095) & ~4095ull;
	if (fd < 0)
		return mover_fail(mover, -errno, "could not make shared memory: %s", strerror(errno));
	*ret_fd = fd;
	fchmod(fd, 0600);
	if (posix_fallocate(fd, 0, (off_t)mover->memory_bytes) != 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return mover_fail(mover, -ENOMEM, "could not reserve %zu bytes of shared memory for a pool",
				   mover->memory_bytes);
	mover->memory = mmap(NULL, mover->memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mover->memory == MAP_FAILED) {
		mover->memory = NULL;
		return mover_fail(mover, -ENOMEM, "could not map %zu bytes of a pool", mover->memory_bytes);
	}
	pattern_fill(mover->memory, mover->memory_bytes);
	return 0;
}

static int open_model(struct mover *mover)
{
	struct stoker_plane_bytes rows[LAYERS_MAX * PLANES_MAX];
	const struct stoker_group group = {
		.kind = STOKER_GROUP_FULL,
		.block_tokens = CHUNK_TOKENS / mover->config.blocks,
	};
	const struct stoker_model_description description = {
		.size = sizeof(description),
		.chunk_tokens = CHUNK_TOKENS,
		.name = mover->config.model,
		.revision = "1",
		.groups = &group,
		.n_groups = 1,
		.rows = rows,
		.n_rows = mover->layers * mover->planes,
	};
	int r;

	for (uint32_t i = 0; i < description.n_rows; i++) {
		rows[i] = (struct stoker_plane_bytes){
			.layer = (uint16_t)(i / mover->planes),
			.plane = (uint16_t)(i % mover->planes),
			.bytes = mover->block_bytes,
		};
	}
	r = stoker_model_open(mover->stoker, &description, &mover->model);
	if (r < 0)
		return mover_fail(mover, r, "could not open the model: %s", stoker_error(mover->stoker));
	return 0;
}

static int add_pool(struct mover *mover, int fd)
{
	const struct stoker_range range = { .fd = fd, .bytes = mover->memory_bytes };
	struct stoker_plane planes[LAYERS_MAX * PLANES_MAX];
	const uint32_t n = mover->layers * mover->planes;
	int r = stoker_region_add(mover->stoker, &range, 1, &mover->region);

	if (r < 0)
		return mover_fail(mover, r, "could not register memory: %s", stoker_error(mover->stoker));
	for (uint32_t i = 0; i < n; i++) {
		planes[i] = (struct stoker_plane){
			.region = mover->region,
			.layer = (uint16_t)(i / mover->planes),
			.plane = (uint16_t)(i % mover->planes),
			.bytes = mover->block_bytes,
			.offset = plane_offset(mover, i),
			.block_stride = mover->block_bytes,
		};
	}
	r = stoker_pool_add(mover->model, 0, 0, mover->pool_blocks, planes, n, &mover->pool);
	if (r < 0)
		return mover_fail(mover, r, "could not register a pool: %s", stoker_error(mover->stoker));
	return 0;
}

static int attach(struct mover *mover)
{
	const struct stoker_options options = {
		.size = sizeof(options), .client_name = "stoker-bench", .slots_large = MOVER_SLOTS_LARGE,
		.broker_uid = (uint32_t)bench_common.broker_uid, .attach_timeout_ms = BENCH_ATTACH_MS,
	};
	int r = stoker_attach(mover->config.broker, &options, &mover->stoker);

	if (r < 0)
		return mover_fail(mover, r, "%s", stoker_attach_error());
	return 0;
}

int mover_open(const struct mover_config *config, struct mover *mover)
{
	const uint32_t objects = 2 * config->window, n = planes_of(config->object_bytes, config->blocks);
	int fd = -1, r;

	*mover = (struct mover){ .config = *config };
	mover->planes = n > 1 ? 2 : 1;
	mover->layers = n / mover->planes;
	mover->block_bytes = (uint32_t)(config->object_bytes / n / config->blocks);
	mover->pool_blocks = objects * config->blocks;
	mover->ids = calloc((size_t)config->window * config->blocks, sizeof(*mover->ids));
	mover->taken = calloc(mover->pool_blocks, 1);
	if (!mover->ids || !mover->taken)
		return mover_fail(mover, -ENOMEM, "no memory for block ids");
	r = attach(mover);
	if (r == 0)
		r = open_model(mover);
	if (r == 0)
		r = make_memory(mover, &fd);
	if (r == 0)
		r = add_pool(mover, fd);
	if (fd >= 0)
		close(fd);
	return r;
}

void mover_close(struct mover *mover)
{
	if (mover->pool)
		stoker_pool_drop(mover->pool);
	if (mover->region)
		stoker_region_drop(mover->region);
	if (mover->model)
		stoker_model_close(mover->model);
	stoker_close(mover->stoker);
	if (mover->memory)
		munmap(mover->memory, mover->memory_bytes);
	free(mover->ids);
	free(mover->taken);
	*mover = (struct mover){ 0 };
}

/* ---- bytes ------------------------------------------------------------------------------------- */

void mover_choose(struct mover *mover, uint64_t turn, uint32_t n)
{
	const uint32_t blocks = mover->pool_blocks;
	const uint32_t stride = stride_of(blocks, blocks / 3 | 1);

	memset(mover->taken, 0, blocks);
	for (uint32_t i = 0; i < n * mover->config.blocks; i++) {
		const uint32_t id = (uint32_t)(((uint64_t)i * stride + turn * 7) % blocks);

		mover->ids[i] = id;
		mover->taken[id] = 1;
	}
}

/* Where in the payload a block lies: layer-major, then planes, then blocks in token order. */
static uint64_t payload_offset(const struct mover *mover, uint32_t plane, uint32_t block)
{
	return ((uint64_t)plane * mover->config.blocks + block) * mover->block_bytes;
}

void mover_fill(struct mover *mover, const struct stoker_key *keys, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		const uint64_t seed = payload_seed(mover->config.model, &keys[i], 0, 0);

		for (uint32_t p = 0; p < mover->layers * mover->planes; p++) {
			for (uint32_t b = 0; b < mover->config.blocks; b++)
				payload_fill(block_at(mover, p, mover->ids[i * mover->config.blocks + b]), seed,
					     payload_offset(mover, p, b), mover->block_bytes);
		}
	}
}

void mover_wipe(struct mover *mover, uint32_t n)
{
	for (uint32_t p = 0; p < mover->layers * mover->planes; p++) {
		for (uint32_t i = 0; i < n * mover->config.blocks; i++)
			pattern_fill(block_at(mover, p, mover->ids[i]), mover->block_bytes);
	}
}

static uint64_t wrong_of_object(const struct mover *mover, const struct stoker_key *key, const uint32_t *ids)
{
	const uint64_t seed = payload_seed(mover->config.model, key, 0, 0);
	uint64_t wrong = 0;

	for (uint32_t p = 0; p < mover->layers * mover->planes; p++) {
		for (uint32_t b = 0; b < mover->config.blocks; b++)
			wrong += payload_wrong(block_at(mover, p, ids[b]), seed, payload_offset(mover, p, b),
					       mover->block_bytes);
	}
	return wrong;
}

uint64_t mover_wrong(const struct mover *mover, const struct stoker_key *keys, uint32_t n)
{
	const uint64_t end = plane_offset(mover, mover->layers * mover->planes);
	uint64_t wrong = 0;

	for (uint32_t i = 0; i < n; i++)
		wrong += wrong_of_object(mover, &keys[i], mover->ids + i * mover->config.blocks);
	for (uint32_t p = 0; p < mover->layers * mover->planes; p++) {
		for (uint32_t id = 0; id < mover->pool_blocks; id++) {
			if (!mover->taken[id])
				wrong += pattern_wrong(block_at(mover, p, id), mover->block_bytes);
		}
	}
	return wrong + pattern_wrong(mover->memory + end, mover->memory_bytes - end);
}

struct stoker_blocks mover_blocks(const struct mover *mover, uint32_t first, uint32_t n)
{
	return (struct stoker_blocks){ .pool = mover->pool, .first = first, .chunks = n, .ids = mover->ids };
}

/* ---- jobs -------------------------------------------------------------------------------------- */

int mover_wait(struct mover *mover, struct stoker_job job)
{
	const uint64_t start = now_ns();
	uint64_t now = start;
	int r;

	while (now - start < SPIN_NS) {
		const uint64_t before = now;

		for (uint32_t i = 0; i < MOVER_POLLS; i++) {
			if (stoker_poll(mover->stoker, job) == STOKER_STAGE_DONE)
				return 0;
		}
		now = now_ns();
		if (mover->polls)
			samples_add(mover->polls, now - before);
	}
	r = stoker_wait(mover->stoker, job, WAIT_US);
	if (r < 0)
		return mover_fail(mover, r, "a job is not over after %u s: %s", WAIT_US / 1000000, strerror(-r));
	return 0;
}

int mover_finish(struct mover *mover, const char *what, struct stoker_job job, struct stoker_result *ret,
		  uint8_t *chunks, uint32_t n_chunks)
{
	int r = mover_wait(mover, job);

	if (r < 0)
		return r;
	*ret = (struct stoker_result){ .size = sizeof(*ret) };
	r = stoker_finish(mover->stoker, job, ret, NULL, 0, chunks, n_chunks);
	if (r < 0)
		return mover_fail(mover, r, "could not finish a %s: %s", what, strerror(-r));
	if (ret->status != STOKER_STATUS_OK)
		return mover_fail(mover, ret->status == STOKER_STATUS_BROKER_GONE ? -EPIPE : -EIO,
				   "a %s ended with status \"%s\": %s", what, stoker_status_name(ret->status),
				   stoker_status_meaning(ret->status));
	return 0;
}
