/* The arena and its table: what fits, what a successor takes over, and what it must not believe. */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/broker/arena.h"
#include "src/broker/filler.h"
#include "src/broker/memory.h"
#include "tests/suite.h"

#define EXTENT	(1u << 20)
#define EXTENTS	8u
#define RECORDS	1000u

static char name[64], why[256];
static struct arena *arena;

static void up(void)
{
	snprintf(name, sizeof(name), "/stoker-test-arena-%d", getpid());
}

static void down(void)
{
	arena_close(arena);
	arena = NULL;
	arena_unlink(name);
}

static void open_as(uint64_t bytes, uint32_t records, bool fresh)
{
	const int r = arena_open(name, bytes, EXTENT, records, fresh, why, &arena);

	ck_assert_msg(r == 0, "arena_open: %d, %s", r, why);
}

static void open_again(void)
{
	arena_close(arena);
	arena = NULL;
	open_as(EXTENTS * EXTENT, RECORDS, false);
}

static struct engine_object object_of(uint64_t number)
{
	return (struct engine_object){
		.key = { { number, 2, 3, 4 } }, .parent = { { number - 1, 2, 3, 4 } }, .account = 5, .sequence = number,
		.first_token = (1ull << 40) - 1, .checksum = 99, .epoch = 6, .tokens = (1u << 24) - 1, .group = 7,
		.shard = 63,
	};
}

static void commit(uint32_t record, uint32_t unit, uint64_t bytes)
{
	const struct engine_object object = object_of(record);
	const uint8_t digest[MODEL_DIGEST_BYTES] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };

	arena_commit(arena, record, &(struct engine_place){ ENGINE_NONE, unit, bytes }, &object, digest);
}

static struct arena_found found[RECORDS];
static uint32_t n_found, most = RECORDS;

static bool found_one(void *arg, const struct arena_found *one)
{
	(void)arg;
	found[n_found++] = *one;
	return n_found < most;
}

static uint64_t recover(void)
{
	uint64_t dropped = 12345;

	n_found = 0;
	ck_assert_int_eq(arena_recover(arena, found_one, NULL, &dropped), 0);
	return dropped;
}

START_TEST(a_new_arena_is_cold_private_and_empty_of_pages)
{
	char path[80];
	struct stat st;

	open_as(EXTENTS * EXTENT + 4096, RECORDS, false);
	expect(!arena->warm && arena->extents == EXTENTS && arena->bytes == EXTENTS * EXTENT);
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "/dev/shm%s.%s", name, i ? "table" : "arena");
		ck_assert_int_eq(stat(path, &st), 0);
		ck_assert_uint_eq(st.st_mode & 07777, 0600);
		expect(st.st_blocks * 512 <= 4096);
	}
}
END_TEST

START_TEST(populating_an_extent_reserves_it_and_its_share_of_the_table)
{
	struct stat st;

	open_as(EXTENTS * EXTENT, RECORDS, false);
	for (uint32_t i = 0; i < EXTENTS; i++) {
		ck_assert_int_eq(arena_populate(arena, EXTENTS - 1 - i), 0);
		ck_assert_int_eq(fstat(arena->fd, &st), 0);
		ck_assert_int_eq(st.st_blocks * 512, (i + 1) * EXTENT);
	}
	ck_assert_int_eq(fstat(arena->table_fd, &st), 0);
	ck_assert_int_eq(st.st_blocks * 512, st.st_size);
}
END_TEST

/* ---- the filler --------------------------------------------------------------------------------- */

/* Take what is over until @n extents are, or nothing comes for ten seconds; count those that failed. */
static uint32_t filled(struct filler *filler, uint32_t n, bool help)
{
	bool told[EXTENTS] = { false };
	uint32_t extent, failed = 0;
	int r;

	for (int i = 0; n > 0 && i < 10000; i++) {
		if (help)
			filler_help(filler);
		while (filler_take(filler, &extent, &r)) {
			expect(extent < EXTENTS && !told[extent]);
			told[extent] = true;
			failed += r < 0;
			n--;
			i = 0;
		}
		usleep(1000);
	}
	ck_assert_uint_eq(n, 0);
	return failed;
}

START_TEST(the_filler_populates_what_is_left_and_tells_of_each_extent_once)
{
	_Atomic bool stop = false;
	struct filler *filler;
	struct bell core;
	struct stat st;
	uint32_t extent;
	int r;

	open_as(EXTENTS * EXTENT, RECORDS, false);
	ck_assert_int_eq(arena_populate(arena, 0), 0);
	ck_assert_int_eq(bell_init(&core), 0);
	ck_assert_int_eq(filler_start(arena, 1, &core, &stop, &filler), 0);
	ck_assert_uint_eq(filled(filler, EXTENTS - 1, _i), 0);
	expect(!filler_take(filler, &extent, &r));
	ck_assert_uint_eq(filler_bytes(filler), (EXTENTS - 1) * EXTENT);
	filler_end(filler);
	ck_assert_int_eq(fstat(arena->fd, &st), 0);
	ck_assert_int_eq(st.st_blocks * 512, EXTENTS * EXTENT);
}
END_TEST

START_TEST(the_filler_ends_when_it_is_told_to)
{
	_Atomic bool stop = true;
	struct filler *filler;
	struct bell core;
	uint32_t extent;
	int r;

	open_as(EXTENTS * EXTENT, RECORDS, false);
	ck_assert_int_eq(bell_init(&core), 0);
	ck_assert_int_eq(filler_start(arena, 0, &core, &stop, &filler), 0);
	filler_help(filler);
	expect(!filler_take(filler, &extent, &r));
	filler_end(filler);
}
END_TEST

START_TEST(a_warm_arena_keeps_bytes_and_objects)
{
	open_as(EXTENTS * EXTENT, RECORDS, false);
	ck_assert_int_eq(arena_populate(arena, 3), 0);
	memset(arena->base + 3 * EXTENT, 0x5c, EXTENT);
	commit(17, 3 * EXTENT / 4096, EXTENT);
	commit(0, 0, 8192);
	commit(RECORDS - 1, 2, 4096);
	commit(20, 100, 8192);
	arena_uncommit(arena, 20);
	arena_set_held(arena, 17, true);

	open_again();
	expect(arena->warm && !arena->whole);	/* seven extents are lacking */
	ck_assert_uint_eq(recover(), 0);
	ck_assert_uint_eq(n_found, 3);
	expect(arena->base[3 * EXTENT] == 0x5c && arena->base[4 * EXTENT - 1] == 0x5c);
	for (uint32_t i = 0; i < n_found; i++) {
		const struct engine_object expected = object_of(found[i].record);

		ck_assert_mem_eq(&found[i].object, &expected, sizeof(expected));
		ck_assert_uint_eq(found[i].model_digest64, 0x0807060504030201u);
		ck_assert_uint_eq(found[i].place.tier, ENGINE_NONE);
		ck_assert_int_eq(found[i].was_held, found[i].record == 17);
	}
	ck_assert_uint_eq(found[1].place.unit, 3 * EXTENT / 4096);
	ck_assert_uint_eq(found[1].place.bytes, EXTENT);
	recover();
	expect(!found[1].was_held);	/* who held it is gone, and forgotten the second time */
}
END_TEST

START_TEST(an_entry_that_was_not_finished_or_was_damaged_is_dropped_for_good)
{
	open_as(EXTENTS * EXTENT, RECORDS, false);
	for (uint32_t i = 0; i < 8; i++)
		commit(i, i * 10, 8192);
	atomic_store(&arena->table[1].state, 77);
	arena->table[2].key.word[0] ^= 1;
	arena->table[3].epoch++;
	arena->table[4].unit++;
	arena->table[5].shard++;
	arena->table[6].check++;
	ck_assert_uint_eq(recover(), 6);
	ck_assert_uint_eq(n_found, 2);
	expect(found[0].record == 0 && found[1].record == 7);
	ck_assert_uint_eq(recover(), 0);
	ck_assert_uint_eq(n_found, 2);
}
END_TEST

START_TEST(places_out_of_range_and_overlaps_are_dropped)
{
	const uint32_t units = EXTENTS * EXTENT / 4096;

	open_as(EXTENTS * EXTENT, RECORDS, false);
	commit(0, units - 2, 8192);	/* the last place there is */
	commit(1, units - 1, 8192);
	commit(2, units, 4096);
	commit(3, UINT32_MAX, 8192);
	commit(4, 5, 0);
	commit(5, 1, 1ull << 43);
	ck_assert_uint_eq(recover(), 5);
	commit(6, 100, 130 * 4096);
	commit(7, 229, 4096);		/* its last unit */
	commit(8, 60, 41 * 4096);	/* its first unit */
	commit(9, 99, 4096);		/* just before, but in what 8 has claimed */
	commit(10, 230, 4096);		/* just behind */
	ck_assert_uint_eq(recover(), 3);
	ck_assert_uint_eq(n_found, 3);
}
END_TEST

START_TEST(recovery_stops_when_it_is_told_to)
{
	open_as(EXTENTS * EXTENT, RECORDS, false);
	for (uint32_t i = 0; i < 8; i++)
		commit(i, i * 10, 8192);
	most = 3;
	recover();
	ck_assert_uint_eq(n_found, 3);
	most = RECORDS;
}
END_TEST

START_TEST(what_an_entry_cannot_say_is_not_kept)
{
	const uint8_t digest[MODEL_DIGEST_BYTES] = { 0 };
	struct engine_object object = object_of(1);

	open_as(EXTENTS * EXTENT, RECORDS, false);
	object.first_token = 1ull << 40;
	arena_commit(arena, 1, &(struct engine_place){ ENGINE_NONE, 0, 8192 }, &object, digest);
	object = object_of(2);
	object.tokens = 1u << 24;
	arena_commit(arena, 2, &(struct engine_place){ ENGINE_NONE, 2, 8192 }, &object, digest);
	ck_assert_uint_eq(recover(), 0);
	ck_assert_uint_eq(n_found, 0);
}
END_TEST

START_TEST(another_geometry_begins_cold_and_empty)
{
	open_as(EXTENTS * EXTENT, RECORDS, false);
	ck_assert_int_eq(arena_populate(arena, 0), 0);
	memset(arena->base, 1, 4096);
	commit(1, 0, 8192);
	arena_close(arena);
	arena = NULL;
	if (_i == 0)
		open_as((EXTENTS + 1) * EXTENT, RECORDS, false);
	else if (_i == 1)
		open_as(EXTENTS * EXTENT, RECORDS + 1, false);
	else if (_i == 2)
		ck_assert_int_eq(arena_open(name, EXTENTS * EXTENT, 2 * EXTENT, RECORDS, false, why, &arena), 0);
	else
		open_as(EXTENTS * EXTENT, RECORDS, true);	/* the same one, but it is not to be taken over */
	expect(!arena->warm);
	expect(arena->base[0] == 0);
	recover();
	ck_assert_uint_eq(n_found, 0);
}
END_TEST

START_TEST(a_table_without_its_arena_is_not_believed)
{
	char object[96];
	const uint32_t junk = 0x12345678;

	open_as(EXTENTS * EXTENT, RECORDS, false);
	commit(1, 0, 8192);
	snprintf(object, sizeof(object), _i == 1 ? "%s.table" : "%s.arena", name);
	if (_i == 0 || _i == 1) {
		ck_assert_int_eq(shm_unlink(object), 0);
	} else if (_i == 2) {	/* another one has come to its name */
		ck_assert_int_eq(shm_unlink(object), 0);
		const int fd = shm_open(object, O_RDWR | O_CREAT | O_EXCL, 0600);

		ck_assert_int_eq(ftruncate(fd, EXTENTS * EXTENT), 0);
		close(fd);
	} else if (_i == 3) {	/* its header is damaged */
		ck_assert_int_eq(pwrite(arena->table_fd, &junk, 4, 16), 4);
	} else {		/* others could have written to it */
		ck_assert_int_eq(fchmod(arena->fd, 0606), 0);
	}
	open_again();
	expect(!arena->warm);
	recover();
	ck_assert_uint_eq(n_found, 0);
}
END_TEST

START_TEST(an_object_of_another_uid_under_the_name_refuses_the_start)
{
	char path[80];
	struct stat st;

	if (geteuid() != 0) {
		printf("# skipped: only root can make an object of another uid\n");
		return;
	}
	snprintf(path, sizeof(path), "/dev/shm%s.%s", name, _i ? "table" : "arena");
	close(open(path, O_CREAT | O_RDWR, 0600));
	ck_assert_int_eq(chown(path, 12345, 12345), 0);
	ck_assert_int_lt(arena_open(name, EXTENTS * EXTENT, EXTENT, RECORDS, false, why, &arena), 0);
	expect(strstr(why, "belongs to uid 12345"));
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_uid, 12345);
}
END_TEST

START_TEST(more_than_the_machine_has_is_refused_and_leaves_nothing)
{
	const char *bound;
	const uint64_t limit = arena_limit(&bound);
	char path[80];

	ck_assert_uint_gt(limit, 0);
	ck_assert_int_eq(arena_open(name, limit * 2, EXTENT, RECORDS, false, why, &arena), -ENOSPC);
	expect(strstr(why, "does not fit") && strstr(why, "ask for less"));
	snprintf(path, sizeof(path), "/dev/shm%s.arena", name);
	ck_assert_int_ne(access(path, F_OK), 0);
	ck_assert_int_lt(arena_open(name, EXTENT - 1, EXTENT, RECORDS, false, why, &arena), 0);
}
END_TEST

#ifdef STOKER_SANITIZE_THREAD	/* it keeps most of the address space to itself */
#define HUGE_ARENA (128ull << 30)
#else
#define HUGE_ARENA (1ull << 40)
#endif

START_TEST(an_arena_that_is_never_populated_may_be_larger_than_the_machine)
{
	struct stat st;

	ck_assert_int_eq(arena_open_null(name, HUGE_ARENA, 64 * EXTENT, RECORDS, why, &arena), 0);
	ck_assert_uint_eq(arena->bytes, HUGE_ARENA);
	commit(3, 1u << 20, 8192);
	ck_assert_uint_eq(recover(), 0);
	ck_assert_uint_eq(n_found, 1);
	ck_assert_int_eq(fstat(arena->fd, &st), 0);
	ck_assert_int_eq(st.st_blocks, 0);
}
END_TEST

/* A /dev/shm of our own, as small and as huge as we like; false: we may not. */
static bool own_shm(const char *options)
{
	if (unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	    mount("none", "/dev/shm", "tmpfs", 0, options) == 0)
		return true;
	printf("# skipped: only root can mount a /dev/shm of its own\n");
	return false;
}

START_TEST(a_small_dev_shm_bounds_the_arena_and_a_full_one_fails_an_extent)
{
	static char piece[65536];
	uint32_t failed = 0;
	struct stat st;
	int fd;

	if (!own_shm("size=16M"))
		return;
	ck_assert_int_eq(arena_open(name, 64 * EXTENT, EXTENT, RECORDS, false, why, &arena), -ENOSPC);
	expect(strstr(why, "the size of /dev/shm"));

	/* It fits when it is made, and then somebody else fills the place. */
	open_as(EXTENTS * EXTENT, RECORDS, false);
	fd = open("/dev/shm/somebody-else", O_CREAT | O_WRONLY, 0600);
	for (int i = 0; i < 12 * 16; i++)
		ck_assert_int_eq(write(fd, piece, sizeof(piece)), sizeof(piece));
	for (uint32_t i = 0; i < EXTENTS; i++)
		failed += arena_populate(arena, i) == -ENOSPC;
	ck_assert_uint_ge(failed, 4);
	ck_assert_uint_lt(failed, EXTENTS);
	/* And what does not fit keeps nothing. */
	ck_assert_int_eq(fstat(arena->fd, &st), 0);
	ck_assert_int_eq(st.st_blocks * 512, (EXTENTS - failed) * EXTENT);
	close(fd);

	/* What the arena has already counts as its own when it is taken over. */
	ck_assert_int_eq(unlink("/dev/shm/somebody-else"), 0);
	arena_close(arena);
	open_as(EXTENTS * EXTENT, RECORDS, true);
	for (uint32_t i = 0; i < EXTENTS; i++)
		ck_assert_int_eq(arena_populate(arena, i), 0);
	fd = open("/dev/shm/somebody-else", O_CREAT | O_WRONLY, 0600);
	while (write(fd, piece, sizeof(piece)) > 0)
		;
	close(fd);
	open_again();
	expect(arena->warm);
}
END_TEST

#define LARGE	(4u << 20)	/* an extent that huge pages fit into */

/* Bytes of the arena that the kernel says are mapped as huge pages. */
static uint64_t huge_bytes_mapped(void)
{
	FILE *maps = fopen("/proc/self/smaps", "re");
	unsigned long long from, to, kib, bytes = 0;
	bool inside = false;
	char line[512];

	ck_assert_ptr_nonnull(maps);
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%llx-%llx ", &from, &to) == 2)
			inside = from >= (uintptr_t)arena->base && to <= (uintptr_t)arena->base + arena->bytes;
		else if (inside && sscanf(line, "ShmemPmdMapped: %llu kB", &kib) == 1)
			bytes += kib * 1024;
	}
	fclose(maps);
	return bytes;
}

START_TEST(huge_pages_are_used_whatever_the_options_of_the_mount_are)
{
	static const char *const options[] = { "size=64M", "size=64M,huge=advise", "size=64M,huge=never" };
	struct stat st;

	if (!own_shm(options[_i]))
		return;
	ck_assert_int_eq(arena_open(name, 4 * LARGE, LARGE, RECORDS, false, why, &arena), 0);
	for (uint32_t i = 0; i < 3; i++)
		ck_assert_int_eq(arena_populate(arena, i), 0);
	ck_assert_int_eq(arena_populate_part(arena, 3, 0, LARGE, false), 0);
	ck_assert_uint_eq(huge_bytes_mapped(), arena->huge_bytes);
	expect(arena->huge_bytes <= 3 * LARGE);
	if (arena->huge_bytes == 0)
		printf("# skipped: this kernel makes no huge pages of shared memory\n");
	ck_assert_int_eq(fstat(arena->fd, &st), 0);
	ck_assert_int_eq(st.st_blocks * 512, 4 * LARGE);
	for (uint64_t i = 0; i < arena->bytes; i++)
		expect(arena->base[i] == 0);

	/* Who comes after this broker finds the bytes, in the pages that they have. */
	memset(arena->base, 0x5c, arena->bytes);
	arena_close(arena);
	ck_assert_int_eq(arena_open(name, 4 * LARGE, LARGE, RECORDS, false, why, &arena), 0);
	expect(arena->warm && arena->whole);
	for (uint32_t i = 0; i < 4; i++)
		ck_assert_int_eq(arena_populate(arena, i), 0);
	for (uint64_t i = 0; i < arena->bytes; i++)
		expect(arena->base[i] == 0x5c);
}
END_TEST

START_TEST(what_does_not_fit_as_a_huge_page_fits_as_small_ones_or_keeps_nothing)
{
	static char piece[4096];
	uint32_t failed = 0;
	struct stat st;
	int fd;

	if (!own_shm("size=24M"))
		return;
	ck_assert_int_eq(arena_open(name, 4 * LARGE, LARGE, RECORDS, false, why, &arena), 0);
	fd = open("/dev/shm/somebody-else", O_CREAT | O_WRONLY, 0600);
	for (int i = 0; i < (13 << 20) / 4096; i++)
		ck_assert_int_eq(write(fd, piece, sizeof(piece)), sizeof(piece));
	for (uint32_t i = 0; i < 4; i++)
		failed += arena_populate(arena, i) == -ENOSPC;
	ck_assert_uint_eq(failed, 2);
	ck_assert_int_eq(fstat(arena->fd, &st), 0);
	ck_assert_int_eq(st.st_blocks * 512, 2 * LARGE);
	close(fd);
}
END_TEST

START_TEST(where_processors_are_few_the_filler_makes_huge_pages_only_while_the_core_sleeps)
{
	_Atomic bool stop = false;
	struct filler *filler;
	cpu_set_t one;
	struct bell core;
	uint32_t extent, n = 0;
	uint64_t before;
	int r;

	CPU_ZERO(&one);
	CPU_SET((unsigned)sched_getcpu(), &one);
	ck_assert_int_eq(sched_setaffinity(0, sizeof(one), &one), 0);
	ck_assert_int_eq(arena_open(name, 16 * LARGE, LARGE, RECORDS, false, why, &arena), 0);
	ck_assert_int_eq(arena_populate(arena, 0), 0);
	before = arena->huge_bytes;
	ck_assert_int_eq(bell_init(&core), 0);
	if (_i)
		bell_arm(&core);
	ck_assert_int_eq(filler_start(arena, 1, &core, &stop, &filler), 0);
	while (n < 15) {
		if (filler_take(filler, &extent, &r)) {
			ck_assert_int_eq(r, 0);
			n++;
		}
		usleep(1000);
	}
	filler_end(filler);
	if (_i && before > 0)
		ck_assert_uint_gt(arena->huge_bytes, before);
	if (!_i)
		ck_assert_uint_eq(arena->huge_bytes, before);
}
END_TEST

START_TEST(a_broker_killed_while_it_commits_leaves_whole_entries_only)
{
	for (int round = 0; round < 10; round++) {
		const pid_t child = fork();

		if (child == 0) {
			open_as(EXTENTS * EXTENT, RECORDS, false);
			for (uint32_t i = 0;; i = (i + 1) % RECORDS) {
				arena_uncommit(arena, i);
				commit(i, i * 2, 8192);
			}
		}
		usleep(20000 + 1000 * round);
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		open_again();
		expect(round == 0 || arena->warm);
		ck_assert_uint_eq(recover(), 0);	/* the one in the middle says that it is not there */
		for (uint32_t i = 0; i < n_found; i++) {
			const struct engine_object expected = object_of(found[i].record);

			ck_assert_mem_eq(&found[i].object, &expected, sizeof(expected));
		}
		arena_close(arena);
		arena = NULL;
	}
}
END_TEST

/* --- limits of memory --- */

static char root[64];

static void root_up(void)
{
	strcpy(root, "test-memory-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(root));
}

static void root_down(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf ./%s", root);
	ck_assert_int_eq(system(command), 0);
}

static void put(const char *path, const char *text)
{
	char command[512];
	FILE *file;

	snprintf(command, sizeof(command), "mkdir -p \"$(dirname %s%s)\"", root, path);
	ck_assert_int_eq(system(command), 0);
	snprintf(command, sizeof(command), "%s%s", root, path);
	file = fopen(command, "w");
	ck_assert_ptr_nonnull(file);
	fputs(text, file);
	fclose(file);
}

#define GIB (1ull << 30)

START_TEST(a_tenth_of_ram_stays_free)
{
	const char *bound;

	put("/proc/meminfo", "MemTotal:       10485760 kB\nMemFree: 1 kB\nMemAvailable:    5242880 kB\n");
	ck_assert_uint_eq(memory_room(root, &bound), 4 * GIB);
	expect(strstr(bound, "MemAvailable"));
	put("/proc/meminfo", "MemTotal:       10485760 kB\nMemAvailable:    1000000 kB\n");
	ck_assert_uint_eq(memory_room(root, &bound), 0);
}
END_TEST

START_TEST(the_tightest_control_group_above_us_bounds)
{
	const char *bound;

	put("/proc/meminfo", "MemTotal:       10485760 kB\nMemAvailable:    10485760 kB\n");
	put("/proc/self/cgroup", "0::/a/b\n");
	put("/sys/fs/cgroup/a/b/memory.max", "max\n");
	put("/sys/fs/cgroup/a/memory.max", "2147483648\n");
	put("/sys/fs/cgroup/a/memory.current", "1073741824\n");
	put("/sys/fs/cgroup/a/memory.stat", "anon 5\ninactive_file 536870912\nactive_file 7\n");
	/* 2 GiB less half a GiB in use (page cache can go) less a tenth. */
	ck_assert_uint_eq(memory_room(root, &bound), 3 * GIB / 2 - 2 * GIB / 10);
	expect(strstr(bound, "memory.max"));
	put("/sys/fs/cgroup/a/b/memory.max", "1073741824\n");
	ck_assert_uint_eq(memory_room(root, &bound), GIB - GIB / 10);
	put("/sys/fs/cgroup/a/b/memory.current", "1073741825\n");
	ck_assert_uint_eq(memory_room(root, &bound), 0);
}
END_TEST

START_TEST(the_old_interface_of_control_groups_bounds_too)
{
	const char *bound;

	put("/proc/meminfo", "MemTotal:       10485760 kB\nMemAvailable:    10485760 kB\n");
	put("/proc/self/cgroup", "9:name=systemd:/\n4:memory:/x/y\n0::/\n");
	put("/sys/fs/cgroup/memory/x/y/memory.limit_in_bytes", "9223372036854771712\n");
	put("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "1073741824\n");
	put("/sys/fs/cgroup/memory/x/memory.usage_in_bytes", "0\n");
	ck_assert_uint_eq(memory_room(root, &bound), GIB - GIB / 10);
	expect(strstr(bound, "memory.limit_in_bytes"));
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("broker-arena");
	TCase *objects = tcase_create("arena"), *limits = tcase_create("limits");

	tcase_add_checked_fixture(objects, up, down);
	tcase_set_timeout(objects, 60);
	tcase_add_test(objects, a_new_arena_is_cold_private_and_empty_of_pages);
	tcase_add_test(objects, populating_an_extent_reserves_it_and_its_share_of_the_table);
	tcase_add_loop_test(objects, the_filler_populates_what_is_left_and_tells_of_each_extent_once, 0, 2);
	tcase_add_test(objects, the_filler_ends_when_it_is_told_to);
	tcase_add_test(objects, a_warm_arena_keeps_bytes_and_objects);
	tcase_add_test(objects, an_entry_that_was_not_finished_or_was_damaged_is_dropped_for_good);
	tcase_add_test(objects, places_out_of_range_and_overlaps_are_dropped);
	tcase_add_test(objects, recovery_stops_when_it_is_told_to);
	tcase_add_test(objects, what_an_entry_cannot_say_is_not_kept);
	tcase_add_loop_test(objects, another_geometry_begins_cold_and_empty, 0, 4);
	tcase_add_loop_test(objects, a_table_without_its_arena_is_not_believed, 0, 5);
	tcase_add_loop_test(objects, an_object_of_another_uid_under_the_name_refuses_the_start, 0, 2);
	tcase_add_test(objects, more_than_the_machine_has_is_refused_and_leaves_nothing);
	tcase_add_test(objects, an_arena_that_is_never_populated_may_be_larger_than_the_machine);
	tcase_add_test(objects, a_small_dev_shm_bounds_the_arena_and_a_full_one_fails_an_extent);
	tcase_add_loop_test(objects, huge_pages_are_used_whatever_the_options_of_the_mount_are, 0, 3);
	tcase_add_test(objects, what_does_not_fit_as_a_huge_page_fits_as_small_ones_or_keeps_nothing);
	tcase_add_loop_test(objects, where_processors_are_few_the_filler_makes_huge_pages_only_while_the_core_sleeps, 0, 2);
	tcase_add_test(objects, a_broker_killed_while_it_commits_leaves_whole_entries_only);
	suite_add_tcase(s, objects);
	tcase_add_checked_fixture(limits, root_up, root_down);
	tcase_add_test(limits, a_tenth_of_ram_stays_free);
	tcase_add_test(limits, the_tightest_control_group_above_us_bounds);
	tcase_add_test(limits, the_old_interface_of_control_groups_bounds_too);
	suite_add_tcase(s, limits);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
