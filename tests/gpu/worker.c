#include "tests/gpu/worker.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAIT_US		30000000u
#define GUARD		0xdb

void give_up(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(1);
}

/* ---- where things are ---------------------------------------------------------------------------- */

static void lay_out(struct gpu_worker *w)
{
	const struct layout *l = &w->layout;
	const uint64_t row_stride = (uint64_t)l->row_bytes * (l->rows > 1 ? 2 : 1);
	const uint64_t span = row_stride * l->rows;

	w->n_planes = l->layers * l->planes;
	w->per_object = WORKER_CHUNK_TOKENS / l->block_tokens;
	w->row_stride = row_stride;
	w->block_stride = l->packed ? span * w->n_planes : span;
	for (uint32_t p = 0; p < w->n_planes; p++)
		w->plane_at[p] = 4096 + (l->packed ? p * span : p * span * l->n_blocks);
	w->bytes = 4096 + span * w->n_planes * l->n_blocks + 4096;
}

static uint8_t *row_of(const struct gpu_worker *w, uint8_t *memory, uint32_t plane, uint32_t block, uint32_t row)
{
	return memory + w->plane_at[plane] + block * w->block_stride + row * w->row_stride;
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static void fill_row(uint8_t *to, uint32_t bytes, uint64_t seed)
{
	for (uint32_t i = 0; i < bytes; i += 8) {
		const uint64_t word = mix(seed + i);

		memcpy(to + i, &word, bytes - i < 8 ? bytes - i : 8);
	}
}

struct stoker_key worker_key(uint64_t name, uint32_t chunk)
{
	const uint64_t words[4] = { mix(name), chunk, name, mix(chunk + 1) };
	struct stoker_key key;

	memcpy(key.bytes, words, sizeof(key.bytes));
	return key;
}

void worker_expect(struct gpu_worker *w, uint64_t name, uint32_t chunk, const uint32_t *ids, uint32_t layer_first,
		   uint32_t layer_end)
{
	const struct layout *l = &w->layout;

	for (uint32_t p = layer_first * l->planes; p < layer_end * l->planes; p++) {
		for (uint32_t b = 0; b < w->per_object; b++) {
			for (uint32_t r = 0; r < l->rows; r++)
				fill_row(row_of(w, w->expected, p, ids[b], r), l->row_bytes,
					 mix(mix(mix(name) + chunk) + ((uint64_t)p << 40) + ((uint64_t)b << 20) + r));
		}
	}
}

void worker_wipe(struct gpu_worker *w)
{
	memset(w->expected, GUARD, w->bytes);
}

void worker_upload(struct gpu_worker *w)
{
	if (trial_put(w->device, w->expected, w->bytes) < 0)
		give_up("could not fill the device's memory: %s", trial_why());
}

uint64_t worker_wrong(struct gpu_worker *w)
{
	uint64_t wrong = 0;

	if (trial_get(w->got, w->device, w->bytes) < 0)
		give_up("could not fetch the device's memory: %s", trial_why());
	for (uint64_t i = 0; i < w->bytes; i++)
		wrong += w->got[i] != w->expected[i];
	return wrong;
}

/* ---- a worker ------------------------------------------------------------------------------------ */

static void open_model(struct gpu_worker *w)
{
	const struct layout *l = &w->layout;
	const struct stoker_group group = { .kind = STOKER_GROUP_FULL, .block_tokens = l->block_tokens };
	struct stoker_plane_bytes rows[WORKER_PLANES_MAX];
	struct stoker_plane planes[WORKER_PLANES_MAX];
	const struct stoker_model_description description = {
		.size = sizeof(description), .chunk_tokens = WORKER_CHUNK_TOKENS, .name = l->name, .revision = "1",
		.groups = &group, .n_groups = 1, .rows = rows, .n_rows = w->n_planes,
	};

	for (uint32_t p = 0; p < w->n_planes; p++) {
		const uint16_t layer = (uint16_t)(p / l->planes), plane = (uint16_t)(p % l->planes);

		rows[p] = (struct stoker_plane_bytes){ .layer = layer, .plane = plane, .bytes = l->rows * l->row_bytes };
		planes[p] = (struct stoker_plane){ .region = w->region, .layer = layer, .plane = plane, .bytes = l->row_bytes,
						   .rows = l->rows, .offset = w->plane_at[p], .row_stride = w->row_stride,
						   .block_stride = w->block_stride };
	}
	if (stoker_model_open(w->c, &description, &w->model) < 0 ||
	    stoker_pool_add(w->model, 0, 0, l->n_blocks, planes, w->n_planes, &w->pool) < 0)
		give_up("could not make a pool of layout %s: %s", l->name, stoker_error(w->c));
}

void worker_open(struct gpu_worker *w, const char *broker, const char *library, enum trial_memory memory,
		 const struct layout *layout)
{
	const struct stoker_options options = { .size = sizeof(options), .attach_timeout_ms = 10000 };

	memset(w, 0, sizeof(*w));
	w->layout = *layout;
	lay_out(w);
	if (library)
		setenv("STOKER_CUDA_LIBRARY", library, 1);
	if (trial_open(library) < 0 || trial_alloc(memory, w->bytes, &w->device) < 0 || !(w->stream = trial_stream()))
		give_up("could not get %llu bytes of a GPU: %s", (unsigned long long)w->bytes, trial_why());
	w->expected = malloc(w->bytes);
	w->got = malloc(w->bytes);
	if (!w->expected || !w->got)
		give_up("out of memory");
	worker_wipe(w);
	worker_upload(w);
	if (stoker_attach(broker, &options, &w->c) < 0)
		give_up("could not attach: %s", stoker_attach_error());
	if (stoker_cuda_region_add(w->c, w->device, w->bytes, &w->region) < 0)
		give_up("could not register memory: %s", stoker_error(w->c));
	open_model(w);
}

void worker_close(struct gpu_worker *w)
{
	if (stoker_pool_drop(w->pool) < 0 || stoker_region_drop(w->region) < 0)
		give_up("could not drop pool and region: %s", stoker_error(w->c));
	stoker_model_close(w->model);
	stoker_close(w->c);
	if (trial_free(w->device) < 0)
		give_up("could not free device memory: %s", trial_why());
	free(w->expected);
	free(w->got);
}

/* ---- jobs ---------------------------------------------------------------------------------------- */

uint32_t worker_finish(struct gpu_worker *w, struct stoker_job job, uint32_t *ret_n)
{
	struct stoker_result result = { .size = sizeof(result) };

	if (stoker_wait(w->c, job, WAIT_US) < 0)
		give_up("a job is not over after %u s", WAIT_US / 1000000);
	if (stoker_finish(w->c, job, &result, NULL, 0, NULL, 0) < 0)
		give_up("could not finish a job: %s", stoker_error(w->c));
	if (ret_n)
		*ret_n = result.n;
	return result.status;
}

void worker_store(struct gpu_worker *w, uint64_t name, uint32_t chunks, const uint32_t *ids,
		  const struct stoker_store_options *options, struct stoker_job *ret)
{
	const struct stoker_blocks blocks = { .pool = w->pool, .chunks = chunks, .ids = ids };
	struct stoker_key keys[WORKER_IDS_MAX];

	for (uint32_t i = 0; i < chunks; i++)
		keys[i] = worker_key(name, i);
	if (stoker_store(w->c, w->model, keys, chunks, &blocks, 1, options, ret) < 0)
		give_up("could not submit a store: %s", stoker_error(w->c));
}

struct stoker_lease worker_look_up(struct gpu_worker *w, uint64_t name, uint32_t chunks)
{
	struct stoker_result result = { .size = sizeof(result) };
	struct stoker_key keys[WORKER_IDS_MAX];
	struct stoker_job job;

	for (uint32_t i = 0; i < chunks; i++)
		keys[i] = worker_key(name, i);
	if (stoker_lookup(w->c, w->model, keys, chunks, NULL, &job) < 0)
		give_up("could not submit a lookup: %s", stoker_error(w->c));
	if (stoker_wait(w->c, job, WAIT_US) < 0 || stoker_finish(w->c, job, &result, NULL, 0, NULL, 0) < 0)
		give_up("a lookup is not over after %u s", WAIT_US / 1000000);
	if (result.n != chunks)
		give_up("%u of %u chunks are there after their store", result.n, chunks);
	return result.lease;
}

void worker_retrieve(struct gpu_worker *w, const struct stoker_lease *lease, uint32_t chunks, const uint32_t *ids,
		     const struct stoker_retrieve_options *options, struct stoker_job *ret)
{
	const struct stoker_blocks blocks = { .pool = w->pool, .chunks = chunks, .ids = ids };

	if (stoker_retrieve(w->c, w->model, lease, &blocks, 1, options, ret) < 0)
		give_up("could not submit a retrieve: %s", stoker_error(w->c));
}

static uint32_t greatest_divisor(uint32_t a, uint32_t b)
{
	while (b) {
		const uint32_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

void worker_choose(const struct gpu_worker *w, uint64_t turn, uint32_t set, uint32_t chunks, uint32_t *ids)
{
	const uint32_t n = chunks * w->per_object, blocks = w->layout.n_blocks;
	uint32_t stride = blocks * 3 / 8 | 1;

	if (n > WORKER_IDS_MAX || (set + 1) * n > blocks)
		give_up("a pool of %u blocks has no %u for set %u", blocks, n, set);
	/* In some turns neighbours, which become one copy. */
	if (turn % 3 == 2)
		stride = 1;
	while (greatest_divisor(stride, blocks) != 1)
		stride += 2;
	for (uint32_t i = 0; i < n; i++)
		ids[i] = (uint32_t)(((uint64_t)(i + set * n) * stride + turn * 7) % blocks);
}

uint64_t worker_round_trip(struct gpu_worker *w, uint64_t name, uint32_t chunks)
{
	const uint32_t layers = w->layout.layers;
	uint32_t from[WORKER_IDS_MAX], to[WORKER_IDS_MAX], n, status;
	struct stoker_lease lease;
	struct stoker_job job;

	worker_choose(w, name, 0, chunks, from);
	worker_choose(w, name, 1, chunks, to);
	worker_wipe(w);
	for (uint32_t i = 0; i < chunks; i++)
		worker_expect(w, name, i, from + i * w->per_object, 0, layers);
	worker_upload(w);
	worker_store(w, name, chunks, from, NULL, &job);
	status = worker_finish(w, job, &n);
	if (status != STOKER_STATUS_OK || n != chunks)
		give_up("a store of %u chunks ended with \"%s\" and %u chunks", chunks, stoker_status_name(status), n);
	lease = worker_look_up(w, name, chunks);
	worker_retrieve(w, &lease, chunks, to, &(struct stoker_retrieve_options){
			.size = sizeof(struct stoker_retrieve_options), .flags = STOKER_RETRIEVE_END_SHARE }, &job);
	status = worker_finish(w, job, &n);
	if (status != STOKER_STATUS_OK || n != chunks)
		give_up("a retrieve of %u chunks ended with \"%s\" and %u chunks", chunks, stoker_status_name(status), n);
	for (uint32_t i = 0; i < chunks; i++)
		worker_expect(w, name, i, to + i * w->per_object, 0, layers);
	return worker_wrong(w);
}
