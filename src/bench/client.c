#include "config.h"

#include "src/bench/client.h"

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
#include "src/bench/machine.h"
#include "src/bench/payload.h"

#define CHUNK_TOKENS	512u	/* as in Mooncake's traces */
#define SPIN_NS		30000u	/* before a wait sleeps: the other processes want the core too */
#define WAIT_US		60000000u
#define LAYERS_MAX	8u
#define PLANES_MAX	8u

/* Four layers of K and V where the size allows it, else one plane. */
static uint32_t planes_of(uint64_t object_bytes, uint64_t blocks)
{
	return object_bytes % (blocks * 8 * 64) == 0 ? 8 : 1;
}

int client_check(uint64_t object_bytes, uint64_t blocks)
{
	if (blocks == 0 || blocks > CHUNK_TOKENS || CHUNK_TOKENS % blocks) {
		bench_say("an object of a chunk of %u tokens has 1, 2, 4 ... %u blocks, not %llu", CHUNK_TOKENS,
			  CHUNK_TOKENS, (unsigned long long)blocks);
		return -EINVAL;
	}
	if (object_bytes == 0 || object_bytes % (blocks * 64) || object_bytes > 1ull << 30) {
		bench_say("an object of %llu blocks has a multiple of %llu bytes, up to 1G, not %llu",
			  (unsigned long long)blocks, (unsigned long long)blocks * 64,
			  (unsigned long long)object_bytes);
		return -EINVAL;
	}
	return 0;
}

int client_fail(struct client *client, int r, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(client->why, sizeof(client->why), format, arguments);
	va_end(arguments);
	return r;
}

static uint64_t plane_offset(const struct client *client, uint32_t plane)
{
	return (uint64_t)plane * client->pool_blocks * client->block_bytes;
}

static uint8_t *block_at(const struct client *client, uint32_t plane, uint32_t id)
{
	return client->memory + plane_offset(client, plane) + (uint64_t)id * client->block_bytes;
}

/* Shared memory that nobody can shrink, all of it there: what the broker asks of a pool. */
static int make_memory(struct client *client, int *ret_fd)
{
	const uint64_t bytes = plane_offset(client, client->layers * client->planes);
	int fd = memfd_create("stoker-bench-pool", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	client->memory_bytes = (bytes + 4095) & ~4095ull;
	if (fd < 0)
		return client_fail(client, -errno, "could not make shared memory: %s", strerror(errno));
	*ret_fd = fd;
	fchmod(fd, 0600);
	if (posix_fallocate(fd, 0, (off_t)client->memory_bytes) != 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return client_fail(client, -ENOMEM, "could not reserve %zu bytes of shared memory for a pool",
				   client->memory_bytes);
	client->memory = mmap(NULL, client->memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (client->memory == MAP_FAILED) {
		client->memory = NULL;
		return client_fail(client, -ENOMEM, "could not map %zu bytes of a pool", client->memory_bytes);
	}
	pattern_fill(client->memory, client->memory_bytes);
	return 0;
}

static int open_model(struct client *client)
{
	struct stoker_plane_bytes rows[LAYERS_MAX * PLANES_MAX];
	const struct stoker_group group = {
		.kind = STOKER_GROUP_FULL,
		.block_tokens = CHUNK_TOKENS / client->config.blocks,
	};
	const struct stoker_model_description description = {
		.size = sizeof(description),
		.chunk_tokens = CHUNK_TOKENS,
		.name = client->config.model,
		.revision = "1",
		.groups = &group,
		.n_groups = 1,
		.rows = rows,
		.n_rows = client->layers * client->planes,
	};
	int r;

	for (uint32_t i = 0; i < description.n_rows; i++) {
		rows[i] = (struct stoker_plane_bytes){
			.layer = (uint16_t)(i / client->planes),
			.plane = (uint16_t)(i % client->planes),
			.bytes = client->block_bytes,
		};
	}
	r = stoker_model_open(client->stoker, &description, &client->model);
	if (r < 0)
		return client_fail(client, r, "could not open the model: %s", stoker_error(client->stoker));
	return 0;
}

static int add_pool(struct client *client, int fd)
{
	const struct stoker_range range = { .fd = fd, .bytes = client->memory_bytes };
	struct stoker_plane planes[LAYERS_MAX * PLANES_MAX];
	const uint32_t n = client->layers * client->planes;
	int r = stoker_region_add(client->stoker, &range, 1, &client->region);

	if (r < 0)
		return client_fail(client, r, "could not register memory: %s", stoker_error(client->stoker));
	for (uint32_t i = 0; i < n; i++) {
		planes[i] = (struct stoker_plane){
			.region = client->region,
			.layer = (uint16_t)(i / client->planes),
			.plane = (uint16_t)(i % client->planes),
			.bytes = client->block_bytes,
			.offset = plane_offset(client, i),
			.block_stride = client->block_bytes,
		};
	}
	r = stoker_pool_add(client->model, 0, 0, client->pool_blocks, planes, n, &client->pool);
	if (r < 0)
		return client_fail(client, r, "could not register a pool: %s", stoker_error(client->stoker));
	return 0;
}

static int attach(struct client *client)
{
	const struct stoker_options options = { .size = sizeof(options), .client_name = "stoker-bench" };
	int r = stoker_attach(client->config.broker, &options, &client->stoker);

	if (r < 0)
		return client_fail(client, r, "could not attach to \"%s\": %s", client->config.broker,
				   stoker_attach_error());
	return 0;
}

int client_open(const struct client_config *config, struct client *client)
{
	const uint32_t objects = 2 * config->window, n = planes_of(config->object_bytes, config->blocks);
	int fd = -1, r;

	*client = (struct client){ .config = *config };
	client->planes = n > 1 ? 2 : 1;
	client->layers = n / client->planes;
	client->block_bytes = (uint32_t)(config->object_bytes / n / config->blocks);
	client->pool_blocks = objects * config->blocks;
	client->ids = calloc((size_t)config->window * config->blocks, sizeof(*client->ids));
	client->taken = calloc(client->pool_blocks, 1);
	if (!client->ids || !client->taken)
		return client_fail(client, -ENOMEM, "no memory for block ids");
	r = attach(client);
	if (r == 0)
		r = open_model(client);
	if (r == 0)
		r = make_memory(client, &fd);
	if (r == 0)
		r = add_pool(client, fd);
	if (fd >= 0)
		close(fd);
	return r;
}

void client_close(struct client *client)
{
	if (client->pool)
		stoker_pool_drop(client->pool);
	if (client->region)
		stoker_region_drop(client->region);
	if (client->model)
		stoker_model_close(client->model);
	stoker_close(client->stoker);
	if (client->memory)
		munmap(client->memory, client->memory_bytes);
	free(client->ids);
	free(client->taken);
	*client = (struct client){ 0 };
}

/* ---- bytes ------------------------------------------------------------------------------------- */

static uint32_t greatest_divisor(uint32_t a, uint32_t b)
{
	while (b) {
		const uint32_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

void client_choose(struct client *client, uint64_t turn, uint32_t n)
{
	const uint32_t blocks = client->pool_blocks;
	uint32_t stride = blocks / 3 | 1;

	/* Any stride without a common divisor visits every block once. */
	while (greatest_divisor(stride, blocks) != 1)
		stride++;
	memset(client->taken, 0, blocks);
	for (uint32_t i = 0; i < n * client->config.blocks; i++) {
		const uint32_t id = (uint32_t)(((uint64_t)i * stride + turn * 7) % blocks);

		client->ids[i] = id;
		client->taken[id] = 1;
	}
}

/* Where in the payload a block lies: layer-major, then planes, then blocks in token order. */
static uint64_t payload_offset(const struct client *client, uint32_t plane, uint32_t block)
{
	return ((uint64_t)plane * client->config.blocks + block) * client->block_bytes;
}

void client_fill(struct client *client, const struct stoker_key *keys, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		const uint64_t seed = payload_seed(client->config.model, &keys[i], 0, 0);

		for (uint32_t p = 0; p < client->layers * client->planes; p++) {
			for (uint32_t b = 0; b < client->config.blocks; b++)
				payload_fill(block_at(client, p, client->ids[i * client->config.blocks + b]), seed,
					     payload_offset(client, p, b), client->block_bytes);
		}
	}
}

void client_wipe(struct client *client, uint32_t n)
{
	for (uint32_t p = 0; p < client->layers * client->planes; p++) {
		for (uint32_t i = 0; i < n * client->config.blocks; i++)
			pattern_fill(block_at(client, p, client->ids[i]), client->block_bytes);
	}
}

static uint64_t wrong_of_object(const struct client *client, const struct stoker_key *key, const uint32_t *ids)
{
	const uint64_t seed = payload_seed(client->config.model, key, 0, 0);
	uint64_t wrong = 0;

	for (uint32_t p = 0; p < client->layers * client->planes; p++) {
		for (uint32_t b = 0; b < client->config.blocks; b++)
			wrong += payload_wrong(block_at(client, p, ids[b]), seed, payload_offset(client, p, b),
					       client->block_bytes);
	}
	return wrong;
}

uint64_t client_wrong(const struct client *client, const struct stoker_key *keys, uint32_t n)
{
	const uint64_t end = plane_offset(client, client->layers * client->planes);
	uint64_t wrong = 0;

	for (uint32_t i = 0; i < n; i++)
		wrong += wrong_of_object(client, &keys[i], client->ids + i * client->config.blocks);
	for (uint32_t p = 0; p < client->layers * client->planes; p++) {
		for (uint32_t id = 0; id < client->pool_blocks; id++) {
			if (!client->taken[id])
				wrong += pattern_wrong(block_at(client, p, id), client->block_bytes);
		}
	}
	return wrong + pattern_wrong(client->memory + end, client->memory_bytes - end);
}

struct stoker_blocks client_blocks(const struct client *client, uint32_t first, uint32_t n)
{
	return (struct stoker_blocks){ .pool = client->pool, .first = first, .chunks = n, .ids = client->ids };
}

/* ---- jobs -------------------------------------------------------------------------------------- */

int client_wait(struct client *client, struct stoker_job job)
{
	const uint64_t start = now_ns();
	uint64_t now = start;
	int r;

	while (now - start < SPIN_NS) {
		const uint64_t before = now;

		for (uint32_t i = 0; i < CLIENT_POLLS; i++) {
			if (stoker_poll(client->stoker, job) == STOKER_STAGE_DONE)
				return 0;
		}
		now = now_ns();
		if (client->polls)
			samples_add(client->polls, now - before);
	}
	r = stoker_wait(client->stoker, job, WAIT_US);
	if (r < 0)
		return client_fail(client, r, "a job is not over after %u s: %s", WAIT_US / 1000000, strerror(-r));
	return 0;
}

int client_finish(struct client *client, const char *what, struct stoker_job job, struct stoker_result *ret,
		  uint8_t *chunks, uint32_t n_chunks)
{
	int r = client_wait(client, job);

	if (r < 0)
		return r;
	*ret = (struct stoker_result){ .size = sizeof(*ret) };
	r = stoker_finish(client->stoker, job, ret, NULL, 0, chunks, n_chunks);
	if (r < 0)
		return client_fail(client, r, "could not finish a %s: %s", what, strerror(-r));
	if (ret->status != STOKER_STATUS_OK)
		return client_fail(client, ret->status == STOKER_STATUS_BROKER_GONE ? -EPIPE : -EIO,
				   "a %s ended with status \"%s\": %s", what, stoker_status_name(ret->status),
				   stoker_status_meaning(ret->status));
	return 0;
}
