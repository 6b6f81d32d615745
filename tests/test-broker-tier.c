/* A disk tier: what is written comes back, whatever happened in between, or is a miss; never other bytes. */
#include "tests/tier-ways.h"

#include <signal.h>
#include <sys/wait.h>

#include "src/broker/slabs.h"

static struct bench_found found;

START_TEST(what_is_written_is_read_back_whatever_extents_it_crosses)
{
	/* Within an extent, across one, across three, up to the last byte, which no buffer is registered for. */
	static const struct { uint32_t unit; uint64_t bytes; } places[] = {
		{ 0, 8192 }, { UNITS - 1, 8192 }, { UNITS / 2, MIB + 4096 }, { UNITS - 3, 2 * MIB + 8192 * 3 },
		{ UNITS, 5 * MIB }, { 7 * UNITS - 2, MIB + 8192 }, { 0, 8 * MIB },
	};

	start_way(_i);
	for (uint32_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		const struct engine_object object = bench_store(&bench, i, places[i].unit, 17 * i, places[i].bytes);
		const uint32_t elsewhere = i % 2 ? places[i].unit : 0;

		ck_assert_int_eq(bench_load(&bench, &object, elsewhere, 17 * i, places[i].bytes), ENGINE_OK);
	}
}
END_TEST

START_TEST(many_at_once_all_end_exactly_once)
{
	struct engine_object objects[BENCH_IOS];

	start_way(_i);
	for (uint32_t round = 0; round < 8; round++) {
		for (uint32_t i = 0; i < BENCH_IOS; i++) {
			objects[i] = bench_image(&bench, round * 100 + i, i * 32, 32 * 4096);
			const struct engine_io io = bench_io(i, 32 * 4096, i * 32, i * 32, &objects[i]);

			bench_submit(&bench, true, &io);
		}
		for (uint32_t i = 0; i < BENCH_IOS; i++)
			ck_assert_int_eq(bench_wait(&bench, i), ENGINE_OK);
		for (uint32_t i = 0; i < BENCH_IOS; i++) {
			struct engine_io io = bench_io(i, 32 * 4096, (BENCH_IOS - 1 - i) * 32, i * 32, &objects[i]);

			io.priority = i % 9;	/* 8 is out of range: the last, not a crash */
			bench_submit(&bench, false, &io);
		}
		for (uint32_t i = 0; i < BENCH_IOS; i++) {
			const struct image_identity identity = bench_identity(1, 32 * 4096);
			const uint8_t *image = bench.config.arena + (BENCH_IOS - 1 - i) * 32 * 4096;

			ck_assert_int_eq(bench_wait(&bench, i), ENGINE_OK);
			ck_assert_int_eq(verify_whole(image, &objects[i], &identity, NULL), ENGINE_OK);
		}
	}
}
END_TEST

START_TEST(a_read_goes_before_the_writes_that_were_there_first)
{
	struct tier_event first;
	struct engine_object object;

	bench.config.no_uring = true;	/* one at a time, so that there is an order */
	bench_start(&bench);
	object = bench_store(&bench, 1, 0, 0, MIB);
	bench_stop(&bench);

	bench_open(&bench);
	for (uint32_t i = 2; i < 8; i++) {
		const struct engine_object other = bench_image(&bench, i, i * 64, 65536);
		const struct engine_io io = bench_io(i, 65536, i * 64, i * UNITS, &other);

		bench_submit(&bench, true, &io);
	}
	const struct engine_io io = bench_io(1, MIB, 4 * UNITS, 0, &object);

	bench_submit(&bench, false, &io);
	ck_assert_int_eq(tier_start(bench.tier), 0);
	while (tier_reap(bench.tier, &first, 1) == 0)
		usleep(100);
	ck_assert_uint_eq(first.io, 1);
	for (uint32_t i = 2; i < 8; i++)
		ck_assert_int_eq(bench_wait(&bench, i), ENGINE_OK);
}
END_TEST

/* --- what comes back after an end of the broker --- */

START_TEST(a_clean_stop_keeps_every_object_with_all_that_is_known_of_it)
{
	struct engine_object objects[8];

	start_way(_i);
	for (uint32_t i = 0; i < 8; i++)
		objects[i] = bench_store(&bench, i, 0, i * 100, 300000 / 4096 * 4096);
	bench_slab(&bench, false, 300, 300000 / 4096 * 4096, &objects[3]);
	bench_stop(&bench);

	bench_open(&bench);
	ck_assert_uint_eq(bench_recover(&bench, &found), 7);
	bench_run(&bench);
	for (uint32_t i = 0; i < found.n; i++) {
		const struct tier_found *f = &found.found[i];
		struct engine_object expected = objects[f->place.unit / 100];

		ck_assert_uint_ne(f->place.unit, 300);
		expected.model = expected.part = 0;	/* not set: they are looked up by digest */
		ck_assert_mem_eq(&f->object, &expected, sizeof(expected));
		ck_assert_uint_eq(f->model_digest[31], 1);
		ck_assert_int_eq(bench_load(&bench, &f->object, 8, f->place.unit, f->place.bytes), ENGINE_OK);
	}
}
END_TEST

/* Copy the tier's files as they are now, the way a crash would leave them (each byte old or new). */
static void copy_files(const struct bench *from, struct bench *to)
{
	static const char *const names[] = { "stoker-tier", "stoker-slabs" };
	static uint8_t piece[65536];
	char path[128];

	for (int i = 0; i < 2; i++) {
		const int in = open(bench_file(from, names[i], path), O_RDONLY);
		const int out = open(bench_file(to, names[i], path), O_WRONLY | O_CREAT | O_TRUNC, 0600);
		ssize_t n;

		ck_assert(in >= 0 && out >= 0);
		while ((n = read(in, piece, sizeof(piece))) > 0)
			ck_assert_int_eq(write(out, piece, (size_t)n), n);
		close(in);
		close(out);
	}
}

START_TEST(a_copy_taken_at_any_instant_serves_right_bytes_or_none)
{
	static struct bench copy;
	const uint64_t bytes = 20 * 4096;
	struct engine_object objects[40];

	bench.config.bytes = 2 * MIB;
	bench_init(&copy, 2 * MIB);
	start_way(_i);
	for (uint32_t round = 0; round < 12; round++) {
		uint32_t ok = 0, wrong = 0;

		/* Places are used again and again, at other sizes of neighbours; some I/O is under way. */
		for (uint32_t i = 0; i < 20; i++) {
			const uint32_t place = (round * 7 + i) % 24 * 20;

			if (round > 0)
				bench_slab(&bench, false, place, bytes, &objects[i]);
			objects[i] = bench_store(&bench, round * 50 + i, i * 20, place, bytes);
		}
		for (uint32_t i = 0; i < 8; i++) {
			const struct engine_io io = bench_io(10 + i, bytes, i * 20, i * 20, &objects[i]);

			bench_submit(&bench, true, &io);
		}
		copy_files(&bench, &copy);
		for (uint32_t i = 0; i < 8; i++)
			bench_wait(&bench, 10 + i);

		if (round % 2) {	/* a log cut anywhere, also within an entry */
			char path[128];
			const uint64_t size = bench_size(&copy, "stoker-slabs");

			ck_assert_int_eq(truncate(bench_file(&copy, "stoker-slabs", path), (off_t)(size - round * 37)), 0);
		}
		bench_open(&copy);
		bench_recover(&copy, &found);
		bench_run(&copy);
		for (uint32_t i = 0; i < found.n; i++) {
			const struct tier_found *f = &found.found[i];
			const enum engine_result result = bench_load(&copy, &f->object, 0, f->place.unit, f->place.bytes);

			ck_assert_int_ne(result, ENGINE_FAILED);
			/* bench_load() has verified the bytes: OK is OK. */
			*(result == ENGINE_OK ? &ok : &wrong) += 1;
		}
		bench_stop(&copy);
		ck_assert_uint_ge(ok, 4);
		bench_remove(copy.path);
		ck_assert_int_eq(mkdir(copy.path, 0700), 0);
	}
	bench_fini(&copy);
}
END_TEST

START_TEST(a_broker_killed_in_the_middle_of_writing_leaves_a_tier_that_serves)
{
	int pipes[2];
	char byte;
	pid_t child;
	int status;

	ck_assert_int_eq(pipe(pipes), 0);
	child = fork();
	if (child == 0) {
		start_way(_i);
		for (uint32_t i = 0; i < 10; i++)
			bench_store(&bench, i, 0, i * UNITS, MIB);
		for (uint32_t i = 10; i < 30; i++) {
			const struct engine_object object = bench_image(&bench, i, (i - 10) * 64, MIB / 4);
			const struct engine_io io = bench_io(i, MIB / 4, (i - 10) * 64, i * UNITS, &object);

			bench_submit(&bench, true, &io);
		}
		bench_wait(&bench, 10);		/* so the entries before it are in the log */
		(void)!write(pipes[1], "x", 1);
		for (;;)
			pause();
	}
	close(pipes[1]);
	ck_assert_int_eq(read(pipes[0], &byte, 1), 1);
	kill(child, SIGKILL);
	/* Not waited for: the successor may come while its I/O is still under way. */
	bench_open(&bench);
	ck_assert_uint_eq(bench_recover(&bench, &found), 10);
	bench_run(&bench);
	for (uint32_t i = 0; i < found.n; i++)
		ck_assert_int_eq(bench_load(&bench, &found.found[i].object, 0, found.found[i].place.unit, MIB), ENGINE_OK);
	waitpid(child, &status, 0);
}
END_TEST

START_TEST(a_flipped_byte_loses_what_it_hits_and_nothing_else)
{
	struct engine_object objects[4];
	struct slab_entry entry;
	const uint8_t wrong = 0xa5;
	char path[128];
	int fd;

	start_way(_i);
	for (uint32_t i = 0; i < 4; i++)
		objects[i] = bench_store(&bench, i, 0, i * UNITS, 100 * 4096);
	bench_stop(&bench);

	fd = open(bench_file(&bench, "stoker-slabs", path), O_RDONLY);
	ck_assert_int_eq(pread(fd, &entry, sizeof(entry), SLABS_HEADER + 128), sizeof(entry));
	close(fd);
	ck_assert_uint_eq(entry.unit, UNITS);
	bench_poke(&bench, "stoker-slabs", SLABS_HEADER + 128 + 9, &wrong, 1);		/* the entry of 1 */
	bench_poke(&bench, "stoker-tier", SUPERBLOCK_DATA + 2 * MIB + 70, &wrong, 1);	/* the header of 2 */
	bench_poke(&bench, "stoker-tier", SUPERBLOCK_DATA + 3 * MIB + 99999, &wrong, 1);	/* the payload of 3 */

	bench_open(&bench);
	ck_assert_uint_eq(bench_recover(&bench, &found), 3);
	bench_run(&bench);
	ck_assert_int_eq(bench_load(&bench, &objects[0], 0, 0, 100 * 4096), ENGINE_OK);
	for (uint32_t i = 2; i < 4; i++)
		ck_assert_int_eq(bench_load(&bench, &objects[i], 0, i * UNITS, 100 * 4096), ENGINE_CORRUPT);
	ck_assert_uint_eq(bench.n_failed, 0);	/* corrupt objects are no errors of the disk */
}
END_TEST

START_TEST(an_image_of_another_object_or_tier_is_corrupt)
{
	struct engine_object object, other;

	start_way(_i);
	object = bench_store(&bench, 1, 0, 0, 65536);
	other = object;
	other.sequence++;
	ck_assert_int_eq(bench_load(&bench, &other, 0, 0, 65536), ENGINE_CORRUPT);
	other = object;
	other.key.word[3]++;
	ck_assert_int_eq(bench_load(&bench, &other, 0, 0, 65536), ENGINE_CORRUPT);
	ck_assert_int_eq(bench_load(&bench, &object, 0, 16, 65536), ENGINE_CORRUPT);	/* never written */

	/* As if the disk had been swapped for another's: the bytes of another uuid. */
	bench_load(&bench, &object, 0, 0, 65536);
	image_stamp(bench.config.arena, (const uint8_t[16]){ 1, 2, 3 });
	bench_poke(&bench, "stoker-tier", SUPERBLOCK_DATA, bench.config.arena, 65536);
	if (!ways[_i].no_direct)	/* buffered and direct views of a file need not agree at once */
		sync();
	ck_assert_int_eq(bench_load(&bench, &object, 0, 0, 65536), ENGINE_CORRUPT);
}
END_TEST

int main(void)
{
	TCase *moving = tcase_create("moving"), *back = tcase_create("coming back");
	TCase *all[] = { moving, back };
	Suite *suite = suite_of("broker-tier", all, sizeof(all) / sizeof(all[0]));

	tcase_add_loop_test(moving, what_is_written_is_read_back_whatever_extents_it_crosses, 0, WAYS);
	tcase_add_loop_test(moving, many_at_once_all_end_exactly_once, 0, WAYS);
	tcase_add_test(moving, a_read_goes_before_the_writes_that_were_there_first);
	tcase_add_loop_test(back, a_clean_stop_keeps_every_object_with_all_that_is_known_of_it, 0, WAYS);
	tcase_add_loop_test(back, a_copy_taken_at_any_instant_serves_right_bytes_or_none, 0, WAYS);
	tcase_add_loop_test(back, a_broker_killed_in_the_middle_of_writing_leaves_a_tier_that_serves, 0, WAYS);
	tcase_add_loop_test(back, a_flipped_byte_loses_what_it_hits_and_nothing_else, 0, WAYS);
	tcase_add_loop_test(back, an_image_of_another_object_or_tier_is_corrupt, 0, WAYS);
	return suite_run(suite);
}
