/*
 * A disk tier on a disk that fails: each system call of it is ours here and can be made to fail, and its
 * order is noted. Without io_uring, whose calls nobody can come between; what decides is the same.
 */
#include "tests/tier-bench.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "src/broker/slabs.h"
#include "tests/suite.h"

#define MIB	1048576u
#define UNITS	(BENCH_EXTENT / 4096)

enum call { READ = 1, WRITE = 2, SYNC = 4, RENAME = 8, SIZE = 16 };
enum file { LOG = 1, TIER = 2, OTHER = 4 };

/* What is to fail: calls of these kinds on these files and bytes, from the `after`-th on, `times` times. */
static struct {
	_Atomic int calls, files, error;	/* the tier's thread reads what the test sets */
	_Atomic uint64_t from, to;
	_Atomic int after, times;
} fault;

static _Atomic bool hangs;	/* every call, until it is over */

/* What was done, in order. */
static struct done {
	enum call call;
	enum file file;
	uint64_t offset;
} done[4096];
static _Atomic uint32_t n_done;

static struct bench bench;
static struct bench_found found;

static enum file file_of(int fd)
{
	char link[64], path[4096];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n < 0)
		return OTHER;
	path[n] = '\0';
	return strstr(path, "stoker-slabs") ? LOG : strstr(path, "stoker-tier") ? TIER : OTHER;
}

/* Note the call; true: it is to fail, and errno says how. */
static bool fails(enum call call, int fd, uint64_t offset, uint64_t n)
{
	const enum file file = file_of(fd);
	const uint32_t i = atomic_fetch_add(&n_done, 1);

	while (hangs)
		usleep(1000);
	if (i < sizeof(done) / sizeof(done[0]))
		done[i] = (struct done){ call, file, offset };
	if (!(fault.calls & (int)call) || !(fault.files & (int)file) || offset + n <= fault.from || offset >= fault.to)
		return false;
	if (atomic_fetch_sub(&fault.after, 1) > 0 || atomic_fetch_sub(&fault.times, 1) <= 0)
		return false;
	errno = fault.error;
	return true;
}

ssize_t pread(int fd, void *to, size_t n, off_t offset)
{
	return fails(READ, fd, (uint64_t)offset, n) ? -1 : syscall(SYS_pread64, fd, to, n, offset);
}

ssize_t pwrite(int fd, const void *from, size_t n, off_t offset)
{
	return fails(WRITE, fd, (uint64_t)offset, n) ? -1 : syscall(SYS_pwrite64, fd, from, n, offset);
}

int fdatasync(int fd)
{
	return fails(SYNC, fd, 0, 1) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
	return fails(SYNC, fd, 0, 1) ? -1 : (int)syscall(SYS_fsync, fd);
}

int renameat(int from, const char *old, int to, const char *new)
{
	return fails(RENAME, from, 0, 1) ? -1 : (int)syscall(SYS_renameat2, from, old, to, new, 0);
}

int ftruncate(int fd, off_t size)
{
	return fails(SIZE, fd, 0, 1) ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

static void fault_set(int calls, int files, int error, uint64_t from, uint64_t to, int after, int times)
{
	fault.calls = calls;
	fault.files = files;
	fault.error = error;
	fault.from = from;
	fault.to = to;
	fault.after = after;
	fault.times = times;
}

static void fault_none(void)
{
	fault_set(0, 0, 0, 0, 0, 0, 0);
}

static void up(void)
{
	fault_none();
	bench_init(&bench, 4 * MIB);
	bench.config.no_uring = true;
}

static void down(void)
{
	fault_none();
	bench_fini(&bench);
}

START_TEST(a_place_is_written_anew_only_after_its_remove_is_durable)
{
	struct engine_object object;
	uint64_t log_end = 0;
	bool durable = true;
	uint32_t removes = 0;

	bench_start(&bench);
	object = bench_store(&bench, 1, 0, 0, 65536);
	for (uint32_t i = 2; i < 20; i++) {
		bench_slab(&bench, false, 0, 65536, &object);
		object = bench_store(&bench, i, 0, 0, 65536);
	}
	bench_stop(&bench);
	/* In the log, ADD and REMOVE take turns: whatever was appended must be durable when the image is written,
	 * but for the ADD of the image before, which came with nothing that depends on it. */
	for (uint32_t i = 0; i < n_done; i++) {
		if (done[i].call == WRITE && done[i].file == LOG && done[i].offset >= SLABS_HEADER) {
			log_end = done[i].offset;
			durable = false;
		} else if (done[i].call == SYNC && done[i].file == LOG) {
			durable = true;
		} else if (done[i].call == WRITE && done[i].file == TIER && done[i].offset >= SUPERBLOCK_DATA) {
			if (log_end > 0) {
				expect(durable);
				removes++;
			}
		}
	}
	ck_assert_uint_eq(removes, 18);
}
END_TEST

START_TEST(a_part_of_the_slab_table_that_cannot_be_read_loses_what_it_held_alone)
{
	bench_start(&bench);
	for (uint32_t i = 0; i < 200; i++) {
		const struct engine_object object = bench_object(i);

		bench_slab(&bench, true, i * 2, 8192, &object);
	}
	bench_stop(&bench);
	bench_open(&bench);
	/* A byte in the second page of entries: the large read fails, and so does that page's own. */
	fault_set(READ, LOG, EIO, SLABS_HEADER + 4096, SLABS_HEADER + 4097, 0, 1000);
	bench_recover(&bench, &found);
	fault_none();
	ck_assert_uint_eq(found.n, 200 - 32);
	for (uint32_t i = 0; i < found.n; i++)
		ck_assert_uint_eq(found.found[i].object.sequence, 1000 + found.found[i].place.unit / 2);
}
END_TEST

START_TEST(a_slab_table_that_cannot_be_written_loses_objects_and_holds_up_nobody)
{
	struct engine_object object;

	bench_start(&bench);
	object = bench_store(&bench, 1, 0, 0, 65536);
	bench_slab(&bench, false, 0, 65536, &object);
	fault_set(_i ? SYNC : WRITE, LOG, _i ? EIO : ENOSPC, 0, UINT64_MAX, 0, 1000000);
	for (uint32_t i = 2; i < 10; i++) {
		bench_slab(&bench, false, i * 16, 65536, &object);
		object = bench_store(&bench, i, 0, i * 16, 65536);
		ck_assert_int_eq(bench_load(&bench, &object, 0, i * 16, 65536), ENGINE_OK);
	}
	bench_stop(&bench);
	fault_none();
	bench_open(&bench);
	bench_recover(&bench, &found);
	bench_run(&bench);
	for (uint32_t i = 0; i < found.n; i++)	/* lost or right */
		ck_assert_int_eq(bench_load(&bench, &found.found[i].object, 0, found.found[i].place.unit, 65536),
				 ENGINE_OK);
	if (_i == 0)
		ck_assert_uint_le(found.n, 1);
	ck_assert_uint_eq(bench.n_failed, 0);
}
END_TEST

START_TEST(errors_in_a_row_take_the_tier_out_and_a_success_between_them_does_not)
{
	struct engine_object object;

	bench_start(&bench);
	object = bench_store(&bench, 1, 0, 0, 65536);
	for (int i = 0; i < 4; i++) {
		fault_set(READ | WRITE, TIER, EIO, SUPERBLOCK_DATA, UINT64_MAX, 0, TIER_ERRORS_MAX - 1);
		for (uint32_t k = 0; k < TIER_ERRORS_MAX - 1; k++) {
			const struct engine_io io = bench_io(3, 65536, 0, 0, &object);

			ck_assert_int_eq(bench_move(&bench, k % 2, &io), ENGINE_FAILED);
		}
		ck_assert_int_eq(bench_load(&bench, &object, 0, 0, 65536), ENGINE_OK);
	}
	ck_assert_uint_eq(bench.n_failed, 0);
	fault_set(READ, TIER, EIO, SUPERBLOCK_DATA, UINT64_MAX, 0, 1000);
	for (uint32_t i = 0; i < 2 * TIER_ERRORS_MAX; i++)
		ck_assert_int_eq(bench_load(&bench, &object, 0, 0, 65536), ENGINE_FAILED);
	ck_assert_uint_eq(bench.n_failed, 1);
	fault_none();			/* and it does not come back by itself */
	ck_assert_int_eq(bench_load(&bench, &object, 0, 0, 65536), ENGINE_FAILED);
}
END_TEST

START_TEST(an_image_of_many_transfers_fails_once_when_one_of_them_does)
{
	const uint64_t bytes = 4 * MIB;
	struct engine_object object;

	bench_start(&bench);
	object = bench_store(&bench, 1, 100, 0, bytes);
	for (int i = 0; i < 5; i++) {	/* it crosses extents five times */
		fault_set(READ, TIER, EIO, SUPERBLOCK_DATA, UINT64_MAX, i, 1);
		ck_assert_int_eq(bench_load(&bench, &object, 100, 0, bytes), ENGINE_FAILED);
		fault_none();
		ck_assert_int_eq(bench_load(&bench, &object, 100, 0, bytes), ENGINE_OK);
	}
}
END_TEST

static enum engine_result persist(uint32_t epoch, uint64_t token)
{
	const struct image_identity identity = bench_identity(1, 8192);

	ck_assert_int_eq(tier_persist_epoch(bench.tier, identity.model_digest, epoch, 0, token), 0);
	while (bench.epoch_token != token)
		bench_reap(&bench);
	return bench.epoch_result;
}

START_TEST(an_epoch_that_could_not_be_made_durable_is_answered_as_failed)
{
	const struct image_identity identity = bench_identity(1, 8192);

	bench_start(&bench);
	ck_assert_int_eq(persist(2, 1), ENGINE_OK);
	for (uint64_t i = 0; i < 3; i++) {
		fault_set(_i ? SYNC : WRITE, TIER, EIO, 0, SUPERBLOCK_DATA, 0, 1);
		ck_assert_int_eq(persist(3, 10 + i), ENGINE_FAILED);
		ck_assert_uint_eq(tier_epoch(bench.tier, identity.model_digest), 2);
	}
	fault_none();
	ck_assert_int_eq(persist(3, 99), ENGINE_OK);
	bench_stop(&bench);
	bench_open(&bench);
	ck_assert_uint_eq(tier_epoch(bench.tier, identity.model_digest), 3);
}
END_TEST

START_TEST(whichever_call_of_an_open_fails_the_next_open_finds_everything_or_says_what_is_lost)
{
	const int kinds = READ | WRITE | SYNC | RENAME | SIZE;
	uint32_t lost = 0;
	bool opened = false;

	if (_i) {		/* of a tier that is there; else of one that is being made */
		bench_start(&bench);
		bench_store(&bench, 1, 0, 0, 65536);
		bench_stop(&bench);
	}
	for (int n = 0; !opened && n < 200; n++) {
		fault_set(kinds, LOG | TIER | OTHER, EIO, 0, UINT64_MAX, n, 1);
		bench.why[0] = '\0';
		if (bench_try(&bench.config, bench.why, &bench.tier) == 0) {
			opened = fault.times > 0;	/* nothing failed any more: all calls have had their turn */
			bench_stop(&bench);
		} else {
			ck_assert_ptr_null(bench.tier);
			expect(bench.why[0] != '\0');
		}
		fault_none();
		bench_open(&bench);
		if (bench_recover(&bench, &found) == 0 && _i) {
			lost++;
			bench_run(&bench);
			bench_store(&bench, 1, 0, 0, 65536);
		}
		bench_stop(&bench);
	}
	expect(opened);
	ck_assert_uint_le(lost, 1);	/* when the header of the slab table could not be read */
}
END_TEST

START_TEST(a_tier_whose_disk_hangs_at_the_open_holds_up_nobody_and_lets_go_when_that_ends)
{
	struct engine_object object;

	bench_start(&bench);
	object = bench_store(&bench, 1, 0, 0, 65536);
	bench_stop(&bench);
	hangs = true;
	ck_assert_int_eq(tier_new(&bench.config, &bench.tier), 0);
	ck_assert_int_eq(tier_opened(bench.tier, 10000000, bench.why), -EINPROGRESS);
	bench_stop(&bench);		/* left to its thread */
	hangs = false;
	bench_open(&bench);		/* which frees it, and its lock */
	ck_assert_uint_eq(bench_recover(&bench, &found), 1);
	bench_run(&bench);
	ck_assert_int_eq(bench_load(&bench, &object, 0, 0, 65536), ENGINE_OK);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("broker-tier-faults");
	TCase *t = tcase_create("faults");

	tcase_add_checked_fixture(t, up, down);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, a_place_is_written_anew_only_after_its_remove_is_durable);
	tcase_add_test(t, a_part_of_the_slab_table_that_cannot_be_read_loses_what_it_held_alone);
	tcase_add_loop_test(t, a_slab_table_that_cannot_be_written_loses_objects_and_holds_up_nobody, 0, 2);
	tcase_add_test(t, errors_in_a_row_take_the_tier_out_and_a_success_between_them_does_not);
	tcase_add_test(t, an_image_of_many_transfers_fails_once_when_one_of_them_does);
	tcase_add_loop_test(t, an_epoch_that_could_not_be_made_durable_is_answered_as_failed, 0, 2);
	tcase_add_loop_test(t, whichever_call_of_an_open_fails_the_next_open_finds_everything_or_says_what_is_lost, 0, 2);
	tcase_add_test(t, a_tier_whose_disk_hangs_at_the_open_holds_up_nobody_and_lets_go_when_that_ends);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
