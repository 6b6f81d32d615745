/*
 * A tier on a block device. A file stands for the device, so that everybody can run this; what only a real
 * one has (that it is mounted, or has no room for a lock) is in test-tier-life.c.
 */
#include "tests/tier-bench.h"

#include <sys/file.h>

#include "src/broker/slabs.h"
#include "tests/suite.h"

#define MIB	1048576u
#define DEVICE	(32 * MIB)
#define LOG	(2 * MIB)			/* an area of the slab table */
#define DATA	(SUPERBLOCK_DATA + 2 * LOG)
#define IN_LOG	((LOG - SLABS_HEADER) / sizeof(struct slab_entry))

static struct bench bench;
static struct bench_found found;
static char device[128];

static void up(void)
{
	bench_init(&bench, 16 * MIB);
	bench_file(&bench, "device", device);
	bench.config.path = device;
	bench.config.as_device = true;
	const int fd = open(device, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, DEVICE), 0);
	close(fd);
}

static void down(void)
{
	bench_fini(&bench);
}

static void poke(uint64_t offset, const void *bytes, size_t n)
{
	bench_poke(&bench, "device", offset, bytes, n);
}

static void peek(uint64_t offset, void *bytes, size_t n)
{
	const int fd = open(device, O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, bytes, n, (off_t)offset), (ssize_t)n);
	close(fd);
}

/* Refused, with this reason, and not a byte of it has changed. */
static void refused(int error, const char *why)
{
	uint8_t *before = malloc(DEVICE), *after = malloc(DEVICE);

	ck_assert(before && after);
	peek(0, before, DEVICE);
	ck_assert_int_eq(bench_try(&bench.config, bench.why, &bench.tier), error);
	ck_assert_msg(strstr(bench.why, why) != NULL, "\"%s\" has no \"%s\"", bench.why, why);
	peek(0, after, DEVICE);
	ck_assert_int_eq(memcmp(before, after, DEVICE), 0);
	free(before);
	free(after);
}

START_TEST(a_stop_keeps_every_object_and_the_bytes_lie_where_the_superblock_says)
{
	struct engine_object objects[8];
	struct superblock super;

	bench.config.no_uring = _i & 1;
	bench.config.no_direct = _i & 2;
	bench_start(&bench);
	for (uint32_t i = 0; i < 8; i++)
		objects[i] = bench_store(&bench, i, 0, i * 100, 65536);
	bench_slab(&bench, false, 300, 65536, &objects[3]);
	bench_stop(&bench);
	peek(SUPERBLOCK_BYTES, &super, sizeof(super));
	ck_assert_uint_eq(super.data, DATA);
	ck_assert_uint_eq(super.log_bytes, LOG);

	bench_open(&bench);
	ck_assert_uint_eq(bench_recover(&bench, &found), 7);
	bench_run(&bench);
	for (uint32_t i = 0; i < found.n; i++) {
		ck_assert_uint_ne(found.found[i].place.unit, 300);
		ck_assert_int_eq(bench_load(&bench, &found.found[i].object, 8, found.found[i].place.unit, 65536), ENGINE_OK);
	}
}
END_TEST

START_TEST(whoever_left_something_at_either_end_keeps_it)
{
	/* ext4, LVM, GPT, btrfs, swap, ZFS, VMFS; RAID and the second GPT at the end; anything else at all. */
	static const uint64_t places[] = { 1080, 536, 512, 65600, 4086, 131072, MIB, 4 * MIB - 1, DEVICE - 4096,
					   DEVICE - 512, DEVICE - 3087 * 512, DEVICE - 4 * MIB, DEVICE - 1, 0 };

	poke(places[_i], "\x53", 1);
	refused(-EBADMSG, places[_i] < 4 * MIB ? "is not empty: there is something in its first 4 MiB" :
		"is not empty: there is something in its last 4 MiB");
	ck_assert_ptr_nonnull(strstr(bench.why, "clear it (blkdiscard -z)"));
	poke(places[_i], "", 1);
	bench_open(&bench);
}
END_TEST

START_TEST(what_another_has_open_for_itself_is_refused)
{
	struct tier *second;

	bench_open(&bench);
	ck_assert_int_eq(bench_try(&bench.config, bench.why, &second), -EBUSY);
	ck_assert_ptr_nonnull(strstr(bench.why, "is in use: it is mounted, part of another device or another broker's"));
}
END_TEST

START_TEST(a_device_of_another_machine_extent_or_format_is_refused)
{
	struct superblock *super = superblock_new(BENCH_EXTENT);
	const int fd = open(device, O_RDWR | O_CLOEXEC);

	super->data = DATA;
	super->log_bytes = LOG;
	super->machine[0] ^= _i == 0;
	super->extent_bytes *= _i == 1 ? 2 : 1;
	super->format += _i == 2;
	super->data += _i == 3 ? 4096 : 0;
	super->data = _i == 4 ? 0 : super->data;
	super->log_bytes = _i == 5 ? DEVICE : super->log_bytes;
	ck_assert_int_eq(superblock_write(fd, super), 0);
	close(fd);
	free(super);
	refused((const int[]){ -EXDEV, -EINVAL, -EPROTONOSUPPORT, -EBADMSG, -EBADMSG, -EBADMSG }[_i],
		"clear it (blkdiscard -z) to begin anew");
}
END_TEST

START_TEST(a_device_that_grew_is_read_as_it_was_and_one_that_shrank_is_refused)
{
	struct engine_object object;

	bench_start(&bench);
	object = bench_store(&bench, 1, 0, 10 * 256, 65536);
	bench_stop(&bench);
	ck_assert_int_eq(truncate(device, 1024 * (off_t)MIB), 0);	/* where areas would be larger */
	bench_open(&bench);
	ck_assert_uint_eq(bench_recover(&bench, &found), 1);
	bench_run(&bench);
	ck_assert_int_eq(bench_load(&bench, &object, 0, 10 * 256, 65536), ENGINE_OK);
	bench_stop(&bench);
	ck_assert_int_eq(truncate(device, DATA + 15 * (off_t)MIB), 0);
	ck_assert_int_eq(bench_try(&bench.config, bench.why, &bench.tier), -ENOSPC);
	ck_assert_ptr_nonnull(strstr(bench.why, "is too small for this tier"));
}
END_TEST

#define LIVE 500u

/* Several times as much as an area holds, with few that live: both areas take turns. */
static void wear_round(void)
{
	bench_start(&bench);
	for (uint32_t round = 0; round < 100; round++) {
		for (uint32_t i = 0; i < LIVE; i++) {
			const struct engine_object old = bench_object(round * 1000 + i), new = bench_object((round + 1) * 1000 + i);

			if (round > 0)
				bench_slab(&bench, false, i * 2, 8192, &old);
			bench_slab(&bench, true, i * 2, 8192, &new);
		}
	}
	bench_stop(&bench);
}

START_TEST(a_slab_table_that_is_worn_round_keeps_what_lives)
{
	wear_round();
	bench_open(&bench);
	ck_assert_uint_eq(bench_recover(&bench, &found), LIVE);
	for (uint32_t i = 0; i < found.n; i++)
		ck_assert_uint_eq(found.found[i].object.sequence, 1000 + 100 * 1000 + found.found[i].place.unit / 2);
}
END_TEST

START_TEST(what_was_on_a_device_before_it_was_cleared_does_not_come_back)
{
	static uint8_t zeros[4 * MIB];

	ck_assert_int_eq(truncate(device, 1024 * (off_t)MIB), 0);	/* so large that an area lies behind that */
	wear_round();
	poke(0, zeros, sizeof(zeros));
	bench_open(&bench);
	ck_assert_uint_eq(bench_recover(&bench, &found), 0);
}
END_TEST

START_TEST(a_compaction_that_a_crash_cut_off_changes_nothing)
{
	struct slabs_header first, second;
	uint32_t which;

	wear_round();
	/* Entries of a new log in the other area without its header, or with a torn one. */
	peek(SUPERBLOCK_DATA, &first, sizeof(first));
	peek(SUPERBLOCK_DATA + LOG, &second, sizeof(second));
	ck_assert_uint_gt(first.generation + second.generation, 3);
	which = first.generation > second.generation;
	for (uint32_t i = 0; i < 100; i++)
		poke(SUPERBLOCK_DATA + which * LOG + SLABS_HEADER + i * 512, "torn", 4);
	if (_i == 1)
		poke(SUPERBLOCK_DATA + which * LOG + offsetof(struct slabs_header, generation),
		     &(uint64_t){ UINT64_MAX }, 8);
	bench_open(&bench);
	ck_assert_uint_eq(bench_recover(&bench, &found), LIVE);
}
END_TEST

START_TEST(a_slab_table_that_is_full_forgets_and_holds_up_nobody)
{
	struct engine_object object;

	bench.config.bytes = 16 * MIB;
	bench_start(&bench);
	/* More that lives than an area holds: as if all objects were of a unit. */
	for (uint32_t i = 0; i < 5 * IN_LOG; i++) {
		object = bench_object(i);
		bench_slab(&bench, true, i % 4096, 4096, &object);
	}
	object = bench_store(&bench, 1, 0, 0, 65536);
	ck_assert_int_eq(bench_load(&bench, &object, 0, 0, 65536), ENGINE_OK);
	bench_stop(&bench);
	bench_open(&bench);
	ck_assert_uint_le(bench_recover(&bench, &found), 4096);
}
END_TEST

START_TEST(of_a_slab_table_without_a_good_header_nothing_is_believed)
{
	bench_start(&bench);
	for (uint32_t i = 0; i < 8; i++)
		bench_store(&bench, i, 0, i * 100, 65536);
	bench_stop(&bench);
	poke(SUPERBLOCK_DATA + 16, "another id", 10);
	bench_open(&bench);
	ck_assert_uint_eq(bench_recover(&bench, &found), 0);
	bench_run(&bench);
	bench_store(&bench, 1, 0, 0, 65536);
	bench_stop(&bench);
	bench_open(&bench);
	ck_assert_uint_eq(bench_recover(&bench, &found), 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("broker-tier-device");
	TCase *t = tcase_create("device");

	tcase_add_checked_fixture(t, up, down);
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, a_stop_keeps_every_object_and_the_bytes_lie_where_the_superblock_says, 0, 4);
	tcase_add_loop_test(t, whoever_left_something_at_either_end_keeps_it, 0, 14);
	tcase_add_test(t, what_another_has_open_for_itself_is_refused);
	tcase_add_loop_test(t, a_device_of_another_machine_extent_or_format_is_refused, 0, 6);
	tcase_add_test(t, a_device_that_grew_is_read_as_it_was_and_one_that_shrank_is_refused);
	tcase_add_test(t, what_was_on_a_device_before_it_was_cleared_does_not_come_back);
	tcase_add_test(t, a_slab_table_that_is_worn_round_keeps_what_lives);
	tcase_add_loop_test(t, a_compaction_that_a_crash_cut_off_changes_nothing, 0, 2);
	tcase_add_test(t, a_slab_table_that_is_full_forgets_and_holds_up_nobody);
	tcase_add_test(t, of_a_slab_table_without_a_good_header_nothing_is_believed);
	suite_add_tcase(suite, t);
	return suite_run(suite);
}
