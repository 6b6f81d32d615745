/*
 * A kernel or a file system that refuses what the disk tier would rather have: it works the slower way,
 * end to end, and says once at each start what is missing and how to mend it.
 */
#include <signal.h>
#include <stdio.h>

#include "tests/suite.h"
#include "tests/whole-rig.h"
#include "tests/worker-rig.h"

#define NO_IO_URING "tier disk0: cannot use io_uring: Operation not permitted, so it moves one piece at a time; allow io_uring "
#define NO_O_DIRECT " has no O_DIRECT, so its bytes pass through the page cache, slower and in memory twice; use ext4 or xfs"

static const struct { const char *forbidden; uint32_t io_uring, o_direct; const char *way; } kinds[] = {
	{ "io_uring", 1, 0, " objects, pread and pwrite, " },
	{ "o_direct", 0, 1, ", buffered" },
	{ "io_uring,o_direct", 1, 1, " objects, pread and pwrite, buffered" },
};

static void setup(void)
{
	whole_make();
	whole.tier = true;
}

static void told(uint32_t kind, uint32_t times)
{
	ck_assert_uint_eq(whole_logged(NO_IO_URING), kinds[kind].io_uring * times);
	ck_assert_uint_eq(whole_logged(NO_O_DIRECT), kinds[kind].o_direct * times);
	ck_assert_uint_eq(whole_logged(kinds[kind].way), times);
}

START_TEST(what_is_refused_is_done_without)
{
	struct stoker_result result;
	struct control_tier tier;
	struct worker w;

	whole.forbidden = kinds[_i].forbidden;
	whole_start();
	told((uint32_t)_i, 1);
	worker_start(&w);
	for (uint32_t chain = 0; chain < 16; chain++)	/* more than the arena holds */
		worker_stores(&w, chain * 1000, 64);
	ck_assert_int_eq(whole_ctl("drain"), 0);
	ck_assert_int_eq(whole_ctl("evict 100%"), 0);
	for (uint32_t chain = 0; chain < 16; chain++) {
		result = worker_gets(&w, chain * 1000, 64, 64);
		ck_assert_uint_eq(result.counts[1], 64);
	}
	worker_end(&w);
	expect(control_read_tier(whole_page(), 0, &tier));
	ck_assert_uint_eq(tier.state, STOKER_TIER_SERVING);
	ck_assert_uint_eq(tier.read_errors + tier.write_errors + tier.checksum_errors, 0);
	ck_assert_int_eq(whole_end(SIGKILL), 1000 + SIGKILL);

	whole_start();
	told((uint32_t)_i, 2);
	worker_start(&w);
	for (uint32_t chain = 0; chain < 16; chain++)
		worker_gets(&w, chain * 1000, 64, 64);
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("forbidden");
	TCase *forbidden = tcase_create("forbidden");

	tcase_add_checked_fixture(forbidden, setup, whole_clean);
	tcase_set_timeout(forbidden, 300);
	tcase_add_loop_test(forbidden, what_is_refused_is_done_without, 0, sizeof(kinds) / sizeof(kinds[0]));
	suite_add_tcase(suite, forbidden);
	return suite_run(suite);
}
