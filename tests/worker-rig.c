#include "tests/worker-rig.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/suite.h"
#include "tests/whole-rig.h"

/* Longer than anything may take on a machine that has other things to do. */
#define PATIENCE_S 60

static void model_open(struct worker *w)
{
	static const struct stoker_group group = { .kind = STOKER_GROUP_FULL, .block_tokens = 32 };
	struct stoker_plane_bytes rows[WORKER_ROWS];
	const struct stoker_model_description description = {
		.size = sizeof(description), .chunk_tokens = 32 * WORKER_BLOCKS, .name = "whole", .revision = "1",
		.groups = &group, .n_groups = 1, .n_rows = WORKER_ROWS, .rows = rows,
	};

	for (uint16_t i = 0; i < WORKER_ROWS; i++)
		rows[i] = (struct stoker_plane_bytes){ .layer = i / 2, .plane = i % 2, .bytes = WORKER_BYTES };
	expect_msg(stoker_model_open(w->c, &description, &w->model) == 0, "%s", stoker_error(w->c));
}

static void pool_add(struct worker *w)
{
	const int fd = memfd_create("pool", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	const struct stoker_range range = { .fd = fd, .bytes = WORKER_POOL };
	struct stoker_plane planes[WORKER_ROWS];

	expect(fd >= 0 && posix_fallocate(fd, 0, (off_t)WORKER_POOL) == 0);
	w->memory = mmap(NULL, WORKER_POOL, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	w->expected = calloc(1, WORKER_POOL);
	expect(w->memory != MAP_FAILED && w->expected);
	expect_msg(stoker_region_add(w->c, &range, 1, &w->region) == 0, "%s", stoker_error(w->c));
	close(fd);
	for (uint16_t i = 0; i < WORKER_ROWS; i++)
		planes[i] = (struct stoker_plane){ .region = w->region, .layer = i / 2, .plane = i % 2,
						   .bytes = WORKER_BYTES, .offset = i * WORKER_PLANE,
						   .block_stride = WORKER_BYTES };
	expect_msg(stoker_pool_add(w->model, 0, 0, WORKER_POOL_BLOCKS, planes, WORKER_ROWS, &w->pool) == 0, "%s",
		   stoker_error(w->c));
}

void worker_attach(struct worker *w)
{
	memset(w, 0, sizeof(*w));
	expect_msg(stoker_attach(whole.name, NULL, &w->c) == 0, "%s", stoker_attach_error());
	model_open(w);
}

void worker_start(struct worker *w)
{
	worker_attach(w);
	pool_add(w);
}

void worker_end(struct worker *w)
{
	stoker_close(w->c);
	munmap(w->memory, WORKER_POOL);
	free(w->expected);
}

void worker_wipe(struct worker *w, uint8_t byte)
{
	memset(w->memory, byte, WORKER_POOL);
	memset(w->expected, byte, WORKER_POOL);
}

/* Word @i of block @block in row @row of a chunk. */
static uint64_t kv(uint32_t chunk, uint32_t row, uint32_t block, uint32_t i)
{
	const uint64_t x = ((uint64_t)chunk << 32 | row << 24 | block << 16 | i) * 0x9e3779b97f4a7c15ull;

	return x ^ x >> 29;
}

void worker_fill(uint8_t *memory, uint32_t place, uint32_t chunk)
{
	for (uint32_t row = 0; row < WORKER_ROWS; row++) {
		for (uint32_t block = 0; block < WORKER_BLOCKS; block++) {
			uint64_t *at = (uint64_t *)(memory + row * WORKER_PLANE + (place * WORKER_BLOCKS + block) * WORKER_BYTES);

			for (uint32_t i = 0; i < WORKER_BYTES / 8; i++)
				at[i] = kv(chunk, row, block, i);
		}
	}
}

bool worker_holds(const uint8_t *memory, uint32_t place, uint32_t chunk)
{
	for (uint32_t row = 0; row < WORKER_ROWS; row++) {
		for (uint32_t block = 0; block < WORKER_BLOCKS; block++) {
			const uint64_t *at = (const uint64_t *)(memory + row * WORKER_PLANE +
								(place * WORKER_BLOCKS + block) * WORKER_BYTES);

			for (uint32_t i = 0; i < WORKER_BYTES / 8; i++) {
				if (at[i] != kv(chunk, row, block, i))
					return false;
			}
		}
	}
	return true;
}

void worker_check(const struct worker *w)
{
	if (memcmp(w->memory, w->expected, WORKER_POOL) == 0)
		return;
	for (size_t i = 0; i < WORKER_POOL; i++) {
		if (w->memory[i] != w->expected[i])
			ck_abort_msg("byte %zu of row %zu, block %zu is wrong", i % WORKER_BYTES, i / WORKER_PLANE,
				     i % WORKER_PLANE / WORKER_BYTES);
	}
}

void worker_keys(struct stoker_key *keys, uint32_t first, uint32_t n)
{
	memset(keys, 0, n * sizeof(*keys));
	for (uint32_t i = 0; i < n; i++) {
		const uint32_t number = first + i + 1;

		memcpy(keys[i].bytes, &number, sizeof(number));
		memcpy(keys[i].bytes + 16, "whole", 5);
	}
}

static void ids_make(uint32_t *ids, uint32_t n, uint32_t place, uint32_t step)
{
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t block = 0; block < WORKER_BLOCKS; block++)
			ids[i * WORKER_BLOCKS + block] = (place + i * step) * WORKER_BLOCKS + block;
}

int worker_store(struct worker *w, uint32_t first, uint32_t n, uint32_t place, uint32_t step, struct stoker_job *ret)
{
	struct stoker_key keys[WORKER_CHUNKS], parent;
	uint32_t ids[WORKER_POOL_BLOCKS];
	const struct stoker_blocks blocks = { .pool = w->pool, .chunks = n, .ids = ids };
	struct stoker_store_options options = { .size = sizeof(options) };

	expect(place + (n - 1) * step < WORKER_CHUNKS);
	worker_keys(keys, first, n);
	if (first % 1000 > 0) {
		worker_keys(&parent, first - 1, 1);
		options.parent = &parent;
		options.first_token = first % 1000 * 32 * WORKER_BLOCKS;
	}
	ids_make(ids, n, place, step);
	for (uint32_t i = 0; i < n; i++) {
		worker_fill(w->memory, place + i * step, first + i);
		worker_fill(w->expected, place + i * step, first + i);
	}
	return stoker_store(w->c, w->model, keys, n, &blocks, 1, &options, ret);
}

int worker_retrieve(struct worker *w, const struct stoker_lease *lease, uint32_t n, uint32_t place, uint32_t step,
		    const struct stoker_retrieve_options *options, struct stoker_job *ret)
{
	uint32_t ids[WORKER_POOL_BLOCKS];
	const struct stoker_blocks blocks = { .pool = w->pool, .chunks = n, .ids = ids };

	expect(place + (n - 1) * step < WORKER_CHUNKS);
	ids_make(ids, n, place, step);
	return stoker_retrieve(w->c, w->model, lease, &blocks, 1, options, ret);
}

struct stoker_result worker_finish(struct worker *w, struct stoker_job job)
{
	struct stoker_result result = { .size = sizeof(result) };
	const int r = stoker_wait(w->c, job, PATIENCE_S * 1000000ull);

	expect_msg(r == 0, "a job does not end: %s; stage %s", strerror(-r), stoker_stage_name(stoker_poll(w->c, job)));
	expect_eq(stoker_finish(w->c, job, &result, NULL, 0, NULL, 0), 0);
	return result;
}

void worker_stores(struct worker *w, uint32_t first, uint32_t n)
{
	struct stoker_result result;
	struct stoker_job job;

	expect_msg(worker_store(w, first, n, 0, 1, &job) == 0, "%s", stoker_error(w->c));
	result = worker_finish(w, job);
	expect_eq(result.status, STOKER_STATUS_OK);
	expect_eq(result.n, n);
}

struct stoker_result worker_looks_up(struct worker *w, uint32_t first, uint32_t n)
{
	struct stoker_key keys[WORKER_CHUNKS];
	struct stoker_job job;

	worker_keys(keys, first, n);
	expect_msg(stoker_lookup(w->c, w->model, keys, n, NULL, &job) == 0, "%s", stoker_error(w->c));
	return worker_finish(w, job);
}

struct stoker_result worker_gets(struct worker *w, uint32_t first, uint32_t n, uint32_t found)
{
	const struct stoker_result result = worker_looks_up(w, first, n);
	struct stoker_result retrieved;
	struct stoker_job job;

	expect_eq(result.status, STOKER_STATUS_OK);
	expect_eq(result.n, found);
	worker_wipe(w, 0xa5);
	if (found == 0)
		return result;
	for (uint32_t i = 0; i < found; i++)
		worker_fill(w->expected, i, first + i);
	expect_msg(worker_retrieve(w, &result.lease, found, 0, 1, NULL, &job) == 0, "%s", stoker_error(w->c));
	retrieved = worker_finish(w, job);
	expect_eq(retrieved.status, STOKER_STATUS_OK);
	expect_eq(retrieved.n, found);
	worker_check(w);
	expect_eq(stoker_release(w->c, &result.lease, 0), 0);
	return result;
}
