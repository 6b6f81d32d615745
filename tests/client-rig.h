/* A handle attached to a fake broker, with a small model and pools: what tests of the library begin with. */
#ifndef TESTS_CLIENT_RIG_H
#define TESTS_CLIENT_RIG_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <stoker/stoker.h>

#include "tests/fake-broker.h"
#include "tests/suite.h"

#define RIG_BLOCKS 4u	/* blocks of a chunk: 64 tokens in blocks of 16 */

struct rig {
	char name[64];
	struct fake *fake;
	struct stoker *c;
	struct stoker_model *model;
	struct stoker_region *region;
	struct stoker_pool *pool;
};

static inline void rig_name(struct rig *rig, const char *what)
{
	snprintf(rig->name, sizeof(rig->name), "/stoker-test-%s-%d", what, (int)getpid());
}

static inline void rig_attach(struct rig *rig, const char *what, const struct fake_options *fake_options,
			      struct stoker_options *options)
{
	struct stoker_options patient = { 0 };	/* on a machine that is busy with other tests */

	memset(rig, 0, sizeof(*rig));
	rig_name(rig, what);
	rig->fake = fake_start(rig->name, fake_options);
	if (!options)
		options = &patient;
	options->size = sizeof(*options);
	options->attach_timeout_ms = 20000;
	ck_assert_msg(stoker_attach(rig->name, options, &rig->c) == 0, "%s", stoker_attach_error());
}

/* One full group, one shard, two layers of one plane each, 256 bytes a block. */
static inline void rig_model(struct rig *rig)
{
	const struct stoker_group group = { .kind = STOKER_GROUP_FULL, .block_tokens = 16 };
	const struct stoker_plane_bytes rows[2] = { { .layer = 0, .bytes = 256 }, { .layer = 1, .bytes = 256 } };
	const struct stoker_model_description description = {
		.size = sizeof(description), .chunk_tokens = 64, .name = "tiny", .revision = "1", .groups = &group,
		.n_groups = 1, .n_rows = 2, .rows = rows,
	};

	ck_assert_msg(stoker_model_open(rig->c, &description, &rig->model) == 0, "%s", stoker_error(rig->c));
}

static inline void rig_pool(struct rig *rig)
{
	const int fd = memfd_create("pool", MFD_CLOEXEC);
	const struct stoker_range range = { .fd = fd, .bytes = 1 << 20 };
	struct stoker_plane planes[2];

	expect(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
	ck_assert_msg(stoker_region_add(rig->c, &range, 1, &rig->region) == 0, "%s", stoker_error(rig->c));
	close(fd);
	/* In the other order than the model's rows: the library puts them right. */
	planes[0] = (struct stoker_plane){ .region = rig->region, .layer = 1, .bytes = 256, .offset = 524288,
					   .block_stride = 256 };
	planes[1] = (struct stoker_plane){ .region = rig->region, .layer = 0, .bytes = 64, .rows = 4, .offset = 0,
					   .block_stride = 256, .row_stride = 64 };
	ck_assert_msg(stoker_pool_add(rig->model, 0, 0, 1024, planes, 2, &rig->pool) == 0, "%s", stoker_error(rig->c));
}

static inline void rig_full(struct rig *rig, const char *what, const struct fake_options *fake_options,
			    struct stoker_options *options)
{
	rig_attach(rig, what, fake_options, options);
	rig_model(rig);
	rig_pool(rig);
}

static inline void rig_end(struct rig *rig)
{
	stoker_close(rig->c);
	if (rig->fake)
		fake_free(rig->fake);
}

/* @n different keys, from @seed on. */
static inline void rig_keys(struct stoker_key *keys, uint32_t n, uint32_t seed)
{
	memset(keys, 0, n * sizeof(*keys));
	for (uint32_t i = 0; i < n; i++) {
		const uint32_t value = seed + i;

		memcpy(keys[i].bytes, &value, sizeof(value));
	}
}

/* Take a request that must be there. */
static inline struct fake_request rig_take(struct rig *rig, enum stoker_op op)
{
	struct fake_request request;

	ck_assert_int_eq(fake_take(rig->fake, &request), 1);
	ck_assert_int_eq(request.head.op, op);
	return request;
}

static inline void rig_done(struct rig *rig, const struct fake_request *request, uint32_t status)
{
	const struct fake_answer answer = { .stage = STOKER_STAGE_DONE, .status = status };

	fake_publish(rig->fake, request->head.slot, request->head.generation, &answer);
}

static inline struct stoker_result rig_finish(struct rig *rig, struct stoker_job job)
{
	struct stoker_result result = { .size = sizeof(result) };

	ck_assert_int_eq(stoker_finish(rig->c, job, &result, NULL, 0, NULL, 0), 0);
	return result;
}

#endif
