/*
 * Pools of single tokens, whose blocks are named by runs: a run of some bytes names more blocks than a
 * request of its size may have when each is spelled out, and the broker has to have room for them.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <fcntl.h>

#include <stoker/stoker.h>

#include "tests/suite.h"
#include "tests/whole-rig.h"
#include "tests/worker-rig.h"

enum { TOKENS = 1024, CHUNKS = 64, BYTES = 64, GROUPS = 3 };
#define POOL ((size_t)CHUNKS * TOKENS * BYTES)

static struct stoker *c;
static struct stoker_model *model;
static struct stoker_pool *pool[GROUPS];
static uint8_t *memory;

static void setup(void)
{
	const int fd = memfd_create("pool", MFD_CLOEXEC);
	const struct stoker_range range = { .fd = fd, .bytes = GROUPS * POOL };
	struct stoker_group groups[GROUPS];
	struct stoker_plane_bytes rows[GROUPS];
	const struct stoker_model_description description = {
		.size = sizeof(description), .chunk_tokens = TOKENS, .name = "tokens", .groups = groups, .n_groups = GROUPS,
		.n_rows = GROUPS, .rows = rows,
	};
	struct stoker_region *region;

	whole_make();
	whole.memory = "256M";
	whole_start();
	ck_assert_msg(stoker_attach(whole.name, NULL, &c) == 0, "%s", stoker_attach_error());
	expect(fd >= 0 && posix_fallocate(fd, 0, GROUPS * POOL) == 0);
	memory = mmap(NULL, GROUPS * POOL, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	expect(memory != MAP_FAILED);
	ck_assert_msg(stoker_region_add(c, &range, 1, &region) == 0, "%s", stoker_error(c));
	close(fd);
	for (uint16_t g = 0; g < GROUPS; g++) {
		groups[g] = (struct stoker_group){ .kind = STOKER_GROUP_FULL, .block_tokens = 1 };
		rows[g] = (struct stoker_plane_bytes){ .group = g, .bytes = BYTES };
	}
	ck_assert_msg(stoker_model_open(c, &description, &model) == 0, "%s", stoker_error(c));
	for (uint32_t g = 0; g < GROUPS; g++) {
		const struct stoker_plane plane = { .region = region, .bytes = BYTES, .offset = g * POOL, .block_stride = BYTES };

		ck_assert_msg(stoker_pool_add(model, g, 0, CHUNKS * TOKENS, &plane, 1, &pool[g]) == 0, "%s", stoker_error(c));
	}
}

static void clean(void)
{
	stoker_close(c);
	munmap(memory, GROUPS * POOL);
	whole_clean();
}

static struct stoker_result finish(struct stoker_job job)
{
	struct stoker_result result = { .size = sizeof(result) };

	ck_assert_int_eq(stoker_wait(c, job, 60000000), 0);
	ck_assert_int_eq(stoker_finish(c, job, &result, NULL, 0, NULL, 0), 0);
	return result;
}

/* One run a pool, of all its tokens: store, look up, and bring back every byte. */
START_TEST(a_run_may_name_every_token_of_a_pool)
{
	const uint32_t run[2] = { 0, CHUNKS * TOKENS };
	struct stoker_blocks blocks[GROUPS];
	struct stoker_key keys[CHUNKS];
	struct stoker_result result;
	struct stoker_job job;

	worker_keys(keys, 0, CHUNKS);
	for (uint32_t g = 0; g < GROUPS; g++)
		blocks[g] = (struct stoker_blocks){ .pool = pool[g], .chunks = CHUNKS, .ids = run, .runs = 1 };
	for (size_t i = 0; i < GROUPS * POOL / 8; i++)
		((uint64_t *)memory)[i] = i * 0x9e3779b97f4a7c15ull;
	ck_assert_int_eq(stoker_store(c, model, keys, CHUNKS, blocks, GROUPS, NULL, &job), 0);
	result = finish(job);
	ck_assert_uint_eq(result.status, STOKER_STATUS_OK);
	ck_assert_uint_eq(result.n, CHUNKS);
	ck_assert_int_eq(stoker_lookup(c, model, keys, CHUNKS, NULL, &job), 0);
	result = finish(job);
	ck_assert_uint_eq(result.n, CHUNKS);
	memset(memory, 0, GROUPS * POOL);
	ck_assert_int_eq(stoker_retrieve(c, model, &result.lease, blocks, GROUPS, NULL, &job), 0);
	result = finish(job);
	ck_assert_uint_eq(result.status, STOKER_STATUS_OK);
	for (size_t i = 0; i < GROUPS * POOL / 8; i++)
		ck_assert_uint_eq(((uint64_t *)memory)[i], i * 0x9e3779b97f4a7c15ull);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("token-pools");
	TCase *tests = tcase_create("runs");

	tcase_add_checked_fixture(tests, setup, clean);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, a_run_may_name_every_token_of_a_pool);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
