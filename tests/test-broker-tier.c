/* A disk tier: what is written comes back, whatever happened in between, or is a miss; never other bytes. */
#include "tests/tier-bench.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "src/broker/slabs.h"
#include "tests/suite.h"

#define MIB	1048576u
#define UNITS	(BENCH_EXTENT / 4096)

static struct bench bench;
static struct bench_found found;

/* The four ways to move bytes; each test of moving goes through all. */
static const struct { bool no_uring, no_direct; const char *method; } ways[] = {
	{ false, false, "io_uring" }, { false, true, "io_uring" },
	{ true, false, "pread and pwrite" }, { true, true, "pread and pwrite, buffered" },
};
#define WAYS (int)(sizeof(ways) / sizeof(ways[0]))

static void up(void)
{
	bench_init(&bench, 32 * MIB);
}

static void down(void)
{
	bench_fini(&bench);
}

static void start_way(int way)
{
	bench.config.no_uring = ways[way].no_uring;
	bench.config.no_direct = ways[way].no_direct;
	bench_start(&bench);
	if (!strstr(tier_method(bench.tier), ways[way].method))
		printf("# skipped in part: no io_uring here, so way %d ran as \"%s\"\n", way, tier_method(bench.tier));
}

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
			ck_assert_int_eq(image_verify(image, &objects[i], &identity, NULL), ENGINE_OK);
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

/* --- the slab table --- */

START_TEST(the_last_entry_of_a_place_counts_also_when_removes_are_missing)
{
	const struct engine_object big = bench_object(1), small = bench_object(2), older = bench_object(0);

	bench_start(&bench);
	bench_slab(&bench, true, 0, 64 * 4096, &big);		/* units 0 to 63 */
	bench_slab(&bench, true, 60, 2 * 4096, &small);		/* within it: big is gone */
	bench_slab(&bench, true, 100, 4096, &small);
	bench_slab(&bench, true, 100, 4096, &older);		/* an old object written anew */
	bench_slab(&bench, true, 200, 8 * 4096, &big);
	bench_slab(&bench, false, 203, 4096, &small);		/* somebody was within it since */
	bench_stop(&bench);
	bench_open(&bench);
	ck_assert_uint_eq(bench_recover(&bench, &found), 2);
	ck_assert_uint_eq(found.found[0].place.unit, 100);	/* newest first */
	ck_assert_uint_eq(found.found[0].object.sequence, older.sequence);
	ck_assert_uint_eq(found.found[1].place.unit, 60);
}
END_TEST

START_TEST(entries_beyond_a_tier_that_became_smaller_are_dropped)
{
	bench_start(&bench);
	bench_store(&bench, 1, 0, 0, 8192);
	bench_store(&bench, 2, 0, 20 * UNITS, 8192);
	bench_store(&bench, 3, 0, 8 * UNITS - 1, 8192);
	bench_stop(&bench);
	bench.config.bytes = 8 * MIB + 4096;	/* rounded down to extents */
	bench_open(&bench);
	ck_assert_uint_eq(bench_recover(&bench, &found), 1);
	ck_assert_uint_eq(bench_size(&bench, "stoker-tier"), SUPERBLOCK_DATA + 8 * MIB);
}
END_TEST

START_TEST(a_log_much_longer_than_what_lives_is_written_anew)
{
	struct engine_object object;

	bench.config.no_uring = _i;
	bench_start(&bench);
	for (uint32_t i = 0; i < 60000; i++) {	/* many more than there are messages: a burst waits, in order */
		object = bench_object(i);
		bench_slab(&bench, i % 2 == 0, i / 2 % 100, 4096, &object);
		if (i == 30000)
			bench_store(&bench, 777, 0, 5000, 4 * 4096);
	}
	/* Let it be compacted, and go on appending meanwhile. */
	for (uint32_t i = 0; bench_size(&bench, "stoker-slabs") > 20000 * 128; i++) {
		object = bench_object(i);
		bench_slab(&bench, i % 2 == 0, 200 + i / 2 % 100, 4096, &object);
		usleep(200);
	}
	for (uint32_t i = 0; i < 10; i++) {
		object = bench_object(i);
		bench_slab(&bench, true, 400 + i, 4096, &object);
	}
	bench_stop(&bench);
	bench_open(&bench);
	bench_recover(&bench, &found);
	bench_run(&bench);
	/* Those at 400, object 777, and at most one that the loop left. */
	ck_assert_uint_ge(found.n, 11);
	ck_assert_uint_le(found.n, 12);
	object = bench_image(&bench, 777, 0, 4 * 4096);
	ck_assert_int_eq(bench_load(&bench, &object, 0, 5000, 4 * 4096), ENGINE_OK);
}
END_TEST

START_TEST(a_lost_slab_table_is_lost_objects)
{
	char path[128];
	uint8_t bytes[128];

	bench_start(&bench);
	bench_store(&bench, 1, 0, 0, 8192);
	bench_stop(&bench);
	switch (_i) {
	case 0:
		ck_assert_int_eq(unlink(bench_file(&bench, "stoker-slabs", path)), 0);
		break;
	case 1:
		ck_assert_int_eq(truncate(bench_file(&bench, "stoker-slabs", path), 0), 0);
		break;
	case 2:
		ck_assert_int_eq(truncate(bench_file(&bench, "stoker-slabs", path), 20), 0);
		break;
	case 3:
		memset(bytes, 0x77, sizeof(bytes));
		bench_poke(&bench, "stoker-slabs", 32, bytes, 8);
		break;
	}
	bench_open(&bench);
	ck_assert_uint_eq(bench_recover(&bench, &found), 0);
	bench_run(&bench);
	bench_store(&bench, 2, 0, 0, 8192);
	bench_stop(&bench);
	bench_open(&bench);
	ck_assert_uint_eq(bench_recover(&bench, &found), 1);
}
END_TEST

/* --- models and epochs --- */

static void persist(uint8_t model, uint32_t epoch, uint64_t token)
{
	const struct image_identity identity = bench_identity(model, 8192);

	ck_assert_int_eq(tier_persist_epoch(bench.tier, identity.model_digest, epoch, 99, token), 0);
	while (bench.epoch_token != token)
		bench_reap(&bench);
	ck_assert_int_eq(bench.epoch_result, ENGINE_OK);
}

static uint32_t epoch_of(uint8_t model)
{
	const struct image_identity identity = bench_identity(model, 8192);

	return tier_epoch(bench.tier, identity.model_digest);
}

START_TEST(an_epoch_is_durable_when_it_is_answered_and_older_objects_are_dead)
{
	bench.config.no_uring = _i;
	bench_start(&bench);
	ck_assert_uint_eq(epoch_of(1), 0);
	bench_store(&bench, 1, 0, 0, 8192);
	persist(1, 2, 10);
	ck_assert_uint_eq(epoch_of(1), 2);
	persist(2, 7, 11);
	persist(2, 6, 12);			/* epochs only rise */
	bench_stop(&bench);
	bench_open(&bench);
	ck_assert_uint_eq(epoch_of(1), 2);
	ck_assert_uint_eq(epoch_of(2), 7);
	ck_assert_uint_eq(epoch_of(3), 0);
	ck_assert_uint_eq(bench_recover(&bench, &found), 0);
}
END_TEST

START_TEST(a_torn_superblock_costs_the_last_epoch_only)
{
	uint8_t torn[1000];
	int found_older = 0;

	memset(torn, 0x5a, sizeof(torn));
	bench_start(&bench);
	persist(1, 2, 10);
	persist(1, 3, 11);
	bench_stop(&bench);
	/* One of the copies is the newest: with the other torn nothing is lost. */
	for (int copy = 0; copy < 2; copy++) {
		uint8_t good[1000];
		char path[128];
		const int fd = open(bench_file(&bench, "stoker-tier", path), O_RDONLY);

		ck_assert_int_eq(pread(fd, good, sizeof(good), copy * SUPERBLOCK_BYTES + 5000), sizeof(good));
		close(fd);
		bench_poke(&bench, "stoker-tier", copy * SUPERBLOCK_BYTES + 5000, torn, sizeof(torn));
		bench_open(&bench);
		ck_assert(epoch_of(1) == 3 || epoch_of(1) == 2);
		found_older += epoch_of(1) == 2;
		bench_stop(&bench);
		bench_poke(&bench, "stoker-tier", copy * SUPERBLOCK_BYTES + 5000, good, sizeof(good));
	}
	ck_assert_int_eq(found_older, 1);
}
END_TEST

START_TEST(rows_of_models_without_objects_are_used_again)
{
	struct image_identity identity = bench_identity(1, 8192);

	bench_start(&bench);
	bench_store(&bench, 1, 0, 0, 8192);
	for (uint32_t i = 0; i < SUPERBLOCK_MODELS + 100; i++) {
		memcpy(identity.model_digest, &(uint32_t){ 0x10000 + i }, 4);
		ck_assert_int_eq(tier_persist_epoch(bench.tier, identity.model_digest, 1, 0, i + 1), 0);
	}
	while (bench.epoch_token != SUPERBLOCK_MODELS + 100) {
		bench_reap(&bench);
		ck_assert_int_eq(bench.epoch_result, ENGINE_OK);
	}
	ck_assert_uint_eq(tier_epoch(bench.tier, identity.model_digest), 1);
	bench_stop(&bench);
	bench_open(&bench);
	ck_assert_uint_eq(bench_recover(&bench, &found), 1);
	ck_assert_uint_eq(found.found[0].model_digest[20], 1);
}
END_TEST

/* --- what is refused --- */

static uint64_t sum_of(const char *name)
{
	char path[128];
	uint64_t sum = 14695981039346656037u;
	FILE *file = fopen(bench_file(&bench, name, path), "r");
	int byte;

	if (!file)
		return 0;
	while ((byte = getc(file)) != EOF)
		sum = (sum ^ (uint64_t)byte) * 1099511628211u;
	fclose(file);
	return sum;
}

static void refused(const char *because)
{
	const uint64_t tier = sum_of("stoker-tier"), slabs = sum_of("stoker-slabs");

	ck_assert_int_lt(tier_open(&bench.config, bench.why, &bench.tier), 0);
	ck_assert_ptr_null(bench.tier);
	ck_assert_msg(strstr(bench.why, because), "\"%s\" says nothing of \"%s\"", bench.why, because);
	ck_assert_uint_eq(sum_of("stoker-tier"), tier);
	ck_assert_uint_eq(sum_of("stoker-slabs"), slabs);
}

static void make_and_stop(void)
{
	bench.config.bytes = 2 * MIB;
	bench_start(&bench);
	bench_stop(&bench);
}

START_TEST(a_foreign_file_is_refused_and_stays_as_it_is)
{
	static char text[300000];

	memset(text, 'T', sizeof(text));
	bench_poke(&bench, "stoker-tier", 0, text, sizeof(text));
	refused("is no tier of stoker's");
}
END_TEST

START_TEST(a_short_foreign_file_is_refused_and_stays_as_it_is)
{
	bench_poke(&bench, "stoker-tier", 0, "a diary", 7);
	refused("is no tier of stoker's");
}
END_TEST

START_TEST(a_foreign_slab_table_refuses_the_directory)
{
	char path[128];

	if (_i == 1)
		make_and_stop();
	bench_poke(&bench, "stoker-slabs", 0, "another diary", 13);
	refused("is no slab table of stoker's");
	if (_i == 0)	/* and nothing was left behind */
		ck_assert_int_ne(access(bench_file(&bench, "stoker-tier", path), F_OK), 0);
}
END_TEST

START_TEST(the_slab_table_of_another_tier_is_refused)
{
	char path[128];

	make_and_stop();
	ck_assert_int_eq(unlink(bench_file(&bench, "stoker-tier", path)), 0);
	refused("belongs to another tier");
}
END_TEST

START_TEST(another_format_is_refused)
{
	const uint32_t format = 77;

	make_and_stop();
	bench_poke(&bench, "stoker-tier", SUPERBLOCK_BYTES + offsetof(struct superblock, format), &format, 4);
	refused("has format 77");
}
END_TEST

START_TEST(another_size_of_extents_is_refused)
{
	make_and_stop();
	bench.config.extent_bytes *= 2;
	refused("has extents of 1048576 bytes");
}
END_TEST

START_TEST(a_superblock_with_both_copies_damaged_is_refused)
{
	make_and_stop();
	bench_poke(&bench, "stoker-tier", SUPERBLOCK_BYTES + 5000, "xx", 2);
	refused("both superblocks");
}
END_TEST

START_TEST(the_tier_of_another_machine_is_refused)
{
	struct superblock *superblock;
	char path[128];
	int fd;

	make_and_stop();
	fd = open(bench_file(&bench, "stoker-tier", path), O_RDWR);
	superblock = superblock_new(BENCH_EXTENT);
	ck_assert_int_eq(superblock_read(fd, "x", BENCH_EXTENT, bench.why, superblock), 0);
	superblock->machine[3] ^= 1;
	ck_assert_int_eq(superblock_write(fd, superblock), 0);
	free(superblock);
	close(fd);
	refused("was made on another machine");
}
END_TEST

START_TEST(a_directory_that_others_can_write_is_refused)
{
	ck_assert_int_eq(chmod(bench.path, 0777), 0);
	refused("can be written by others");
	ck_assert_int_eq(chmod(bench.path, 0700), 0);
	if (geteuid() == 0) {
		ck_assert_int_eq(chown(bench.path, 12345, 12345), 0);
		refused("belongs to uid 12345");
	} else {
		printf("# skipped in part: only root can make a directory of another uid\n");
	}
}
END_TEST

START_TEST(a_link_or_a_fifo_under_the_name_is_refused)
{
	char path[128];

	bench_file(&bench, "stoker-tier", path);
	ck_assert_int_eq(symlink("/dev/null", path), 0);
	refused("cannot open");
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	ck_assert_int_lt(tier_open(&bench.config, bench.why, &bench.tier), 0);
	ck_assert_ptr_nonnull(strstr(bench.why, "is no regular file"));
}
END_TEST

START_TEST(a_tier_larger_than_its_disk_is_refused)
{
	bench.config.bytes = 1ull << 45;
	refused("no room for the tier");
	ck_assert_ptr_nonnull(strstr(bench.why, "make it smaller"));
}
END_TEST

START_TEST(a_tier_in_use_is_refused_to_a_second_broker_and_free_after_the_first)
{
	char pid[16];
	struct tier *second = NULL;

	start_way(_i);
	ck_assert_int_eq(tier_open(&bench.config, bench.why, &second), -EBUSY);
	snprintf(pid, sizeof(pid), "pid %d", getpid());
	ck_assert_msg(strstr(bench.why, pid), "%s", bench.why);
	bench_stop(&bench);
	bench_start(&bench);
}
END_TEST

/* --- errors --- */

START_TEST(a_file_at_its_limit_fails_writes_and_still_serves_reads)
{
	struct rlimit limit = { SUPERBLOCK_DATA + 4 * MIB, RLIM_INFINITY };
	struct engine_object object, more;

	signal(SIGXFSZ, SIG_IGN);
	start_way(_i);
	object = bench_store(&bench, 1, 0, 0, MIB);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	for (uint32_t i = 0; i < TIER_ERRORS_MAX + 4; i++) {
		more = bench_image(&bench, 2 + i, 0, MIB);
		const struct engine_io io = bench_io(2, MIB, 0, (8 + i) * UNITS, &more);

		ck_assert_int_eq(bench_move(&bench, true, &io), ENGINE_FAILED);
		if (i % 5 == 0)		/* a success in between: not in a row */
			ck_assert_int_eq(bench_load(&bench, &object, 0, 0, MIB), ENGINE_OK);
	}
	ck_assert_uint_eq(bench.n_failed, 0);
}
END_TEST

START_TEST(a_full_disk_fails_writes_and_does_not_take_the_tier_out)
{
	static char fill[MIB];
	struct engine_object object, more;
	char path[128];
	int fd;

	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", bench.path, "tmpfs", 0, "size=34M,mode=0700") < 0) {
		printf("# skipped: only root can mount a small tmpfs of its own\n");
		return;
	}
	start_way(_i);
	object = bench_store(&bench, 1, 0, 0, MIB);
	fd = open(bench_file(&bench, "somebody-else", path), O_WRONLY | O_CREAT, 0600);
	while (write(fd, fill, sizeof(fill)) > 0)
		;
	close(fd);
	for (uint32_t i = 0; i < TIER_ERRORS_MAX + 4; i++) {
		more = bench_image(&bench, 2 + i, 0, MIB);
		const struct engine_io io = bench_io(2, MIB, 0, (1 + i) * UNITS, &more);

		ck_assert_int_eq(bench_move(&bench, true, &io), ENGINE_FAILED);
	}
	ck_assert_int_eq(bench_load(&bench, &object, 0, 0, MIB), ENGINE_OK);
	ck_assert_uint_eq(bench.n_failed, 0);
	/* As soon as there is room again, it is used. */
	ck_assert_int_eq(unlink(path), 0);
	more = bench_store(&bench, 9, 0, UNITS, MIB);
	ck_assert_int_eq(bench_load(&bench, &more, 0, UNITS, MIB), ENGINE_OK);
	bench_stop(&bench);
	ck_assert_int_eq(umount2(bench.path, MNT_DETACH), 0);
}
END_TEST

START_TEST(a_file_cut_short_fails_reads_and_then_takes_the_tier_out_once)
{
	struct engine_object object;
	char path[128];

	start_way(_i);
	object = bench_store(&bench, 1, 0, 10 * UNITS, MIB);
	ck_assert_int_eq(truncate(bench_file(&bench, "stoker-tier", path), SUPERBLOCK_DATA + 10 * MIB + 4096), 0);
	for (uint32_t i = 0; i < TIER_ERRORS_MAX; i++) {
		ck_assert_uint_eq(bench.n_failed, 0);
		ck_assert_int_eq(bench_load(&bench, &object, 0, 10 * UNITS, MIB), ENGINE_FAILED);
	}
	while (bench.n_failed == 0)
		bench_reap(&bench);
	/* Out of service: everything is answered, nothing is tried, nothing is told twice. */
	for (uint32_t i = 0; i < 4; i++) {
		const struct engine_io io = bench_io(2, 4096 * 2, 0, 0, &object);

		ck_assert_int_eq(bench_move(&bench, i % 2, &io), ENGINE_FAILED);
	}
	ck_assert_uint_eq(bench.n_failed, 1);
}
END_TEST

/* --- machines that allow less --- */

/* Store and load in a process that may less than we, made so by @lessen; its exit status. */
static int child_of(void (*lessen)(void))
{
	const pid_t child = fork();
	int status = -1;

	if (child == 0) {
		lessen();
		bench_open(&bench);
		bench_run(&bench);
		for (uint32_t i = 0; i < 20; i++) {
			const struct engine_object object = bench_store(&bench, i, i * 64, i * 100, 300 * 4096);

			if (bench_load(&bench, &object, 1000, i * 100, 300 * 4096) != ENGINE_OK)
				_exit(1);
		}
		status = !!strstr(tier_method(bench.tier), "io_uring");
		bench_stop(&bench);
		_exit(status ? 10 : 20);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void lessen_memlock(void)
{
	const struct rlimit limit = { 65536, 65536 };

	if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0 || (geteuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0)))
		_exit(2);
}

START_TEST(a_memlock_limit_that_is_too_small_costs_speed_only)
{
	int status;

	if (geteuid() == 0)
		ck_assert_int_eq(chown(bench.path, 65534, 65534), 0);
	status = child_of(lessen_memlock);
	ck_assert_msg(status == 10 || status == 20, "exit status %d", status);
}
END_TEST

static void lessen_uring(void)
{
	const struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = { sizeof(code) / sizeof(code[0]), (struct sock_filter *)code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		_exit(2);
}

START_TEST(where_io_uring_is_forbidden_a_slower_way_works)
{
	ck_assert_int_eq(child_of(lessen_uring), 20);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("broker-tier");
	TCase *moving = tcase_create("moving"), *back = tcase_create("coming back"), *log = tcase_create("slab table");
	TCase *models = tcase_create("models"), *no = tcase_create("refusals"), *errors = tcase_create("errors");
	TCase *less = tcase_create("less");
	TCase *all[] = { moving, back, log, models, no, errors, less };

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		tcase_add_checked_fixture(all[i], up, down);
		tcase_set_timeout(all[i], 120);
		suite_add_tcase(s, all[i]);
	}
	tcase_add_loop_test(moving, what_is_written_is_read_back_whatever_extents_it_crosses, 0, WAYS);
	tcase_add_loop_test(moving, many_at_once_all_end_exactly_once, 0, WAYS);
	tcase_add_test(moving, a_read_goes_before_the_writes_that_were_there_first);
	tcase_add_loop_test(back, a_clean_stop_keeps_every_object_with_all_that_is_known_of_it, 0, WAYS);
	tcase_add_loop_test(back, a_copy_taken_at_any_instant_serves_right_bytes_or_none, 0, WAYS);
	tcase_add_loop_test(back, a_broker_killed_in_the_middle_of_writing_leaves_a_tier_that_serves, 0, WAYS);
	tcase_add_loop_test(back, a_flipped_byte_loses_what_it_hits_and_nothing_else, 0, WAYS);
	tcase_add_loop_test(back, an_image_of_another_object_or_tier_is_corrupt, 0, WAYS);
	tcase_add_test(log, the_last_entry_of_a_place_counts_also_when_removes_are_missing);
	tcase_add_test(log, entries_beyond_a_tier_that_became_smaller_are_dropped);
	tcase_add_loop_test(log, a_log_much_longer_than_what_lives_is_written_anew, 0, 2);
	tcase_add_loop_test(log, a_lost_slab_table_is_lost_objects, 0, 4);
	tcase_add_loop_test(models, an_epoch_is_durable_when_it_is_answered_and_older_objects_are_dead, 0, 2);
	tcase_add_test(models, a_torn_superblock_costs_the_last_epoch_only);
	tcase_add_test(models, rows_of_models_without_objects_are_used_again);
	tcase_add_test(no, a_foreign_file_is_refused_and_stays_as_it_is);
	tcase_add_test(no, a_short_foreign_file_is_refused_and_stays_as_it_is);
	tcase_add_loop_test(no, a_foreign_slab_table_refuses_the_directory, 0, 2);
	tcase_add_test(no, the_slab_table_of_another_tier_is_refused);
	tcase_add_test(no, another_format_is_refused);
	tcase_add_test(no, another_size_of_extents_is_refused);
	tcase_add_test(no, a_superblock_with_both_copies_damaged_is_refused);
	tcase_add_test(no, the_tier_of_another_machine_is_refused);
	tcase_add_test(no, a_directory_that_others_can_write_is_refused);
	tcase_add_test(no, a_link_or_a_fifo_under_the_name_is_refused);
	tcase_add_test(no, a_tier_larger_than_its_disk_is_refused);
	tcase_add_loop_test(no, a_tier_in_use_is_refused_to_a_second_broker_and_free_after_the_first, 0, WAYS);
	tcase_add_loop_test(errors, a_file_at_its_limit_fails_writes_and_still_serves_reads, 0, WAYS);
	tcase_add_loop_test(errors, a_full_disk_fails_writes_and_does_not_take_the_tier_out, 0, WAYS);
	tcase_add_loop_test(errors, a_file_cut_short_fails_reads_and_then_takes_the_tier_out_once, 0, WAYS);
	tcase_add_test(less, a_memlock_limit_that_is_too_small_costs_speed_only);
	tcase_add_test(less, where_io_uring_is_forbidden_a_slower_way_works);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
