#include "config.h"

#include "src/bench/gpu-mover.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/bench/bench.h"
#include "src/bench/machine.h"
#include "src/bench/payload.h"
#include "src/bench/stride.h"

#define CHUNK_TOKENS	256u
#define POOL_FACTOR	4u	/* blocks of a pool: those of both directions, and as many guards */
#define WAIT_US		60000000u
#define REGION_ALIGN	(2ull << 20)

__attribute__((format(printf, 3, 4))) static int fail(struct gpu_mover *mover, int r, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(mover->why, sizeof(mover->why), format, arguments);
	va_end(arguments);
	return r;
}

static int open_device(struct gpu_mover *mover)
{
	const struct gpu_mover_config *config = &mover->config;
	int r = trial_open(config->library);

	if (r < 0)
		return fail(mover, -ENODEV, "%s", trial_why());
	mover->device_bytes = (POOL_FACTOR * config->transfer_max + REGION_ALIGN - 1) / REGION_ALIGN * REGION_ALIGN;
	r = trial_alloc(config->memory, mover->device_bytes, &mover->device);
	if (r < 0)
		return fail(mover, r, "could not allocate %llu bytes of the device: %s",
			    (unsigned long long)mover->device_bytes, trial_why());
	mover->expected = malloc(mover->device_bytes);
	mover->got = malloc(mover->device_bytes);
	mover->before = malloc(config->transfer_max);
	mover->pinned = machine_shared(2 * config->transfer_max);
	if (!mover->expected || !mover->got || !mover->before || !mover->pinned)
		return fail(mover, -ENOMEM, "no memory for %llu bytes of pools", (unsigned long long)mover->device_bytes);
	memset(mover->pinned, 1, 2 * config->transfer_max);
	if (trial_pin(mover->pinned, 2 * config->transfer_max) < 0)
		return fail(mover, -EOPNOTSUPP, "plain copies have no pinned memory: %s", trial_why());
	return 0;
}

int gpu_mover_open(const struct gpu_mover_config *config, struct gpu_mover *mover)
{
	const struct stoker_options options = {
		.size = sizeof(options), .client_name = "stoker-bench", .broker_uid = (uint32_t)bench_common.broker_uid,
		.attach_timeout_ms = BENCH_ATTACH_MS,
	};
	int r;

	memset(mover, 0, sizeof(*mover));
	mover->config = *config;
	r = open_device(mover);
	if (r < 0)
		return r;
	if (config->library)
		setenv("STOKER_CUDA_LIBRARY", config->library, 1);
	r = stoker_attach(config->broker, &options, &mover->stoker);
	if (r < 0)
		return fail(mover, r, "%s", stoker_attach_error());
	r = stoker_cuda_region_add(mover->stoker, mover->device, mover->device_bytes, &mover->region);
	return r < 0 ? fail(mover, r, "%s", stoker_error(mover->stoker)) : 0;
}

void gpu_mover_close(struct gpu_mover *mover)
{
	gpu_mover_point_end(mover);
	if (mover->region)
		stoker_region_drop(mover->region);
	stoker_close(mover->stoker);
	if (mover->device)
		trial_free(mover->device);
	free(mover->expected);
	free(mover->got);
	free(mover->before);
}

/* ---- points -------------------------------------------------------------------------------------- */

/* Such a stride makes no two of them neighbours. */
static void scatter(struct gpu_mover *mover)
{
	const uint32_t pool_blocks = POOL_FACTOR * mover->n_blocks;
	const uint32_t stride = stride_of(pool_blocks, pool_blocks * 3 / 8 | 1);

	for (uint32_t i = 0; i < mover->n_blocks; i++) {
		mover->load.ids[i] = (uint32_t)((uint64_t)i * stride % pool_blocks);
		mover->store.ids[i] = (uint32_t)((uint64_t)(i + mover->n_blocks) * stride % pool_blocks);
	}
}

int gpu_mover_point(struct gpu_mover *mover, uint32_t block_bytes, uint32_t n_blocks)
{
	const uint32_t per_object = n_blocks < GPU_BLOCKS ? n_blocks : GPU_BLOCKS;
	const struct stoker_group group = { .kind = STOKER_GROUP_FULL, .block_tokens = CHUNK_TOKENS / per_object };
	const struct stoker_plane_bytes row = { .bytes = block_bytes };
	const struct stoker_model_description description = {
		.size = sizeof(description), .chunk_tokens = CHUNK_TOKENS, .name = "gpu", .revision = "1",
		.groups = &group, .n_groups = 1, .rows = &row, .n_rows = 1,
	};
	const struct stoker_plane plane = { .region = mover->region, .bytes = block_bytes, .block_stride = block_bytes };
	int r = stoker_model_open(mover->stoker, &description, &mover->model);

	if (r == 0)
		r = stoker_pool_add(mover->model, 0, 0, POOL_FACTOR * n_blocks, &plane, 1, &mover->pool);
	if (r < 0)
		return fail(mover, r, "could not make a pool of blocks of %u bytes: %s", block_bytes,
			    stoker_error(mover->stoker));
	mover->block_bytes = block_bytes;
	mover->n_blocks = n_blocks;
	mover->per_object = per_object;
	mover->n_objects = n_blocks / per_object;
	mover->transfer_bytes = (uint64_t)n_blocks * block_bytes;
	mover->pool_bytes = POOL_FACTOR * mover->transfer_bytes;
	mover->first = true;
	scatter(mover);
	pattern_fill(mover->expected, mover->pool_bytes);
	return 0;
}

void gpu_mover_point_end(struct gpu_mover *mover)
{
	if (mover->pool)
		stoker_pool_drop(mover->pool);
	if (mover->model)
		stoker_model_close(mover->model);
	mover->pool = NULL;
	mover->model = NULL;
}

/* ---- bytes --------------------------------------------------------------------------------------- */

static uint8_t *expected_block(struct gpu_mover *mover, uint32_t id)
{
	return mover->expected + (uint64_t)id * mover->block_bytes;
}

/* New objects in the blocks that are stored. No other round, point or worker has their keys. */
static void fill_store(struct gpu_mover *mover)
{
	for (uint32_t i = 0; i < mover->n_objects; i++) {
		mover->store.keys[i] = payload_key(mover->config.run + ((uint64_t)mover->config.worker << 56 |
							       mover->rounds << 16 | i));
	}
	for (uint32_t b = 0; b < mover->n_blocks; b++) {
		const uint32_t object = b / mover->per_object;
		const uint64_t seed = payload_seed("gpu", &mover->store.keys[object], 0, 0);

		payload_fill(expected_block(mover, mover->store.ids[b]), seed,
			     (uint64_t)(b % mover->per_object) * mover->block_bytes, mover->block_bytes);
	}
	mover->rounds++;
	mover->first = false;
}

/* What the last store had, in the blocks that are loaded: as it must be afterwards. */
static void keep_store(struct gpu_mover *mover)
{
	for (uint32_t b = 0; b < mover->n_blocks; b++)
		memcpy(mover->before + (uint64_t)b * mover->block_bytes, expected_block(mover, mover->store.ids[b]),
		       mover->block_bytes);
	memcpy(mover->load.keys, mover->store.keys, mover->n_objects * sizeof(mover->load.keys[0]));
}

static void expect_load(struct gpu_mover *mover)
{
	for (uint32_t b = 0; b < mover->n_blocks; b++)
		memcpy(expected_block(mover, mover->load.ids[b]), mover->before + (uint64_t)b * mover->block_bytes,
		       mover->block_bytes);
}

static void wipe_load(struct gpu_mover *mover)
{
	for (uint32_t b = 0; b < mover->n_blocks; b++)
		pattern_fill(expected_block(mover, mover->load.ids[b]), mover->block_bytes);
}

static int device_as_expected(struct gpu_mover *mover)
{
	const int r = trial_put(mover->device, mover->expected, mover->pool_bytes);

	return r < 0 ? fail(mover, r, "could not fill the device's memory: %s", trial_why()) : 0;
}

static int check_device(struct gpu_mover *mover)
{
	const int r = trial_get(mover->got, mover->device, mover->pool_bytes);

	if (r < 0)
		return fail(mover, r, "could not fetch the device's memory: %s", trial_why());
	if (memcmp(mover->got, mover->expected, mover->pool_bytes) == 0)
		return 0;
	for (uint64_t i = 0; i < mover->pool_bytes; i++)
		mover->wrong += mover->got[i] != mover->expected[i];
	return 0;
}

/* ---- plain copies -------------------------------------------------------------------------------- */

static uint32_t plain_whole(const struct gpu_mover *mover, bool to_host, struct trial_copy *copies)
{
	copies[0] = (struct trial_copy){ .to_host = to_host, .bytes = mover->transfer_bytes,
					 .device = mover->device + (to_host ? mover->transfer_bytes : 0),
					 .host = mover->pinned + (to_host ? mover->transfer_bytes : 0) };
	return 1;
}

static uint32_t plain_pieces(const struct gpu_mover *mover, bool to_host, struct trial_copy *copies)
{
	const struct gpu_side *side = to_host ? &mover->store : &mover->load;
	uint8_t *host = mover->pinned + (to_host ? mover->transfer_bytes : 0);

	for (uint32_t b = 0; b < mover->n_blocks; b++)
		copies[b] = (struct trial_copy){ .to_host = to_host, .bytes = mover->block_bytes,
						 .device = mover->device + (uint64_t)side->ids[b] * mover->block_bytes,
						 .host = host + (uint64_t)b * mover->block_bytes };
	return mover->n_blocks;
}

/* Both kinds, in one direction or in both at once. The device's memory holds anything afterwards. */
static int plain(struct gpu_mover *mover, bool load, bool store, struct gpu_times *times)
{
	static struct trial_copy copies[2 * GPU_BLOCKS_MAX];
	uint32_t n = 0;
	uint64_t start;
	int r;

	if (load)
		n += plain_whole(mover, false, copies + n);
	if (store)
		n += plain_whole(mover, true, copies + n);
	start = now_ns();
	r = trial_copies(copies, n);
	times->whole = now_ns() - start;
	n = 0;
	if (load)
		n += plain_pieces(mover, false, copies + n);
	if (store)
		n += plain_pieces(mover, true, copies + n);
	start = now_ns();
	if (r == 0)
		r = trial_copies(copies, n);
	times->pieces = now_ns() - start;
	return r < 0 ? fail(mover, r, "a plain copy failed: %s", trial_why()) : 0;
}

/* ---- Stoker -------------------------------------------------------------------------------------- */

static int finish(struct gpu_mover *mover, const char *what, struct stoker_job job, struct stoker_result *ret,
		  uint32_t n)
{
	int r = stoker_wait(mover->stoker, job, WAIT_US);

	*ret = (struct stoker_result){ .size = sizeof(*ret) };
	if (r == 0)
		r = stoker_finish(mover->stoker, job, ret, NULL, 0, NULL, 0);
	if (r < 0)
		return fail(mover, r, "a %s is not over after %u s: %s", what, WAIT_US / 1000000, strerror(-r));
	if (ret->status != STOKER_STATUS_OK || ret->n != n)
		return fail(mover, -EIO, "a %s of %u objects ended with status \"%s\" and %u objects (%u, %u, %u)", what, n,
			    stoker_status_name(ret->status), ret->n, ret->counts[0], ret->counts[1], ret->counts[2]);
	return 0;
}

static int submit_store(struct gpu_mover *mover, struct stoker_job *ret)
{
	const struct stoker_blocks blocks = { .pool = mover->pool, .chunks = mover->n_objects, .ids = mover->store.ids };
	const struct stoker_store_options options = { .size = sizeof(options) };
	const int r = stoker_store(mover->stoker, mover->model, mover->store.keys, mover->n_objects, &blocks, 1, &options,
				   ret);

	return r < 0 ? fail(mover, r, "could not submit a store: %s", stoker_error(mover->stoker)) : 0;
}

static int submit_retrieve(struct gpu_mover *mover, const struct stoker_lease *lease, struct stoker_job *ret)
{
	const struct stoker_blocks blocks = { .pool = mover->pool, .chunks = mover->n_objects, .ids = mover->load.ids };
	const struct stoker_retrieve_options options = { .size = sizeof(options), .flags = STOKER_RETRIEVE_END_SHARE };
	const int r = stoker_retrieve(mover->stoker, mover->model, lease, &blocks, 1, &options, ret);

	return r < 0 ? fail(mover, r, "could not submit a retrieve: %s", stoker_error(mover->stoker)) : 0;
}

static int look_up(struct gpu_mover *mover, struct stoker_lease *ret)
{
	struct stoker_result result;
	struct stoker_job job;
	int r = stoker_lookup(mover->stoker, mover->model, mover->load.keys, mover->n_objects, NULL, &job);

	if (r < 0)
		return fail(mover, r, "could not submit a lookup: %s", stoker_error(mover->stoker));
	r = finish(mover, "lookup", job, &result, mover->n_objects);
	*ret = result.lease;
	return r;
}

static int timed_store(struct gpu_mover *mover, uint64_t *took)
{
	const uint64_t start = now_ns();
	struct stoker_result result;
	struct stoker_job job;
	int r = submit_store(mover, &job);

	if (r == 0)
		r = finish(mover, "store", job, &result, mover->n_objects);
	*took = now_ns() - start;
	return r;
}

static int timed_load(struct gpu_mover *mover, uint64_t *took)
{
	struct stoker_result result;
	struct stoker_lease lease;
	struct stoker_job job;
	uint64_t start;
	int r = look_up(mover, &lease);

	if (r < 0)
		return r;
	start = now_ns();
	r = submit_retrieve(mover, &lease, &job);
	if (r == 0)
		r = finish(mover, "retrieve", job, &result, mover->n_objects);
	*took = now_ns() - start;
	return r;
}

int gpu_mover_round(struct gpu_mover *mover, struct gpu_times *load, struct gpu_times *store)
{
	int r = plain(mover, true, false, load);

	if (r == 0)
		r = plain(mover, false, true, store);
	wipe_load(mover);
	fill_store(mover);
	keep_store(mover);
	if (r == 0)
		r = device_as_expected(mover);
	if (r == 0)
		r = timed_store(mover, &store->stoker);
	if (r == 0)
		r = timed_load(mover, &load->stoker);
	if (r < 0)
		return r;
	expect_load(mover);
	return check_device(mover);
}

static int timed_both(struct gpu_mover *mover, uint64_t *took)
{
	struct stoker_job loading, storing;
	struct stoker_result result;
	struct stoker_lease lease;
	uint64_t start;
	int r = look_up(mover, &lease);

	if (r < 0)
		return r;
	start = now_ns();
	r = submit_store(mover, &storing);
	if (r == 0)
		r = submit_retrieve(mover, &lease, &loading);
	if (r == 0)
		r = finish(mover, "retrieve", loading, &result, mover->n_objects);
	if (r == 0)
		r = finish(mover, "store", storing, &result, mover->n_objects);
	*took = now_ns() - start;
	return r;
}

int gpu_mover_round_both(struct gpu_mover *mover, struct gpu_times *both)
{
	const bool first = mover->first;
	uint64_t took = 0;
	int r = plain(mover, true, true, both);

	both->stoker = 0;
	wipe_load(mover);
	fill_store(mover);
	if (r == 0)
		r = device_as_expected(mover);
	if (r == 0)
		r = first ? timed_store(mover, &took) : timed_both(mover, &both->stoker);
	if (r < 0)
		return r;
	if (!first)
		expect_load(mover);
	r = check_device(mover);
	keep_store(mover);
	return r;
}
